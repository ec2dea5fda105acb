"""The gate of unattended runs: a result that is worse does not take the old one's place."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from flows.artifacts import leaves

KEPT = Path(".headstart/before")  # there while a guarded run has come to no end
METRICS = ".metrics"  # in KEPT: those of before


class Gate(BaseModel):
    """When a run's result is worse than what was there, and what becomes of the run then."""

    model_config = ConfigDict(extra="forbid")

    metric: str = "test.accuracy"
    better: Literal["higher", "lower"] = "higher"
    margin: float = 0.0  # worse by up to this much is let through
    when_worse: Literal["fail", "keep"] = "fail"  # the run's state: Failed, or Completed as "Kept"

    def objection(self, before: dict[str, Any], now: dict[str, Any]) -> str | None:
        """Why the metrics `now` are not to replace those of `before`; None when they may.

        Both are as `process.metrics` gives them; `before` has the metric.
        """
        old, new = value(before, self.metric), value(now, self.metric)
        if old is None or new is None:
            return f"the metrics of this run have no {self.metric}"
        loss = old - new if self.better == "higher" else new - old
        if loss <= self.margin:
            return None
        return (
            f"{self.metric} is {new:.6g} and was {old:.6g}: worse by {loss:.6g}, "
            f"which is more than the margin of {self.margin:g}"
        )


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
            self._kept.mkdir(parents=True, exist_ok=True)
            metrics.write_text(json.dumps(before))
        self._before: dict[str, Any] = json.loads(metrics.read_text())

    def objection(self, failed: list[str], now: dict[str, Any]) -> str | None:
        """Why the result that was there has to come back; None when it need not."""
        if value(self._before, self._gate.metric) is None:
            return None
        if failed:
            return f"{', '.join(failed)} failed"
        return self._gate.objection(self._before, now)

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
