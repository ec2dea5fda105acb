"""Deployments: served here or run by a worker elsewhere, on a schedule or when data changes."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments import run_deployment
from toys import PATIENCE, PROJECT, Toy, alive, background, declare, free_port, reschedule, wait_for

from flows import serve, watch
from flows.server import ADDRESS, running
from pipeline.core.errors import BusyError, ParamsError, RunError

GATE = {"metric": "test.accuracy", "margin": 0.01}


def deployment_runs(toy: Toy, name: str) -> list[dict[str, Any]]:
    """The flow runs of a deployment that have begun, the oldest first."""
    runs: list[dict[str, Any]] = toy.post(
        "flow_runs/filter", deployments={"name": {"any_": [name]}}, sort="START_TIME_ASC"
    )
    return [run for run in runs if run["start_time"]]


def test_the_deployments_of_a_working_copy_are_served_once(tmp_path: Path) -> None:
    with (
        serve.alone(tmp_path),
        pytest.raises(BusyError, match=f"^process {os.getpid()} runs .* already: stop it first$"),
        serve.alone(tmp_path),
    ):
        raise AssertionError
    with serve.alone(tmp_path):  # the next one may
        pass


@pytest.mark.parametrize(
    ("schedules", "said"),
    [
        ('[{cron: "30 25 * * *"}]', r"Invalid cron string: .30 25 \* \* \*."),
        ('[{crom: "30 2 * * *"}]', "unexpected keyword argument 'crom'"),
        ("[", "ParserError: "),
        ("1", "TypeError: "),
    ],
)
def test_a_mistake_in_prefect_yaml_is_a_line(tmp_path: Path, schedules: str, said: str) -> None:
    file = tmp_path / "prefect.yaml"
    file.write_text(f"deployments:\n  - name: nightly\n    schedules: {schedules}\n")
    with pytest.raises(ParamsError, match=rf"/prefect\.yaml cannot be used \(.*{said}") as error:
        serve.deployments(file)
    assert "\n" not in str(error.value)


def test_a_deployment_may_have_no_schedule(tmp_path: Path) -> None:
    file = tmp_path / "prefect.yaml"
    file.write_text("deployments:\n  - name: nightly\n    schedules:\n#     - cron: 30 2 * * *\n")
    (deployment,) = serve.deployments(file)
    assert (deployment.name, deployment.schedules) == ("nightly", [])


@pytest.mark.slow
def test_a_served_schedule_fires_and_so_does_a_change_five_seconds_after_the_start(
    toy: Toy,
) -> None:
    toy.stages(a={"reads": ["data/raw/pictures"]})
    data = toy.root / "data" / "raw" / "pictures"
    data.mkdir(parents=True)
    (data / "one").write_text("1")
    toy.run("dvc", "add", "data/raw/pictures")
    declare(toy, rrule="FREQ=SECONDLY;INTERVAL=15", timezone="Europe/Berlin")
    wanted = {"update": "Completed", "a": "Completed"}

    def done() -> bool:
        # Two may have been due at once: then one of them waits, and finds nothing left to do.
        runs = deployment_runs(toy, "nightly")
        ended = [run["id"] for run in runs if run["state"]["type"] == "COMPLETED"]
        return wanted in [toy.heard(run_id).states() for run_id in ended]

    with background(toy, sys.executable, "-m", "headstart", "schedule"):
        wait_for(done)
    nightly = "deployments/name/headstart/nightly"
    assert toy.get(nightly)["paused"]  # nobody is there to run it

    # One that was due meanwhile would begin with the next server, and take the change.
    left = toy.post("flow_runs/filter", flow_runs={"state": {"type": {"any_": ["SCHEDULED"]}}})
    for run in left:
        toy.delete(f"flow_runs/{run['id']}")
    reschedule(toy, rrule="FREQ=YEARLY", timezone="Europe/Berlin")
    noted = toy.root / ".headstart" / "data-seen"
    noted.unlink(missing_ok=True)  # as if it had never been started
    looks = ["--look-every", "8"]
    with background(toy, sys.executable, "-m", "headstart", "schedule", *looks) as serve:
        wait_for(lambda: not toy.get(nightly)["paused"])
        time.sleep(5)
        (data / "two").write_text("2")
        wait_for(lambda: bool(deployment_runs(toy, "on-change")))
        first = deployment_runs(toy, "on-change")[0]["id"]
        wait_for(lambda: toy.get(f"flow_runs/{first}")["state"]["type"] == "COMPLETED")
        # The run has rewritten the `.dvc` file; it is taken note of without another run.
        seen = watch.digest(list(watch.signature(toy.root / "data" / "raw")))
        wait_for(lambda: noted.read_text() == seen)
        assert serve.poll() is None
    assert len(deployment_runs(toy, "on-change")) == 1
    states = {"update": "Completed", "data/raw/pictures.dvc": "Completed", "a": "Completed"}
    assert toy.heard(first).states() == states


@pytest.mark.slow
def test_ctrl_c_cancels_what_is_served_without_a_traceback(toy: Toy) -> None:
    toy.stages(slow={"seconds": 600})
    declare(toy)
    command = [sys.executable, "-m", "headstart", "schedule", "--look-every", "1000"]
    serve = subprocess.Popen(
        command,
        cwd=toy.root,
        env=toy.env,
        start_new_session=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        ready = "deployments/name/headstart/nightly"
        wait_for(lambda: httpx.get(f"{toy.api}/{ready}", auth=toy.auth).is_success)
        run_id = run_nightly()
        stage = toy.pid("slow")
        wait_for(lambda: "slow" in toy.tasks(run_id))
        os.killpg(serve.pid, signal.SIGINT)  # as a terminal does
        said = serve.communicate(timeout=PATIENCE)[0]
    finally:
        serve.kill()
    assert (serve.returncode, alive(stage)) == (0, False)
    assert "interrupted; running flows are cancelled\n" in said
    assert not {"Traceback", "Crash"} & {*said.replace("(", " ").split()}
    run = toy.heard(run_id)
    assert (run.state["type"], run.states()["slow"]) == ("CANCELLED", "Cancelled")
    toy.tell("slow", value="whole")
    assert toy.flow().states() == {"slow": "Completed"}


def run_nightly() -> str:
    """Have the server call for a run of the deployment; its id."""
    flow_run: Any = run_deployment("headstart/nightly", parameters={"gate": None}, timeout=0)
    return str(flow_run.id)


@pytest.mark.slow
def test_a_worker_runs_the_deployments_and_its_death_ends_the_stage(toy: Toy) -> None:
    toy.stages(slow={"value": "whole"})
    declare(toy)
    # An older prefect.yaml, in a clone.
    declared = (toy.root / "prefect.yaml").read_text()
    older = declared.replace("headstart.flow.headstart", "flows/headstart.py:headstart")
    (toy.root / "prefect.yaml").write_text(older)
    (toy.root / "flows").symlink_to(PROJECT / "flows")
    prefect = [sys.executable, "-m", "prefect"]
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="headstart", type="process"))
    toy.run(*prefect, "--no-prompt", "deploy", "--all")
    deployed = toy.get("deployments/name/headstart/nightly")
    (step,) = deployed["pull_steps"]
    assert list(step.values()) == [{"directory": str(toy.root)}]
    with background(toy, *prefect, "worker", "start", "--pool", "headstart") as worker:
        first = run_nightly()
        wait_for(lambda: toy.get(f"flow_runs/{first}")["state"]["type"] == "COMPLETED")
        assert toy.heard(first).states() == {"update": "Completed", "slow": "Completed"}
        toy.tell("slow", seconds=600)
        (toy.root / "slow.pid").unlink()
        run_nightly()
        stage = toy.pid("slow")
        os.kill(worker.pid, signal.SIGKILL)
        wait_for(lambda: not alive(stage))
    toy.tell("slow", value="whole again")
    assert toy.flow().states() == {"slow": "Completed"}


@pytest.mark.slow
def test_the_death_of_what_serves_ends_the_stage(toy: Toy) -> None:
    toy.stages(slow={"seconds": 600})
    declare(toy)
    with background(toy, sys.executable, "-m", "headstart", "schedule") as serve:
        ready = "deployments/name/headstart/nightly"
        wait_for(lambda: httpx.get(f"{toy.api}/{ready}", auth=toy.auth).is_success)
        run_nightly()
        stage = toy.pid("slow")
        os.kill(serve.pid, signal.SIGKILL)
        wait_for(lambda: not alive(stage))
    toy.tell("slow", value="whole")
    assert toy.flow().states() == {"slow": "Completed"}


@pytest.mark.slow
def test_a_run_finds_the_dashboard_of_its_working_copy(toy: Toy, dashboard: Path) -> None:
    page = toy.api.removesuffix("/api")
    assert httpx.get(f"{page}/ui-settings").json()["api_url"] == "/api"
    assert toy.get("admin/settings")["server"]["analytics_enabled"] is False
    (toy.root / ".headstart").mkdir()
    shutil.copy(dashboard / ADDRESS, toy.root / ADDRESS)
    toy.stages(a={})
    toy.env.pop("PREFECT_API_URL")
    assert f"{page}/runs/flow-run/" in toy.start().communicate()[0]


# A server whose note of a task run's state takes a while, as on a machine that does other things
# besides, and whose database logs an error as it does if it is ended meanwhile. Python runs this as
# it starts.
SLOW = """
import asyncio, logging, sys
if "uvicorn" in sys.orig_argv:
    from prefect.server.services import task_run_recorder as recorder
    note = recorder.record_bulk_task_run_events
    async def slow(events):
        await asyncio.sleep(0.5)
        logging.getLogger("sqlalchemy.pool.impl").error("Traceback of a cancelled rollback")
        await note(events)
    recorder.record_bulk_task_run_events = slow
