"""Stage 6, bundle: all that answering needs, in one folder that needs neither us nor PyTorch.

What lies in it is described in docs/bundle.md; `pipeline/classifier.py` opens it.
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

from pipeline import command, exports, onnx_model, params
from pipeline.classifier import SCHEMA
from pipeline.errors import DataError
from pipeline.features import Split, read_manifest, read_splits
from pipeline.heads import load_head
from pipeline.paths import BUNDLE, FEATURES, HEAD, HEAD_WEIGHTS, MANIFEST, METRICS
from pipeline.reasons import directions

# What decides an answer: these modules and these libraries are named with their versions.
CODE = ("backbones", "bases", "heads", "onnx_model", "pictures", "power")
LIBRARIES = ("numpy", "onnxruntime", "pillow", "timm", "torch", "torchvision")


def bundle() -> None:
    """Put the backbone, the head and what is known of them into one folder."""
    settings = params.load().extract
    head, about = load_head(HEAD_WEIGHTS, HEAD)
    manifest, metrics = read_manifest(MANIFEST), _read_metrics()
    classes, power, temperature = (about.pop(n) for n in ("classes", "power", "temperature"))
    train = read_splits(FEATURES, manifest, classes, ["train"], power)["train"]

    file = exports.exported(settings.backbone, settings.weights)
    backbone = onnx.load(file)
    notes = {entry.key: entry.value for entry in backbone.metadata_props}
    preprocessing = exports.preprocessing_of(notes)
    model = onnx_model.whole(backbone, preprocessing, head, power, temperature)
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

    BUNDLE.mkdir(parents=True, exist_ok=True)
    onnx.helper.set_model_props(
        model, {"classes": json.dumps(classes), "fingerprint": notes["fingerprint"]}
    )
    (BUNDLE / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    shutil.copyfile(file.with_suffix(".safetensors"), BUNDLE / "backbone.safetensors")
    shutil.copyfile(HEAD_WEIGHTS, BUNDLE / "head.safetensors")
    _save_neighbours(train, classes)
    text = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
    (BUNDLE / "bundle.json").write_text(text, encoding="utf-8")
    size = sum(f.stat().st_size for f in BUNDLE.iterdir()) / 1e6
    print(f"bundle: {len(classes)} classes, {size:.1f} MB in {BUNDLE}, temperature {temperature:g}")


def _read_metrics() -> dict[str, Any]:
    try:
        metrics: dict[str, Any] = json.loads(METRICS.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{METRICS} is not here; run the evaluate stage first") from None
    except ValueError as error:
        raise DataError(f"{METRICS} is not readable: {error}; run evaluate again") from None
    return metrics


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


def _save_neighbours(train: Split, classes: list[str]) -> None:
    """The training pictures' features, of length 1 in half precision, with paths and labels.

    A cosine moves by less than 0.001 for it.
    """
    originals = train.views == 0
    names = np.array(classes)[train.labels[originals]]
    features = directions(train.features[originals]).astype(np.float16)
    (BUNDLE / "neighbours.safetensors").write_bytes(save({"features": features}))
    table = {"paths": train.paths[originals].tolist(), "labels": names.tolist()}
    text = json.dumps(table, indent=0, ensure_ascii=False) + "\n"
    (BUNDLE / "neighbours.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    command.run(bundle)
