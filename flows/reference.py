"""The gate's reference: the first result, then the last one that was better than the reference.

`reference.json`, which git tracks, names the reference. Its predictions stay in DVC's cache, as the
outputs of its run.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.core.errors import MayPassError, ParamsError, StageError
from pipeline.core.paths import MANIFEST, PREDICTIONS

FILE = Path("reference.json")
FETCHED = Path(".headstart/reference")  # a copy of its predictions
START_ANEW = f"delete {FILE} to make the next accepted result the reference"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Noted(BaseModel):
    """The content of the file: the working copy's commit, and DVC's MD5 of the two outputs."""

    model_config = ConfigDict(extra="forbid")

    commit: str | None
    predictions: Digest
    manifest: Digest


class Reference:
    """The reference of the project in `root`, if there is one."""

    def __init__(self, root: Path, ask: Callable[..., dict[str, Any]], remote: str | None) -> None:
        """Read the file; `ask` is the method of a `Pool`; `remote` is a DVC remote, None for the
        default one.

        Raises:
            ParamsError: the file cannot be read, or has another content than `become` writes.
        """
        self._root, self._ask, self._remote = root, ask, remote
        self.noted: Noted | None = None
        if (root / FILE).exists():
            try:
                self.noted = Noted.model_validate_json((root / FILE).read_bytes())
            except (OSError, ValidationError):
                raise ParamsError(
                    f"{FILE} cannot be read: restore it with `git checkout {FILE}`, or {START_ANEW}"
                ) from None

    @property
    def name(self) -> str:
        """The reference's name in the gate's messages."""
        commit = self.noted.commit if self.noted else None
        return f"the reference of commit {commit[:7]}" if commit else "the reference"

    def answers(self) -> Path | str:
        """Return a folder with the reference's predictions, or one line that says why not."""
        assert self.noted is not None  # noqa: S101 (the gate has checked)
        folder = self._root / FETCHED
        wanted = {str(PREDICTIONS): self.noted.predictions, str(MANIFEST): self.noted.manifest}
        try:
            self._ask("fetch", digests=wanted, to=str(folder), remote=self._remote)
        except (MayPassError, StageError) as error:
            return f"{str(error).splitlines()[0]}; {START_ANEW}"
        return folder

    def become(self) -> bool:
        """Make the result in `root` the reference; return False if DVC's cache lacks it."""
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
