"""Two models compared by their answers about the same test examples."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics

from pipeline.evaluation.answered import read_answers
from pipeline.evaluation.paired import compare, flipped
from tests.helpers import gate_simulated as simulated


def answers(right, start=0):
    """A model's answers about cats, which it takes for dogs where it is wrong."""
    predicted = ["cat" if one else "dog" for one in right]
    shares = [0.9 if one else 0.2 for one in right]
    table = pd.DataFrame({"label": "cat", "predicted": predicted, "probability": 0.9})
    table["p(cat)"], table["p(dog)"] = shares, [1 - share for share in shares]
    return table.set_index(pd.Index([f"{start + n:064x}" for n in range(len(right))]))


def test_mcnemar_counts_the_examples_on_which_one_is_right():
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


def test_five_to_none_is_chance_in_every_measure():
    old, new = answers([True] * 95 + [False] * 5), answers([True] * 100)
    for measure in ("accuracy", "balanced_accuracy", "loss", "top_1_accuracy"):
        found = compare(old, new, measure, measure == "loss", 0.03, 15)
        assert found is not None
        assert found.answer == "cannot tell", measure
        assert found.more > 0


@pytest.mark.parametrize("measure", ["balanced_accuracy", "macro_f1", "top_1_accuracy"])
def test_probabilities_that_a_measure_does_not_use_are_no_evidence(measure):
    """Two trained models never have the same probabilities."""
    old, new = answers([True] * 95 + [False] * 5), answers([True] * 100)
    new["probability"], new["p(cat)"], new["p(dog)"] = 0.91, 0.91, 0.09
    found = compare(old, new, measure, False, 0.03, 15)
    assert found is not None
    assert found.answer == "cannot tell"
    worse = answers([True] * 90 + [False] * 10)
    found = compare(worse, new, measure, False, 0.03, 15)
    assert found is not None
    assert found.answer == "better"


def test_only_shared_examples_are_compared_under_the_labels_of_now():
    old, new = answers([True] * 60), answers([True] * 60, start=40)
    new["label"], new["predicted"] = "dog", "dog"  # corrected, and learnt
    found = compare(old, new, "accuracy", False, 0.03, 15)
    assert found is not None
    assert (found.answer, found.shared, found.old, found.new) == ("better", 20, 0.0, 1.0)
    none = compare(old, answers([True], start=100), "accuracy", False, 0.03, 15)
    assert none is not None
    assert (none.answer, none.shared, none.more) == ("cannot tell", 0, 0)


def test_a_lower_loss_is_better_and_needs_the_probabilities():
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


def test_a_class_that_the_old_model_did_not_know_is_one_that_it_got_wrong():
    old, new = answers([True] * 40), answers([True] * 40)
    new["label"] = new["predicted"] = "lynx"
    new = new.rename(columns={"p(cat)": "p(lynx)"})
    for measure in ("accuracy", "loss", "top_1_accuracy"):
        found = compare(old, new, measure, measure == "loss", 0.03, 15)
        assert found is not None
        assert found.answer == "better"


def test_answers_are_found_again_by_digest_wherever_the_file_lies(tmp_path):
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
    targets = pd.DataFrame({"path": ["there/1.jpg"], "digest": ["ab" * 32], "target:x": [0.5]})
    targets.to_parquet(tmp_path / "there.parquet")
    found = read_answers(tmp_path / "there.csv", tmp_path / "there.parquet")
    assert found is not None
    assert found["target:x"].tolist() == [0.5]
    (tmp_path / "here.csv").write_text("")
    assert read_answers(tmp_path / "here.csv", tmp_path / "here.parquet") is None


def of_labels(noise, examples=300):
    """Answers about three labels, which are the better the less noise there is."""
    random = np.random.default_rng(0)
    given = (random.random((examples, 3)) < 0.4).astype(float)
    random = np.random.default_rng(int(100 * noise))
    shares = 1 / (1 + np.exp(2 - 4 * given - noise * random.standard_normal(given.shape)))
    given[:20, 0] = np.nan
    names = np.array(["a", "b", "c"])
    table = pd.DataFrame(shares, columns=[f"p({name})" for name in names])
    table["label"] = ["|".join(names[row == 1]) for row in given]
    table["predicted"] = ["|".join(names[row > 0.5]) for row in shares]
    table[[f"target:{name}" for name in names]] = given
    return table.set_index(pd.Index([f"{n:064x}" for n in range(examples)]))


