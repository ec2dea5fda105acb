"""Two results of the gate compared by their answers, and what is said of that."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import tasks
from pipeline.core.paths import MANIFEST, PREDICTIONS

if TYPE_CHECKING:  # pandas and SciPy take a second to import
    from pipeline.tasks.paired import Comparison

REFERENCE_LEVEL = 0.01  # the reference stays for many nights, and each of them is another test


def compare(
    metric: str,
    old: Path,
    new: Path,
    lower: bool,
    difference: float,
    bins: int,
    level: float | None = None,
) -> "tuple[Comparison, int] | None":
    """Compare two models by their answers about the test examples that both were asked about.

    Args:
        metric: what they are compared by.
        old: a folder with the answers of one model.
        new: one with those of the other.
        lower: whether less is better.
        difference: for which the number of examples is foretold.
        bins: of the calibration error.
        level: how often equal models may be called different; `paired.LEVEL` if None.

    Returns:
        what was found, and how many examples the old model was asked about; None where the answers
        do not tell the metric.
    """
    measure = metric.removeprefix("test.")
    if measure == metric:
        return None
    from pipeline.tasks import answered, paired

    answers = [answered.read_answers(at / PREDICTIONS, at / MANIFEST) for at in (old, new)]
    if answers[0] is None or answers[1] is None:
        return None
    found = paired.compare(
        answers[0], answers[1], measure, lower, difference, bins, level or paired.LEVEL
    )
    return (found, len(answers[0])) if found else None


def is_worse(found: "Comparison", lower: bool) -> bool:
    """Whether the new model is worse; of too few groups for a test, whether its figure is."""
    if found.answer == "not tested: too few groups":
        return found.new > found.old if lower else found.new < found.old
    return found.answer == "worse"


def beside_last(metric: str, found: "Comparison") -> str:
    """What the comparison with the last result found."""
    words: str = found.answer
    if found.more:
        words += f": about {found.more:,} more test examples"
        if found.groups < found.shared:
            groups = math.ceil(found.more * found.groups / found.shared)
            words += f", of {groups:,} more groups,"
        words += f" would tell a difference of {found.difference:g}"
    return f"{words}{_figures(metric, found)}"


def beside_reference(metric: str, found: "Comparison", name: str, examples: int) -> str:
    """What the comparison with the reference, of so many test examples, found."""
    words = f"compared with {name} at p ≤ {REFERENCE_LEVEL:g}: {found.answer}"
    words += _figures(metric, found)
    if found.answer == "cannot tell" and not math.isnan(found.unseen):
        words += f"; a fall of less than {found.unseen:.2g} can go unseen"
    if found.shared < examples / 2:
        words += f"; {name} is old: of its {examples:,} test examples {found.shared:,} are left"
    return words


def _figures(metric: str, found: "Comparison") -> str:
    if not found.shared:
        return f" ({found.found})"
    measure = metric.removeprefix("test.")
    was, now = (tasks.figure(measure, figure) for figure in (found.old, found.new))
    words = f"; {metric} is {now} and was {was} on the {found.shared:,} test examples"
    if found.groups < found.shared:
        words += f", of {found.groups:,} groups,"
    return f"{words} that both runs share ({found.found})"
