"""The guard of a gated run: it keeps a copy of the last result, and restores it."""

import json
import shutil
from pathlib import Path
from typing import Any

from pipeline.core.paths import MANIFEST, PREDICTIONS

from . import compared
from .compared import REFERENCE_LEVEL, Comparing
from .dvc.claim import KEPT
from .gate import Decision, Gate, task_of, value
from .reference import START_ANEW, Reference

METRICS = ".metrics"  # in KEPT: the last result's metrics
ANSWERS = ".answers"  # in KEPT: the last model's prediction for each test example


class Guard:
    """Guards the result before a run: dvc.lock and the outputs of the stages.

    The guard copies what `dvc checkout` cannot restore: dvc.lock, and outputs that DVC does not
    cache. If the gate's metric was not measured before, there is nothing to lose, and every result
    passes, with a note if the new result lacks the metric too: its name may be misspelt. If the
    previous run was killed or cancelled, the result before it still counts as the last one.
    """

    def __init__(
        self, gate: Gate, root: Path, plan: dict[str, dict[str, Any]], before: dict[str, Any]
    ) -> None:
        """Copy the current result; `plan` and `before` are as in `flows.steps.Run`."""
        self._gate, self._root, self._kept = gate, root, root / KEPT
        self.stages = [name for name in plan if not name.endswith(".dvc")]
        # A changed `.dvc` file is restored too, but never the user's data that it describes.
        self._paths = {stage["lock"] for stage in plan.values()}
        self._paths |= {path for name in self.stages for path in plan[name]["uncached"]}
        metrics = self._kept / METRICS
        if not metrics.exists():  # written last: if it exists, the copies are complete
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
        """Decide on the run's result; return None if there is no objection to it.

        Args:
            now: the metrics, in the form of `process.metrics`.
            reference: the reference, with which the result is compared as well.
        """
        metric = self._gate.metric_in(self._before)
        if value(self._before, metric) is None:
            if failed or now == self._before or value(now, metric) is not None:
                return None
            words = f"not compared: the metrics have no {metric}; give the gate one that they have"
            return Decision(words, "take")
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
        """Compare the result with the last one, and with the reference if there is one."""
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
            return Decision(f"{words}; not compared with {reference.name}: {folder}", alone)
        found = comparing.models(folder, self._root, REFERENCE_LEVEL)
        if found is None:
            words += f"; not compared with {reference.name}: its answers do not determine {metric}"
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
        # The last result has to be better than the reference too: one lucky model would be hard to
        # beat for all later ones, and two in a row are rare.
        found = comparing.models(folder, before, REFERENCE_LEVEL)
        if found and found[0].answer == "better":
            return Decision(f"{words}; this result is the reference now", does, leads=True)
        next_one = "if the next one is also better than the reference, it becomes the reference"
        return Decision(f"{words}; {next_one}", does)

    def bring_back(self) -> None:
        """Restore the copies; `dvc checkout` of `stages` has to follow."""
        for path in self._paths:
            _copy(self._kept / path, self._root / path)


def forget(root: Path) -> None:
    """Delete the copy of the last result in `root`, because the new one has replaced it."""
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
