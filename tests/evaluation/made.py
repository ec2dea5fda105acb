"""Projects of several labels and of numbers in which a head has been trained: made by hand."""

import numpy as np
import pandas as pd

from pipeline.core.paths import CONFIRMED, FEATURES, HEAD, HEAD_WEIGHTS, MANIFEST, MEASURES
from pipeline.heads.description import Calibration, HeadDescription
from pipeline.heads.head import Head, save_head
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.tables import confirmed, measures
from pipeline.tables.features import write_shards
from pipeline.tables.manifest import TARGET, write_manifest
from pipeline.tasks.multilabel.targets import joined
from pipeline.tasks.regression.targets import shown

SPLITS = ["train", "train", "val", "test"]
RIDGE = Hyperparameters("ridge", weight_decay=0.1)
LABELS = ["brick", "moss", "wood"]


def labelled(examples=120, outputs=3, unknown=0.0, seed=0):
    """Features [n, d], and labels [n, c] that they tell, but for noise."""
    random = np.random.default_rng(seed)
    features = random.standard_normal((examples, 6)).astype(np.float32)
    values = features[:, :outputs] + 0.6 * random.standard_normal((examples, outputs)) > 0.3
    labels = values.astype(np.float64)
    labels[random.random(labels.shape) < unknown] = np.nan
    return features, labels


def measured(examples=120, outputs=1, seed=0):
    """Features [n, d], and numbers [n, c] that they tell, but for noise."""
    random = np.random.default_rng(seed)
    features = random.standard_normal((examples, 6)).astype(np.float32)
    numbers = 20 + 5 * features[:, :outputs] + random.standard_normal((examples, outputs))
    return features, numbers


def make(task, names, features, values):
    """The manifest, the features and a head that has seen features that hold the values."""
    count, outputs = values.shape
    text = joined if task == "multilabel" else shown
    digests = [f"{7919 * number % 256:02x}{number:062x}" for number in range(count)]
    manifest = pd.DataFrame(
        {
            "digest": digests,
            "path": [f"data/raw/{number:04}.png" for number in range(count)],
            "label": [text(names, row) for row in values],
            "split": [SPLITS[number % 4] for number in range(count)],
            "slice:camera": ["AB"[number // 7 % 2] for number in range(count)],
        }
    )
    for name, column in zip(names, values.T, strict=True):
        manifest[TARGET + name] = column
    MANIFEST.parent.mkdir(parents=True, exist_ok=True)
    write_manifest(manifest.sort_values("path"), "vector", MANIFEST, task=task)
    confirmed.write(CONFIRMED, [])
    measures.write(MEASURES, (), {})
    write_shards(FEATURES, [(digests, [0] * count, features)])
    scale, bias = (2.0, -0.6) if task == "multilabel" else (5.0, 20.0)
    weight = np.zeros((outputs, features.shape[1]), np.float32)
    weight[range(outputs), range(outputs)] = scale
    about = HeadDescription(
        classes=names,
        power=1.0,
        calibration=Calibration(
            thresholds=[0.4, 0.5, 0.6][:outputs] if task == "multilabel" else []
        ),
        task=task,
        hyperparameters=RIDGE,
        epoch=1,
        refit=True,
    )
    save_head(Head(weight, np.full(outputs, bias, np.float32)), about, HEAD_WEIGHTS, HEAD)
