"""Novelty detection: the distance, its threshold, and what a bundle says of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import DataError
from pipeline.kinds.vector.parse import npy
from pipeline.serving import novelty
from pipeline.serving.classifier import Classifier
from tests.helpers.bundles import VECTORS

RANDOM = np.random.default_rng(0)


def around(middle: int, count: int, spread: float = 0.1) -> np.ndarray:
    """Features near one of the axes."""
    return (np.eye(8)[middle] + RANDOM.normal(0, spread, (count, 8))).astype(np.float32)


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def test_validation_tells_from_which_distance_on_an_example_is_unusual() -> None:
    bank, val = unit(around(0, 200)), around(0, 100)
    found = novelty.of_examples(bank, [str(n) for n in range(200)], val)
    assert found.rests_on == {"validation": 100}
    one = novelty.Detector(bank, found.k, found.threshold)
    far = np.array([one.distance(row) for row in val])
    nearest = np.sqrt(2 - 2 * (unit(val) @ bank.T).max(axis=1))
    np.testing.assert_allclose(far, nearest, atol=1e-3)
    assert sum(far <= found.threshold + 1e-4) == 96  # rank 0.95 * 101, rounded up
    assert all(one.unusual(one.distance(row)) for row in around(3, 20))


def test_without_enough_validation_examples_training_tells_and_a_group_stays_out() -> None:
    bank = unit(np.repeat(around(0, 30, 0.3), 2, axis=0))
    alone = novelty.of_examples(bank, [str(n) for n in range(60)], around(0, 18))
    assert alone.rests_on == {"training": 60}
    assert alone.threshold < 0.01  # each has a twin
    grouped = novelty.of_examples(bank, [str(n // 2) for n in range(60)], around(0, 0))
    assert grouped.threshold > 0.2
    few = novelty.of_examples(bank[:10], [str(n) for n in range(10)], around(0, 0))
    assert few.content() == {"k": 1, "examples": 10, "kept": 0.95, "threshold": None}
    assert novelty.Detector(bank, 1, None).unusual(2.0) is None


def test_the_bank_has_examples_of_rare_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [*"aaaaaaaaab", *"ab"]
    assert novelty.bank_first(labels).tolist() == list(range(12))
    monkeypatch.setattr(novelty, "MOST", 4)
    assert novelty.bank_first(labels)[:4].tolist() == [0, 9, 1, 11]


@pytest.fixture
def bundle(by_hand: Callable[[str], Path], tmp_path: Path) -> Path:
    return shutil.copytree(by_hand("classification"), tmp_path / "changed")


def change(bundle: Path, **changes: Any) -> None:
    """Other values in `bundle.json`; None takes one out."""
    file = bundle / "bundle.json"
    told = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in told.items() if value is not None}))


def test_an_answer_tells_how_usual_and_which_classes(bundle: Path) -> None:
    classifier = Classifier(bundle)
    known = classifier.answer(npy(VECTORS[0]))
    assert known.distance == pytest.approx(0, abs=1e-3)
    assert (known.unusual, known.likely) == (False, ("brick",))
    unsure = classifier.answer(npy(np.array([1, 0.95, 0, 0], np.float32)))
    assert unsure.likely == ("brick", "moss")
    strange = classifier.answer(npy(np.array([-1, 0, 0, -1], np.float32)))
    assert strange.unusual is True
    assert strange.distance > 1


def test_an_older_bundle_answers_as_before(bundle: Path) -> None:
    change(bundle, usual=None, sets=None)
    classifier = Classifier(bundle)
    answer = classifier.answer(npy(VECTORS[0]))
    assert (answer.distance, answer.unusual, answer.likely) == (None, None, ())
    assert (classifier.detects_novelty, classifier.coverage) == (False, None)


USUAL = {"k": 1, "examples": 6, "kept": 0.95, "threshold": 0.2}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"usual": []}, r"usual is \[\]"),
        ({"usual": USUAL | {"k": 7}}, "usual.k is 7, of 6 examples"),
        ({"usual": USUAL | {"k": True}}, "usual.k is True"),
        ({"usual": USUAL | {"threshold": "0.2"}}, "usual.threshold is '0.2'"),
        ({"usual": USUAL | {"threshold": float("nan")}}, "usual.threshold is nan"),
        ({"usual": USUAL | {"examples": 7}}, "bundle.json has 7 rows of 4 features"),
        ({"sets": []}, r"sets is \[\]"),
        ({"sets": {"coverage": 0.9}}, "'quantile' is missing"),
        ({"sets": {"coverage": 2.0}}, "coverage is 2.0"),
        ({"sets": {"coverage": 0.9, "quantile": "1"}}, "sets: quantile is '1'"),
    ],
)
def test_what_is_damaged_is_one_line(bundle: Path, changes: dict[str, Any], said: str) -> None:
    change(bundle, **changes)
    with pytest.raises(DataError, match=said) as raised:
        Classifier(bundle)
    assert len(str(raised.value).splitlines()) == 1
