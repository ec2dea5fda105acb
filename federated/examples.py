"""A site's examples as its Flower app reads them: features, labels, and what they were made by.

`prepare.py` writes the file, and it stays at the site.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pipeline.core.errors import DataError
from pipeline.core.paths import MANIFEST
from pipeline.heads.head import Floats

FILE = Path("data/federated.safetensors")
ALIKE = ("backbone", "fingerprint", "precision", "power", "dimension")  # at all sites
AGAIN = "run python -m federated.prepare there again"


@dataclass(frozen=True)
class Examples:
    """Features [n, d] as a head takes them, labels [n] as positions in `classes`, both splits.

    `made_by` holds what has to be the same at all sites, by the names of `ALIKE`.
    """

    train: Floats
    train_labels: npt.NDArray[np.int64]
    val: Floats
    val_labels: npt.NDArray[np.int64]
    classes: list[str]
    made_by: dict[str, str]


def write(examples: Examples, project: Path) -> None:
    """Write them into a project's folder, with the digest of the manifest that they are of."""
    tensors = {
        name: np.ascontiguousarray(value)
        for name, value in vars(examples).items()
        if isinstance(value, np.ndarray)
    }
    notes = {
        "classes": json.dumps(examples.classes),
        "made_by": json.dumps(examples.made_by),
        "manifest": digest(project / MANIFEST),
    }
    (project / FILE).write_bytes(save(tensors, notes))


def read(project: Path) -> Examples:
    """Read what `write` wrote.

    Raises:
        DataError: it is not there, is damaged, or is of another manifest.
    """
    file = project / FILE
    try:
        with safe_open(file, "numpy") as opened:
            notes = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        manifest = notes.pop("manifest")
        found = Examples(**tensors, **{name: json.loads(text) for name, text in notes.items()})
    except FileNotFoundError:
        raise DataError(f"{file} is not there; {AGAIN}") from None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise DataError(f"{file} is damaged ({said:.80}); {AGAIN}") from None
    if digest(project / MANIFEST) != manifest:
        raise DataError(f"{project / MANIFEST} is another than {file} was made of; {AGAIN}")
    return found


def digest(file: Path) -> str:
    """SHA-256 of a file, empty where there is none."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else ""
