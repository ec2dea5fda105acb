"""Write a bundle: a folder for prediction that needs neither Headstart nor PyTorch.

docs/bundle.md describes its files; `classifier.py` opens it.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pandas as pd
from safetensors.numpy import save

from ..backbones.exports import blocks_of, preprocessing_of
from ..core import plugins
from ..core.backbone import Backbone
from ..core.errors import DataError
from ..core.params import ExtractParams, TrainingExamples
from ..core.paths import MANIFEST
from ..heads.description import HeadDescription
from ..heads.head import Head, as_bytes
from ..kinds import Input, Vector, folder_of, named
from ..tables.features import Split
from ..tables.layers import of_network
from ..tables.manifest import group_keys
from ..tasks import TASKS, noted
from . import card, novelty
from .description import Bundle, Data, Origin, code_digest
from .explain import directions
from .onnx_graph import whole

# The subpackages whose code can change a prediction, besides the folder of the kind.
CODE = ("backbones", "examples", "heads", "serving", "tables", "tasks")
LIBRARIES = ("numpy", "onnxruntime")  # besides those of the kind and of the backbone
# Training examples in a bundle, so that it stays small and opens at once with a million examples.
NEIGHBOURS = 10_000


@dataclass(frozen=True)
class Examples:
    """The examples of a head, and how much of them the bundle includes.

    `train` and `val` have features as the head expects them; of `train`, only view 0 is used.
    """

    manifest: pd.DataFrame
    train: Split
    val: Split
    given_away: TrainingExamples = "features_and_paths"


@dataclass(frozen=True)
class Parts:
    """The parts of a bundle.

    `kind` is the kind of the examples. `settings` name the backbone, and `files` are its exports
    from `exports.of_each`. `about` describes the head, and `metrics` are its evaluation.
    """

    kind: str
    settings: ExtractParams
    files: list[Path]
    head: Head
    about: HeadDescription
    metrics: Mapping[str, object]

    def write(self, folder: Path, examples: Examples | Data) -> None:
        """Write the bundle into a folder.

        Args:
            folder: created if it does not exist.
            examples: the head's examples, or only their version if they are elsewhere.
        """
        about, head = self.about, self.head
        folder.mkdir(parents=True, exist_ok=True)
        inputs, notes_of_each = _write_networks(folder, self)
        (folder / "head.safetensors").write_bytes(as_bytes(head))
        (folder / novelty.MEANS_FILE).unlink(missing_ok=True)
        if isinstance(examples, Data):
            data, given_away, found = examples, "none", None
            empty = np.empty((0, about.compared(head.dimension)), np.float16)
            _write_bank(folder, empty, [], [], [])
        else:
            data, given_away = _data(examples.manifest), examples.given_away
            found = _write_examples(folder, examples, head, about)
        libraries = {name: version(name) for name in (*LIBRARIES, *named(self.kind).libraries)}
        written = Bundle(
            kind=self.kind,
            head=about,
            inputs=inputs,
            backbone=Origin(
                name=self.settings.backbone,
                weights=self.settings.weights,
                dimension=head.dimension,
                fingerprint=_fingerprint(notes_of_each),
                licence=", ".join(dict.fromkeys(notes["licence"] for notes in notes_of_each)),
                pooling=self.settings.pooling,
            ),
            metrics=self.metrics,
            data=data,
            code=_digests(self.kind, self.settings.network),
            libraries=libraries
            | {
                name: one
                for notes in notes_of_each
                for name, one in json.loads(notes["libraries"]).items()
            },
            training_examples=given_away,
            neighbours=_kept(data) if given_away != "none" else None,
            novelty=found,
        )
        written.write(folder)
        (folder / card.FILE).write_text(card.card(written), encoding="utf-8")
        if found is not None and found.threshold is None:
            print("bundle: too few examples to set the threshold of novelty detection")
        size = sum(f.stat().st_size for f in folder.iterdir()) / 1e6
        temperature = f", temperature {about.calibration.temperature:g}"
        task = TASKS[about.task]
        counted = task.counted(len(about.classes))
        print(f"bundle: {counted}, {size:.1f} MB in {folder}{temperature * task.probabilities}")


def _write_networks(folder: Path, parts: Parts) -> tuple[tuple[Input, ...], list[dict[str, str]]]:
    """Write the graph from an example to a prediction, and the weights of its networks.

    Returns:
        the input of each network, and the metadata of its export.
    """
    about, head, what = parts.about, parts.head, named(parts.kind)
    backbones = [onnx.load(file) for file in parts.files]
    notes_of_each = [{entry.key: entry.value for entry in one.metadata_props} for one in backbones]
    inputs = tuple(preprocessing_of(notes) for notes in notes_of_each)
    has = [
        block._replace(name=of_network(number, block.name))
        for number, notes in enumerate(notes_of_each, 1)
        for block in blocks_of(notes)
    ]
    if has != list(about.layers[1:]):
        raise DataError(
            f"the head takes features of {', '.join(name for name, _ in about.layers)}, but"
            f" {parts.settings.backbone} gives different ones: run the train stage again"
        )
    if isinstance(inputs[0], Vector):  # the dimension is known only now
        inputs = (Vector(head.dimension),)
    networks = list(zip(map(what.graph, inputs), backbones, strict=True))
    temperature, thresholds = about.calibration.temperature, about.calibration.thresholds
    model = whole(networks, head, about.power, temperature, what.windowed, about.task)
    notes = {"classes": json.dumps(about.classes)}
    if noted(about.task):
        notes["task"] = json.dumps(about.task)
    if thresholds:
        notes["thresholds"] = json.dumps(thresholds)
    onnx.helper.set_model_props(model, notes | {"fingerprint": _fingerprint(notes_of_each)})
    (folder / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    for number, file in enumerate(parts.files, 1):
        weights = "backbone" if number == 1 else f"network_{number}"
        shutil.copyfile(file.with_suffix(".safetensors"), folder / f"{weights}.safetensors")
    return inputs, notes_of_each


def _fingerprint(notes_of_each: list[dict[str, str]]) -> str:
    return " ".join(notes["fingerprint"] for notes in notes_of_each)


def _data(manifest: pd.DataFrame) -> Data:
    counts = manifest["split"].value_counts()
    pictures = {split: int(counts.get(split, 0)) for split in ("train", "val", "test")}
    return Data(hashlib.sha256(MANIFEST.read_bytes()).hexdigest(), pictures)


def _kept(data: Data) -> int | None:
    """Return the number of training examples that a bundle keeps; None if it keeps all."""
    return NEIGHBOURS if data.pictures["train"] > NEIGHBOURS else None


def _digests(kind: str, backbone: Backbone) -> dict[str, str]:
    """Return a digest of the code in each subpackage that can change an answer."""
    rooms = (*CODE, f"kinds/{folder_of(kind)}")
    digests = {f"pipeline/{room}": code_digest(room) for room in rooms}
    if folder_of(kind) == "plugin" or any(one.family == "python" for one in backbone.each):
        digests[plugins.FOLDER] = plugins.digest()
    return digests


def _write_examples(
    folder: Path, examples: Examples, head: Head, about: HeadDescription
) -> novelty.Novelty | None:
    """Write the examples' part of the bundle; return its novelty detection, if there is any."""
    width = about.compared(head.dimension)
    train = replace(examples.train, features=head.seen(examples.train.features)[:, :width])
    val = head.seen(examples.val.features)[:, :width]
    if examples.given_away != "none":
        with_paths = examples.given_away == "features_and_paths"
        bank = _save_neighbours(train, examples.manifest, folder, with_paths)
        return novelty.of_examples(*bank, val)
    _write_bank(folder, np.empty((0, width), np.float16), [], [], [])
    of_classes = TASKS[about.task].exclusive
    means = _class_means(train, len(about.classes)) if of_classes else None
    if means is None:
        print(f"bundle: no training examples are included, {novelty.WHY_NOT}")
        return None
    (folder / novelty.MEANS_FILE).write_bytes(save({"features": means}))
    return novelty.of_means(means, val)