@pytest.mark.parametrize(
    "measure", ["mean_average_precision", "micro_f1", "macro_f1", "exact_match", "loss"]
)
def test_models_of_several_labels_are_compared_by_what_is_known(measure):
    old, new = of_labels(4.0), of_labels(1.0)
    lower = measure == "loss"
    found = compare(old, new, measure, lower, 0.03, 15, task="multilabel")
    assert found is not None
    assert (found.answer, found.shared) == ("better", 300)
    back = compare(new, old, measure, lower, 0.03, 15, task="multilabel")
    assert back is not None
    assert back.answer == "worse"
    same = compare(new, of_labels(1.05), measure, lower, 0.03, 15, task="multilabel")
    assert same is not None
    assert same.answer == "cannot tell"
    if measure == "exact_match":
        assert found.found.endswith(f"p = {stats.binomtest(*map(int, wins(old, new))).pvalue:.2g}")
    if measure == "macro_f1":
        targets, chosen = new.filter(like="target:").to_numpy(), new.filter(like="p(") > 0.5
        known = ~np.isnan(targets)
        each = [
            metrics.f1_score(targets[known[:, n], n], chosen.to_numpy()[known[:, n], n])
            for n in range(3)
        ]
        assert found.new == pytest.approx(np.mean(each))


def wins(old, new):
    """How often the new one alone is right, and how often one alone is."""
    targets = new.filter(like="target:").to_numpy()
    was, now = (
        (((table.filter(like="p(") > 0.5).to_numpy() == targets) | np.isnan(targets)).all(axis=1)
        for table in (old, new)
    )
    return int((now & ~was).sum()), int((now != was).sum())


def test_a_label_that_the_old_model_did_not_know_is_one_that_it_did_not_answer():
    new = of_labels(1.0)
    old = new.drop(columns=["p(c)", "target:c"])
    old["predicted"] = [text.removesuffix("c").removesuffix("|") for text in old["predicted"]]
    for measure in ("exact_match", "micro_f1", "mean_average_precision"):
        found = compare(old, new, measure, False, 0.03, 15, task="multilabel")
        assert found is not None
        assert found.answer == "better"
    without = new.drop(columns=[f"p({name})" for name in "abc"])
    assert (
        compare(without, without, "mean_average_precision", False, 0.03, 15, task="multilabel")
        is None
    )
    assert compare(without, without, "micro_f1", False, 0.03, 15, task="multilabel") is not None
    assert compare(old, new, "accuracy", False, 0.03, 15, task="multilabel") is None


def test_models_of_numbers_are_compared_by_their_errors():
    random = np.random.default_rng(0)
    target = random.standard_normal(200)
    old, new = (
        pd.DataFrame({"label": "x", "target:x": target, "predicted(x)": target + noise})
        for noise in (1.2 * random.standard_normal(200), 0.5 * random.standard_normal(200))
    )
    for measure, function in (
        ("mae", metrics.mean_absolute_error),
        ("rmse", metrics.root_mean_squared_error),
        ("r2", metrics.r2_score),
    ):
        lower = measure != "r2"
        found = compare(old, new, measure, lower, 0.03, 15, task="regression")
        assert found is not None
        assert found.answer == "better"
        assert found.new == pytest.approx(function(target, new["predicted(x)"]))
        back = compare(new, old, measure, lower, 0.03, 15, task="regression")
        assert back is not None
        assert back.answer == "worse"
        same = compare(new, new, measure, lower, 0.03, 15, task="regression")
        assert same is not None
        assert same.answer == "cannot tell"
    assert compare(old, new, "accuracy", False, 0.03, 15, task="regression") is None
    less = old.drop(columns="predicted(x)")
    assert compare(less, new, "mae", True, 0.03, 15, task="regression") is None


@pytest.mark.parametrize(
    ("measure", "examples", "draws"),
    [("accuracy", 153, 200), ("loss", 100, 60)],
)
@pytest.mark.slow
def test_equal_models_pass_for_equal_and_a_better_one_is_seen_with_the_examples_foretold(
    measure, examples, draws
):
    # `benchmarks/gate.md` has 1,000 draws of more cases; these are always the same few.
    found = simulated.simulate(measure, examples, 0.9, draws, simulated.better_by(simulated.POINTS))
    assert found.different <= 0.05
    assert found.predicted >= 0.8


def test_signs_of_groups_are_flipped_in_every_way():
    random = np.random.default_rng(0)
    for count in (1, 2, 6, 9):
        sums = random.integers(-4, 5, count)
        signs = np.array(list(product((-1, 1), repeat=count)))
        share = (np.abs(signs @ sums) >= abs(sums.sum())).mean()
        assert flipped(sums) == pytest.approx(share)
    assert flipped(np.zeros(4, np.int64)) == 1
    # With single examples it is McNemar's test.
    for gained, lost in ((15, 2), (0, 40), (700, 650)):
        one_each = np.repeat([1, -1], [gained, lost])
        p_value = stats.binomtest(gained, gained + lost).pvalue
        assert flipped(one_each) == pytest.approx(p_value, abs=1e-12)
    big = random.integers(-30, 31, 3000)
    normal = 2 * stats.norm.sf(abs(big.sum()) / np.sqrt((big**2).sum()))
    assert flipped(big) == pytest.approx(normal, abs=0.01)


