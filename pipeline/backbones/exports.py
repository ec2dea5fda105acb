"""Exports: a backbone as an ONNX file and its weights, made once and kept in the store's folder.

Whatever runs on an export imports no PyTorch.
"""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ..kinds import Preprocessing
from ..store.places import backbones_folder, replacing

if TYPE_CHECKING:
    from .catalogue import Backbone

LIBRARIES = ("torch", "torchvision", "timm", "onnx", "onnxscript")  # that make an export


def file_of(name: str, weights: str) -> Path:
    """Where the backbone's ONNX file is kept; its name stands for all that the export depends on.

    A later run then needs neither torch nor the weights, only ONNX Runtime.
    """
    sha = hashlib.sha256(f"{name} {weights}".encode())
    for library in LIBRARIES:
        sha.update(f"{library} {version(library)}".encode())
    for module in ("catalogue.py", "exports.py", "onnx_export.py"):
        sha.update(Path(__file__).with_name(module).read_bytes())
    return backbones_folder() / f"{sha.hexdigest()}.onnx"


def is_exported(name: str, weights: str) -> bool:
    """Whether the backbone's ONNX file and the weights beside it are there."""
    file = file_of(name, weights)
    return file.exists() and file.with_suffix(".safetensors").exists()


def exported(name: str, weights: str) -> Path:
    """The backbone as an ONNX file, from the cache or exported now.

    Its weights for PyTorch lie beside it, as `.safetensors`.
    """
    file = file_of(name, weights)
    if is_exported(name, weights):
        return file

    from . import catalogue  # slow to import, and not needed when the file is there

    print(f"extract: exporting {name} to ONNX, once", flush=True)
    write(catalogue.load(name, weights), file)
    return file


def write(backbone: "Backbone", file: Path) -> None:
    """Write the backbone as an ONNX file, and its weights beside it."""
    import onnx

    from . import catalogue, onnx_export

    notes = {
        "preprocessing": json.dumps(backbone.preprocessing),
        "fingerprint": backbone.fingerprint,
    }
    with replacing(file) as unfinished:
        onnx_export.export(backbone, unfinished)
        model = onnx.load(unfinished)
        onnx.helper.set_model_props(model, notes)
        for node in model.graph.node:  # tells in which folder the code lay: other bytes in a clone
            del node.metadata_props[:]
        onnx.save(model, unfinished)
    with replacing(file.with_suffix(".safetensors")) as unfinished:
        catalogue.save_tensors(backbone.module.state_dict(), unfinished)


def preprocessing_of(notes: dict[str, str]) -> Preprocessing:
    """The preprocessing of a backbone, from the metadata of its ONNX file."""
    resize, crop, interpolation, mean, std = json.loads(notes["preprocessing"])
    return Preprocessing(resize, crop, interpolation, tuple(mean), tuple(std))
