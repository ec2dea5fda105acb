"""What is learned: texts of a table to labels and numbers, and the columns of a manifest."""

import math

import numpy as np
import pandas as pd
import pytest

from pipeline.core.errors import DataError
from pipeline.tables import targets
from pipeline.tasks.multilabel.targets import labels_in, presence
from pipeline.tasks.regression.targets import number


def manifest(splits, **columns):
    """A manifest with the split of each example by its first letter, and its targets."""
    names = {"t": "train", "v": "val", "e": "test"}
    table = pd.DataFrame({"label": "", "split": [names[letter] for letter in splits]})
    for name, values in columns.items():
        table[targets.TARGET + name] = values
    return table


def test_several_labels_and_numbers_are_columns():
    table = manifest("tte", sun=[1, 0, math.nan], rain=[0, 1, 1])
    assert targets.names(table) == ["sun", "rain"]
    values = targets.of(table, ["sun", "rain"])
    assert np.array_equal(values, [[1, 0], [0, 1], [np.nan, 1]], equal_nan=True)
    with pytest.raises(DataError, match=r"targets sun, rain, but the head predicts rain, sun"):
        targets.of(table, ["rain", "sun"])


@pytest.mark.parametrize(
    ("text", "found"), [("b|a", ["a", "b"]), (" a  b |c|c", ["a b", "c"]), ("one", ["one"])]
)
def test_labels_are_parted(text, found):
    assert labels_in(text) == found


@pytest.mark.parametrize(
    ("text", "words"), [("", "empty list of labels"), ("|", "empty list"), ("a||b", "empty label")]
)
def test_what_is_no_list_of_labels(text, words):
    with pytest.raises(ValueError, match=words):
        labels_in(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("0", 0), ("1.0", 1), ("True", 1), ("false", 0), (" 1 ", 1), ("", math.nan)],
)
def test_presence_of_a_label(text, value):
    assert presence("sun", text) == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize("text", ["2", "0.5", "yes", "-1", "01"])
def test_what_is_neither_there_nor_absent(text):
    with pytest.raises(ValueError, match=r"the label sun is .* which should be 1, 0 or empty"):
        presence("sun", text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("much", "is 'much', which is not a number"),
        ("1,5", r"write 1\.5, with a point"),
        ("nan", "not a finite 32-bit number"),
        ("inf", "not a finite 32-bit number"),
        ("1e400", "not a finite 32-bit number"),
    ],
)
def test_what_is_no_number(text, words):
    with pytest.raises(ValueError, match=words):
        number("age", text)
    assert number("age", " 1e3 ") == 1000


def require(task, table):
    targets.of_task(task).require(table, "here")


def test_what_cannot_be_learned_is_refused():
    with pytest.raises(DataError, match=r"target is 2 in all 2 training examples"):
        require("regression", manifest("tte", target=[2, 2, 3]))
    with pytest.raises(DataError, match=r"no training example has the label sun"):
        targets.of_task("multilabel").require(
            manifest("tte", sun=[0, 0, 1], rain=[0, 1, 1]), "here"
        )
    with pytest.raises(DataError, match=r"no training example lacks the label rain"):
        targets.of_task("multilabel").require(
            manifest("tte", sun=[0, 1, 1], rain=[math.nan, 1, 1]), "here"
        )
    require("multilabel", manifest("tte", sun=[0, 1, 1], rain=[1, 0, 1]))


def test_measured_values_are_no_classes():
    table = manifest("t" * 30).assign(label=[f"{value / 7:.4f}" for value in range(30)])
    with pytest.raises(DataError, match=r"30 different numbers .* set ingest.task to regression"):
        require("classification", table)
    digits = manifest("t" * 60).assign(label=[str(value % 30) for value in range(60)])
    require("classification", digits)
