"""`headstart choose`: which backbone is taken, and what becomes of params.yaml."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.datasets import load_digits

from flows import choose as choosing
from pipeline import ingest, kinds
from pipeline.core.errors import DataError, ParamsError
from pipeline.core.params import Params
from pipeline.evaluation.comparing import Score, difference
from pipeline.evaluation.slices import holm
from pipeline.transfer import comparison, quick_head
from pipeline.transfer.comparison import Candidate, apart, folds, probed, unions, winner
from tests.conftest import ROOT, Project


def candidate(name: str, losses: list[float], milliseconds: float) -> Candidate:
    array = np.array(losses * 20)
    return Candidate(name, array, np.arange(len(array)), Score(0.9, 0.8, 1.0), milliseconds, 0.1, 4)


def test_all_joins_of_up_to_three_are_candidates() -> None:
    assert unions(["a", "b", "c"]) == ["a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"]
    assert len(unions(["a", "b", "c", "d"])) == 4 + 6 + 4


def test_without_a_budget_the_fastest_that_is_not_significantly_worse_is_taken() -> None:
    best = candidate("best", [0.10, 0.30, 0.20], 30.0)
    alike = candidate("alike", [0.13, 0.26, 0.22], 10.0)
    worse = candidate("worse", [0.20, 0.40, 0.30], 1.0)
    taken, first = winner([best, alike, worse], None)
    assert (taken.name, first.name) == ("alike", "best")
    above = apart([best, alike, worse], best, 0.95)
    assert above["alike"].low <= 0 <= above["alike"].high
    assert above["worse"].low > 0
    assert winner([best, alike, worse], budget=40.0) == (best, best)
    assert winner([best, alike, worse], budget=20.0) == (alike, alike)
    assert winner([best, alike, worse], budget=5.0)[0].name == "worse"
    with pytest.raises(DataError, match=r"no backbone predicts within 0\.5 ms; the fastest, worse"):
        winner([best, alike, worse], budget=0.5)


def test_a_group_is_never_on_both_sides_and_every_class_is_learned() -> None:
    labels = np.repeat([0, 1, 2], 20)
    groups = [f"{label}-{number // 4}" for label in range(3) for number in range(20)]
    held_out = folds(labels, groups)
    assert set(held_out.tolist()) == set(range(5))
    assert all(len(set(held_out[np.array(groups) == group])) == 1 for group in set(groups))
    with pytest.raises(
        DataError, match="a class has too few examples, or has all of them in one group"
    ):
        folds(labels, ["all" if label == 2 else str(n) for n, label in enumerate(labels)])


def test_a_loss_is_that_of_examples_that_the_head_has_not_seen() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 100)
    noise = random.normal(size=(100, 50)).astype(np.float32)
    held_out = folds(labels, [str(number) for number in range(100)])
    how = labels, held_out, np.arange(100), 1.0, False, 1.0
    of_noise = probed("noise", [noise], *how)
    assert of_noise.losses.mean() > 0.6  # nothing can be learned, and no memory helps
    telling = np.column_stack([noise, 8 * labels.astype(np.float32)])
    assert probed("label", [telling], *how).losses.mean() < 0.1


def test_fewer_numbers_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    table = load_digits()
    labels = table.target[:150]
    wide = np.tile(table.data[:150], 4).astype(np.float32)  # 256 numbers of 150 examples
    held_out = folds(labels, [str(number) for number in range(150)])
    turned = comparison.rotated(wide)
    assert turned.shape == (150, 150)
    centred = wide - wide.mean(axis=0)
    np.testing.assert_allclose(turned @ turned.T, centred @ centred.T, atol=0.05)
    how = labels, held_out, np.arange(150), 1.0, False, 1.0
    few = probed("few", [wide], *how)
    monkeypatch.setattr(comparison, "rotated", lambda features: features)
    monkeypatch.setattr(comparison, "DECAYS", [d * 256 / 150 for d in quick_head.DECAYS])
    many = probed("many", [wide], *how)
    assert few.losses.mean() == pytest.approx(many.losses.mean(), rel=0.02)
    assert few.score.value == pytest.approx(many.score.value, abs=0.02)


@pytest.fixture
def digits(project: Project) -> Project:
    """Vectors of which nothing has to be computed."""
    table = load_digits()
    columns = {
        "vector": pa.array(table.data[:300].tolist(), pa.list_(pa.float32())),
        "label": [str(target) for target in table.target[:300]],
    }
    pq.write_table(pa.table(columns), "data/raw/digits.parquet")
    text = (ROOT / "params.yaml").read_text()  # with comments
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
    assert "<- chosen" in said
    assert "has extract.backbone identity" in said
    assert "instead of efficientnet_lite0" in said
    after = file.read_text()
    assert "# text: minilm_l6_v2" in after  # comments stay
    was, now = yaml.safe_load(before), yaml.safe_load(after)
    changed = {
        f"{section}.{name}"
        for section in was
        for name in was[section].keys() | now[section].keys()
        if was[section].get(name) != now[section].get(name)
    }
    assert changed <= {"extract.backbone", "train.optimizer", "train.layers", "train.weight_decay"}
    assert now["train"]["layers"] == "last"
    choosing.choose(["identity"])
    said = capsys.readouterr().out
    assert "0 computed" in said
    assert "has extract.backbone identity" in said
    assert "already" in said
    assert file.read_text() == after


def test_a_parameter_is_written_on_its_line_or_on_a_new_one(project: Project) -> None:
    Path("params.yaml").write_text("extract:\n  backbone: a  # b\ntrain:\n  optimizer: [c, d]\n")
    choosing.write({"extract.backbone": "a+b", "extract.blocks": "all", "train.optimizer": "lda"})
    assert Path("params.yaml").read_text() == (
        "extract:\n  blocks: all\n  backbone: a+b  # b\ntrain:\n  optimizer: lda\n"
    )


def test_equal_backbones_are_seldom_called_different_however_many_there_are() -> None:
    """The best of K looks better than the one in use by chance alone: p-values are Holm's."""
    random = np.random.default_rng(0)
    found = {"each alone": 0, "corrected": 0}
    for _ in range(200):
        losses = random.exponential(size=(8, 60))
        candidates = [candidate(str(n), [], 1.0) for n in range(8)]
        candidates = [
            replace(c, losses=x, groups=np.arange(60))
            for c, x in zip(candidates, losses, strict=True)
        ]
        best = min(candidates[1:], key=lambda one: one.losses.mean())
        alone = difference(best.losses, losses[0], 0.95, best.groups)
        found["each alone"] += alone.p_value < 0.05
        found["corrected"] += apart(candidates, candidates[0], 0.95)[best.name].p_value < 0.05
    assert found["corrected"] <= 0.05 * 200 < found["each alone"]


