"""The gate compares two results by their predictions, and puts the comparison into words."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import evaluation, kinds
from pipeline.core import params
from pipeline.core.paths import MANIFEST, PARAMS, PREDICTIONS

if TYPE_CHECKING:  # pandas and SciPy take a second to import
    from pipeline.evaluation.paired import Comparison

REFERENCE_LEVEL = 0.01  # the reference stays for many nights, and each of them is another test


@dataclass(frozen=True)
class Comparing:
    """What the results of a project are compared by, and how.

    `difference` is the one for which the number of examples is predicted.
    """

    metric: str
    lower_is_better: bool
    difference: float
    project: Path

    def models(
        self, old: Path, new: Path, level: float | None = None
    ) -> "tuple[Comparison, int] | None":
        """Compare two models by their answers about the test examples that both were asked about.

        Args:
            old: a folder with the answers of one model.
            new: one with those of the other.
            level: how often equal models may be called different; `paired.LEVEL` if None.

        Returns:
            what was found, and how many examples the old model was asked about; None where the
            answers do not determine the metric.
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
    """Whether the new model is worse; of too few groups for a test, whether its figure is."""
    if found.answer == "not tested: too few groups":
        return found.new > found.old if lower else found.new < found.old
    return found.answer == "worse"


def beside_last(metric: str, found: "Comparison") -> str:
    """The comparison with the last result, in words."""
    words: str = found.answer
    if found.more:
        words += f": about {found.more:,} more test examples"
        if found.groups < found.shared:
            groups = math.ceil(found.more * found.groups / found.shared)
            words += f", of {groups:,} more groups,"
        words += f" would show a difference of {found.difference:g}"
    return f"{words}{_figures(metric, found)}"


def beside_reference(metric: str, found: "Comparison", name: str, examples: int) -> str:
    """The comparison with the reference in words, for a run with `examples` test examples."""
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
