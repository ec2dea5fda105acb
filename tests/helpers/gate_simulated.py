"""The gate, simulated: for one label, and over many nights.

`benchmarks/gate.md` has 1,000 draws of more cases, and of the other tasks.
"""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from flows.compared import REFERENCE_LEVEL
from flows.gate import Gate
from pipeline.evaluation.metrics import scores
from pipeline.evaluation.paired import LEVEL, Answer, Comparison, compare, flipped

# labels

CLASSES, POINTS, SKILL = 5, 0.03, 2.8
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

    def answers(probabilities: npt.NDArray[np.float64]) -> pd.DataFrame:
        names = np.array(NAMES)
        found = {"label": names[labels], "predicted": names[probabilities.argmax(axis=1)]}
        found["probability"] = probabilities.max(axis=1)
        columns = {f"p({name})": probabilities[:, place] for place, name in enumerate(NAMES)}
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
    figures = [scores(labels, given, 1, 15).overall[measure][0] for given in (old, new)]
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


# nights

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

ANSWERS: list[Answer] = list(get_args(Answer)[:3])
NIGHTS, ACCURACY, SURENESS = 100, 0.9, 3.0
OF_GROUP = 1 / 3  # of any noise is the group's


class Case(NamedTuple):
    """A kind of project, and what becomes of its models."""

    measure: str  # accuracy or loss
    examples: int
    size: int  # of a group
    common: float
    decay: float = 0.0  # of the true accuracy, each night


class Nights(NamedTuple):
    """What became of the projects, night by night, [NIGHTS, projects]."""

    refused: npt.NDArray[np.bool_]
    below: Array  # true accuracy of the reference less that of the model in place
    unseen: Array  # [projects]: the fall that can go unseen, as the gate says in the end


def frame(margins: Array, groups: Codes | None = None) -> pd.DataFrame:
    """A model's answers [n], as `answered.read_answers` gives them."""
    cat = 1 / (1 + np.exp(-SURENESS * margins))
    answers = pd.DataFrame({"label": "cat", "predicted": np.where(margins > 0, "cat", "dog")})
    answers["probability"], answers["p(cat)"] = np.maximum(cat, 1 - cat), cat
    answers["p(dog)"] = 1 - cat
    if groups is not None:
        answers["group"] = [f"group {number}" for number in groups]
    return answers.set_index(pd.Index([f"{n:064x}" for n in range(len(margins))]))


def judged_right(old: Array, new: Array, size: int, level: float) -> Codes:
    """By which of `ANSWERS` models with these margins [projects, n] differ in accuracy."""
    gains = (new > 0).astype(np.int64) - (old > 0)
    sums = gains.reshape(len(gains), -1, size).sum(axis=2)
    if size == 1:
        differing, lost = np.abs(gains).sum(axis=1), (gains < 0).sum(axis=1)
        fewer = np.minimum(lost, differing - lost)
        p_values = np.minimum(1, 2 * stats.binom.cdf(fewer, differing, 0.5))
    else:
        # A total of less than its standard deviation is never a proof, so most are not looked at.
        far = np.abs(sums.sum(axis=1)) > np.sqrt((sums**2).sum(axis=1))
        p_values = np.ones(len(sums))
        p_values[far] = [flipped(of_one) for of_one in sums[far]]
    risen = sums.sum(axis=1) > 0
    return np.where(p_values > level, 2, np.where(risen, 0, 1))


def judged_loss(old: Array, new: Array, size: int, level: float) -> Codes:
    """By the loss; Student's t of the groups' sums stands in for the bootstrap's resamples."""
    gains = np.logaddexp(0, -SURENESS * old) - np.logaddexp(0, -SURENESS * new)
    sums = gains.reshape(len(gains), -1, size).sum(axis=2)
    freedom = sums.shape[1] - 1
    reach = sums.std(axis=1, ddof=1) * np.sqrt(freedom + 1) * stats.t.ppf(1 - level / 2, freedom)
    total = sums.sum(axis=1)
    return np.where(np.abs(total) <= reach, 2, np.where(total > 0, 0, 1))


JUDGED: dict[str, Callable[[Array, Array, int, float], Codes]] = {
    "accuracy": judged_right,
    "loss": judged_loss,
}


def noise(generator: np.random.Generator, projects: int, examples: int, size: int) -> Array:
    """Standard normal noise [projects, examples], of which a part is that of groups of a size."""
    own = generator.standard_normal((projects, examples))
    if size == 1:
        return own
    of_group = np.repeat(generator.standard_normal((projects, examples // size)), size, axis=1)
    return np.asarray(np.sqrt(OF_GROUP) * of_group + np.sqrt(1 - OF_GROUP) * own)


def taken(reference: bool) -> npt.NDArray[np.bool_]:
    """Whether a result is taken, [3, 3], by its answers beside the last one and the reference."""
    found = np.empty((3, 3), dtype=bool)
    for (i, last), (j, beside) in product(enumerate(ANSWERS), repeat=2):
        one, other = (Comparison(answer, 1, 0, 0, "") for answer in (last, beside))
        found[i, j] = Gate().fate(one, other if reference else None, lower=False) == "take"
    return found


def many_nights(case: Case, projects: int, reference: bool = True) -> Nights:
    """Nights of new models; without a `reference` each is compared with the last result alone."""
    seed = [case.examples, case.size, int(100 * case.common), int(1e5 * case.decay)]
    generator = np.random.default_rng(seed)
    judged, takes = JUDGED[case.measure], taken(reference)
    shape = projects, case.examples, case.size
    own = noise(generator, *shape)

    def model(accuracy: float) -> Array:
        margins = np.sqrt(case.common) * own + np.sqrt(1 - case.common) * noise(generator, *shape)
        return np.asarray(margins + stats.norm.ppf(accuracy))

    last = model(ACCURACY)
    led = np.zeros(projects, dtype=bool)  # the model in place is better than the reference too
    first, first_true = last.copy(), np.full(projects, ACCURACY)
    true = first_true.copy()
    found: list[tuple[npt.NDArray[np.bool_] | Array, ...]] = []
    for night in range(1, NIGHTS + 1):
        accuracy = max(ACCURACY - case.decay * night, 0.01)
        new = model(accuracy)
        beside_last = judged(last, new, case.size, LEVEL)
        beside_first = beside_last
        if reference:
            beside_first = judged(first, new, case.size, REFERENCE_LEVEL)
        takes_it = takes[beside_last, beside_first]
        ahead = beside_first == 0
        leads = takes_it & ahead & led & reference
        led = np.where(takes_it, ahead & ~leads, led & ~leads)
        last[takes_it], true[takes_it] = new[takes_it], accuracy
        first[leads], first_true[leads] = new[leads], accuracy
        found.append((~takes_it, first_true - true))
    groups = np.arange(case.examples) // case.size
    unseen = []
    for old, new in zip(first, last, strict=True) if case.decay else ():
        frames = frame(old), frame(new, groups)
        said = compare(*frames, "accuracy", False, 0.03, 15, REFERENCE_LEVEL)
        unseen.append(said.unseen if said else np.nan)
    refused, below = map(np.array, zip(*found, strict=True))
    return Nights(refused, below, np.array(unseen))