def test_examples_of_one_group_are_no_further_proof() -> None:
    random = np.random.default_rng(1)
    apart_by_group = np.repeat(random.normal(0.2, 1, size=12), 10)
    losses = random.exponential(size=120)
    single = difference(losses + apart_by_group, losses, 0.95, np.arange(120))
    grouped = difference(losses + apart_by_group, losses, 0.95, np.repeat(np.arange(12), 10))
    assert grouped.mean == pytest.approx(single.mean)
    assert grouped.high - grouped.low > 2 * (single.high - single.low)
    assert difference(losses, losses - 1, 0.95, np.zeros(120, int)).p_value == 1  # of one group


def test_holm_is_statsmodels_example() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize(
    ("kind", "sections", "named"),
    [
        ("image", {}, ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]),
        ("audio", {"extract": {"backbone": "speech_embedding"}}, ["speech_embedding"]),
        (
            "text",
            {"extract": {"backbone": "minilm_l6_v2"}, "rank": {"backbones": ["tf_idf"]}},
            ["minilm_l6_v2", "tf_idf"],
        ),
    ],
)
def test_candidates_are_networks_of_the_kind_and_its_floor(
    kind: str, sections: dict[str, dict[str, object]], named: list[str]
) -> None:
    settings = Params.model_validate({"ingest": {"kind": kind}} | sections)
    assert choosing._networks(settings) == [*named, kinds.named(kind).floor]


def test_a_joined_backbone_of_the_project_is_a_candidate_too() -> None:
    extract = {"backbone": "speech_embedding+mfcc"}
    settings = Params.model_validate({"ingest": {"kind": "audio"}, "extract": extract})
    assert choosing._candidates(settings, None) == ["speech_embedding", "mfcc", extract["backbone"]]
    assert choosing._candidates(settings, ["mfcc"]) == ["mfcc"]


def test_what_cannot_be_written_is_told(project: Project) -> None:
    before = "train:\n  optimizer:\n  - lda\n  - lbfgs\n"
    Path("params.yaml").write_text(before)
    with pytest.raises(ParamsError, match=r"params\.yaml: write train\.optimizer ridge into it"):
        choosing.write({"train.optimizer": "ridge"})
    assert Path("params.yaml").read_text() == before


def test_a_name_that_is_none_is_one_line(digits: Project) -> None:
    ingest.ingest()
    with pytest.raises(ParamsError, match="--networks: backbone is 'lite9'"):
        choosing.choose(["lite9"])
