"""However a run ends, its stages end with it and the next run works."""

import os
import signal
import subprocess

import psutil
import pytest
from dvc.repo import Repo
from toys import PATIENCE, Toy, alive, wait_for


def next_run_is_clean(toy: Toy) -> None:
    """What was half-written is made again, by either door, and nothing is locked."""
    toy.tell("slow", seconds=0, value="whole")
    assert toy.flow().states() == {"slow": "Completed", "below": "Completed"}
    assert (toy.root / "slow.out").read_text() == "whole"
    with Repo(toy.root) as dvc:
        dvc.reproduce(force=True)


def begin(toy: Toy, **more: object) -> "tuple[subprocess.Popen[str], int]":
    toy.stages(slow={"seconds": 600, **more}, below={"needs": ["slow"]})
    flow = toy.start()
    stage = toy.pid("slow")
    # Prefect's client reports a task run to the server in the background: killed before that, the
    # run never had the task.
    wait_for(lambda: "slow" in toy.tasks(toy.latest()))
    return flow, stage


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_stage_too(toy: Toy, how: signal.Signals) -> None:
    flow, stage = begin(toy)
    os.kill(flow.pid, how)
    wait_for(lambda: not alive(stage))
    run = toy.finish(flow)
    assert (run.code, run.state["type"]) == (-how, "CRASHED")
    assert run.states()["slow"] == "Cancelled"
    assert not (toy.root / "below.out").exists()
    next_run_is_clean(toy)


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/sh"])  # one becomes the stage, one waits
def test_kill_9_ends_even_a_deaf_stage_and_the_next_run_says_so(toy: Toy, shell: str) -> None:
    toy.env["SHELL"] = shell  # DVC runs a stage's command in it
    flow, stage = begin(toy, deaf=True)
    died = toy.latest()
    os.kill(flow.pid, signal.SIGKILL)
    wait_for(lambda: not alive(stage))
    assert flow.wait(PATIENCE) == -signal.SIGKILL
    assert (toy.root / "slow.out").read_text() == "half"
    next_run_is_clean(toy)
    run = toy.heard(died)
    assert (run.state["type"], run.tasks["slow"]["state"]["type"]) == ("CRASHED", "CRASHED")


@pytest.mark.slow
def test_cancelled_on_the_dashboard(toy: Toy) -> None:
    flow, stage = begin(toy)
    run_id = toy.latest()
    cancelling = {"type": "CANCELLING", "name": "Cancelling"}
    toy.post(f"flow_runs/{run_id}/set_state", state=cancelling)
    wait_for(lambda: not alive(stage))
    run = toy.finish(flow)
    assert run.state["type"] == "CANCELLED"
    assert run.states()["slow"] == "Cancelled"
    # The server cancels what a cancelled run left waiting, sooner or later.
    assert run.states()["below"] in {"NotReady", "Cancelled"}
    assert not (toy.root / "below.out").exists()
    next_run_is_clean(toy)


@pytest.mark.slow
def test_a_dvc_process_that_is_killed_fails_its_stage(toy: Toy) -> None:
    flow, stage = begin(toy)
    dvc = psutil.Process(stage).parent()
    assert dvc
    dvc.kill()
    run = toy.finish(flow)
    assert run.states() == {"slow": "Failed", "below": "NotReady"}
    assert not alive(stage)
    next_run_is_clean(toy)


@pytest.mark.slow
def test_a_second_run_waits_or_is_refused(toy: Toy) -> None:
    toy.stages(a={"until": ["go"]})
    first = toy.start()
    toy.pid("a")
    refused = toy.flow("--when-busy", "refuse")
    assert refused.state["type"] == "FAILED"
    assert "another run" in refused.state["message"]
    assert refused.tasks == {}
    second = toy.begin()
    wait_for(lambda: toy.latest() != refused.id)  # it has begun, and has nothing yet
    waiting = toy.latest()
    assert toy.tasks(waiting) == {}
    (toy.root / "go").touch()
    assert toy.finish(first).states() == {"a": "Completed"}
    waited = second.finish()
    assert waited.id == waiting
    assert waited.states() == {"a": "Cached"}
