"""`headstart choose`: which backbone is taken, and what becomes of params.yaml."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.datasets import load_digits

from flows import choose as choosing
from pipeline import ingest
from pipeline.core.errors import DataError, ParamsError
from pipeline.tables.features import Split
from pipeline.tables.power import raised
from pipeline.transfer import choice
from pipeline.transfer.choice import Candidate, difference, folds, judged, unions, winner
from tests.conftest import Project


def candidate(name: str, losses: list[float], milliseconds: float) -> Candidate:
    array = np.array(losses * 20)
    return Candidate(name, array, 0.9, milliseconds, 0.1)


def test_all_joins_of_up_to_three_are_candidates() -> None:
    assert unions(["a", "b", "c"]) == ["a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"]
    assert len(unions(["a", "b", "c", "d"])) == 4 + 6 + 4


def test_the_cheapest_is_taken_of_those_that_cannot_be_told_from_the_best() -> None:
    best = candidate("best", [0.10, 0.30, 0.20], 30.0)
    alike = candidate("alike", [0.13, 0.26, 0.22], 10.0)
    worse = candidate("worse", [0.20, 0.40, 0.30], 1.0)
    taken, first = winner([best, alike, worse], None)
    assert (taken.name, first.name) == ("alike", "best")
    assert difference(alike.losses, best.losses).holds_0
    assert difference(worse.losses, best.losses).low > 0
    assert winner([best, alike, worse], budget=5.0)[0].name == "worse"
    with pytest.raises(DataError, match=r"no backbone answers within 0\.5 ms; the fastest, worse"):
        winner([best, alike, worse], budget=0.5)


def test_a_group_is_never_on_both_sides_and_every_class_is_learned() -> None:
    labels = np.repeat([0, 1, 2], 20)
    groups = [f"{label}-{number // 4}" for label in range(3) for number in range(20)]
    held_out = folds(labels, groups)
    assert set(held_out.tolist()) == set(range(5))
    assert all(len(set(held_out[np.array(groups) == group])) == 1 for group in set(groups))
    with pytest.raises(DataError, match="a class has too few examples, or lies in one group"):
        folds(labels, ["all" if label == 2 else str(n) for n, label in enumerate(labels)])


def test_a_loss_is_that_of_examples_that_the_head_has_not_seen() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 100)
    noise = random.normal(size=(100, 50)).astype(np.float32)
    held_out = folds(labels, [str(number) for number in range(100)])
    of_noise = judged("noise", [noise], labels, held_out, 1.0, False, 1.0)
    assert of_noise.losses.mean() > 0.6  # nothing can be learned, and no memory helps
    telling = np.column_stack([noise, 8 * labels.astype(np.float32)])
    assert judged("told", [telling], labels, held_out, 1.0, False, 1.0).losses.mean() < 0.1


def test_fewer_numbers_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    table = load_digits()
    labels = table.target[:150]
    wide = np.tile(table.data[:150], 4).astype(np.float32)  # 256 numbers of 150 examples
    held_out = folds(labels, [str(number) for number in range(150)])
    turned = choice.rotated(wide)
    assert turned.shape == (150, 150)
    centred = wide - wide.mean(axis=0)
    np.testing.assert_allclose(turned @ turned.T, centred @ centred.T, atol=0.05)
    few = judged("few", [wide], labels, held_out, 1.0, False, 1.0)
    monkeypatch.setattr(choice, "rotated", lambda features: features)
    monkeypatch.setattr(choice, "DECAYS", [decay * 256 / 150 for decay in choice.DECAYS])
    many = judged("many", [wide], labels, held_out, 1.0, False, 1.0)
    assert few.losses.mean() == pytest.approx(many.losses.mean(), rel=0.02)
    assert few.score == pytest.approx(many.score, abs=0.02)


@pytest.fixture
def digits(project: Project) -> Project:
    """Vectors of which nothing has to be computed."""
    table = load_digits()
    columns = {
        "vector": pa.array(table.data[:300].tolist(), pa.list_(pa.float32())),
        "label": [str(target) for target in table.target[:300]],
    }
    pq.write_table(pa.table(columns), "data/raw/digits.parquet")
    text = (project.folder / "params.yaml").read_text()
    start, end = text.index("augment:"), text.index("extract:")
    text = text[:start] + "augment: {views: 0}\n\n" + text[end:]
    for old, new in {
        "kind: image": "kind: vector",
        "source: surfaces": "source: parquet",
        "path: data/raw/surfaces.csv": "path: data/raw/digits.parquet",
    }.items():
        assert old in text
        text = text.replace(old, new, 1)
    (project.folder / "params.yaml").write_text(text)
    return project


def test_the_winner_is_written_into_params_yaml_and_nothing_else_changes(
    digits: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    file = digits.folder / "params.yaml"
    before = file.read_text()
    ingest.ingest()
    choosing.choose(["identity"])
    said = capsys.readouterr().out
    assert "identity: 0 views reused" in said
    assert "<- taken" in said
    assert "extract.backbone identity now, instead of efficientnet_lite0; commit it" in said
    after = file.read_text()
    assert after == before.replace("backbone: efficientnet_lite0", "backbone: identity", 1)
    assert "# _lite1, _lite2" in after  # comments stay
    choosing.choose(["identity"])
    said = capsys.readouterr().out
    assert "0 computed" in said
    assert "has extract.backbone identity already" in said
    assert file.read_text() == after


def test_features_are_those_of_their_examples(digits: Project) -> None:
    examples = pd.DataFrame({"digest": ["b", "a", "c"]})
    rows = np.array([[1.0], [2.0], [3.0]], np.float32)
    names = np.array(["a", "b", "c"])
    split = Split(names, names, np.zeros(3, int), np.zeros(3, int), rows)
    parts = {"train": split.take(slice(1)), "val": split.take(slice(1, None))}
    assert choosing._in_order(parts, examples).ravel().tolist() == [2.0, 1.0, 3.0]
    assert raised(rows, 1.0) is rows


def test_what_cannot_be_written_is_told(digits: Project) -> None:
    file = digits.folder / "params.yaml"
    document = yaml.safe_load(file.read_text())
    del document["extract"]["backbone"]
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(ParamsError, match=r"write this into params\.yaml: .*backbone: a\+b"):
        choosing.write("a+b")
    assert Path("params.yaml").read_text() == file.read_text()


def test_a_name_that_is_none_is_one_line(digits: Project) -> None:
    ingest.ingest()
    with pytest.raises(ParamsError, match="choose: backbone is 'lite9'"):
        choosing.choose(["lite9"])
