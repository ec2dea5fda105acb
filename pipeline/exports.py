"""Exports: a backbone as an ONNX file and its weights, each made once and kept beside the store.

Whatever runs on an export imports no PyTorch.
"""

import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path

from pipeline import store
from pipeline.bases import Preprocessing


def file_of(name: str, weights: str) -> Path:
    """Where the backbone's ONNX file is kept; its name stands for all that the export depends on.

    A later run then needs neither torch nor the weights, only ONNX Runtime.
    """
    sha = hashlib.sha256(f"{name} {weights}".encode())
    for library in ("torch", "torchvision", "timm"):
        sha.update(f"{library} {version(library)}".encode())
    sha.update(Path(__file__).with_name("backbones.py").read_bytes())
    return store.default_folder().with_name("backbones") / f"{sha.hexdigest()}.onnx"


def exported(name: str, weights: str) -> Path:
    """The backbone as an ONNX file, from the cache or exported now.

    Its weights for PyTorch lie beside it, as `.safetensors`.
    """
    file = file_of(name, weights)
    if file.exists() and file.with_suffix(".safetensors").exists():
        return file

    import onnx

    from pipeline import backbones  # slow to import, and not needed when the file is there

    print(f"extract: exporting {name} to ONNX, once", flush=True)
    backbone = backbones.load(name, weights)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}.partial")
    backbones.export(backbone, unfinished)
    model = onnx.load(unfinished)
    onnx.helper.set_model_props(
        model,
        {
            "preprocessing": json.dumps(backbone.preprocessing),
            "fingerprint": backbone.fingerprint,
        },
    )
    onnx.save(model, unfinished)
    backbones.save_weights(backbone, file.with_suffix(".safetensors"))
    unfinished.replace(file)
    return file


def preprocessing_of(notes: dict[str, str]) -> Preprocessing:
    """The preprocessing of a backbone, from the metadata of its ONNX file."""
    resize, crop, interpolation, mean, std = json.loads(notes["preprocessing"])
    return Preprocessing(resize, crop, interpolation, tuple(mean), tuple(std))
