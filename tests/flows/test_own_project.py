"""The wheel in an environment of its own: a project of one's own from `init` to its schedule."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder
from prefect.client.orchestration import get_client
from toys import wait_for

from benchmarks.harness import draw
from tests.conftest import ROOT

PICTURES = 36


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment that has the wheel and, by their lock, the packages that it needs."""
    if shutil.which("uv") is None:
        pytest.skip("pip would take minutes: pip install uv")
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    folder = tmp_path / "environment"
    uv = ("uv", "--quiet")
    install = (*uv, "pip", "install", "--python", str(folder), "--no-deps")
    lock = str(ROOT / "requirements" / "pipeline.lock")
    subprocess.run([*uv, "venv", "--python", sys.executable, str(folder)], check=True)
    subprocess.run([*install, "--require-hashes", "--requirement", lock], check=True)
    subprocess.run([*install, wheel], check=True)
    subprocess.run([*uv, "pip", "check", "--python", str(folder)], check=True)
    return folder


def edit(file: Path, change: Callable[[str], str]) -> None:
    """Replace a file, which may be a link into the cache of uv."""
    text = change(file.read_text())
    file.unlink()
    file.write_text(text)


def like_a_clone(project: Path, folder: Path) -> Path:
    """A folder in which the stages of the clone read what those of a project read."""
    shutil.copytree(project / "data" / "raw", folder / "data" / "raw")
    shutil.copy(project / "params.yaml", folder)
    (folder / "reports").mkdir()
    return folder


def contents(place: Path) -> dict[str, bytes]:
    """The bytes of a file, or of all files in a folder."""
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    return {file.relative_to(place.parent).as_posix(): file.read_bytes() for file in files}


@pytest.mark.slow
def test_from_an_empty_folder_to_a_schedule_that_fires(
    environment: Path,
    server: str,
    password: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HEADSTART_STORE": str(tmp_path / "store"),
        "PREFECT_API_URL": server,
        "PREFECT_API_AUTH_STRING": password,
        "GIT_AUTHOR_NAME": "somebody",
        "GIT_AUTHOR_EMAIL": "somebody@localhost",
        "GIT_COMMITTER_NAME": "somebody",
        "GIT_COMMITTER_EMAIL": "somebody@localhost",
    }
    project = tmp_path / "mine"

    def run(*command: str, folder: Path = project, code: int = 0) -> str:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def ran(text: str) -> list[str]:
        return re.findall(r"Running stage '(\w+)'", text)

    def commit() -> None:
        run("git", "add", "--all")
        run("git", "commit", "--quiet", "--message", "as it is")

    draw(tmp_path / "pictures", range(PICTURES), (64, 48))
    data = str(tmp_path / "pictures")
    run("headstart", "init", "mine", "--data", data, folder=tmp_path)
    text = run("headstart", "repro")
    assert ran(text)[0] == "ingest"
    assert (project / "reports/report.html").exists()
    assert ": 0 reused" in text
    with monkeypatch.context() as patch:
        patch.setenv("HEADSTART_STORE", env["HEADSTART_STORE"])
        patch.chdir(like_a_clone(project, tmp_path / "clone"))
        for stage in ("ingest", "augment", "extract", "train", "evaluate"):
            getattr(import_module(f"pipeline.{stage}"), stage)()
    for name in ("data/manifest.parquet", "data/features", "models", "reports/metrics.json"):
        made = [contents(folder / name) for folder in (project, tmp_path / "clone")]
        assert made[0] == made[1] != {}, name
    commit()
    assert "Completed: 8 cached" in run("headstart", "flow")

    (package,) = environment.glob("lib/python3*/site-packages/headstart/pipeline")
    edit(package / "heads" / "head.py", lambda text: f"{text}# another version\n")
    edit(package / "__init__.py", lambda text: re.sub(r'(__version__ = )".*"', r'\1"9.0.0"', text))
    assert "run `headstart upgrade`" in run("headstart", "repro", code=13)
    assert "code of heads changed" in run("headstart", "upgrade")
    again = run("headstart", "repro")
    assert ran(again)[0] == "train"
    assert "extract" not in ran(again)

    deployments = project / "prefect.yaml"
    document = yaml.safe_load(deployments.read_text())
    nightly = next(one for one in document["deployments"] if one["name"] == "nightly")
    nightly["name"] = "own-nightly"
    nightly["schedules"] = [{"interval": 5}]
    document["deployments"] = [nightly]
    deployments.write_text(yaml.safe_dump(document))

    def fired() -> bool:
        with get_client(sync_client=True) as client:
            runs = client.read_flow_runs()
            found = {one.id for one in client.read_deployments() if one.name == "own-nightly"}
        return any(
            run.deployment_id in found and run.state and run.state.is_completed() for run in runs
        )

    with subprocess.Popen(["headstart", "schedule"], cwd=project, env=env) as schedule:
        try:
            wait_for(fired)
        finally:
            schedule.terminate()
