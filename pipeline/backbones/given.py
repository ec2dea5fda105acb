"""Digests of the user's own weights and networks, which are files and folders in `data/weights`.

`dvc.yaml` declares the folder as a dependency. This module does not need PyTorch.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

from ..core.backbone import Backbone
from ..core.errors import DataError, WeightsError


def digest(path: Path, asked_by: str) -> str:
    """Return the SHA-256 of a file's bytes, or of all files in a folder with their names.

    Raises:
        WeightsError: the path does not exist or cannot be read; the message begins with `asked_by`.
    """
    try:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        sha = hashlib.sha256()
        for file in files:
            if file.is_file() or file == path:
                inside = file.relative_to(path).as_posix()
                status = file.stat()
                content = _digest(str(file.resolve()), status.st_size, status.st_mtime_ns)
                sha.update(f"{inside} {content} ".encode())
    except OSError as error:
        problem = "does not exist" if isinstance(error, FileNotFoundError) else str(error.strerror)
        tracked = path.with_name(f"{path.name}.dvc").exists()
        pull = f"; run `dvc pull {path.as_posix()}.dvc`" if tracked else ""
        raise WeightsError(f"{asked_by}: {path.as_posix()} {problem}{pull}") from None
    return sha.hexdigest()


# A stage computes a digest several times, and a file may have gigabytes. If the file changes, so
# does its size or time.
@lru_cache(maxsize=64)
def _digest(file: str, size: int, changed: int) -> str:
    with Path(file).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def no_weights(file: Path, backbone: Backbone, error: Exception) -> DataError:
    """Return the error for a file, written by a stage, that lacks weights of the backbone."""
    reason = " ".join(str(error).split())[:160]
    return DataError(
        f"{file} has no weights of {backbone}: {reason}; run the stage that wrote it again"
    )
