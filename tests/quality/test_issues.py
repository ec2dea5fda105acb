"""Label issues of several labels and of numbers: what is planted is found, clean data are quiet."""

import numpy as np
import pandas as pd
import pytest

from pipeline.checks import checks
from pipeline.core.errors import DataError
from pipeline.core.params import ChecksParams
from pipeline.core.paths import CHECKS, MANIFEST
from pipeline.quality import held_out
from pipeline.quality.few_examples import few_examples
from pipeline.tables.manifest import GIVEN, read_manifest, write_manifest
from pipeline.tasks.classification.issues import label_issues
from pipeline.tasks.multilabel.issues import label_issues_of_several
from pipeline.tasks.regression.issues import number_issues
from tests.evaluation.made import LABELS, make

EXAMPLES = 600
NAMES = [f"label {number}" for number in range(5)]


def rows(count=EXAMPLES):
    """The columns of a manifest that the checks look at."""
    digests = [f"{number:064x}" for number in range(count)]
    return pd.DataFrame(
        {
            "path": [f"{number:03}.png" for number in range(count)],
            "digest": digests,
            "split": "train",
            "group": "",
        }
    )


def features_of(count=EXAMPLES, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 12)).astype(np.float32)


def several(slope, seed=0):
    """Features, and five labels of which they tell the more, the steeper the slope is."""
    features = features_of(seed=seed)
    random = np.random.default_rng(seed + 1)
    chance = 1 / (1 + np.exp(-slope * (features[:, :5] - np.linspace(0, 1.5, 5))))
    return features, (random.random(chance.shape) < chance).astype(np.float64)


def cells(found):
    """The example and label of each issue."""
    return {(int(row.path[:3]), row.label.removeprefix("not ")) for row in found.itertuples()}


def of_classes(apart):
    """Rows and features of four classes that are so far apart, and which labels are wrong."""
    random = np.random.default_rng(5)
    right = random.integers(0, 4, EXAMPLES)
    features = features_of() + apart * np.eye(4, 12)[right].astype(np.float32)
    wrong = random.random(EXAMPLES) < 0.05
    number = np.where(wrong, (right + random.integers(1, 4, EXAMPLES)) % 4, right)
    return rows().assign(number=number, label=[NAMES[one] for one in number]), features, wrong


def test_an_issue_is_a_label_that_is_probably_wrong_and_the_probability_is_true():
    manifest, features, wrong = of_classes(apart=3.5)
    found, why_not, _ = label_issues(manifest, features, ChecksParams())
    assert not why_not
    hits = wrong[found.index]
    assert hits.sum() / wrong.sum() > 0.8
    assert hits.mean() == pytest.approx(found["wrong"].mean(), abs=0.15)
    assert found["wrong"].is_monotonic_decreasing


def test_scores_that_are_not_kept_find_the_same_issues(monkeypatch):
    manifest, features, _ = of_classes(apart=3.5)
    kept = label_issues(manifest, features, ChecksParams())
    monkeypatch.setattr("pipeline.tables.large.LARGE", 0)
    again = label_issues(manifest, features, ChecksParams())
    for one, other in zip((kept.issues, kept.answers), (again.issues, again.answers), strict=True):
        pd.testing.assert_frame_equal(one, other, rtol=1e-3)


def test_where_a_head_recognises_too_little_nothing_is_listed_and_it_says_so():
    found, why_not, _ = label_issues(*of_classes(apart=1.0)[:2], ChecksParams())
    assert found.empty
    assert "recognises only" in why_not


def test_labels_that_were_turned_round_are_found_and_no_others_are():
    features, given = several(slope=20)
    assert label_issues_of_several(rows(), features, given, NAMES, ChecksParams()).empty
    random = np.random.default_rng(3)
    flipped = random.random(given.shape) < 0.05
    unknown = ~flipped & (random.random(given.shape) < 0.2)
    given = np.where(flipped, 1 - given, np.where(unknown, np.nan, given))
    found = label_issues_of_several(rows(), features, given, NAMES, ChecksParams())
    planted = {(row, NAMES[label]) for row, label in np.argwhere(flipped)}
    assert len(cells(found) & planted) > 0.7 * len(planted)
    assert len(cells(found) & planted) > 0.85 * len(found)
    assert found["given_probability"].is_monotonic_increasing
    for row in found.itertuples():
        there = given[int(row.path[:3]), NAMES.index(row.label.removeprefix("not "))]
        assert {0.0: f"not {row.suggested}", 1.0: row.suggested.removeprefix("not ")}[there] == (
            row.label
        )


@pytest.mark.parametrize("slope", [0.5, 2, 5])
def test_labels_that_features_hardly_tell_raise_no_alarm(slope):
    alarms = [
        len(label_issues_of_several(rows(), *several(slope, seed), NAMES, ChecksParams()))
        for seed in range(4)
    ]
    assert sum(alarms) <= 6  # of 12,000 labels


def test_a_label_of_few_examples_is_not_judged():
    features, given = several(slope=20)
    given[:, 0] = 0
    given[:9, 0] = 1
    found = label_issues_of_several(rows(), features, given, NAMES, ChecksParams())
    assert not {name for _, name in cells(found)} & {NAMES[0]}


