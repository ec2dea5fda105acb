"""Bundles whose heads are written by hand, so that their answers are known.

Vectors of four numbers have the labels `brick`, `moss` and `wood` if the first, the second and the
third number is large; two numbers, `age` and `path`, are sums of them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.backbones import exports
from pipeline.core.params import ExtractParams, TrainingExamples
from pipeline.core.paths import MANIFEST
from pipeline.heads.description import Calibration, HeadDescription
from pipeline.heads.head import Head
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.sets import PredictionSets
from pipeline.serving.writing import Examples, Parts
from pipeline.tables.features import Split
from pipeline.tables.manifest import TARGET, write_manifest

LABELS = ["brick", "moss", "wood"]
THRESHOLDS = [0.5, 0.25, 0.875]
NUMBERS = ["age", "path"]  # one of the two has the name of a column of tables
OUTPUTS = {"classification": LABELS, "multilabel": LABELS, "regression": NUMBERS}
# What was promised of each.
RESTS_ON = {"examples": 200, "folds": 10}
SETS: dict[str, dict[str, Any]] = {
    "classification": {
        "coverage": 0.9, "method": "RAPS", "quantile": 0.75, "lambda": 0.1, "k_reg": 2,
        "randomised": 0.8, **RESTS_ON,
    },
    "multilabel": {"coverage": 0.9, "why_no_sets": "where examples have several labels"},
    "regression": {"coverage": 0.9, "method": "residuals", "reach": [2.5, 0.125], **RESTS_ON},
}  # fmt: skip
VECTORS = np.array(
    [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1], [1, 1, 1, 0]], np.float32
)
TEXTS = {
    "classification": ["brick", "moss", "wood", "brick", "moss", "wood"],
    "multilabel": ["brick", "moss", "wood", "brick|moss", "", "brick|moss|wood"],
    "regression": [f"age={age}, path={path}" for age, path in zip("401050", "123456", strict=True)],
}


def head_of(task: str) -> Head:
    """The head of vectors; labels have the log-odds 8 x - 4, and numbers are sums."""
    if task == "regression":
        weight = np.array([[40, 10, 0, 0], [0, 0, -0.5, 2]], np.float32)
        return Head(weight, np.array([30, 0.25], np.float32))
    return Head(8 * np.eye(3, 4, dtype=np.float32), np.full(3, -4, np.float32))


def described(task: str) -> HeadDescription:
    """What `train` writes of a head, as far as a bundle asks."""
    return HeadDescription(
        classes=OUTPUTS[task],
        power=1.0,
        calibration=Calibration(
            temperature=1.0 if task == "regression" else 2.0,
            thresholds=THRESHOLDS if task == "multilabel" else [],
        ),
        sets=PredictionSets.of(SETS[task], len(OUTPUTS[task]), task),
        task=task,
        hyperparameters=Hyperparameters("ridge"),
        validation={"pictures": 7, "loss": 0.1},
    )


def validation(dimension: int) -> Split:
    """Twenty validation examples near the training ones, the farthest at an angle of 0.2."""
    angles = np.linspace(0.01, 0.2, 20)
    features = np.zeros((20, dimension), np.float32)
    features[:, 0], features[:, 1] = np.cos(angles), -np.sin(angles)
    names = np.array([f"{i:064x}" for i in range(100, 120)])
    return Split(names, names, np.zeros(20, np.int32), np.zeros(20), features)


def write_by_hand(
    project: Path,
    task: str,
    head: Head | None = None,
    kind: str = "vector",
    given_away: TrainingExamples = "features_and_paths",
    **settings: str,
) -> Path:
    """Write a manifest and a bundle into a folder; the bundle's folder.

    Args:
        project: where.
        task: any of the three.
        head: of the backbone; that of vectors if there is none.
        kind: of the examples.
        given_away: what the bundle holds of the training examples.
        settings: the backbone; the identity if there is none.
    """
    head = head or head_of(task)
    features = np.resize(VECTORS, (len(VECTORS), head.dimension)).astype(np.float32)
    texts = TEXTS[task]
    manifest = pd.DataFrame(
        {
            "digest": [f"{i:064x}" for i in range(len(texts))],
            "path": [f"data/raw/{i}" for i in range(len(texts))],
            "label": texts,
            "split": "train",
            "group": "",
        }
    )
    if task != "classification":
        for name in OUTPUTS[task]:
            manifest[TARGET + name] = 0.0
    train = Split(
        manifest["digest"].to_numpy(str),
        manifest["path"].to_numpy(str),
        np.zeros(len(texts), np.int32),
        np.arange(len(texts)) % len(LABELS),  # of tasks but classification nobody asks for them
        features,
    )
    backbone = ExtractParams(**(settings or {"backbone": "identity"}))  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        MANIFEST.parent.mkdir(parents=True, exist_ok=True)
        write_manifest(manifest, kind, MANIFEST, task=task)
        files = [exports.exported(backbone.network)]
        metrics = {"test": {"loss": 0.1}}
        about = described(task)
        parts = Parts(kind, backbone, files, head, about, metrics)
        examples = Examples(manifest, train, validation(head.dimension), given_away)
        parts.write(Path("bundle"), examples)
    return project / "bundle"
