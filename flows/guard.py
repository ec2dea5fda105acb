"""The guard of a gated run: it keeps the result that was there, and brings it back."""

import json
import shutil
from pathlib import Path
from typing import Any

from flows import compared
from flows.compared import REFERENCE_LEVEL, Comparing
from flows.gate import Decision, Gate, task_of, value
from flows.reference import START_ANEW, Reference
from pipeline.core.paths import MANIFEST, PREDICTIONS

KEPT = Path(".headstart/before")  # there while a guarded run has come to no end
METRICS = ".metrics"  # in KEPT: those of before
ANSWERS = ".answers"  # in KEPT: the earlier model's answer to each test example


class Guard:
    """Minds the result that was there before a run: dvc.lock and the outputs of the stages.

    It copies what `dvc checkout` cannot bring back: dvc.lock, and outputs that DVC does not cache.
    If the gate's metric was not measured before, there is nothing to lose, and it lets pass.
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

    def decide(
        self, failed: list[str], now: dict[str, Any], reference: Reference | None = None
    ) -> Decision | None:
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
            return Decision(f"{', '.join(failed)} failed", "fail")
        if now == self._before:
            return None
        was, task = task_of(self._before), task_of(now)
        if was and task and was != task:
            words = f"the task was {was} and is {task} now, so the two models are not compared"
            return Decision(words, self._gate.when_cannot_tell, leads=True)
        if self._gate.margin is None and value(now, metric) is not None:
            decision = self._by_answers(metric, reference)
            if decision:
                return decision
        return self._gate.by_figures(metric, self._before, now)

    def _by_answers(self, metric: str, reference: Reference | None) -> Decision | None:
        """Compare with the last result, and with the reference where there is one."""
        lower, before = self._gate.lower_is_better(metric), self._kept / ANSWERS
        comparing = Comparing(metric, lower, self._gate.difference, self._root)
        found = comparing.models(before, self._root)
        if found is None:
            return None
        last, words = found[0], compared.beside_last(metric, found[0])
        alone = self._gate.fate(last, None, lower)
        if reference is None or not reference.noted:
            return Decision(words, alone)
        folder = reference.answers()
        if isinstance(folder, str):
            return Decision(f"{words}; {reference.name} is not asked: {folder}", alone)
        found = comparing.models(folder, self._root, REFERENCE_LEVEL)
        if found is None:
            words += f"; {reference.name} is not asked: its answers do not determine {metric}"
            return Decision(f"{words}; {START_ANEW}", alone)
        beside, examples = found
        does = self._gate.fate(last, beside, lower)
        beside_it = compared.beside_reference(metric, beside, reference.name, examples)
        if compared.is_worse(beside, lower):
            words = f"{beside_it}; compared with the last result: {words}; {START_ANEW}"
            return Decision(words, does)
        words = f"{words}; {beside_it}"
        if beside.answer != "better" or does != "take":
            return Decision(words, does)
        # One lucky model would be hard to equal for all that come after it; two in a row are rare.
        found = comparing.models(folder, before, REFERENCE_LEVEL)
        if found and found[0].answer == "better":
            return Decision(f"{words}; this result is the reference now", does, leads=True)
        return Decision(f"{words}; if the next one is so too, that is the reference", does)

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
