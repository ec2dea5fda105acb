"""A head's description: its file keeps its bytes, older ones are read, damaged ones are refused."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import DataError
from pipeline.heads.description import Calibration, HeadDescription
from pipeline.heads.head import Head, as_bytes, load_head
from pipeline.heads.hyperparameters import Hyperparameters

LEAST = {"classes": ["a", "ü"], "power": 0.5, "temperature": 0.985356}
ADAM = {
    "dropout": 0.1, "label_smoothing": 0.0, "learning_rate": 0.01, "optimizer": "adam", "seed": 0,
    "weight_decay": 0.001, "width": 0,
}  # fmt: skip
TRAINED = {
    **LEAST, "dimension": 8, "width": 0, "epoch": 12, "refit": True,
    "hyperparameters": {"optimizer": "lbfgs", "weight_decay": 0.003},
    "training": {"accuracy": 1.0, "loss": 0.1},
    "validation": {"accuracy": 0.75, "loss": 0.2, "pictures": 28},
}  # fmt: skip
R2 = {"training": {"loss": 0.1, "r2": 0.9}, "validation": {"loss": None, "pictures": 0, "r2": None}}
# As `train` and `finetune` write them; `federated` is of older versions.
FILES: dict[str, dict[str, Any]] = {
    "classes": TRAINED,
    "nearest means": TRAINED | {"hyperparameters": {"optimizer": "nearest_mean"}},
    "gradient descent, without validation": TRAINED
    | {"hyperparameters": ADAM, "refit": False}
    | {"validation": {"accuracy": None, "loss": None, "pictures": 0}},
    "weighed": TRAINED | {"prior_shift": [0.5, -0.5], "thresholds": [0.9, 0.1]},
    "labels": TRAINED | {"task": "multilabel", "thresholds": [0.5, 0.25]},
    "numbers": TRAINED | R2 | {"task": "regression", "loss": "huber", "temperature": 1.0},
    "prediction sets": TRAINED
    | {"calibrated_on": 112}
    | {
        "sets": {
            "coverage": 0.9,
            "examples": 112,
            "folds": 10,
            "groups": 40,
            "k_reg": 2,
            "lambda": 0.1,
            "method": "RAPS",
            "quantile": 0.75,
            "randomised": 0.8,
        }
    },
    "finetuned": TRAINED | {"finetuned": True},
    "federated": TRAINED | {"federated": {"made_by": {"power": "0.5"}, "rounds": 3}},
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_read_and_written_keeps_its_bytes(name, tmp_path):
    text = json.dumps(FILES[name], indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    file = tmp_path / "head.json"
    file.write_text(text)
    HeadDescription.read(file).write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == text


def test_an_older_file_says_less():
    least = HeadDescription(["a"], 1.0)
    assert least.content() == {"classes": ["a"], "power": 1.0, "refit": False, "temperature": 1.0}
    with pytest.raises(DataError, match=r"models/head\.json has no hyperparameters"):
        least.trained_with()
    with pytest.raises(DataError, match=r"models/head\.json has no epoch: run the"):
        replace(least, hyperparameters=Hyperparameters("ridge")).trained_with()
    with pytest.raises(DataError, match=r"models/head\.json has no validation: run the"):
        least.calibrated_on()


def test_what_it_says_has_types(tmp_path):
    file = tmp_path / "head.json"
    file.write_text(json.dumps(FILES["weighed"] | {"later": [1]}))
    found = HeadDescription.read(file)
    assert found.calibration == Calibration(0.985356, [0.9, 0.1], [0.5, -0.5])
    assert found.trained_with() == (
        Hyperparameters("lbfgs", weight_decay=0.003),
        12,
    )
    assert (found.task, found.calibrated_on(), found.notes) == (
        "classification",
        28,
        {"later": [1]},
    )


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"epoch": "x"}, "epoch is 'x'"),
        ({"epoch": -1}, "epoch is -1"),
        ({"dimension": 8.0}, "dimension is 8.0"),
        ({"refit": "yes"}, "refit is 'yes'"),
        ({"loss": 3}, "loss is 3"),
        ({"power": True}, "power is True"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"prior_shift": [0.5]}, "prior_shift is"),
        ({"prior_shift": [0.5, "x"]}, "prior_shift is"),
        ({"hyperparameters": [1]}, "hyperparameters is not a JSON object"),
        ({"hyperparameters": {"rate": 1}}, "hyperparameters: 'rate' is 1"),
        ({"hyperparameters": {"width": "x"}}, "hyperparameters: 'width' is 'x'"),
        ({"validation": 7}, "validation is not a JSON object"),
        ({"calibrated_on": -1}, "calibrated_on is -1"),
        ({"sets": 7}, "sets is 7"),
        ({"sets": {"coverage": 0.9, "quantile": "x"}}, "sets: quantile is 'x'"),
        ({"validation": {"pictures": "x"}}, "validation: 'pictures' is 'x'"),
    ],
)
def test_a_value_that_cannot_be_is_one_line(said, message, tmp_path):
    weights, about = tmp_path / "head.safetensors", tmp_path / "head.json"
    weights.write_bytes(as_bytes(Head(np.zeros((2, 8), np.float32), np.zeros(2, np.float32))))
    about.write_text(json.dumps(TRAINED))
    assert load_head(weights, about)[1].epoch == 12
    about.write_text(json.dumps(TRAINED | said))
    with pytest.raises(DataError, match=message) as refused:
        load_head(weights, about)
    assert len(str(refused.value).splitlines()) == 1
