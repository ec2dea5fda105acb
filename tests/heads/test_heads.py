"""A head answers as torch's layers do, and comes back from its files as it went in."""

import json

import numpy as np
import pytest
import torch

from pipeline.core.errors import DataError
from pipeline.heads.description import Calibration, HeadDescription
from pipeline.heads.head import (
    Head,
    as_bytes,
    fit_temperature,
    load_head,
    probabilities,
    save_head,
)

GENERATOR = np.random.default_rng(0)


def floats(*shape):
    return GENERATOR.standard_normal(shape).astype(np.float32)


LINEAR = Head(floats(3, 8), floats(3))
TWO_LAYERS = Head(floats(3, 5), floats(3), floats(5, 8), floats(5))


def as_torch(head):
    there = {name: array for name, array in vars(head).items() if array is not None}
    tensors = {name: torch.from_numpy(array) for name, array in there.items()}
    if not head.width:
        return lambda x: torch.nn.functional.linear(
            x, *map(torch.from_numpy, (head.weight, head.bias))
        )
    hidden = torch.nn.Linear(head.dimension, head.width)
    last = torch.nn.Linear(head.width, len(head.bias))
    hidden.load_state_dict({"weight": tensors["hidden_weight"], "bias": tensors["hidden_bias"]})
    last.load_state_dict({"weight": tensors["weight"], "bias": tensors["bias"]})
    return torch.nn.Sequential(hidden, torch.nn.ReLU(), last)


@pytest.mark.parametrize("head", [LINEAR, TWO_LAYERS], ids=["linear", "hidden layer"])
def test_it_answers_as_the_layers_of_torch(head):
    features = floats(20, 8)
    with torch.no_grad():
        logits = as_torch(head)(torch.from_numpy(features))
        shares = logits.softmax(dim=1).numpy()
    np.testing.assert_allclose(head.logits(features), logits.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(probabilities(head.logits(features)), shares, rtol=1e-4, atol=1e-6)


def test_probabilities_of_huge_logits_are_still_shares_of_one():
    shares = probabilities(np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4]], dtype=np.float32))
    np.testing.assert_allclose(shares, [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])


@pytest.mark.parametrize("head", [LINEAR, TWO_LAYERS], ids=["linear", "hidden layer"])
def test_it_comes_back_as_it_was_saved(head, tmp_path):
    weights, about = tmp_path / "models" / "head.safetensors", tmp_path / "models" / "head.json"
    told = HeadDescription(["a", "b", "ü"], 0.5, Calibration(1.25))
    save_head(head, told, weights, about)
    again, description = load_head(weights, about)
    assert description == told
    assert (again.dimension, again.width) == (8, head.width)
    for name, array in vars(head).items():
        np.testing.assert_array_equal(getattr(again, name), array)


def test_the_same_head_is_the_same_bytes(tmp_path):
    files = []
    for name in ("one", "two"):
        weights, about = tmp_path / f"{name}.safetensors", tmp_path / f"{name}.json"
        save_head(TWO_LAYERS, HeadDescription(["a", "b", "c"], 1.0, width=5), weights, about)
        files.append((weights.read_bytes(), about.read_bytes()))
    assert files[0] == files[1]


def test_a_missing_file_says_which_stage_to_run(tmp_path):
    with pytest.raises(DataError, match="run the train stage"):
        load_head(tmp_path / "head.safetensors", tmp_path / "head.json")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("head.safetensors", b"no tensors"),
        ("head.json", b"{"),
        ("head.json", b"{}"),
        ("head.json", json.dumps({"classes": ["a", "b"]}).encode()),
    ],
)
def test_a_damaged_file_is_told_in_words(tmp_path, file, content):
    weights, about = tmp_path / "head.safetensors", tmp_path / "head.json"
    save_head(LINEAR, HeadDescription(["a", "b", "c"], 1.0), weights, about)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=r"head\.safetensors"):
        load_head(weights, about)


def loss(logits, labels, temperature):
    shares = probabilities(logits, temperature)[np.arange(len(labels)), labels]
    return -np.log(shares).mean()


def test_the_temperature_is_the_one_with_the_least_loss():
    labels = GENERATOR.integers(0, 4, 3000)
    told = floats(3000, 4) + 1.5 * np.eye(4, dtype=np.float32)[labels]
    for factor in (0.2, 1.0, 5.0):  # a head that is too timid, right, and too sure
        logits = told * np.float32(factor)
        fitted = fit_temperature(logits, labels)
        assert loss(logits, labels, fitted) < loss(logits, labels, 0.9 * fitted)
        assert loss(logits, labels, fitted) < loss(logits, labels, 1.1 * fitted)
        assert fitted == pytest.approx(factor * fit_temperature(told, labels), rel=1e-4)


def test_a_few_examples_that_are_all_right_make_no_head_certain():
    labels = np.array([0, 1, 2, 0, 1, 2])
    logits = 5 * np.eye(3, dtype=np.float32)[labels]
    fitted = fit_temperature(logits, labels)
    assert 0.9 < probabilities(logits, fitted).max() < 0.99


def test_without_a_validation_picture_the_temperature_is_one():
    assert fit_temperature(np.zeros((0, 3), np.float32), np.zeros(0, np.int64)) == 1


def test_it_answers_what_the_task_asks_for(monkeypatch):
    features = floats(50, 8)
    logits = LINEAR.logits(features).astype(np.float64)
    wanted = {
        "classification": probabilities(LINEAR.logits(features), 2.0),
        "multilabel": 1 / (1 + np.exp(-logits / 2)),
        "regression": logits,
    }
    for rows_at_once in (2**20, 1):
        monkeypatch.setattr("pipeline.heads.head.MANY_LOGITS", rows_at_once)
        for task, answers in wanted.items():
            np.testing.assert_allclose(LINEAR.answers(features, 2.0, task), answers, rtol=1e-5)
    np.testing.assert_array_equal(LINEAR.answers(features, 2.0), wanted["classification"])


TOLD = {"classes": ["a", "b", "c"], "power": 0.5, "temperature": 1.0}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"task": "multilabel"}, "'thresholds' is missing"),
        ({"task": "multilabel", "thresholds": [0.5, 0.5]}, "not 3 numbers"),
        ({"task": "multilabel", "thresholds": [0.5, 1.0, 0.5]}, "a threshold is 1.0"),
        ({"task": "multilabel", "thresholds": [0.5, "x", 0.5]}, "a threshold is 'x'"),
        ({"task": "translation"}, "task is 'translation'"),
        ({"task": ["regression"]}, "task is"),
    ],
)
def test_a_description_that_is_none_of_its_task_is_refused(tmp_path, said, message):
    weights, about = tmp_path / "head.safetensors", tmp_path / "head.json"
    weights.write_bytes(as_bytes(LINEAR))
    about.write_text(json.dumps(TOLD | said))
    with pytest.raises(DataError, match=message):
        load_head(weights, about)


def test_a_head_of_another_task_is_one_line():
    HeadDescription(["a"], 1.0).require_task("classification")
    HeadDescription(["a"], 1.0, task="regression").require_task("regression")
    with pytest.raises(DataError) as raised:
        HeadDescription(["a"], 1.0).require_task("multilabel")
    assert str(raised.value) == (
        "models/ was trained for classification, but data/manifest.parquet is for multilabel:"
        " run the train stage"
    )