def _class_means(train: Split, classes: int) -> npt.NDArray[np.float16] | None:
    """Return each class's mean of features of length 1; None if any class has too few examples."""
    rows = np.flatnonzero(train.views == 0)
    if np.bincount(train.labels[rows], minlength=classes).min() < novelty.LEAST:
        return None
    return novelty.class_means(train.features, rows, train.labels, classes).astype(np.float16)


def _save_neighbours(
    train: Split, manifest: pd.DataFrame, folder: Path, with_paths: bool
) -> tuple[npt.NDArray[np.float16], list[str]]:
    """Write the training examples' features, scaled to length 1, with their paths and labels.

    If there are more than `NEIGHBOURS`, each class has the same number, as far as it has so many.
    Half precision changes a cosine by less than 0.001. Labels are written as in the manifest. Each
    path comes with the digest of its file, so that no other file can be mistaken for it.

    Returns:
        these features, and the group of each example, or its digest if it has no group.
    """
    originals = np.flatnonzero(train.views == 0)
    known = manifest.set_index("digest")
    order = novelty.bank_first(known["label"].loc[train.digests[originals]].tolist())
    originals = originals[order[:NEIGHBOURS]]
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
    """Write the bundle's training examples; a path is empty if the bundle has no paths."""
    (folder / "neighbours.safetensors").write_bytes(save({"features": features}))
    table = {"paths": paths, "labels": labels} | ({"digests": digests} if digests else {})
    text = json.dumps(table, indent=0, ensure_ascii=False) + "\n"
    (folder / "neighbours.json").write_text(text, encoding="utf-8")
