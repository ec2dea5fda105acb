"""The flow that brings the pipeline up to date, with one task run per stage of dvc.yaml."""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from prefect import State, flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from pipeline.core.errors import HeadstartError, ParamsError, StoppedError

from . import artifacts
from .dvc.claim import Claim
from .dvc.experiment import bring_home, check_overrides, copy_of
from .dvc.pool import Pool
from .dvc.project import check_project, working_copy
from .ends import Cancellation, bury, wait_until_recorded
from .gate import Decision, Gate
from .guard import Guard, forget
from .reference import FILE, Reference
from .steps import Run, make_plan, run_stages, submit


@flow(name="headstart", persist_result=False)
def headstart(
    targets: list[str] | None = None,
    force: bool = False,
    overrides: list[str] | None = None,
    name: str | None = None,
    update: bool = False,
    pull: bool = False,
    push: bool = False,
    remote: str | None = None,
    gate: Gate | None = None,
    when_busy: Literal["wait", "refuse"] = "wait",
) -> State[Any]:
    """Bring the pipeline up to date.

    Args:
        targets: stages to bring up to date, with those that they depend on; all if empty.
        force: run stages even if nothing changed.
        overrides: different values for params.yaml, such as `train.optimizer=sgd`. The run is then
            made in a copy and saved as a DVC experiment, and the working copy does not change.
        name: name of that experiment; the flow run's name if empty. Only with `overrides`.
        update: first update the data of `dvc import` and `dvc import-url`.
        pull: fetch data and outputs from the DVC remote first.
        push: push data and outputs to the DVC remote afterwards.
        remote: name of the DVC remote; the default remote if empty. Only with `pull` or `push`.
        gate: when to keep the last result instead of the new one; never if empty. Ignored with
            `overrides`, because an experiment does not replace the last result.
        when_busy: what to do if another run is using this working copy.
    """
    root = working_copy()
    with ExitStack() as stack:
        cancellation = stack.enter_context(Cancellation())
        try:
            refuse_idle(overrides, name, pull or push, remote)
            check_project(root, pulls=pull)
            check_overrides(root, overrides or [])
            if gate and overrides:  # a deployment always passes its gate
                get_run_logger().info(
                    "an experiment does not replace the last result, so the gate is not used"
                )
                gate = None
            name = name or flow_run.name or "experiment"
            claim = stack.enter_context(Claim(root, when_busy, cancellation.asked))
            claim.sign(run=flow_run.name or "", id=str(flow_run.id))
            if claim.died:
                bury(claim.died)
            place = stack.enter_context(copy_of(root, name)) if overrides else root
            pool = stack.enter_context(Pool(place))
            cancellation.stop = pool.stop
            if overrides:
                furnish(root, pool, overrides)
            run = Run(place, pool, force)
            if update:
                submit(run, "update", "update", []).wait()
            if pull:
                submit(run, "pull", "pull", [], remote=remote).wait()
            if run.failed():
                return verdict(run, None)
            make_plan(run, targets or [])
            reference = Reference(root, pool.ask, remote) if gate and gate.margin is None else None
            guard = Guard(gate, root, run.plan, run.before) if gate else None
            run_stages(run)
            now = pool.ask("metrics")
            decision = guard.decide(run.failed(), now, reference) if guard else None
            turned_down = decision is not None and decision.does != "take"
            if guard and turned_down:
                guard.bring_back()
                pool.ask("checkout", targets=guard.stages)
            elif reference and not run.failed():
                lead(reference, decision)
            if guard or not (overrides or run.failed()):
                forget(root)
            if push and not run.failed() and not turned_down:
                submit(run, "push", "push", [], remote=remote).wait()
            report = publish(root, run, now, decision)
            if overrides and not run.failed():
                pool.ask("save", name=name)
                commit = bring_home(root, place, name)
                get_run_logger().info("saved as experiment %r (%s)", name, commit[:7])
        except StoppedError:
            return Cancelled(message="cancelled")
        except HeadstartError as error:  # its message says what to do; a traceback would not
            return Failed(message=str(error))
    return verdict(run, decision, report)


def refuse_idle(
    overrides: list[str] | None,
    name: str | None,
    transfers: bool,
    remote: str | None,
) -> None:
    """Raise `ParamsError` if a parameter would have no effect together with the others."""
    if name and not overrides:
        raise ParamsError("name is for an experiment: give overrides (--set) too, or no name")
    if remote and not transfers:
        raise ParamsError(
            "remote has no effect without pull or push: give one of them too, or no remote"
        )


def furnish(root: Path, pool: Pool, overrides: list[str]) -> None:
    """Prepare the copy of `pool`: use the cache of `root`, check out data, apply `overrides`."""
    with Pool(root) as here:
        cache = here.ask("cache_dir")["path"]
    pool.ask("share_cache", path=cache)
    pool.ask("checkout", targets=[])
    pool.ask("override", overrides=overrides)


def lead(reference: Reference, decision: Decision | None) -> None:
    """Make the new result the reference, if there is none yet or if the result leads."""
    if (reference.noted is None or (decision and decision.leads)) and reference.become():
        get_run_logger().info("this result is now the gate's reference; commit the file %s", FILE)


def publish(root: Path, run: Run, now: dict[str, Any], decision: Decision | None) -> Path | None:
    """Publish the run's outcome, metrics and pictures on the dashboard of the project in `root`.

    Returns:
        the report that the outcome links to, if there is one.
    """
    project = root.name
    steps = {
        name: {
            "upstream": stage["upstream"],
            "outcome": run.outcome(name),
            "message": run.messages.get(name, ""),
        }
        for name, stage in run.plan.items()
    }
    outs = [out for stage in run.plan.values() for out in stage["outs"]]
    # The copy for an experiment is deleted before anyone could follow the link.
    report = artifacts.report(root, outs) if run.root == root else None
    made = [artifacts.outcome(project, steps, report)]
    if now:
        made.append(artifacts.metrics(project, run.before, now))
    if decision:
        made.append(artifacts.gate(project, decision.words, taken=decision.does == "take"))
    if (not decision or decision.does == "take") and any(
        step["outcome"] != "cached" for step in steps.values()
    ):
        made.extend(artifacts.pictures(project, run.root, outs))
    with get_client(sync_client=True) as client:
        for artifact in made:
            client.create_artifact(ArtifactCreate(flow_run_id=flow_run.id, **artifact))
    return report


def verdict(run: Run, decision: Decision | None, report: Path | None = None) -> State[Any]:
    """Return the final state of the flow run: its steps' outcome in a line, with the report."""
    wait_until_recorded({*run.plan, *run.outcomes})
    counts = Counter(run.outcome(name) for name in {**run.plan, **run.outcomes})
    words = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    for name in run.failed():
        return Failed(message=f"{words}; {name}: {run.messages[name].splitlines()[-1]}")
    if decision and decision.does != "take":
        words = f"kept the old result: {decision.words}"
        if decision.does == "fail":
            return Failed(message=words)
        return Completed(name="Kept", message=words, data=report)
    if decision:
        words = f"{words}; took the new result: {decision.words}"
    return Completed(message=words, data=report)
