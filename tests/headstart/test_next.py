"""`headstart next`: which examples to label next, some of them at random."""

import csv
import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from headstart import next as proposing
from headstart.label_tables import Tables
from headstart.proposing import EACH, MARGIN, RANDOM, TYPICAL, proposals
from pipeline.core.errors import DataError, ParamsError
from pipeline.core.paths import MANIFEST
from pipeline.tables.unit import unit
from tests.conftest import SMALL

POOL = Path("data/pool.parquet")


def pool_of(examples, seed=0):
    """Four clouds, the first of which has half of the examples."""
    random = np.random.default_rng(seed)
    cloud = np.maximum(np.arange(examples) % 6 - 2, 0)
    features = 4 * np.eye(4, 12)[cloud] + 0.3 * random.standard_normal((examples, 12))
    return [f"{number:064x}" for number in range(examples)], features.astype(np.float32)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(("examples", "count"), [(300, 20), (300, 3), (8, 20), (1, 1), (2, 5)])
def test_each_fifth_is_drawn_and_none_is_proposed_twice(hard, examples, count):
    digests, features = pool_of(examples)
    margins = np.linspace(1, 0, examples) if hard else None
    found = proposals(digests, features, 0, margins, count)
    assert len(found) == min(count, examples)
    assert len({one.place for one in found}) == len(found)
    drawn = [one for one in found if one.why == RANDOM]
    assert len(drawn) == -(-len(found) // 5)
    assert {one.why for one in found} - {RANDOM} <= {MARGIN if hard else TYPICAL}
    if examples == 300:  # what is drawn and what is chosen come from different parts of the pool
        hashes = [unit(f"next:{digests[one.place]}") for one in found]
        assert [value < 1 / EACH for value in hashes] == [one.why == RANDOM for one in found]
    assert found == proposals(digests, features, 0, margins, count)


def test_without_a_head_each_cloud_has_a_proposal():
    digests, features = pool_of(600)
    found = proposals(digests, features, 0, None, 5)
    chosen = [one.place for one in found if one.why == TYPICAL]
    assert {max(place % 6 - 2, 0) for place in chosen} == {0, 1, 2, 3}
    # Together they are nearer to all than others would be.
    unit_length = features - features.mean(axis=0)
    unit_length /= np.linalg.norm(unit_length, axis=1, keepdims=True)
    similar = unit_length @ unit_length.T
    others = [np.random.default_rng(n).choice(600, 4, replace=False) for n in range(200)]
    assert similar[chosen].max(axis=0).sum() > max(similar[o].max(axis=0).sum() for o in others)


def test_with_a_head_proposals_are_near_to_hard_ones():
    digests, features = pool_of(600)
    cloud = np.maximum(np.arange(600) % 6 - 2, 0)
    margins = np.where(cloud < 2, 0.95, np.random.default_rng(0).uniform(size=600) / 2)
    found = proposals(digests, features, 0, margins, 10)
    chosen = [one.place for one in found if one.why == MARGIN]
    assert [cloud[place] >= 2 for place in chosen].count(True) >= 6  # a third of the pool


def test_what_is_near_to_a_labelled_one_is_not_proposed():
    digests, features = pool_of(600)
    cloud = np.maximum(np.arange(600) % 6 - 2, 0)
    order = np.argsort(cloud == 0, kind="stable")  # the largest cloud has labels
    labelled = int((cloud == 0).sum())
    features[order[-labelled:]] *= 1.01
    both = np.concatenate([features[order], features[order[-labelled:]]])
    more = [f"{number:064x}" for number in range(1000, 1000 + labelled)]
    found = proposals([*digests, *more], both, labelled, None, 5)
    chosen = [cloud[order[one.place]] for one in found if one.why == TYPICAL]
    assert set(chosen) == {1, 2, 3}
    assert all(one.place < 600 for one in found)


def table_of(name="next.csv"):
    with Path(name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_pool_is_proposed_from_before_and_after_training(vectors, capsys, monkeypatch):
    monkeypatch.setattr(proposing, "ENOUGH", 100)
    proposing.run(POOL, 10)
    first = table_of()
    assert [row["why"] for row in first].count(RANDOM) == 2
    assert {row["label"] for row in first} | {row["predicted"] for row in first} == {""}
    for stage in ("ingest", "augment", "extract", "train"):
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()
    capsys.readouterr()
    proposing.run(POOL, 10)
    said = capsys.readouterr().out
    assert "200 of 210 vectors have no label yet; 10 have one, 0 are not accepted" in said
    assert "210 reused, 0 computed" in said
    labelled = set(pd.read_parquet(MANIFEST)["digest"])
    assert not labelled & {row["digest"] for row in table_of()}
    assert {row["why"] for row in table_of()} == {RANDOM, TYPICAL}


def test_labels_in_the_table_are_overwritten_only_if_the_project_has_them(vectors):
    proposing.run(POOL, 10)
    proposing.run(POOL, 10)  # it has no labels yet
    empty, first = Path("next.csv").read_text(), table_of()[0]["path"]
    labelled = empty.replace(f"{first},,", f"{first},left,", 1)
    assert labelled != empty
    Path("next.csv").write_text(labelled.replace(",", ";"), encoding="utf-16")  # by a spreadsheet
    before = Path("next.csv").read_bytes()
    with pytest.raises(ParamsError, match="labels that are not in the data yet, and would be lost"):
        proposing.run(POOL, 10)
    Path("next.csv").write_text(f'{labelled}"', encoding="utf-8")
    with pytest.raises(DataError, match=r"next\.csv, near line .*; rename the table"):
        proposing.run(POOL, 10)
    Path("next.csv").write_bytes(before)
    proposing.run(POOL, 10, Path("other.csv"))
    assert Path("next.csv").read_bytes() == before
    importlib.import_module("pipeline.ingest").ingest()
    digest = pd.read_parquet(MANIFEST)["digest"].iloc[0]
    Path("next.csv").write_text(f"path,label,digest\nan example,left,{digest}\n")
    proposing.run(POOL, 10)
    assert {row["label"] for row in table_of()} == {""}


def test_what_label_wrote_is_not_proposed_again(project, draw_shapes, capsys):
    draw_shapes(range(4))
    project.set(**SMALL)
    pool = Path("data/raw/shapes")
    tables, paths = Tables(pool), sorted(pool.rglob("*.png"))
    tables.add(paths[0], "disc", "train", TYPICAL)
    tables.add(paths[1], "", "", TYPICAL)  # none of the classes
    proposing.run(pool, 10)
    assert {row["path"] for row in table_of()} == {path.as_posix() for path in paths[2:]}
    tables.labels.write_text("file,label\n")  # a table of the user's own
    proposing.run(pool, 10)
    assert len(table_of()) == len(paths)
    assert "labels.csv has no column path" in capsys.readouterr().out


def test_a_head_that_has_learned_enough_chooses_if_the_backbone_is_its_own(vectors, capsys):
    for stage in ("ingest", "augment", "extract", "train"):
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()
    proposing.run(POOL, 10, Path("some.csv"))
    rows = table_of("some.csv")
    hard = [float(row["probability"]) for row in rows if row["why"] == MARGIN]
    assert len(hard) == 8
    assert max(hard) < 0.95
    assert {row["predicted"] for row in rows} <= {"left", "right"}
    recorded = "stages: {extract: {params: {params.yaml: {extract: {backbone: other}}}}}"
    for text, why in (
        (recorded, "the features are those of other (pretrained weights, auto pooling), not"),
        (recorded[:-1], "dvc.lock is damaged: restore it from git or delete it"),
    ):
        Path("dvc.lock").write_text(text)
        proposing.run(POOL, 10, Path("other.csv"))
        rows = table_of("other.csv")
        assert {(row["why"] == MARGIN, row["predicted"]) for row in rows} == {(False, "")}
        assert f"next: warning: the head is not used: {why}" in capsys.readouterr().out


def test_what_is_no_pool_is_a_line(vectors):
    with pytest.raises(ParamsError, match="--n is 0"):
        proposing.run(POOL, 0)
    with pytest.raises(ParamsError, match="--classes is for Label Studio"):
        proposing.run(POOL, classes="a,b")
    with pytest.raises(ParamsError, match="--into is for a table"):
        proposing.run(POOL, into=Path("a.csv"), label_studio=Path("ls"))
    with pytest.raises(ParamsError, match="does not exist"):
        proposing.run(Path("nowhere"))
    Path("empty").mkdir()
    with pytest.raises(DataError, match="empty has no vector without a label"):
        proposing.run(Path("empty"))
    Path("empty/link").symlink_to("..")
    with pytest.raises(DataError, match="empty/link is not accepted: link to a folder"):
        proposing.run(Path("empty"))
