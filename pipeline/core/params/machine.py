"""The sections of `params.yaml` that are about machines: they do not affect any stage's result."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, model_validator

from .. import buckets
from ..errors import DataError
from .schema import Section, form, setting


def place(folder: str) -> str:
    """Return a folder, with `~` replaced by the user's home, or an address `s3://BUCKET/PREFIX`.

    Raises:
        ValueError: the folder is relative (each clone and temporary experiment would use a
            different folder), or the address is not valid.
    """
    if "://" in folder:
        try:
            return buckets.tidied(folder)
        except DataError as error:
            raise ValueError(str(error).removeprefix("the address ")) from None
    if not Path(folder).expanduser().is_absolute():
        raise ValueError("should be an absolute path, the same for every clone and experiment")
    return str(Path(folder).expanduser())


def size(text: str) -> int | None:
    """Parse a size such as `500MB` or `20GB`, in bytes; None for `none`.

    Raises:
        ValueError: the text is not a size.
    """
    if text.strip().lower() == "none":
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    if found is None:
        raise ValueError("should be a size such as 500MB or 20GB, or none")
    return int(float(found[1]) * 1000 ** " KMGT".index(found[2] or " "))


def _checked_size(text: str) -> str:
    size(text)
    return text


class StoreParams(Section):
    """Location and size of the feature store. These parameters do not affect any result."""

    folder: Annotated[str, AfterValidator(place)] | None = setting(
        None,
        "absolute path, or `s3://BUCKET/PREFIX` (docs/store.md). With `null`, the store is in"
        " `headstart/features` in your cache folder",
    )
    limit: Annotated[str, AfterValidator(_checked_size)] = setting(
        "20GB",
        "maximum size, or `none` for no limit. The store deletes the least recently used entries"
        " first",
    )


class ClusterParams(Section):
    """The machines that run `extract`. These parameters do not affect any result."""

    runner: Literal["local", "ray"] = setting(
        "local", "`local` (threads on this machine) or `ray` (a Ray cluster, docs/cluster.md)"
    )
    address: (
        Annotated[str, form(r"([\w.-]+|\[[\da-fA-F:]+\]):\d{1,5}", "HOST:PORT of the head")] | None
    ) = setting(None, "`HOST:PORT` of the Ray cluster's head node, such as `10.0.0.1:6379`")

    @model_validator(mode="after")
    def _go_together(self) -> "ClusterParams":
        if self.runner == "ray" and self.address is None:
            raise ValueError(
                "runner ray needs cluster.address, the HOST:PORT of the Ray cluster's head"
                " (docs/cluster.md)"
            )
        return self
