"""The gate's reference: the first result, then the last one that was called better than it was.

`reference.json`, which git tracks, names it. Its answers stay in DVC's cache, as the
outputs that they were.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.core.errors import MayPassError, ParamsError, StageError
from pipeline.core.paths import MANIFEST, PREDICTIONS

FILE = Path("reference.json")
FETCHED = Path(".headstart/reference")  # a copy of its answers
START_ANEW = f"delete {FILE} to let the next result that is taken be the reference"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Noted(BaseModel):
    """What the file holds: where the working copy was, and DVC's MD5 of the two outputs."""

    model_config = ConfigDict(extra="forbid")

    commit: str | None
    predictions: Digest
    manifest: Digest


class Reference:
    """The reference of the project in `root`, if there is one."""

    def __init__(self, root: Path, ask: Callable[..., dict[str, Any]], remote: str | None) -> None:
        """Read the file; `ask` is a `Pool`'s, and `remote` is DVC's, None for its default one.

        Raises ParamsError where the file is not one that `become` wrote.
        """
        self._root, self._ask, self._remote = root, ask, remote
        self.noted: Noted | None = None
        if (root / FILE).exists():
            try:
                self.noted = Noted.model_validate_json((root / FILE).read_bytes())
            except (OSError, ValidationError):
                raise ParamsError(
                    f"{FILE} cannot be read: bring it back with `git checkout {FILE}`,"
                    f" or {START_ANEW}"
                ) from None

    @property
    def name(self) -> str:
        """What the gate calls it."""
        commit = self.noted.commit if self.noted else None
        return f"the reference of commit {commit[:7]}" if commit else "the reference"

    def answers(self) -> Path | str:
        """A folder with its answers; or why there is none, in a line."""
        assert self.noted is not None  # noqa: S101 (the gate has looked)
        folder = self._root / FETCHED
        wanted = {str(PREDICTIONS): self.noted.predictions, str(MANIFEST): self.noted.manifest}
        try:
            self._ask("fetch", digests=wanted, to=str(folder), remote=self._remote)
        except (MayPassError, StageError) as error:
            return f"{str(error).splitlines()[0]}; {START_ANEW}"
        return folder

    def become(self) -> bool:
        """Make the result in `root` the reference; False where DVC does not cache its answers."""
        found = self._ask("digests", paths=[str(PREDICTIONS), str(MANIFEST)])
        digests = found["digests"]
        if len(digests) < 2:
            return False
        self.noted = Noted(
            commit=found["commit"],
            predictions=digests[str(PREDICTIONS)],
            manifest=digests[str(MANIFEST)],
        )
        new = (self._root / FILE).with_suffix(".new")
        new.write_text(self.noted.model_dump_json(indent=2) + "\n")
        new.replace(self._root / FILE)
        return True
