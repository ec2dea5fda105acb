"""The gate's comparison of two results by their predictions, and its description in words."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import evaluation, kinds
from pipeline.core import params
from pipeline.core.paths import MANIFEST, PARAMS, PREDICTIONS

if TYPE_CHECKING:  # pandas and SciPy take a second to import
    from pipeline.evaluation.paired import Comparison

REFERENCE_LEVEL = 0.01  # strict, as the reference stays for many nights, each with another test


@dataclass(frozen=True)
class Comparing:
    """The settings by which the results of a project are compared.

    `difference` is the effect size for which the required number of examples is predicted.
    """

    metric: str
    lower_is_better: bool
    difference: float
    project: Path

    def models(
        self, old: Path, new: Path, level: float | None = None
    ) -> "tuple[Comparison, int] | None":
        """Compare two models by their predictions for the test examples that both predicted.

        Args:
            level: the probability of calling equal models different; `paired.LEVEL` if None.

        Returns:
            the comparison, and the number of examples that the old model predicted; None if the
            metric cannot be computed from the predictions.
        """
        measure = self.metric.removeprefix("test.")
        if measure == self.metric:
            return None
        from pipeline.evaluation import answered, paired
        from pipeline.tables.manifest import task_in

        before, now = (
            answered.read_answers(folder / PREDICTIONS, folder / MANIFEST) for folder in (old, new)
        )
        if before is None or now is None:
            return None
        bins = params.load(kinds.schema, self.project / PARAMS).evaluate.calibration_bins
        how = self.lower_is_better, self.difference, bins, level or paired.LEVEL
        found = paired.compare(before, now, measure, *how, task_in(new / MANIFEST))
        return (found, len(before)) if found else None


def is_worse(found: "Comparison", lower: bool) -> bool:
    """Return whether the new model is worse; its metric decides if a test has too few groups."""
    if found.answer == "not tested: too few groups":
        return found.new > found.old if lower else found.new < found.old
    return found.answer == "worse"


def beside_last(metric: str, found: "Comparison") -> str:
    """Describe the comparison with the last result."""
    words: str = found.answer
    if found.more:
        words += f": about {found.more:,} more test examples"
        if found.groups < found.shared:
            groups = math.ceil(found.more * found.groups / found.shared)
            words += f", of {groups:,} more groups,"
        words += f" would show a difference of {found.difference:g}"
    return f"{words}{_figures(metric, found)}"


def beside_reference(metric: str, found: "Comparison", name: str, examples: int) -> str:
    """Describe the comparison with the reference, for a run with `examples` test examples."""
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
    was, now = (evaluation.figure(measure, figure) for figure in (found.old, found.new))
    words = f"; {metric} is {now} and was {was} on the {found.shared:,} test examples"
    if found.groups < found.shared:
        words += f", of {found.groups:,} groups,"
    return f"{words} that both runs share ({found.found})"
