"""Features of many examples lie in a file, and nothing else changes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.core.params import ChecksParams
from pipeline.heads.fit import fit_heads, refit
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.trained import Schedule
from pipeline.quality.originals import originals
from pipeline.tables import large
from pipeline.tables.features import Split, read_splits
from pipeline.tasks.classification.issues import label_issues
from tests.heads.test_fit import CPU, TRAIN, VAL
from tests.tables.test_features import manifest, rows, write


@pytest.fixture
def in_files(tmp_path, monkeypatch):
    """Even a few rows lie in a file, and are computed by twos or threes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(large, "LARGE", 50)
    monkeypatch.setattr(large, "AT_ONCE", 10)


def same(one, other):
    for name, column in vars(one).items():
        np.testing.assert_array_equal(column, vars(other)[name])


def is_mapped(features):
    while isinstance(features.base, np.ndarray):
        features = features.base
    return isinstance(features.base, memoryview)


def test_splits_are_the_same(tmp_path, request):
    folder = tmp_path / "data" / "features"
    folder.parent.mkdir()
    table = manifest(train=20, val=8, test=8)
    write(folder, rows(table))

    def read():
        splits = read_splits(folder, table, ["ants", "bees"], ["train", "val"], power=0.5)
        train, val = splits["train"], splits["val"]
        both = Split.concat([train, val, val.take(slice(0))])
        return [train, val, both, both.take(both.views == 0), both.take(np.array([50, 3, 3]))]

    before = read()
    request.getfixturevalue("in_files")
    after = read()
    for one, other in zip(before, after, strict=True):
        same(one, other)
        assert [is_mapped(split.features) for split in (one, other)] == [False, True]
    assert sorted(file.name for file in folder.parent.iterdir()) == ["features"]  # no file is left
    same(Split.concat([after[0], after[1].take(slice(0))]), after[0])


@pytest.mark.parametrize("optimizer", ["lda", "ridge", "nearest_mean", "lbfgs"])
def test_heads_are_the_same(request, optimizer):
    chosen = Hyperparameters(optimizer, 0, 0.1, 0, 0, 0, 0)
    schedule = Schedule(1, 1, 0, np.ones(3, np.float32))

    def heads():
        (one,) = fit_heads(TRAIN, VAL, [chosen], schedule, CPU)
        assert one.head is not None
        again = refit(one, TRAIN, VAL, schedule, CPU)
        return [one.head.weight, one.head.bias, again.weight, again.bias]

    before = heads()
    request.getfixturevalue("in_files")
    for one, other in zip(before, heads(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_the_features_of_checks_are_the_same(tmp_path, monkeypatch, request):
    table = manifest(train=20, val=8, test=8)
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    write(Path("data/features"), rows(table))
    known, before = originals(table)
    request.getfixturevalue("in_files")
    again, after = originals(table)
    np.testing.assert_array_equal(before, after)
    assert known["digest"].tolist() == again["digest"].tolist() == sorted(table["digest"])
    assert is_mapped(after)


def test_label_issues_are_the_same(request):
    every = Split.concat([TRAIN, VAL])
    names = [f"{number:03}" for number in range(len(every.labels))]
    columns = {"path": names, "digest": names, "split": "train", "number": every.labels}
    table = pd.DataFrame(columns).assign(label=every.labels.astype(str), group="")
    before = label_issues(table, every.features, ChecksParams())
    request.getfixturevalue("in_files")
    after = label_issues(table, every.features, ChecksParams())
    assert before.why_not == after.why_not
    pd.testing.assert_frame_equal(before.issues, after.issues, rtol=1e-4)
    pd.testing.assert_frame_equal(before.answers, after.answers, rtol=1e-4)


def test_a_full_disk_is_an_error(in_files, monkeypatch):
    """Otherwise the system would kill the process as it writes to the mapped memory."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        replace(TRAIN).take(np.arange(20))
