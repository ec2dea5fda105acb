"""The gate of unattended runs: a result that is worse does not take the old one's place."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from flows import compared
from flows.artifacts import leaves
from flows.reference import START_ANEW, Reference
from pipeline import kinds, tasks
from pipeline.core import params
from pipeline.core.paths import MANIFEST, PARAMS, PREDICTIONS

if TYPE_CHECKING:  # pandas and SciPy take a second to import
    from pipeline.tasks.paired import Comparison

KEPT = Path(".headstart/before")  # there while a guarded run has come to no end
METRICS = ".metrics"  # in KEPT: those of before
ANSWERS = ".answers"  # in KEPT: what the model of before said of each test example

# What is compared where nobody says by what: the first of these that the metrics have.
FIRST = ("test.accuracy", "test.mean_average_precision", "test.r2")
# Measures that `evaluate` writes for every model of a task, and for no other.
OF_TASK = {
    "test.accuracy": "classification",
    "test.exact_match": "multilabel",
    "test.mae": "regression",
}

What = Literal["take", "keep", "fail"]


class Judgement(NamedTuple):
    """What the gate says of a run's result, and what becomes of that.

    `take`: it takes the old result's place. `keep` and `fail`: the old result comes back, and the
    run is Completed as "Kept", or Failed. A result that `leads` is the reference from then on, if
    it is taken.
    """

    words: str
    does: What
    leads: bool = False


class Gate(BaseModel):
    """How a run's result is compared with what was there, and what becomes of it then.

    Without a `metric` it is the first of `FIRST` that there is, and without `better` it is what the
    measure means: an error and a loss are better lower.
    """

    model_config = ConfigDict(extra="forbid")

    metric: str | None = None
    better: Literal["higher", "lower"] | None = None
    difference: float = Field(default=0.03, gt=0)  # for which "cannot tell" foretells examples
    when_better: What = "take"
    when_worse: What = "fail"
    when_cannot_tell: What = "take"
    margin: float | None = None  # given: figures are compared, and worse by so much is no matter

    def metric_in(self, metrics: dict[str, Any]) -> str:
        """What results are compared by, where `metrics` are those of before."""
        there = [name for name in FIRST if value(metrics, name) is not None]
        return self.metric or (there or FIRST)[0]

    def lower_is_better(self, metric: str) -> bool:
        """As it is said, or as the measure means it."""
        if self.better is not None:
            return self.better == "lower"
        return tasks.measure(metric.removeprefix("test.")).lower_is_better

    def fate(self, last: "Comparison", reference: "Comparison | None", lower: bool) -> What:
        """What becomes of a result by its answers.

        One that is worse than the reference is taken all the same if it is better than the last
        one: turned down, it would leave the worse of the two in place.

        Args:
            last: how it compares with the last result.
            reference: and with the reference; None where it is not compared with one.
            lower: whether less is better.
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
    ) -> Judgement | None:
        """Compare the metrics of `before`, which have the gate's, with those of `now`.

        Both are as `process.metrics` gives them. None where the new figure is not worse.
        """
        old, new = value(before, metric), value(now, metric)
        if old is None or new is None:
            return Judgement(f"the metrics of this run have no {metric}", self.when_worse)
        loss = new - old if self.lower_is_better(metric) else old - new
        margin = self.margin or 0.0
        if loss <= margin:
            return None
        words = (
            f"{metric} is {new:.6g} and was {old:.6g}: worse by {loss:.6g}, "
            f"which is more than the margin of {margin:g}"
        )
        return Judgement(words, self.when_worse)


def task_of(metrics: dict[str, Any]) -> str | None:
    """The task that a model of these metrics was trained for; None where they do not tell."""
    found = [task for name, task in OF_TASK.items() if value(metrics, name) is not None]
    return found[0] if found else None


def value(metrics: dict[str, Any], name: str) -> float | None:
    """The metric of a dotted name, whichever file it is in."""
    found = [v for file in metrics.values() for leaf, v in leaves(file) if leaf == name]
    return found[0] if found and isinstance(found[0], int | float) else None


