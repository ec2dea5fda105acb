"""Tables and figures where classes are many: bounded in size, the same figures."""

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.evaluation import metrics, tables
from pipeline.tables.features import Split
from pipeline.tasks.classification.plots import draw_confusion, most_confused

CLASSES = [f"class {number}" for number in range(tables.MANY + 1)]


def answers():
    random = np.random.default_rng(0)
    labels = random.integers(len(CLASSES), size=150)
    shares = random.dirichlet(np.full(len(CLASSES), 0.1), size=150)
    paths = np.array([f"{(7 * row) % 150:03}.png" for row in range(150)])
    nothing = np.zeros((150, 1), np.float32)
    return Split(paths, paths, np.zeros(150, np.int32), labels, nothing), shares


def test_the_most_probable_classes_stand_in_a_row(monkeypatch):
    test, shares = answers()
    shares[0] = 1 / len(CLASSES)  # of equal ones the first come first
    monkeypatch.setattr(tables, "AT_ONCE", 10 * len(CLASSES))
    table = tables.prediction_table(
        test, shares, shares.argmax(axis=1), CLASSES, pd.DataFrame(), 3
    ).sort_index()
    assert len(table.columns) == 6 + 2 * 3
    ranked = np.argsort(-shares, axis=1, kind="stable")
    for place in range(3):
        names = [CLASSES[c] for c in ranked[:, place]]
        assert table[f"class_{place + 1}"].tolist() == names
        found = np.take_along_axis(shares, ranked, axis=1)[:, place]
        np.testing.assert_array_equal(table[f"probability_{place + 1}"], found)
    assert (table["class_1"] == table["predicted"]).all()
    np.testing.assert_array_equal(table["label_probability"], shares[range(150), test.labels])


def test_the_whole_table_is_parquet(tmp_path, monkeypatch):
    test, shares = answers()
    monkeypatch.setattr(tables, "AT_ONCE", 40 * len(CLASSES))
    tables.write_probabilities(
        tmp_path, test.paths, np.array(CLASSES)[test.labels], shares, CLASSES
    )
    table = pd.read_parquet(tmp_path / tables.PROBABILITIES)
    order = np.argsort(test.paths)
    assert table["path"].tolist() == test.paths[order].tolist()
    assert table["label"].tolist() == [CLASSES[c] for c in test.labels[order]]
    columns = [f"p({name})" for name in CLASSES]
    np.testing.assert_array_equal(table[columns], shares[order].astype(np.float32))


def test_some_classes_have_curves_and_the_mean_is_over_all():
    test, shares = answers()
    drawn = tables.drawn(test, shares.argmax(axis=1) == test.labels, CLASSES)
    roc = tables.roc_table(tables.one_against_rest(test, shares, CLASSES), drawn)
    assert roc["class"].nunique() == tables.DRAWN + 1
    curves = tables.precision_recall_table(tables.one_against_rest(test, shares, CLASSES), drawn)
    assert curves["class"].nunique() == tables.DRAWN
    few = tables.roc_table(tables.one_against_rest(test, shares[:, :5], CLASSES[:5]), CLASSES[:5])
    assert set(few["class"]) == {*CLASSES[:5], "(macro mean)"}


def test_intervals_are_those_of_numpy():
    random = np.random.default_rng(0)
    drawn = random.standard_normal((50, 12))
    drawn[random.random(drawn.shape) < 0.4] = np.nan
    drawn[:, 3] = np.nan
    drawn[1:, 4] = np.nan
    for confidence in (0.5, 0.95):
        low, high = metrics.interval(drawn, confidence)
        rest = np.delete(np.arange(12), 3)
        tail = (1 - confidence) / 2
        wanted = np.nanquantile(drawn[:, rest], [tail, 1 - tail], axis=0)
        np.testing.assert_array_equal([low[rest], high[rest]], wanted)
        assert np.isnan([low[3], high[3]]).all()


def test_chunks_change_no_figure(monkeypatch):
    test, shares = answers()
    whole = metrics.bootstrap(test.labels, shares, 3, 15, 20, 0)
    monkeypatch.setattr(metrics, "AT_ONCE", 3 * 150)
    parts = metrics.bootstrap(test.labels, shares, 3, 15, 20, 0)
    for name, values in whole.overall.items():
        np.testing.assert_allclose(parts.overall[name], values, rtol=1e-12)
    for name, values in whole.of_class.items():
        np.testing.assert_array_equal(parts.of_class[name], values)


def test_the_matrix_shows_the_most_confused(tmp_path):
    labels = np.array([5, 5, 90, 7, 3, 2, 2])
    predicted = np.array([90, 90, 5, 3, 3, 2, 2])
    assert most_confused(labels, predicted, 4).tolist() == [3, 5, 7, 90]
    assert most_confused(labels, predicted, 3).tolist() == [3, 5, 90]
    assert most_confused(labels, labels, 2).tolist() == [5, 90]
    draw_confusion(labels, predicted, CLASSES, tmp_path / "matrix.png")
    with Image.open(tmp_path / "matrix.png") as picture:
        assert max(picture.size) < 2600
