"""Writing a bundle: all that answering needs, in one folder that needs neither us nor PyTorch.

What lies in it is described in docs/bundle.md; `classifier.py` opens it.
"""

import hashlib
import json
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pandas as pd
from safetensors.numpy import save

from ..backbones.exports import preprocessing_of
from ..core import plugins
from ..core.params import ExtractParams, TrainingExamples
from ..core.paths import MANIFEST
from ..heads.description import HeadDescription
from ..heads.head import Head, as_bytes
from ..kinds import Input, Vector, folder_of, named, takes
from ..tables.features import Split
from ..tables.manifest import group_keys
from ..tables.task_names import CLASSIFICATION, REGRESSION
from . import usual
from .classifier import (
    SCHEMA,
    SCHEMA_OF_JOINED,
    SCHEMA_OF_MEANS,
    SCHEMA_OF_TASKS,
    SCHEMA_OF_WEIGHED,
)
from .explain import directions
from .onnx_graph import whole

# What decides an answer, beside what the backbone was made by.
CODE = ("backbones", "heads", "serving", "tables")
# What of a head's description stands elsewhere in `bundle.json`.
ELSEWHERE = ("classes", "power", "task", "temperature", "thresholds")
LONG_TEXT = 1000  # characters
LIBRARIES = ("numpy", "onnxruntime")


