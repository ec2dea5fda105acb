"""The gate of unattended runs: a result that is worse does not replace the old one."""

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline import evaluation
from pipeline.core.errors import ParamsError
from pipeline.tasks import TASKS

from . import compared
from .artifacts import leaves

if TYPE_CHECKING:  # pandas and SciPy take a second to import
    from pipeline.evaluation.paired import Comparison

# The default metric is the first of these that was measured.
FIRST = tuple(f"test.{task.measure}" for task in TASKS.values())
# Metrics that `evaluate` writes for every model of a task, and for no other.
OF_TASK = {f"test.{task.only}": task.name for task in TASKS.values()}

What = Literal["take", "keep", "fail"]


class Decision(NamedTuple):
    """The gate's decision on a run's result, and its reason.

    With `take`, the new result replaces the old one. With `keep` and `fail`, the old result is
    restored; the state of the run is Completed (named "Kept") or Failed. A result that `leads`
    becomes the reference, if it replaces the old result.
    """

    words: str
    does: What
    leads: bool = False


class Gate(BaseModel):
    """The rule that compares a run's result with the last one, and decides which is kept.

    The default `metric` is the first of `FIRST` that the run measured. By default, lower is
    `better` for errors and losses, and higher for other metrics.
    """

    model_config = ConfigDict(extra="forbid")

    metric: str | None = None
    better: Literal["higher", "lower"] | None = None
    difference: float = Field(default=0.03, gt=0)  # for the predicted number of examples
    when_better: What = "take"
    when_worse: What = "fail"
    when_cannot_tell: What = "take"
    margin: float | None = None  # if set, metrics are compared, and worse by this much is tolerated

    def metric_in(self, metrics: dict[str, Any]) -> str:
        """Return the metric by which results are compared; `metrics` are those before the run."""
        there = [name for name in FIRST if value(metrics, name) is not None]
        return self.metric or (there or FIRST)[0]

    def lower_is_better(self, metric: str) -> bool:
        """Return whether lower is better: as it is set, or else the default for the metric."""
        if self.better is not None:
            return self.better == "lower"
        return evaluation.measure(metric.removeprefix("test.")).lower_is_better

    def fate(self, last: "Comparison", reference: "Comparison | None", lower: bool) -> What:
        """Decide on a result by its predictions.

        A result that is worse than the reference still replaces the last result if it is better
        than the last result: otherwise the worse of the two would stay.

        Args:
            reference: the comparison with the reference; None if there is none.
        """
        does: What = "take"
        if last.answer == "cannot tell":
            does = self.when_cannot_tell
        elif compared.is_worse(last, lower):
            does = self.when_worse
        elif last.answer == "better":
            does = self.when_better
        below = reference is not None and compared.is_worse(reference, lower)
        return self.when_worse if does == "take" and below and last.answer != "better" else does

    def by_figures(
        self, metric: str, before: dict[str, Any], now: dict[str, Any]
    ) -> Decision | None:
        """Compare the metrics `before`, which have the gate's metric, with those of `now`.

        Both have the form of `process.metrics`. Return None if the new metric is not worse.
        """
        old, new = value(before, metric), value(now, metric)
        if old is None or new is None:
            return Decision(f"the metrics of this run have no {metric}", self.when_worse)
        loss = new - old if self.lower_is_better(metric) else old - new
        margin = self.margin or 0.0
        if loss <= margin:
            return None
        words = (
            f"{metric} is {new:.6g} and was {old:.6g}: worse by {loss:.6g}, "
            f"which is more than the margin of {margin:g}"
        )
        return Decision(words, self.when_worse)


def stop_if_wrong(given: dict[str, Any]) -> None:
    """Raise `ParamsError` if these are not parameters of the gate."""
    try:
        Gate.model_validate(given)
    except ValidationError as error:
        where, what = error.errors()[0]["loc"], error.errors()[0]["msg"]
        takes = f"; the gate takes {', '.join(Gate.model_fields)}"
        raise ParamsError(f"--gate: {'.'.join(map(str, where))}: {what}{takes}") from None


def task_of(metrics: dict[str, Any]) -> str | None:
    """Return the task of the model with these metrics; None if they do not determine it."""
    found = [task for name, task in OF_TASK.items() if value(metrics, name) is not None]
    return found[0] if found else None


def value(metrics: dict[str, Any], name: str) -> float | None:
    """Return the metric with a dotted name, whichever file it is in."""
    found = [v for file in metrics.values() for leaf, v in leaves(file) if leaf == name]
    return found[0] if found and isinstance(found[0], int | float) else None