class Guard:
    """Minds the result that was there before a run: dvc.lock and the outputs of the stages.

    It copies what `dvc checkout` cannot bring back: dvc.lock, and outputs that DVC does not cache.
    Where the gate's metric is not known from before there is nothing to lose, and it lets pass.
    What a run that was killed or cancelled had begun with is still the result that was there.
    """

    def __init__(
        self, gate: Gate, root: Path, plan: dict[str, dict[str, Any]], before: dict[str, Any]
    ) -> None:
        """Copy what is there now; `plan` and `before` are as in `flows.steps.Run`."""
        self._gate, self._root, self._kept = gate, root, root / KEPT
        self.stages = [name for name in plan if not name.endswith(".dvc")]
        # A changed `.dvc` file comes back too, but never the user's data that it describes.
        self._paths = {stage["lock"] for stage in plan.values()}
        self._paths |= {path for name in self.stages for path in plan[name]["uncached"]}
        metrics = self._kept / METRICS
        if not metrics.exists():  # written last: the copies are whole where it is
            forget(root)
            for path in self._paths:
                _copy(root / path, self._kept / path)
            if gate.margin is None:
                for file in (PREDICTIONS, MANIFEST):
                    _copy(root / file, self._kept / ANSWERS / file)
            self._kept.mkdir(parents=True, exist_ok=True)
            metrics.write_text(json.dumps(before))
        self._before: dict[str, Any] = json.loads(metrics.read_text())

    def judge(
        self, failed: list[str], now: dict[str, Any], reference: Reference | None = None
    ) -> Judgement | None:
        """What becomes of the run's result; None where there is nothing to say against it.

        Args:
            failed: the stages that failed.
            now: the metrics, as `process.metrics` gives them.
            reference: that results are compared with besides.
        """
        metric = self._gate.metric_in(self._before)
        if value(self._before, metric) is None:
            return None
        if failed:
            return Judgement(f"{', '.join(failed)} failed", "fail")
        if now == self._before:
            return None
        was, task = task_of(self._before), task_of(now)
        if was and task and was != task:
            words = f"the task was {was} and is {task} now, so the two models are not compared"
            return Judgement(words, self._gate.when_cannot_tell, leads=True)
        if self._gate.margin is None and value(now, metric) is not None:
            judged = self._by_answers(metric, reference)
            if judged:
                return judged
        return self._gate.by_figures(metric, self._before, now)

    def _by_answers(self, metric: str, reference: Reference | None) -> Judgement | None:
        lower = self._gate.lower_is_better(metric)
        bins = params.load(kinds.schema, self._root / PARAMS).evaluate.calibration_bins
        asked, before = (lower, self._gate.difference, bins), self._kept / ANSWERS
        with_last = compared.compare(metric, before, self._root, *asked)
        if with_last is None:
            return None
        last, _ = with_last
        words = compared.beside_last(metric, last)
        if reference is None or not reference.noted:
            return Judgement(words, self._gate.fate(last, None, lower))
        folder = reference.answers()
        if isinstance(folder, str):
            words += f"; {reference.name} is not asked: {folder}"
            return Judgement(words, self._gate.fate(last, None, lower))
        strictly = *asked, compared.REFERENCE_LEVEL
        beside = compared.compare(metric, folder, self._root, *strictly)
        if beside is None:
            words += f"; {reference.name} is not asked: its answers do not tell {metric};"
            words += f" {START_ANEW}"
            return Judgement(words, self._gate.fate(last, None, lower))
        found, examples = beside
        does = self._gate.fate(last, found, lower)
        said = compared.beside_reference(metric, found, reference.name, examples)
        if compared.is_worse(found, lower):
            words = f"{said}; compared with the last result: {words}; {START_ANEW}"
        else:
            words = f"{words}; {said}"
        if found.answer != "better" or does != "take":
            return Judgement(words, does)
        # One lucky model would be hard to equal for all that come after it; two are rare.
        ahead = compared.compare(metric, folder, before, *strictly)
        leads = ahead is not None and ahead[0].answer == "better"
        words += "; the reference is this result now" if leads else ""
        words += "" if leads else "; if the next one is better than it too, that is the reference"
        return Judgement(words, does, leads)

    def bring_back(self) -> None:
        """Put the copies back; `dvc checkout` of `stages` has to follow."""
        for path in self._paths:
            _copy(self._kept / path, self._root / path)


def forget(root: Path) -> None:
    """The result in `root` is taken, whatever was there before."""
    shutil.rmtree(root / KEPT, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy2(source, target)
