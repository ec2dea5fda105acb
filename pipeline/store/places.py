"""Where the store's folder is, how large the store may grow, and what else lies in the folder."""

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from ..core import params
from ..core.errors import ParamsError, StoreError

# Exports and checkpoints, and what `replacing` calls unfinished ones; no other file there is ours.
KEPT = re.compile(r"[0-9a-f]{64}\.(onnx|safetensors)(\.[0-9a-f]+\.partial)?")


def _chosen() -> str | None:
    """`HEADSTART_STORE`, else `store.folder` of `params.yaml`: a folder or an address."""
    chosen = os.environ.get("HEADSTART_STORE")
    if not chosen:
        return params.store_section().folder
    try:
        return params.place(chosen)
    except ValueError as error:
        value = "" if "://" in chosen else f" is {chosen!r}"  # an address may hold a secret
        raise ParamsError(f"HEADSTART_STORE{value}; {error}") from None


def default_address() -> str | None:
    """Where features are in a bucket, `s3://BUCKET/PREFIX`; None: they are in the folder.

    Raises:
        ParamsError: what was chosen is neither an absolute path nor such an address.
    """
    chosen = _chosen()
    return chosen if chosen and chosen.startswith("s3://") else None


def default_place() -> str:
    """Where features are: `default_address`, else `default_folder`."""
    return default_address() or str(default_folder())


def default_folder() -> Path:
    """The folder of the store: `HEADSTART_STORE`, else `store.folder` of `params.yaml`.

    If neither names one it is `headstart/features` in the user's cache, for all their clones; so
    it is if they name a bucket, for exports and checkpoints stay on this machine.

    Raises:
        ParamsError: the folder is relative, so every clone would look elsewhere.
    """
    chosen = _chosen()
    if chosen and not chosen.startswith("s3://"):
        return Path(chosen)
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "headstart" / "features"


def default_limit() -> int | None:
    """The store's limit in bytes: `HEADSTART_STORE_LIMIT`, else `store.limit` of `params.yaml`.

    None stands for no limit.

    Raises:
        ParamsError: it is neither `none` nor a size such as `500MB` or `20GB`.
    """
    chosen = os.environ.get("HEADSTART_STORE_LIMIT")
    if not chosen:
        return params.size(params.store_section().limit)
    try:
        return params.size(chosen)
    except ValueError as error:
        raise ParamsError(f"HEADSTART_STORE_LIMIT is {chosen!r}; {error}") from None


def backbones_folder() -> Path:
    """Where exported backbones are kept, each an `.onnx` and a `.safetensors`."""
    return default_folder() / "backbones"


def checkpoints_folder() -> Path:
    """Where unfinished trainings are kept, each a `.safetensors`."""
    return default_folder() / "checkpoints"


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Where to write what takes the place of `file` once all of it is there.

    Threads, and processes of other containers too, may write the same file at a time.

    Raises:
        StoreError: that folder cannot be written to.
    """
    unfinished = file.with_name(f"{file.name}.{secrets.token_hex(8)}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        unfinished.replace(file)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StoreError(
                f"{file.parent} cannot be written to ({error.strerror}): set store.folder in"
                " params.yaml, or HEADSTART_STORE, to another folder"
            ) from None
        error.filename = error.filename or str(file)  # writing to a file that is open names none
        raise
    finally:
        with contextlib.suppress(OSError):  # if nothing can be written nothing is left
            unfinished.unlink()


def kept(folder: Path) -> list[Path]:
    """The exports or checkpoints in a folder, and what a killed process left of one."""
    return [file for file in folder.glob("*") if KEPT.fullmatch(file.name)]