def grouped(right, size):
    return answers(right).assign(group=[f"patient {n // size}" for n in range(len(right))])


def test_examples_of_one_group_are_one_piece_of_evidence():
    old = [True] * 80 + [False] * 20
    new = [False] * 2 + [True] * 93 + [False] * 5
    alone = compare(answers(old), answers(new), "accuracy", False, 0.03, 15)
    nobody = compare(answers(old), answers(new).assign(group=""), "accuracy", False, 0.03, 15)
    assert alone == nobody
    assert alone is not None
    assert alone.answer == "better"
    found = compare(answers(old), grouped(new, 10), "accuracy", False, 0.03, 15)
    assert found is not None
    assert (found.answer, found.shared, found.groups) == ("cannot tell", 100, 10)
    # The groups differ by -2, 10 and 5: of the eight patterns of signs, four reach 13 or -13.
    assert found.found == (
        "15 right that were wrong, 2 wrong that were right, in 3 of 10 groups; p = 0.5"
    )
    for measure in ("loss", "balanced_accuracy"):
        of_each = compare(answers(old), answers(new), measure, measure == "loss", 0.03, 15)
        of_groups = compare(answers(old), grouped(new, 10), measure, measure == "loss", 0.03, 15)
        assert of_each is not None
        assert of_groups is not None
        assert (of_each.answer, of_groups.answer) == ("better", "cannot tell"), measure
        assert of_groups.unseen > of_each.unseen


@pytest.mark.parametrize("measure", ["accuracy", "loss"])
def test_of_too_few_groups_nothing_is_tested(measure):
    old, new = answers([True] * 60), grouped([False] * 60, 12)
    few = compare(old, new, measure, measure == "loss", 0.03, 15)
    assert few is not None
    assert few.answer == "not tested: too few groups"
    assert (few.groups, few.found) == (5, "5 groups, of at least 6")
    assert few.old != few.new
    six = grouped([False] * 60, 10)
    enough = compare(old, six, measure, measure == "loss", 0.03, 15)
    assert enough is not None
    assert enough.answer in {"worse", "cannot tell"}
    strict = compare(old, six, measure, measure == "loss", 0.03, 15, level=0.01)
    assert strict is not None
    assert strict.found == "6 groups, of at least 8"
    # Where nobody shares a group there are as many as there are examples, however few.
    five = compare(old[:5], new[:5].assign(group=""), measure, False, 0.03, 15)
    assert five is not None
    assert five.answer == "cannot tell"


@pytest.mark.parametrize(("measure", "size"), [("accuracy", 1), ("accuracy", 10), ("loss", 1)])
def test_what_simulates_many_nights_judges_as_the_gate_does(measure, size):
    random = np.random.default_rng(0)
    own = random.standard_normal((12, 120))
    old, new = (own + 0.5 * random.standard_normal(own.shape) + 1.2 for _ in range(2))
    new += np.linspace(-0.6, 0.6, 12)[:, None]
    said = []
    for one, other in zip(old, new, strict=True):
        models = simulated.frame(one), simulated.frame(other, np.arange(120) // size)
        found = compare(*models, measure, measure == "loss", 0.03, 15)
        assert found is not None
        said.append(found.answer)
    codes = simulated.JUDGED[measure](old, new, size, 0.05)
    assert [simulated.ANSWERS[code] for code in codes] == said
    assert set(said) == set(simulated.ANSWERS)


def test_equal_models_whose_errors_come_in_groups_are_not_called_different():
    random = np.random.default_rng(0)
    old, new = (simulated.noise(random, 1000, 300, 20) + 1 for _ in range(2))
    by_group, by_example = (
        float((simulated.judged_right(old, new, size, 0.05) != 2).mean()) for size in (20, 1)
    )
    assert by_group <= 0.05
    assert by_example >= 0.2  # as it was


def test_equal_models_pass_for_a_hundred_nights_and_a_slow_fall_ends():
    # `benchmarks/gate.md` has more cases and projects; these are always the same few.
    equal = simulated.many_nights(simulated.Case("accuracy", 153, 1, 0.9), 60)
    assert equal.refused.sum(axis=0).mean() <= 5
    assert equal.refused[-10:].mean() <= 0.05
    falling = simulated.Case("accuracy", 600, 1, 0.9, 0.003)
    found = simulated.many_nights(falling, 20)
    assert (found.below.max(axis=0) <= found.unseen).all()
    assert np.median(found.unseen) < 0.1
    alone = simulated.many_nights(falling, 5, reference=False)
    assert np.median(alone.below[-1]) > 0.25
