import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources import splits
from pipeline.tables.labels import missing

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


def test_missing_names_each_label_that_a_split_lacks() -> None:
    rows = [("ant", "train"), ("ant", "test"), ("bee", "train"), ("bee", "val"), ("bee", "test")]
    assert missing(rows) == {"val": ["ant"]}
