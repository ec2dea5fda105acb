"""Two models compared by their answers about the same test examples."""

from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from benchmarks.gate import POINTS, better_by, simulate
from pipeline.tasks.paired import compare, read_answers


def answers(right: list[bool], start: int = 0) -> pd.DataFrame:
    """A model's answers about cats, which it takes for dogs where it is wrong."""
    predicted = ["cat" if one else "dog" for one in right]
    shares = [0.9 if one else 0.2 for one in right]
    table = pd.DataFrame({"label": "cat", "predicted": predicted, "probability": 0.9})
    table["p(cat)"], table["p(dog)"] = shares, [1 - share for share in shares]
    return table.set_index(pd.Index([f"{start + n:064x}" for n in range(len(right))]))


def test_mcnemar_counts_the_examples_on_which_one_is_right() -> None:
    old = answers([True] * 80 + [False] * 20)
    new = answers([False] * 2 + [True] * 93 + [False] * 5)
    found = compare(old, new, "accuracy", False, 0.03, 15)
    assert found is not None
    p_value = stats.binomtest(2, 17).pvalue
    assert found.found == f"15 right that were wrong, 2 wrong that were right; p = {p_value:.2g}"
    assert (found.answer, found.shared, found.old, found.new) == ("better", 100, 0.8, 0.93)
    back = compare(new, old, "accuracy", False, 0.03, 15)
    assert back is not None
    assert back.answer == "worse"


def test_five_to_none_is_chance_in_every_measure() -> None:
    old, new = answers([True] * 95 + [False] * 5), answers([True] * 100)
    for measure in ("accuracy", "balanced_accuracy", "loss", "top_1_accuracy"):
        found = compare(old, new, measure, measure == "loss", 0.03, 15)
        assert found is not None
        assert found.answer == "cannot tell", measure
        assert found.more > 0


def test_only_shared_examples_are_compared_under_the_labels_of_now() -> None:
    old, new = answers([True] * 60), answers([True] * 60, start=40)
    new["label"], new["predicted"] = "dog", "dog"  # corrected, and learnt
    found = compare(old, new, "accuracy", False, 0.03, 15)
    assert found is not None
    assert (found.answer, found.shared, found.old, found.new) == ("better", 20, 0.0, 1.0)
    none = compare(old, answers([True], start=100), "accuracy", False, 0.03, 15)
    assert none is not None
    assert (none.answer, none.shared, none.more) == ("cannot tell", 0, 0)


def test_a_lower_loss_is_better_and_needs_the_probabilities() -> None:
    old, new = answers([True] * 60 + [False] * 40), answers([True] * 100)
    found = compare(old, new, "loss", True, 0.03, 15)
    assert found is not None
    assert found.answer == "better"
    assert found.new < found.old
    bare = [table.drop(columns=["p(cat)", "p(dog)"]) for table in (old, new)]
    assert compare(*bare, "loss", True, 0.03, 15) is None
    assert compare(old, new, "accuracy_of_another_kind", True, 0.03, 15) is None
    macro = compare(*bare, "macro_f1", False, 0.03, 15)
    assert macro is not None
    assert macro.answer == "better"


def test_a_class_that_the_old_model_did_not_know_is_one_that_it_got_wrong() -> None:
    old, new = answers([True] * 40), answers([True] * 40)
    new["label"] = new["predicted"] = "lynx"
    new = new.rename(columns={"p(cat)": "p(lynx)"})
    for measure in ("accuracy", "loss", "top_1_accuracy"):
        found = compare(old, new, measure, measure == "loss", 0.03, 15)
        assert found is not None
        assert found.answer == "better"


def test_answers_are_found_again_by_digest_wherever_the_file_lies(tmp_path: Path) -> None:
    for name in ("here", "there"):
        files = tmp_path / f"{name}.csv", tmp_path / f"{name}.parquet"
        assert read_answers(*files) is None
        table = pd.DataFrame({"path": [f"{name}/1.jpg"], "label": ["NA"], "predicted": ["7"]})
        table["probability"] = 0.5
        table.to_csv(files[0], index=False)
        pd.DataFrame({"path": table["path"], "digest": ["ab" * 32]}).to_parquet(files[1])
        found = read_answers(*files)
        assert found is not None
        assert found.index.tolist() == ["ab" * 32]
        assert found["label"].tolist() == ["NA"]
    (tmp_path / "here.csv").write_text("")
    assert read_answers(tmp_path / "here.csv", tmp_path / "here.parquet") is None


@pytest.mark.parametrize(
    ("measure", "examples", "draws"),
    [("accuracy", 153, 200), pytest.param("loss", 100, 60, marks=pytest.mark.slow)],
)
def test_equal_models_pass_for_equal_and_a_better_one_is_seen_with_the_examples_foretold(
    measure: str, examples: int, draws: int
) -> None:
    # `benchmarks/gate.md` has 1,000 draws of more cases; these are always the same few.
    found = simulate(measure, examples, 0.9, draws, better_by(POINTS))
    assert found.different <= 0.05
    assert found.told >= 0.8