def write(
    folder: Path,
    files: list[Path],
    kind: str,
    settings: ExtractParams,
    head: Head,
    about: HeadDescription,
    metrics: dict[str, Any],
    manifest: pd.DataFrame,
    train: Split,
    val: Split,
    sets: dict[str, Any],
    data: dict[str, Any] | None = None,
    given_away: TrainingExamples = "features_and_paths",
) -> None:
    """Write a bundle.

    Args:
        folder: where; made if it is not there.
        files: the backbone as `exports.write` leaves it, or those that are joined.
        kind: of the examples.
        settings: which backbone that is.
        head: what answers on its features.
        about: the head's description.
        metrics: how good it is.
        manifest: the examples.
        train: the training examples' features, as the head takes them; views but 0 are left out.
        val: those of the validation examples.
        sets: what sets of labels or intervals are made with, as `tasks/conformal.py` has it.
        data: the version of the examples and how many there are; None for those of the manifest.
            Where they are elsewhere manifest, train and val are empty.
        given_away: what the bundle holds of the training examples.
    """
    classes, task, temperature = about.classes, about.task, about.calibration.temperature
    of_task: dict[str, Any] = {} if task == CLASSIFICATION else {"task": task}
    if about.calibration.thresholds:
        of_task["thresholds"] = about.calibration.thresholds
    what, backbones = named(kind), [onnx.load(file) for file in files]
    told = [{entry.key: entry.value for entry in one.metadata_props} for one in backbones]
    prepared = [preprocessing_of(notes) for notes in told]
    if isinstance(prepared[0], Vector):  # known only now
        prepared = [Vector(head.dimension)]
    before = [what.graph(preprocessing) for preprocessing in prepared]
    networks = list(zip(before, backbones, strict=True))
    model = whole(networks, head, about.power, temperature, what.windowed, task)
    fingerprint = " ".join(notes["fingerprint"] for notes in told)
    (fields, texts), *others = [
        _parted(preprocessing, number) for number, preprocessing in enumerate(prepared, 1)
    ]
    described = {
        "schema": _schema(of_task),
        "kind": kind,
        **of_task,
        "classes": classes,
        "preprocessing": fields,
        "backbone": {
            "name": settings.backbone,
            "weights": settings.weights,
            "dimension": head.dimension,
            "fingerprint": fingerprint,
            "licence": ", ".join(dict.fromkeys(notes["licence"] for notes in told)),
        }
        | ({} if settings.pooling == "auto" else {"pooling": settings.pooling}),
        "head": {name: one for name, one in about.content().items() if name not in ELSEWHERE},
        "power": about.power,
        **_calibration(task, temperature, about.calibrated_on()),
        "metrics": metrics,
        "data": data or _data(manifest),
        "code": _digests(kind, settings.backbone),
        "libraries": {name: version(name) for name in (*LIBRARIES, *what.libraries)}
        | {name: found for notes in told for name, found in json.loads(notes["libraries"]).items()},
    }

    described |= _further(prepared[0], texts)
    if others:
        described["schema"] = max(described["schema"], SCHEMA_OF_JOINED)
        described["further"] = [
            {"preprocessing": of_one} | _further(preprocessing, long)
            for preprocessing, (of_one, long) in zip(prepared[1:], others, strict=True)
        ]

    folder.mkdir(parents=True, exist_ok=True)
    for long in (texts, *(long for _, long in others)):
        for file_name, content in long.values():
            (folder / file_name).write_text(content, encoding="utf-8")
    notes = {"classes": classes, **of_task}
    onnx.helper.set_model_props(
        model,
        {name: json.dumps(value) for name, value in notes.items()} | {"fingerprint": fingerprint},
    )
    (folder / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    for number, file in enumerate(files, 1):
        weights = "backbone" if number == 1 else f"network_{number}"
        shutil.copyfile(file.with_suffix(".safetensors"), folder / f"{weights}.safetensors")
    (folder / "head.safetensors").write_bytes(as_bytes(head))
    described["training_examples"] = given_away = "none" if data else given_away
    seen, seen_of_val = replace(train, features=head.seen(train.features)), head.seen(val.features)
    (folder / usual.MEANS_FILE).unlink(missing_ok=True)
    if given_away != "none":
        bank = _save_neighbours(seen, manifest, folder, given_away == "features_and_paths")
        described["usual"] = usual.described(*bank, seen_of_val)
    else:
        _write_bank(folder, np.empty((0, seen.features.shape[1]), np.float16), [], [], [])
        means = None if "task" in of_task or data else _class_means(seen, len(classes))
        if means is not None:
            (folder / usual.MEANS_FILE).write_bytes(save({"features": means}))
            described["usual"] = usual.of_means(means, seen_of_val)
            described["schema"] = SCHEMA_OF_MEANS
        elif not data:
            print(f"bundle: it holds no training example, and {usual.WHY_NOT}")
    if "why_no_sets" in sets:
        described["why_no_sets"] = sets["why_no_sets"]
    elif sets:
        described["sets"] = sets
    if "usual" in described and described["usual"]["threshold"] is None:
        print("bundle: too few examples to know from which distance on an example is unusual")
    text = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
    (folder / "bundle.json").write_text(text, encoding="utf-8")
    size = sum(f.stat().st_size for f in folder.iterdir()) / 1e6
    calibrated = "" if task == REGRESSION else f", temperature {temperature:g}"
    print(f"bundle: {_counted(task, classes)}, {size:.1f} MB in {folder}{calibrated}")


def _schema(of_task: dict[str, Any]) -> int:
    """The bundle's schema, by what it says of its task."""
    if "task" in of_task:
        return SCHEMA_OF_TASKS
    return SCHEMA_OF_WEIGHED if of_task else SCHEMA


def _counted(task: str, names: list[str]) -> str:
    """How many classes, labels or numbers a bundle answers with, in words."""
    if task == REGRESSION:
        return f"{len(names)} number" + "s" * (len(names) > 1)
    return f"{len(names)} {'labels' if task == 'multilabel' else 'classes'}"


def _calibration(task: str, temperature: float, examples: int) -> dict[str, Any]:
    """How probabilities were calibrated; numbers are not."""
    if task == REGRESSION:
        return {}
    return {"calibration": {"temperature": temperature, "pictures": examples}}


Texts = dict[str, tuple[str, str]]  # of a field the file that it is in, and its content


def _parted(preprocessing: Input, number: int) -> tuple[dict[str, Any], Texts]:
    """The fields of a preprocessing: those for `bundle.json`, and long texts for files.

    Such a text is JSON, as a tokenizer is.
    """
    fields = preprocessing._asdict()
    long = [n for n, value in fields.items() if isinstance(value, str) and len(value) > LONG_TEXT]
    of_network = "" if number == 1 else f"_{number}"
    texts = {name: (f"{name}{of_network}.json", fields.pop(name)) for name in long}
    return fields, texts


def _further(preprocessing: Input, texts: Texts) -> dict[str, Any]:
    """What `bundle.json` says of an input other than pixels."""
    if takes(preprocessing) == "pixels":
        return {}
    files = {name: file for name, (file, _) in texts.items()}
    return {"takes": takes(preprocessing), "files": files}


def _data(manifest: pd.DataFrame) -> dict[str, Any]:
    """The data's version: the digest of the manifest, and how many examples each split has."""
    counts = manifest["split"].value_counts()
    return {
        "manifest": hashlib.sha256(MANIFEST.read_bytes()).hexdigest(),
        "pictures": {split: int(counts.get(split, 0)) for split in ("train", "val", "test")},
    }


def _digests(kind: str, backbone: str) -> dict[str, str]:
    """Of the code in each room that decides an answer, a digest."""
    root = Path(__file__).parent.parent
    digests = {}
    for room in (*CODE, f"kinds/{folder_of(kind)}"):
        sha = hashlib.sha256()
        for file in sorted((root / room).rglob("*.py")):
            sha.update(file.relative_to(root).as_posix().encode() + file.read_bytes())
        digests[f"pipeline/{room}"] = sha.hexdigest()
    if folder_of(kind) == "plugin" or plugins.is_plugin(backbone):
        digests[plugins.FOLDER] = plugins.digest()
    return digests


def _class_means(train: Split, classes: int) -> npt.NDArray[np.float16] | None:
    """The mean of each class, of features of length 1; None where a class has few examples."""
    rows = train.views == 0
    labels = train.labels[rows]
    if np.bincount(labels, minlength=classes).min() < usual.LEAST:
        return None
    means = usual.class_means(directions(train.features[rows]), labels, classes)
    return means.astype(np.float16)


def _save_neighbours(
    train: Split, manifest: pd.DataFrame, folder: Path, with_paths: bool
) -> tuple[npt.NDArray[np.float16], list[str]]:
    """The training examples' features, of length 1 in half precision, with paths and labels.

    A cosine moves by less than 0.001 for it. The labels are the manifest's texts. With a path goes
    the digest of the file, so that no other file is ever taken for it.

    Returns:
        these features, and of each example its group or, without one, its digest.
    """
    originals = np.flatnonzero(train.views == 0)
    known = manifest.set_index("digest")
    originals = originals[usual.bank_first(known["label"].loc[train.digests[originals]].tolist())]
    known = known.loc[train.digests[originals]]
    features = directions(train.features[originals]).astype(np.float16)
    paths, digests = train.paths[originals].tolist(), known.index.tolist()
    if not with_paths:
        paths, digests = [""] * len(originals), []
    _write_bank(folder, features, paths, known["label"].tolist(), digests)
    return features, group_keys(known.reset_index()).tolist()


def _write_bank(
    folder: Path,
    features: npt.NDArray[np.float16],
    paths: list[str],
    labels: list[str],
    digests: list[str],
) -> None:
    """What a bundle holds of the training examples; texts are empty where there are no paths."""
    (folder / "neighbours.safetensors").write_bytes(save({"features": features}))
    table = {"paths": paths, "labels": labels} | ({"digests": digests} if digests else {})
    text = json.dumps(table, indent=0, ensure_ascii=False) + "\n"
    (folder / "neighbours.json").write_text(text, encoding="utf-8")
