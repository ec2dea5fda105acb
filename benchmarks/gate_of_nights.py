"""The gate over many nights, simulated: what it refuses, and how far a slow decay gets.

    python -m benchmarks gate_of_nights [--projects PROJECTS]

A project keeps its test examples. Each night there is a new model, and the gate compares it with
the last result and with the reference. A model is right about an example if its skill and a normal
noise add up to more than 0. A part of the noise is the example's own and the same for all models,
the rest is the model's; a third of either is that of the example's group. `judged_right` and
`judged_loss` do for many projects at once what `evaluation/paired.py` does for one; a test
compares them with it. What follows from the answers, `Gate.fate` says.
"""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from benchmarks.harness import table
from flows.compared import REFERENCE_LEVEL
from flows.gate import Gate
from pipeline.evaluation.paired import LEVEL, Answer, Comparison, compare, flipped

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

ANSWERS: list[Answer] = list(get_args(Answer)[:3])
NIGHTS, ACCURACY, SURENESS = 100, 0.9, 3.0
SIZES = [(50, 1), (153, 1), (600, 1), (150, 10), (400, 10)]  # test examples, of each group
COMMON = [0.5, 0.9, 0.99]  # share of the noise that is the example's own
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
    surpassed: npt.NDArray[np.bool_]  # the result became the reference
    offered: Array  # accuracy of that night's model on the test examples
    figure: Array  # and of the model in place after that night
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


def taken(gate: Gate, reference: bool) -> npt.NDArray[np.bool_]:
    """Whether a result is taken, [3, 3], by its answers beside the last one and the reference."""
    found = np.empty((3, 3), dtype=bool)
    for (i, last), (j, beside) in product(enumerate(ANSWERS), repeat=2):
        both = (Comparison(answer, 1, 0, 0, "") for answer in (last, beside))
        one, other = both
        found[i, j] = gate.fate(one, other if reference else None, lower=False) == "take"
    return found


def simulate(case: Case, projects: int, reference: bool = True, gate: Gate | None = None) -> Nights:
    """Nights of new models; without a `reference` each is compared with the last result alone."""
    seed = [case.examples, case.size, int(100 * case.common), int(1e5 * case.decay)]
    generator = np.random.default_rng(seed)
    judged, takes = JUDGED[case.measure], taken(gate or Gate(), reference)
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
        figures = ((margins > 0).mean(axis=1) for margins in (new, last))
        found.append((~takes_it, leads, *figures, first_true - true))
    groups = np.arange(case.examples) // case.size
    unseen = []
    for old, new in zip(first, last, strict=True) if case.decay else ():
        frames = frame(old), frame(new, groups)
        said = compare(*frames, "accuracy", False, 0.03, 15, REFERENCE_LEVEL)
        unseen.append(said.unseen if said else np.nan)
    refused, surpassed, offered, figure, below = map(np.array, zip(*found, strict=True))
    return Nights(refused, surpassed, offered, figure, below, np.array(unseen))


def above(found: Nights) -> float:
    """By how many points the figure of the model in place is above what such a model gets here."""
    return float(100 * (found.figure[-1] - found.offered.mean(axis=0)).mean())


def measure(scratch: str, projects: int = 1000) -> str:
    equal, keep = [], Gate(when_cannot_tell="keep")
    cases = [("accuracy", *sizes, common) for sizes in SIZES for common in COMMON]
    for row in [*cases, ("loss", 153, 1, 0.9), ("loss", 400, 10, 0.9)]:
        found, alone, kept = (
            simulate(Case(*row), projects, *how) for how in ((True,), (False,), (True, keep))
        )
        refused = alone.refused.sum(axis=0).mean(), found.refused.sum(axis=0).mean()
        late, first = found.refused[-10:].mean(axis=1).max(), found.surpassed.any(axis=0).mean()
        equal.append((*row, *refused, late, first, above(found), above(kept)))
        print(equal[-1])
    columns = (
        "measure | examples | of a group | noise in common {:.2f} | refused by the last result"
    )
    columns += " alone {:.1f} | refused {:.1f} | in the worst of the last ten nights {:.3f}"
    columns += " | another reference {:.2f} | figure too high by {:+.2f} | with `keep` {:+.2f}"
    decaying = []
    for sizes, decay in product(SIZES, (0.001, 0.003)):
        case = Case("accuracy", *sizes, 0.9, decay)
        found, alone = simulate(case, projects), simulate(case, projects, reference=False)
        before, below = 100 * np.median(alone.below[-1]), 100 * found.below[-1]
        ends = np.median(below), np.quantile(below, 0.99), 100 * np.median(found.unseen)
        farther = (found.below.max(axis=0) > found.unseen).mean()
        decaying.append((*sizes, 100 * decay, before, *ends, farther))
        print(decaying[-1])
    falls = "examples | of a group | fall a night {:.1f} | by the last result alone, below {:.1f}"
    falls += " | below the reference {:.1f} | in 99 of 100 projects at most {:.1f}"
    falls += " | can go unseen, as the gate says {:.1f} | projects farther below {:.4f}"
    return f"""# The gate over {NIGHTS} nights, simulated

{projects:,} projects of each kind. A model is right about {ACCURACY:g} of all examples. Models
share a part of their noise. Examples of one group share a third of all noise.

## All models are equally good

At most 5 of {NIGHTS} nights are to be refused on average, and at
most 0.05 in each of the last ten. "Another reference" is the share of projects in which some model
was called better than the reference. The test accuracy of the model in place is too high, since the
gate chose by it: by so many points with the defaults, and with `when_cannot_tell: keep`.

{table(columns, equal)}

## Each model is a little worse than the one of the night before

The fall from the reference to the model in place after {NIGHTS} nights, in points of true accuracy,
is to be no larger than what the gate says can go unseen.

{table(falls, decaying)}
"""
