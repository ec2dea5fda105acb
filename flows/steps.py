"""The steps of a flow run: each DVC operation is a task run, whose state shows the outcome."""

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prefect import State, get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import TaskRun
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.futures import PrefectFuture
from prefect.states import Cancelled, Completed, Failed
from prefect.tasks import Task
from prefect.utilities.annotations import quote

from pipeline.core.errors import MayPassError, StageError, StoppedError

from .artifacts import key
from .dvc.pool import Pool

RETRY_DELAYS = [1.0, 2.0, 4.0, 8.0, 16.0]  # seconds before retries of a temporary failure
GPU_TAG = "gpu"  # one stage with this tag runs at a time, unless Prefect's limit is changed
PROGRESS = re.compile(r"(?P<name>.+?): (?P<done>\d+)/(?P<total>\d+) (?P<unit>.+), .+ a second")


@dataclass
class Run:
    """The state of one flow run, which its steps share; steps pass only names to each other."""

    root: Path
    pool: Pool
    force: bool
    plan: dict[str, dict[str, Any]] = field(default_factory=dict)  # stages of `process.plan`
    before: dict[str, Any] = field(default_factory=dict)  # the metrics before the run
    # The outcome of a stage is one of `process.reproduce`, or failed, or stopped, or not run
    # because of another stage's failure. Other steps are done or failed.
    outcomes: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)

    def outcome(self, name: str) -> str:
        """Return the outcome of the step `name`, in a word for people."""
        word = self.outcomes.get(name, "not run")
        return "cached" if word in {"unchanged", "restored"} else word

    def will_run(self, name: str) -> bool:
        """Return whether DVC has to look at a stage, once the stages above it have ended."""
        stage = self.plan.get(name, {"changed": True, "upstream": []})
        above = [self.outcomes.get(up, "unchanged") for up in stage["upstream"]]
        return stage["changed"] or any(outcome != "unchanged" for outcome in above)

    def stands_aside(self, name: str) -> bool:
        """Return whether a stage with more stages below it runs beside the stage `name`.

        The other stage then gets the first process of DVC, which forks it, so it begins earlier.
        """
        below: dict[str, set[str]] = {name: set() for name in self.plan}
        for stage in reversed(self.plan):
            for up in self.plan[stage]["upstream"]:
                below[up] |= {stage} | below[stage]
        beside = (
            other
            for other in below.keys() - self.outcomes.keys()
            if all(up in self.outcomes for up in self.plan[other]["upstream"])
        )
        own = len(below.get(name, ()))
        return any(len(below[other]) > own and self.will_run(other) for other in beside)

    def failed(self) -> list[str]:
        """Return the steps that failed."""
        return [name for name, outcome in self.outcomes.items() if outcome == "failed"]


def make_plan(run: Run, targets: list[str]) -> None:
    """Ask DVC for the plan, and retry temporary failures as in a step."""
    for delay in [*RETRY_DELAYS, None]:
        try:
            answer = run.pool.ask("plan", targets=targets, force=run.force)
            break
        except MayPassError as error:
            if delay is None:
                raise StageError(str(error)) from None
            get_run_logger().warning("%s; trying again in %.0f s", error, delay)
            time.sleep(delay)
    run.before = answer["metrics"]
    run.plan = {stage["name"]: stage for stage in answer["stages"]}


def run_stages(run: Run) -> None:
    """Run the plan, independent stages in parallel; return when all have ended."""
    if any(GPU_TAG in stage["tags"] for stage in run.plan.values() if stage["changed"]):
        _limit_gpu_stages()
    steps: dict[str, PrefectFuture[Any]] = {}
    for name, stage in run.plan.items():
        upstream = [steps[up] for up in stage["upstream"]]
        steps[name] = submit(run, name, "reproduce", upstream, stage=name, force=run.force)
    for future in steps.values():
        future.wait()


def submit(
    run: Run, name: str, do: str, upstream: list[PrefectFuture[Any]], **request: Any
) -> PrefectFuture[Any]:
    """Start a task run called `name`, which waits for those in `upstream`."""
    stage = run.plan.get(name, {})
    named = step.with_options(
        name=name,
        task_run_name=name,
        # Requesting a slot from Prefect takes time, and a stage that will not run needs none.
        tags=stage["tags"] if stage.get("changed") else None,
    )
    # Quoted, because Prefect walks through what a task gets, and fails if another step writes its
    # outcome meanwhile.
    return named.submit(quote(run), name, do, request, return_state=False, wait_for=upstream)


def _limit_gpu_stages() -> None:
    """Set Prefect's limit for tasks tagged `gpu` to one, unless there is a limit already."""
    with get_client(sync_client=True) as client:
        try:
            client.read_concurrency_limit_by_tag(GPU_TAG)
        except ObjectNotFound:
            client.create_concurrency_limit(GPU_TAG, 1)


def _may_pass(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    return MayPassError.__name__ in (state.message or "")


@task(
    # Only DVC caches; Prefect stores no results.
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=len(RETRY_DELAYS),
    retry_delay_seconds=RETRY_DELAYS,
    retry_condition_fn=_may_pass,
)
def step(run: Run, name: str, do: str, request: dict[str, Any]) -> State[Any]:
    """Let DVC `do` the `request`; the state shows the result.

    A stage that DVC has found unchanged is skipped, if the stages above it are unchanged too.
    """
    logger = get_run_logger()
    result: dict[str, Any] = {"outcome": "unchanged"}
    if run.will_run(name):
        progress = _Progress()

        def on_line(line: str) -> None:
            logger.info("%s", line)
            progress.see(line)

        try:
            result = run.pool.ask(do, on_line, run.stands_aside(name), **request)
        except StageError as error:
            run.outcomes[name], run.messages[name] = "failed", str(error)
            return Failed(message=str(error))
        except StoppedError as error:
            run.outcomes[name], run.messages[name] = "stopped", str(error)
            return Cancelled(message=str(error))
        except MayPassError as error:
            run.outcomes[name], run.messages[name] = "failed", str(error)
            raise
    return _note(run, name, result)


def _note(run: Run, name: str, result: dict[str, Any]) -> State[Any]:
    run.outcomes[name] = outcome = result.get("outcome", "done")
    if outcome == "ran":
        run.messages[name] = f"ran in {result['seconds']:.1f} s"
        return Completed(message=run.messages[name])
    if outcome not in {"unchanged", "restored"}:
        run.messages[name] = outcome
        return Completed(message=outcome)
    nothing = outcome == "unchanged"
    run.messages[name] = "nothing to do" if nothing else "brought back from DVC's run cache"
    return Completed(name="Cached", message=run.messages[name])


class _Progress:
    """A Prefect progress artifact, from lines such as `extract: 128/1000 views, 96.4 a second`."""

    def __init__(self) -> None:
        self._artifact: Any = None
        self._last = 0.0

    def see(self, line: str) -> None:
        """Show `line` if it reports progress: at most one line a second, but always the last."""
        found = PROGRESS.fullmatch(line)
        if not found:
            return
        done, total = int(found["done"]), int(found["total"])
        if done < total and time.monotonic() - self._last < 1:
            return
        self._last = time.monotonic()
        percent = 100 * done / max(total, 1)
        try:
            if self._artifact is None:
                self._artifact = create_progress_artifact(
                    percent, key=key(found["name"], "progress"), description=line
                )
            else:
                update_progress_artifact(self._artifact, percent, description=line)
        except (httpx.HTTPError, PrefectException) as error:  # not a reason to fail the stage
            get_run_logger().warning("the progress is not shown: %s", error)
