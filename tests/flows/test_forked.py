"""Stages that are forked from a process that has imported their code do what started ones do."""

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dvc.stage.run
import psutil
import pytest
import yaml
from dvc.stage.exceptions import StageCmdFailedError
from toys import wait_for

from flows.dvc.forked import OFF, forked
from flows.dvc.pool import Pool
from pipeline.core import starter
from pipeline.core.errors import StoppedError
from tests.conftest import ROOT

# A stage that does what its environment asks for, and prints what it sees.
STAGE = """
import gc, json, os, pathlib, signal, sys, threading, time
from .core import command
from .core.errors import DataError

def ingest():
    do = os.environ.get("DO")
    if do == "refuse":
        raise DataError("a.png is not a picture")
    if do == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "orphan":
        os.kill(os.getppid(), signal.SIGKILL)
    if do == "wait":
        pathlib.Path("begun").touch()
        time.sleep(600)
    starter = b"starter" in pathlib.Path("/proc/self/cmdline").read_bytes()
    print(json.dumps({
        "forked": starter, "name": __name__, "argv": sys.argv, "path": sys.path,
        "folder": os.getcwd(), "environment": dict(os.environ), "group": os.getpgid(0),
        "signals": [str(signal.getsignal(number)) for number in signal.valid_signals()],
        "blocked": [*signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        "threads": threading.active_count(), "collects": gc.isenabled(), "input": sys.stdin.read(),
        "files": [os.readlink(f"/proc/self/fd/{number}") for number in range(3)],
    }))

if __name__ == "__main__":
    command.run(ingest)
"""
RUN = """
import os
import dvc.stage.run
from flows.dvc.forked import forked
with forked():
    dvc.stage.run._run("/bin/bash", "python -m pipeline.ingest", cwd=os.getcwd(), env=os.environ)
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with one stage."""
    folder = tmp_path / "clone"
    for room in ("core", "tasks"):
        shutil.copytree(ROOT / "pipeline" / room, folder / "pipeline" / room)
    shutil.copy(ROOT / "pipeline" / "__init__.py", folder / "pipeline")
    (folder / "pipeline" / "ingest.py").write_text(STAGE)
    return folder


def environment(**more: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "DVC_STAGE": "ingest"} | more


def run(folder: Path, command: str = "python -m pipeline.ingest", **more: str) -> None:
    """Run a command as DVC does, by a shell that becomes the command: so its exit code is seen."""
    options = {"cwd": str(folder), "env": environment(**more), "close_fds": True, "shell": False}
    dvc.stage.run._run("/bin/bash", command, **options)


def seen(folder: Path, capfd: pytest.CaptureFixture[str], **more: str) -> dict[str, Any]:
    run(folder, **more)
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


def test_every_project_has_the_stages_that_are_imported() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    always = tuple(name for name, stage in stages.items() if "cmd" in stage)
    assert always == starter.STAGES


def test_a_forked_stage_sees_what_a_started_one_sees(
    clone: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    started = seen(clone, capfd)
    assert not started.pop("forked")
    with forked():
        for _ in range(2):  # the second one by the same process
            found = seen(clone, capfd)
            assert found.pop("forked")
            assert found == started


def test_a_process_that_is_started_soon_forks_the_first_stage(
    clone: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"SHELL": "/bin/bash", "DVC_ROOT": str(clone)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", environment()["PATH"])
    before = set(psutil.Process().children())
    with forked(soon=clone):
        (starter,) = set(psutil.Process().children()) - before
        assert seen(clone, capfd, PATH=os.environ["PATH"])["forked"]
        assert set(psutil.Process().children()) - before == {starter}


def test_what_is_not_known_well_is_started(clone: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with forked():
        assert seen(clone, capfd)["forked"]
        assert seen(clone, capfd, SEED="1")["environment"]["SEED"] == "1"
        assert not seen(clone, capfd, command="python -m pipeline.ingest ")["forked"]
        assert not seen(clone, capfd, **{OFF: "0"})["forked"]
        (clone / "pipeline" / "core" / "new.py").touch()
        assert not seen(clone, capfd)["forked"]
    assert not seen(clone, capfd)["forked"]


@pytest.mark.parametrize("do", ["refuse", "die"])
def test_a_forked_stage_fails_as_a_started_one(
    clone: Path, capfd: pytest.CaptureFixture[str], do: str
) -> None:
    with pytest.raises(StageCmdFailedError) as started:
        run(clone, DO=do)
    said = capfd.readouterr()
    with forked(), pytest.raises(StageCmdFailedError) as failed:
        run(clone, DO=do)
    assert str(failed.value) == str(started.value)
    assert capfd.readouterr() == said


def test_a_stage_whose_end_nobody_could_note_has_failed(clone: Path) -> None:
    with forked(), pytest.raises(StageCmdFailedError, match="exited with -9"):
        run(clone, DO="orphan")


def test_ctrl_c_ends_the_stage_alone(clone: Path) -> None:
    group = subprocess.Popen(
        [sys.executable, "-P", "-c", RUN], cwd=clone, start_new_session=True,
        env=environment(DO="wait", PYTHONPATH=str(ROOT)), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for((clone / "begun").exists)
    os.killpg(group.pid, signal.SIGINT)
    lines = group.communicate()[1].splitlines()
    assert lines[0] == "ingest: interrupted"
    assert lines[-1].endswith("exited with -2")


def test_a_flow_that_ends_takes_its_forked_stage_along(
    clone: Path, dvc_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(dvc_template, clone, symlinks=True, dirs_exist_ok=True)
    (clone / "dvc.yaml").write_text("stages: {ingest: {cmd: python -m pipeline.ingest}}")
    monkeypatch.setenv("DO", "wait")
    with ThreadPoolExecutor() as thread, Pool(clone) as pool:

        def starters() -> set[int]:
            below = psutil.Process(pool._all[0]._process.pid).children(recursive=True)
            return {one.pid for one in below if "pipeline.core.starter" in one.cmdline()}

        assert pool.ask("plan", targets=[], force=False)["stages"][0]["changed"]
        wait_for(starters)  # the stages' code is imported before the first request
        (begun,) = starters()
        asked = thread.submit(pool.ask, "reproduce", stage="ingest", force=False)
        wait_for((clone / "begun").exists)
        assert begun in starters()
        group = psutil.Process(pool._all[0]._process.pid).children(recursive=True)
        assert {one.ppid() for one in group if one.pid in starters() - {begun}} == {begun}
        pool.stop()
        with pytest.raises(StoppedError):
            asked.result()
        wait_for(lambda: not any(one.is_running() for one in group))
