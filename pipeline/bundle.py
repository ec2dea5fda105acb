"""Stage 6, bundle: all that answering needs, in one folder that needs neither us nor PyTorch.

What lies in it is described in docs/bundle.md; `pipeline/serving/classifier.py` opens it.
"""

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
from safetensors.numpy import save

from .backbones import exports
from .core import command, params
from .core.errors import DataError
from .core.params import ExtractParams
from .core.paths import BUNDLE, FEATURES, HEAD, HEAD_WEIGHTS, MANIFEST, METRICS
from .heads.head import Head, as_bytes, load_head
from .serving import onnx_graph
from .serving.classifier import SCHEMA
from .serving.explain import directions
from .tables.features import Split, read_manifest, read_splits

# What decides an answer: these modules and these libraries are named with their versions.
CODE = ("backbones", "bases", "heads", "onnx_model", "pictures", "power")
LIBRARIES = ("numpy", "onnxruntime", "pillow", "timm", "torch", "torchvision")


def bundle() -> None:
    """Put the backbone, the head and what is known of them into one folder."""
    settings = params.load().extract
    head, about = load_head(HEAD_WEIGHTS, HEAD)
    manifest, metrics = read_manifest(MANIFEST), read_figures(METRICS, "evaluate")
    train = read_splits(FEATURES, manifest, about["classes"], ["train"], about["power"])["train"]
    file = exports.exported(settings.backbone, settings.weights)
    write(BUNDLE, file, settings, head, about, metrics, manifest, train)


def write(
    folder: Path,
    file: Path,
    settings: ExtractParams,
    head: Head,
    about: dict[str, Any],
    metrics: dict[str, Any],
    manifest: pd.DataFrame,
    train: Split,
) -> None:
    """Write a bundle.

    Args:
        folder: where; made if it is not there.
        file: the backbone as `exports.write` leaves it.
        settings: which backbone that is.
        head: what answers on its features.
        about: what `heads.save_head` was told of the head.
        metrics: how good it is.
        manifest: the pictures.
        train: the training pictures' features, as the head takes them; views but 0 are left out.
    """
    about = dict(about)
    classes, power, temperature = (about.pop(n) for n in ("classes", "power", "temperature"))
    backbone = onnx.load(file)
    notes = {entry.key: entry.value for entry in backbone.metadata_props}
    preprocessing = exports.preprocessing_of(notes)
    model = onnx_graph.whole(backbone, preprocessing, head, power, temperature)
    described = {
        "schema": SCHEMA,
        "classes": classes,
        "preprocessing": preprocessing._asdict(),
        "backbone": {
            "name": settings.backbone,
            "weights": settings.weights,
            "dimension": head.dimension,
            "fingerprint": notes["fingerprint"],
        },
        "head": about,
        "power": power,
        "calibration": {"temperature": temperature, "pictures": about["validation"]["pictures"]},
        "metrics": metrics,
        "data": _data(manifest),
        "code": _digests(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }

    folder.mkdir(parents=True, exist_ok=True)
    onnx.helper.set_model_props(
        model, {"classes": json.dumps(classes), "fingerprint": notes["fingerprint"]}
    )
    (folder / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    shutil.copyfile(file.with_suffix(".safetensors"), folder / "backbone.safetensors")
    (folder / "head.safetensors").write_bytes(as_bytes(head))
    _save_neighbours(train, classes, folder)
    text = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
    (folder / "bundle.json").write_text(text, encoding="utf-8")
    size = sum(f.stat().st_size for f in folder.iterdir()) / 1e6
    print(f"bundle: {len(classes)} classes, {size:.1f} MB in {folder}, temperature {temperature:g}")


def read_figures(file: Path, stage: str) -> dict[str, Any]:
    """Read the figures that a stage left.

    Raises:
        DataError: they are not there or are not readable.
    """
    try:
        figures: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{file} is not here; run the {stage} stage first") from None
    except ValueError as error:
        raise DataError(f"{file} is not readable: {error}; run {stage} again") from None
    return figures


def _data(manifest: pd.DataFrame) -> dict[str, Any]:
    """The data's version: the digest of the manifest, and how many pictures each split has."""
    counts = manifest["split"].value_counts()
    return {
        "manifest": hashlib.sha256(MANIFEST.read_bytes()).hexdigest(),
        "pictures": {split: int(counts.get(split, 0)) for split in ("train", "val", "test")},
    }


def _digests() -> dict[str, str]:
    here = Path(__file__).parent
    return {
        f"pipeline/{name}.py": hashlib.sha256((here / f"{name}.py").read_bytes()).hexdigest()
        for name in CODE
    }


def _save_neighbours(train: Split, classes: list[str], folder: Path) -> None:
    """The training pictures' features, of length 1 in half precision, with paths and labels.

    A cosine moves by less than 0.001 for it.
    """
    originals = train.views == 0
    names = np.array(classes)[train.labels[originals]]
    features = directions(train.features[originals]).astype(np.float16)
    (folder / "neighbours.safetensors").write_bytes(save({"features": features}))
    table = {"paths": train.paths[originals].tolist(), "labels": names.tolist()}
    text = json.dumps(table, indent=0, ensure_ascii=False) + "\n"
    (folder / "neighbours.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    command.run(bundle)