"""


@pytest.mark.slow
def test_a_run_without_any_server_has_one_for_itself(toy: Toy, tmp_path: Path) -> None:
    toy.stages(a={"until": ["go"]})
    graph = (toy.root / "dvc.yaml").read_text().replace("a.out", "a.html")
    (toy.root / "dvc.yaml").write_text(graph)
    stage = (toy.root / "stage.py").read_text()
    (toy.root / "stage.py").write_text(stage + "out.rename('a.html')\n")
    home, slow = tmp_path / "fresh", tmp_path / "slow"  # the database has to be made first
    slow.mkdir()
    (slow / "sitecustomize.py").write_text(SLOW)
    del toy.env["PREFECT_API_URL"], toy.env["PREFECT_API_AUTH_STRING"]
    toy.env["PYTHONPATH"] += f"{os.pathsep}{slow}"
    flow = toy.start(PREFECT_HOME=str(home))
    line = toy.hear(flow, "temporary server on http://")
    server = "http://" + line.partition("http://")[2].split()[0]
    toy.pid("a")
    # It has the same database, and is closed to other pages and to who knows no password.
    foreign = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    asked = httpx.options(f"{server}/api/deployments/", headers=foreign)
    assert "access-control-allow-origin" not in asked.headers
    assert httpx.post(f"{server}/api/flow_runs/filter", json={}).status_code == 401
    assert httpx.get(f"{server}/api/health").json() is True
    (toy.root / "go").touch()
    said = flow.communicate()[0]
    assert flow.returncode == 0, said
    assert "Finished in state Completed('1 ran')" in said
    last = ["Completed: 1 ran", f"Report: {toy.root / 'a.html'}", "Dashboard: headstart dashboard"]
    assert said.splitlines()[-3:] == last
    assert "Traceback" not in said
    with closing(sqlite3.connect(home / "prefect.db")) as database:
        states = database.execute("select name, state_name from task_run").fetchall()
    assert states == [("a", "Completed")]


@pytest.mark.slow
def test_a_configured_server_is_used_and_not_replaced_where_it_does_not_answer(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    profile = tmp_path / "profiles.toml"
    profile.write_text(f'active = "team"\n[profiles.team]\nPREFECT_API_URL = "{server}"\n')
    with running(tmp_path, "127.0.0.1", free_port()) as api:
        assert api == server
    stranger = f"{server}/elsewhere"  # it answers, but not what a server would
    profile.write_text(profile.read_text().replace(server, stranger))
    with running(tmp_path, "127.0.0.1", free_port()) as api:
        assert api == stranger
    profile.write_text(profile.read_text().replace(stranger, "http://127.0.0.1:9/api"))
    with (
        pytest.raises(RunError, match=r"127\.0\.0\.1:9/api does not answer"),
        running(tmp_path, "127.0.0.1", free_port()),
    ):
        pass
    profile.write_text("active = ")
    with (
        pytest.raises(RunError, match="cannot read its settings"),
        running(tmp_path, "127.0.0.1", free_port()),
    ):
        pass