@pytest.mark.parametrize("noise", ["normal", "laplace"])
def test_numbers_that_are_far_off_are_found_and_no_others_are(noise):
    features, random = features_of(), np.random.default_rng(1)
    signal = 30 + 5 * features[:, 0] + 5 * features[:, 1]
    targets = signal + getattr(random, noise)(0, 1.5, EXAMPLES)
    both = np.stack([targets, 1e6 * targets], axis=1)
    assert number_issues(rows(), features, both, ["a", "b"], ChecksParams()).empty
    wrong = np.arange(0, EXAMPLES, 60)
    both[wrong, 0] *= 10
    found = number_issues(rows(), features, both, ["a", "b"], ChecksParams())
    assert set(found["path"].str[:3].astype(int)) == set(wrong)
    assert found["label"].str.startswith("a=").all()
    assert found["suggested"].str.startswith("a=").all()
    assert found["spreads"].abs().is_monotonic_decreasing
    assert (found["spreads"] < -6).all()  # the prediction is below
    alone = number_issues(rows(), features, both[:, :1], ["a"], ChecksParams())
    assert float(alone["label"].iloc[0]) > 100


def test_a_number_that_never_varies_or_few_examples_raise_no_alarm():
    features = features_of(40)
    same = np.full((40, 1), 3.0)
    assert number_issues(rows(40), features, same, ["a"], ChecksParams()).empty
    few = features[:15, :1].astype(np.float64)
    few[3] = 1e6
    assert number_issues(rows(15), features[:15], few, ["a"], ChecksParams()).empty


def prepared(task, names, features, values):
    """A project of vectors up to its features; splits are given."""
    make(task, names, features, values)
    manifest = read_manifest(MANIFEST).assign(group="")
    write_manifest(manifest, "vector", MANIFEST, {"val": GIVEN, "test": GIVEN}, task)


def found(name):
    return pd.read_csv(CHECKS / f"{name}.csv")


def test_the_stage_speaks_of_labels(project, capsys):
    features, values = several(slope=20)
    values = values[:, :3]
    values[:, 2] = 0
    values[:3, 2] = 1
    values[7, 0] = 1 - values[7, 0]
    prepared("multilabel", LABELS, features, values)
    project.set(**{"checks.duplicate_cosine": 1.0})
    checks()
    said = capsys.readouterr().out
    opposite = {0.0: "not brick, or brick?", 1.0: "brick, or not brick?"}[values[7, 0]]
    assert f"checks: 1 label issue: data/raw/0007.png ({opposite})" in said
    assert "checks: 1 label with fewer than 10 training " in said
    assert "checks: no splits that differ from the training split" in said
    few = found("few_examples").set_index("class")
    assert few.loc["wood"].tolist() == [2, 1, 0]  # which are the positives
    drift = found("drift")
    assert drift["compared"].tolist() == [150, 150]  # as one class


def test_the_stage_speaks_of_numbers(project, capsys):
    features = features_of()
    values = 30 + 5 * features[:, :1].astype(np.float64)
    values += np.random.default_rng(0).standard_normal(values.shape)
    values[5] = 500
    prepared("regression", ["age"], features, values)
    shifted = features.copy()
    project.set(**{"checks.duplicate_cosine": 1.0})
    checks()
    said = capsys.readouterr().out
    assert "checks: 1 target issue: data/raw/0005.png (500, or " in said
    assert "checks: no targets with fewer than 10 training " in said
    assert not found("drift")["drifted"].any()
    shifted[3::4] += 1  # the test examples
    prepared("regression", ["age"], shifted, values)
    checks()
    assert found("drift").set_index("split")["drifted"].to_dict() == {"val": False, "test": True}


def test_few_examples_of_numbers_are_few_examples():
    manifest = pd.DataFrame({"split": ["train"] * 4 + ["val"], "target:b": 1.0, "target:a": 2.0})
    table = few_examples(manifest, "regression", least=5)
    assert table.to_dict("records") == [
        {"class": name, "train": 4, "val": 1, "test": 0} for name in ("a", "b")
    ]
    assert few_examples(manifest, "regression", least=4).empty


def test_scores_that_no_memory_holds_are_refused_before_anything_is_read(project, monkeypatch):
    """There are no features here, of which the next line would speak."""
    names = [f"{number:064x}" for number in range(300)]
    columns = {"digest": names, "path": names, "label": [f"class {n % 100}" for n in range(300)]}
    MANIFEST.parent.mkdir(parents=True, exist_ok=True)
    write_manifest(pd.DataFrame(columns | {"split": "train", "group": ""}), "vector", MANIFEST)
    monkeypatch.setattr("os.sysconf", lambda name: 900)  # 0.8 MB, and 30,000 scores take 0.84
    with pytest.raises(DataError, match=r"^checks: label issues of 300 examples of 100 classes"):
        checks()


@pytest.mark.parametrize("factor", [1e30, 1e-30])
def test_predictions_do_not_depend_on_how_large_features_are(factor):
    random = np.random.default_rng(0)
    features = random.standard_normal((60, 5)).astype(np.float32)
    wanted = (features[:, :2] > 0).astype(np.float32)
    fold = np.arange(60) % held_out.FOLDS
    said, _ = held_out.predicted(features, wanted, fold)
    large, _ = held_out.predicted((features * factor).astype(np.float32), wanted, fold)
    np.testing.assert_allclose(large, said, atol=1e-3)
