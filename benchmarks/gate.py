"""The gate, simulated: how often it is wrong about equal models, and how well it predicts.

    python -m benchmarks gate [--draws DRAWS]

Two models answer about made-up test examples of five classes. A model's evidence for each class is
normal noise, of which a part is the same for both models, plus its skill for the right class. First
both have the same skill. Then the new one is better by 3 points of accuracy. If the gate says
'cannot tell: about n more test examples would', it is asked again with as many new ones.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from benchmarks.harness import table
from pipeline.evaluation.metrics import scores
from pipeline.evaluation.paired import Comparison, compare

CLASSES, POINTS, SKILL = 5, 0.03, 2.8
CASES = [  # measure, test examples, share of the noise that both models have in common
    ("accuracy", 50, 0.9),
    ("accuracy", 153, 0.9),
    ("accuracy", 153, 0.99),
    ("accuracy", 600, 0.5),
    ("loss", 50, 0.9),
    ("loss", 153, 0.9),
    ("balanced_accuracy", 153, 0.9),
    ("macro_f1", 153, 0.9),
]
NAMES = [f"class {number}" for number in range(CLASSES)]


class Found(NamedTuple):
    """What became of a case: fractions of the draws, and what was predicted (the median)."""

    different: float  # of equal models
    unsure: float  # of models that differ by `POINTS`
    more: float
    predicted: float


def drawn(
    skills: tuple[float, float], examples: int, common: float, generator: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Labels [n] and the probabilities [n, c] that the old and the new model give."""
    labels = generator.integers(CLASSES, size=examples)
    shared = generator.standard_normal((examples, CLASSES))
    given = []
    for skill in skills:
        own = generator.standard_normal((examples, CLASSES))
        evidence = np.sqrt(common) * shared + np.sqrt(1 - common) * own
        evidence[np.arange(examples), labels] += skill
        powers = np.exp(skill * evidence)  # as sure as it should be
        given.append(powers / powers.sum(axis=1, keepdims=True))
    return labels, given[0], given[1]


def asked(
    measure: str,
    skills: tuple[float, float],
    examples: int,
    common: float,
    difference: float,
    generator: np.random.Generator,
) -> Comparison:
    """What the gate says of one draw."""
    labels, *given = drawn(skills, examples, common, generator)

    def answers(shares: npt.NDArray[np.float64]) -> pd.DataFrame:
        names = np.array(NAMES)
        found = {"label": names[labels], "predicted": names[shares.argmax(axis=1)]}
        found["probability"] = shares.max(axis=1)
        columns = {f"p({name})": shares[:, place] for place, name in enumerate(NAMES)}
        return pd.DataFrame(found | columns)

    old, new = map(answers, given)
    said = compare(old, new, measure, measure == "loss", difference, 15)
    assert said is not None
    return said


def better_by(points: float) -> float:
    """The skill of a model that is right about so many more of the examples."""
    labels, sure, _ = drawn((SKILL, SKILL), 400_000, 0, np.random.default_rng(1))
    noise = np.log(sure) / SKILL
    noise[np.arange(len(labels)), labels] -= SKILL

    def accuracy(skill: float) -> float:
        evidence = noise.copy()
        evidence[np.arange(len(labels)), labels] += skill
        return float((evidence.argmax(axis=1) == labels).mean())

    low, high, wanted = SKILL, SKILL + 2, accuracy(SKILL) + points
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if accuracy(middle) < wanted else (low, middle)
    return (low + high) / 2


def apart(measure: str, skill: float) -> float:
    """How far apart the measure of the two models truly is."""
    labels, old, new = drawn((SKILL, skill), 400_000, 0.9, np.random.default_rng(2))
    figures = [scores(labels, shares, 1, 15).overall[measure][0] for shares in (old, new)]
    return float(abs(figures[1] - figures[0]))


def simulate(measure: str, examples: int, common: float, draws: int, skill: float) -> Found:
    """Ask the gate about equal models, and about one that is better, `draws` times each."""
    difference = POINTS if measure == "accuracy" else apart(measure, skill)
    generator = np.random.default_rng([examples, int(100 * common)])

    def ask(new: float, size: int) -> Comparison:
        return asked(measure, (SKILL, new), size, common, difference, generator)

    equal = [ask(SKILL, examples).answer != "cannot tell" for _ in range(draws)]
    first = [ask(skill, examples) for _ in range(draws)]
    more = [said.more for said in first if said.answer == "cannot tell"]
    again = [ask(skill, examples + extra).answer == "better" for extra in more]
    return Found(
        float(np.mean(equal)), len(more) / draws, float(np.median(more)), float(np.mean(again))
    )


def measure(scratch: str, draws: int = 1000) -> str:
    skill = better_by(POINTS)
    rows = []
    for case in CASES:
        found = simulate(*case, draws, skill)
        low, high = stats.binomtest(round(found.different * draws), draws).proportion_ci()
        rows.append((*case, found.different, f"{low:.3f}–{high:.3f}", *found[1:]))
        print(rows[-1])
    columns = "measure | examples | noise in common {:.2f} | equal, called different {:.3f}"
    columns += " | 95 % interval | better, cannot tell {:.2f} | more predicted {:.0f}"
    columns += " | called better at that number {:.2f}"
    return f"""# The gate, simulated

{draws:,} draws of each case. Equal models are to be called different in at most 0.05 of them. A
model that is better by {100 * POINTS:g} points of accuracy is to be called better in at least 0.80
of the draws of as many examples as the message predicted. For the other measures, the message
predicts for the difference that these two models have in them.

{table(columns, rows)}
"""
