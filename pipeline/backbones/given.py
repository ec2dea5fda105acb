"""Weights and networks of somebody's own, as files in `data/weights`: which they are, and digests.

`dvc.yaml` declares the folder, so that nothing is undeclared. Nothing here needs PyTorch.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

from ..core.errors import WeightsError
from ..core.paths import WEIGHTS

ONNX = "onnx:"  # before the path of a graph
HUB = "hf-hub:"  # before the name of a network on a hub that timm knows


def is_file(weights: str) -> bool:
    """Whether `extract.weights` is a file, and not the word for weights from elsewhere."""
    return weights.startswith(f"{WEIGHTS.as_posix()}/")


def is_graph(name: str) -> bool:
    """Whether the backbone is an ONNX file."""
    return name.startswith(ONNX)


def graph_file(name: str) -> Path:
    """The file that such a backbone is."""
    return Path(name.removeprefix(ONNX))


def folder(name: str) -> Path | None:
    """The folder of a backbone such as `timm:data/weights/mine`, laid out as on a hub; or None."""
    family, _, rest = name.partition(":")
    return Path(rest) if family == "timm" and is_file(rest) else None


def digest(path: Path, asked_by: str) -> str:
    """Of a file's bytes, or of all files of a folder with their names.

    Raises:
        WeightsError: it is not there or cannot be read; `asked_by` begins the message.
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
        said = "is not here" if isinstance(error, FileNotFoundError) else str(error.strerror)
        tracked = path.with_name(f"{path.name}.dvc").exists()
        pull = f"; run `dvc pull {path.as_posix()}.dvc`" if tracked else ""
        raise WeightsError(f"{asked_by}: {path.as_posix()} {said}{pull}") from None
    return sha.hexdigest()


# A stage asks several times, and a file may be of gigabytes. Size and time tell changes apart.
@lru_cache(maxsize=64)
def _digest(file: str, size: int, changed: int) -> str:
    with Path(file).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
