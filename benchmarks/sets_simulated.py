"""Do prediction sets and intervals keep their promise with groups, and with few examples?

    python -m benchmarks sets_simulated [--draws DRAWS]

Simulated answers of a head, so that a thousand draws take minutes; `sets` is the benchmark on data.

Groups: a head is better with some groups than with others. 150 groups calibrate, and each of 200
new groups weighs one. Sizes are even (ten each), heavy-tailed (Pareto, from 2 to 300), or
heavy-tailed with larger groups easier. Beside it stands what comes of it when each example weighs
one. How often `evaluate` doubts a promise that is kept is asked on 40 groups.

Few examples: as many as a promise takes at least. RAPS' lambda and k_reg, the temperature and the
quantile come from the same examples, or from two halves of them.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import table
from pipeline.heads.head import fit_temperature, probabilities
from pipeline.heads.sets import LabelSets, before, sizes
from pipeline.tables.features import Split
from pipeline.tasks import conformal

COVERAGE = 0.9
CLASSES = 10
NEW, ASKED = 200, 40  # groups
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def sizes_of_groups(kind: str, groups: int, random: np.random.Generator) -> Integers:
    """How many examples each group has."""
    if kind == "even":
        return np.full(groups, 10)
    return np.clip(np.ceil(2 * (1 + random.pareto(1.2, groups))), 2, 300).astype(np.int64)


def drawn(
    kind: str, groups: int, random: np.random.Generator
) -> tuple[npt.NDArray[np.float32], Integers, Floats, Integers]:
    """Logits, labels and residuals of the examples of some groups, and the group of each."""
    size = sizes_of_groups(kind, groups, random)
    ease = random.standard_normal(groups)
    if kind == "larger are easier":
        ease += np.log(size / 5)
    of = np.repeat(np.arange(groups), size)
    labels = random.integers(0, CLASSES, len(of))
    logits = random.standard_normal((len(of), CLASSES))
    logits[np.arange(len(of)), labels] += 1.5 + ease[of]
    residuals = np.exp(-ease[of]) * np.abs(random.standard_normal(len(of)))
    return logits.astype(np.float32), labels, residuals, of


def told(
    logits: npt.NDArray[np.float32], labels: Integers, weights: Floats | None
) -> tuple[LabelSets, dict[str, Any]]:
    """Sets calibrated on examples, as `evaluate` does it."""
    names = np.array([f"{number:064x}" for number in range(len(labels))])
    found = conformal.calibrated_sets(
        conformal.Held(logits, labels, names, weights=weights), 1.0, COVERAGE
    )
    return LabelSets(found["quantile"], found["lambda"], found["k_reg"]), found


def with_groups(kind: str, what: str, draws: int) -> list[object]:
    """A row: coverage where each group weighs one, and where each example does."""
    random = np.random.default_rng(0)
    found, alarms = [], 0
    sets: dict[str, Any]
    for _ in range(draws):
        logits, labels, residuals, of = drawn(kind, 150, random)
        new, wanted, errors, of_new = drawn(kind, NEW, random)
        held, large = [], []
        for weights in (conformal.of_groups(of.astype(str)), None):
            if what == "intervals":
                far = conformal.quantile(residuals, COVERAGE, 0, weights)
                held.append(errors <= far)
                large.append(2 * far)
                sets = {"reach": [far], "coverage": COVERAGE}
            else:
                made, sets = told(logits, labels, weights)
                shares = probabilities(new)
                size = sizes(shares, made)
                held.append(before(shares, wanted)[0] <= size)
                large.append(
                    float(np.average(size, weights=conformal.of_groups(of_new.astype(str))))
                )
            if weights is not None:
                first = of_new < ASKED
                names = np.array([f"{number:064x}" for number in range(first.sum())])
                answers = probabilities(new[first]) if what == "sets" else errors[first, None]
                truth = wanted[first] if what == "sets" else np.zeros((first.sum(), 1))
                test = Split(names, names, np.zeros(len(names), int), truth, new[first])
                sets |= {"coverage": COVERAGE, "examples": len(of), "groups": 150}
                keys = of_new[first].astype(str).tolist()
                alarms += len(conformal.doubts(sets, answers, test, ["all"], keys=keys))
        each = [np.bincount(of_new, one) / np.bincount(of_new) for one in held]
        found.append([each[0].mean(), each[1].mean(), *large])
    figures = np.array(found)
    low, high = np.quantile(figures[:, 0], [0.05, 0.95])
    mean = figures.mean(axis=0)
    below = (figures[:, :2] < 0.85).mean(axis=0)
    return [
        what, kind, mean[0], f"{low:.3f}–{high:.3f}", below[0], mean[2], alarms / draws,
        mean[1], below[1], mean[3],
    ]  # fmt: skip


def few(coverage: float, skill: float, draws: int) -> list[object]:
    """A row: all from the same examples, and from two halves of them."""
    random = np.random.default_rng(1)
    examples = math.ceil(round(conformal.MISSES / (1 - coverage), 6))
    found = []
    for _ in range(draws):
        labels = random.integers(0, CLASSES, examples + 4000)
        evidence = random.standard_normal((len(labels), CLASSES))
        evidence[np.arange(len(labels)), labels] += skill
        seen = slice(0, examples)
        logits = (2 * skill * evidence).astype(np.float32)  # too sure by a factor of two
        names = np.array([f"{number:064x}" for number in range(examples)])
        row = []
        for tuned, ranked in ((seen, seen), (slice(0, examples, 2), slice(1, examples, 2))):
            temperature = fit_temperature(logits[tuned], labels[tuned])
            new = probabilities(logits[examples:], temperature)
            held = conformal.Held(logits[tuned], labels[tuned], names[tuned])
            made = conformal.calibrated_sets(held, temperature, coverage)
            sets = LabelSets(made["quantile"], made["lambda"], made["k_reg"])
            if ranked != tuned:
                shares = probabilities(logits[ranked], temperature)
                rank, ahead, _ = before(shares, labels[ranked])
                scores = ahead + sets.penalty * np.maximum(rank - sets.k_reg, 0)
                sets = LabelSets(conformal.quantile(scores, coverage), sets.penalty, sets.k_reg)
            size = sizes(new, sets)
            rank, _, _ = before(new, labels[examples:])
            row += [(rank <= size).mean(), size.mean()]
        found.append([*row, (rank == 1).mean()])
    figures = np.array(found)
    mean, error = figures.mean(axis=0), figures.std(axis=0) / math.sqrt(draws)
    return [
        f"{coverage:g}", examples, mean[4], mean[0], error[0], figures[:, 0].std(), mean[1],
        mean[2], figures[:, 2].std(), mean[3],
    ]  # fmt: skip


def measure(scratch: Path, draws: int = 1000) -> str:
    of_groups = []
    for what in ("sets", "intervals"):
        for kind in ("even", "heavy-tailed", "larger are easier"):
            of_groups.append(with_groups(kind, what, draws))
            print(*of_groups[-1], flush=True)
    of_few = []
    for coverage in (0.8, 0.9, 0.95):
        for skill in (0.7, 1.5, 2.5):
            of_few.append(few(coverage, skill, draws))
            print(*of_few[-1], flush=True)
    return PAGE.format(
        draws=draws,
        groups=table(
            "what | sizes of groups | coverage {:.3f} | of draws, 5–95 %"
            " | draws below 0.85 {:.3f} | labels, or width {:.2f} | doubted {:.3f}"
            " | each example weighs one: coverage {:.3f} | draws below 0.85 {:.3f}"
            " | labels, or width {:.2f}",
            of_groups,
        ),
        few=table(
            "promise | examples | accuracy {:.2f} | coverage {:.4f} | standard error {:.4f} |"
            " between draws {:.3f} | labels {:.2f} | two halves: coverage {:.4f} |"
            " between draws {:.3f} | labels {:.2f}",
            of_few,
        ),
    )


PAGE = """# Simulated sets: groups, and few examples

{draws:,} draws a row. The promise is 0.9 in the first table.

## Groups

150 groups calibrate. Coverage is the mean over 200 new groups, each of which weighs one. Doubted is
the share of draws in which `evaluate` says of 40 new groups that the promise is not kept, which it
is.

{groups}

## Few examples

As many as a promise takes at least. In the first columns the temperature, RAPS' k_reg and lambda,
and the quantile come from the same examples, as in `evaluate`; in the last ones the quantile comes
from one half, and all else from the other, as in the paper.

{few}
"""
