from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import kinds
from pipeline.core.params import IngestParams
from pipeline.sources import splits
from pipeline.sources.checked import Checked
from pipeline.sources.found import Found
from pipeline.tables.manifest import origins_in, write_manifest
from pipeline.tables.targets import lacking

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
DRAWN = {"0": "test", "1": "test", "2": "test", "3": "train", "4": "train", "10": "val"}


def test_shares_are_near_what_was_asked() -> None:
    drawn = [splits.draw(f"picture {i}", SHARES, seed=0) for i in range(20_000)]
    for name, share in SHARES.items():
        error = np.sqrt(share * (1 - share) / len(drawn))  # of a binomial's mean
        assert abs(drawn.count(name) / len(drawn) - share) < 4 * error


@given(st.lists(st.text(), unique=True), st.text(), st.integers(0, 2**32 - 1))
def test_no_picture_moves_because_another_came(keys: list[str], new: str, seed: int) -> None:
    before = {key: splits.draw(key, SHARES, seed) for key in keys}
    after = {key: splits.draw(key, SHARES, seed) for key in [new, *keys]}
    assert all(after[key] == split for key, split in before.items())


def test_the_seed_draws_another_split() -> None:
    first, second = ([splits.draw(f"{i}", SHARES, seed) for i in range(100)] for seed in (0, 1))
    assert first != second


def test_the_form_of_a_draw_is_fixed() -> None:
    """Another one would move pictures between splits; the draws are those of version 0.1."""
    assert {key: splits.draw(key, SHARES, seed=0) for key in DRAWN} == DRAWN


@given(st.text())
def test_a_split_without_a_share_gets_nothing(key: str) -> None:
    assert splits.draw(key, {"train": 0.5, "val": 0.5, "test": 0.0}, 0) in ("train", "val")
    assert splits.draw(key, {"train": 1.0}, 0) == "train"
    assert splits.draw(key, {"test": 1.0}, 0) == "test"


@given(st.text())
def test_what_shares_leave_over_by_rounding_falls_to_the_last(key: str) -> None:
    little = {"train": 1e-12, "val": 1e-12, "test": 1e-12}
    assert splits.draw(key, little, 0) == "test"
    assert splits.draw(key, little | {"test": 0.0}, 0) == "val"


@pytest.mark.parametrize(
    ("source", "given", "val", "test"),
    [
        ("folder", [""], "drawn", "drawn"),
        ("folder", ["train"], "drawn", "drawn"),
        ("folder", ["train", "val"], "drawn", "given"),
        ("folder", ["train", "test"], "drawn", "given"),
        ("folder", ["train", "val", "test"], "given", "given"),
        ("csv", ["", "test"], "drawn", "given"),
        ("surfaces", ["train", "val", "test"], "place", "place"),
    ],
)
def test_the_manifest_tells_where_its_splits_come_from(tmp_path, source, given, val, test):
    kept = [
        Checked(Found(Path(f"{i}.png"), "a", given[i % len(given)]), f"{i}", (1, 1, "PNG", ""))
        for i in range(60)
    ]
    settings, kind = IngestParams(source=source), kinds.named("image")
    manifest = splits.split(kept, settings, kind)
    told = splits.origins(kept, manifest, settings)
    assert told == {"val": val, "test": test}
    write_manifest(manifest, "image", tmp_path / "manifest.parquet", told)
    assert origins_in(tmp_path / "manifest.parquet") == told
    manifest.to_parquet(tmp_path / "old.parquet")
    assert origins_in(tmp_path / "old.parquet") == {"val": "given", "test": "given"}


def test_an_example_follows_its_group_to_where_the_source_placed_that():
    placed = Found(Path("1.png"), "a", "test", "herd")
    kept = [
        Checked(placed, "1", (1, 1, "PNG", "")),
        Checked(placed._replace(path=Path("2.png"), split=""), "2", (1, 1, "PNG", "")),
    ]
    settings = IngestParams(source="csv")
    manifest = splits.split(kept, settings, kinds.named("image"))
    told = splits.origins(kept, manifest, settings)
    assert told == {"val": "drawn", "test": "given"}


def test_each_label_that_a_split_lacks_is_named() -> None:
    rows = [("ant", "train"), ("ant", "test"), ("bee", "train"), ("bee", "val"), ("bee", "test")]
    manifest = pd.DataFrame(rows, columns=["label", "split"])
    assert lacking("classification", manifest) == {"val": ["ant"]}


def made(labels: list[str], groups: dict[int, str] | None = None) -> list[Checked]:
    """Examples with these labels, whose digests are their numbers; see `DRAWN`."""
    of = groups or {}
    rows = enumerate(labels)
    return [
        Checked(Found(Path(f"{n}.png"), label, "", of.get(n, "")), f"{n}", (1, 1, "PNG", ""))
        for n, label in rows
    ]


@settings(max_examples=50)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30), st.integers(0, 3))
def test_a_class_without_a_validation_example_borrows_one(labels: list[str], seed: int) -> None:
    kept = made(labels, {n: f"group {n // 4}" for n in range(0, 12, 2)})
    plain = IngestParams(source="folder", path="x", seed=seed)
    before = splits.split(kept, plain, kinds.named("image"))
    lending = plain.model_copy(update={"val_of_each_class": True})
    after = splits.split(kept, lending, kinds.named("image"))
    moved = after[before["split"] != after["split"]]
    assert moved["label"].is_unique
    assert set(moved["split"]) <= {"val"}
    assert set(before["split"][moved.index]) <= {"train"}
    groups = after[after["group"] != ""].groupby("group")["split"].nunique()
    assert (groups == 1).all()
    counts = pd.crosstab(after["label"], after["split"]).reindex(
        columns=["train", "val"], fill_value=0
    )
    assert (counts["train"][counts.index.isin(moved["label"])] > 0).all()
    alone = before[(before["group"] == "") & (before["split"] == "train")]
    trained = before[before["split"] == "train"]["label"].value_counts()
    for label in set(alone["label"]):
        if trained[label] > 1:
            assert counts["val"][label] > 0


def test_a_loan_ends_when_the_class_has_its_own_and_no_given_split_changes() -> None:
    lending = IngestParams(source="folder", path="x", val_of_each_class=True)
    image = kinds.named("image")

    def drawn(kept: list[Checked]) -> dict[str, str]:
        table = splits.split(kept, lending, image)
        return dict(zip(table["digest"], table["split"], strict=True))

    few = made(["a"] * 5)  # none of these is drawn for val, and 3 and 4 for train
    assert sorted(drawn(few).values()) == ["test", "test", "test", "train", "val"]
    many = drawn(made(["a"] * 11))
    assert all(many[digest] == split for digest, split in DRAWN.items())
    given = [
        Checked(Found(Path(f"{n}.png"), "a", split, ""), f"{n}", (1, 1, "PNG", ""))
        for n, split in enumerate(["train", "train", "test"])
    ] + [Checked(Found(Path("b.png"), "b", "val", ""), "b", (1, 1, "PNG", ""))]
    assert drawn(given) == {"0": "train", "1": "train", "2": "test", "b": "val"}
