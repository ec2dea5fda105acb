"""docs/cluster.md, as it stands there: PostgreSQL, a server with a password, two workers.

All commands but those of root are run. The secrets are searched for wherever something is kept.
"""

import base64
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from toys import PATIENCE, PROJECT, Toy, alive, background, declare, free_port, wait_for

from flows.server import ADDRESS

DOC = (PROJECT / "docs" / "cluster.md").read_text()
PROGRAMS = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
OWNER = "postgres" if os.geteuid() == 0 else None  # it does not run as root
PASSWORD = "team:correct-horse"  # noqa: S105
OF_DATABASE = "battery/staple"  # what an address may not hold as it is
SECRETS = [PASSWORD.partition(":")[2], OF_DATABASE, quote(OF_DATABASE, safe="")]
SECRETS.append(base64.b64encode(PASSWORD.encode()).decode())  # as it goes over the wire


@pytest.fixture
def database() -> Iterator[dict[str, str]]:
    """A PostgreSQL of its own on loopback, with an empty database; the variables that name it."""
    if not PROGRAMS:
        pytest.skip("needs Debian's package postgresql")
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    if OWNER:
        shutil.chown(folder, OWNER, OWNER)
    port = str(free_port())
    where = {"PGHOST": "127.0.0.1", "PGPORT": port, "PGUSER": "prefect", "PGDATABASE": "prefect"}

    def run(program: str, *arguments: str, **env: str) -> None:
        command = [str(PROGRAMS / program), *arguments] if PROGRAMS else []
        said = subprocess.run(
            command, user=OWNER, cwd=folder, env=os.environ | env, capture_output=True, text=True
        )
        assert said.returncode == 0, said.stderr

    only_with_password = ["--auth-host=scram-sha-256", "--auth-local=peer"]
    run("initdb", "--pgdata", "data", *only_with_password)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    run("pg_ctl", "--pgdata=data", "--log=log", "--wait", "--options", options, "start")
    try:
        by_socket = {"PGHOST": str(folder), "PGPORT": port}
        run("createuser", "prefect", **by_socket)
        statement = f"alter user prefect password '{OF_DATABASE}'"
        run("psql", "--dbname=postgres", f"--command={statement}", **by_socket)
        run("createdb", "--owner=prefect", "prefect", **by_socket)
        yield where
    finally:
        run("pg_ctl", "--pgdata=data", "--wait", "--mode=immediate", "stop")
        shutil.rmtree(folder)


def address(where: dict[str, str], password: str = OF_DATABASE, name: str = "prefect") -> str:
    known = f"prefect:{quote(password, safe='')}" if password else "prefect"
    return f"postgresql+asyncpg://{known}@127.0.0.1:{where['PGPORT']}/{name}"


def as_told(command: str) -> list[str]:
    """A command of the page, run by this Python."""
    assert f"    {command}\n" in DOC
    words = shlex.split(command)
    return [sys.executable, *(words[1:] if words[0] == "python" else ["-m", *words])]


@contextmanager
def team_server(where: dict[str, str], folder: Path, log: Path) -> Iterator[str]:
    """The server of the page, on a port of its own; the address of its API."""
    secrets = {
        "PREFECT_API_DATABASE_CONNECTION_URL": address(where),
        "PREFECT_SERVER_API_AUTH_STRING": PASSWORD,
    }
    command = [*as_told("headstart dashboard"), "--port", str(free_port())]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=bare(folder) | secrets, stdout=out, stderr=out
        )
        try:
            wait_for(lambda: (folder / ADDRESS).exists() or process.poll() is not None)
            yield (folder / ADDRESS).read_text()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)


def bare(folder: Path) -> dict[str, str]:
    """An environment in which nothing is said of Prefect but where its home is."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    env.pop("DISPLAY", None)
    quiet = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    return env | quiet | {"PREFECT_HOME": str(folder / "home"), "PYTHONPATH": str(PROJECT)}


def holds_a_secret(text: bytes) -> list[str]:
    return [secret for secret in SECRETS if secret.encode() in text]


def command_lines() -> bytes:
    """The command lines of all processes."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(process.read_bytes())
        except OSError:  # it has ended
            continue
    return b"\n".join(found)


@pytest.mark.slow
def test_a_team_with_two_workers(
    database: dict[str, str], dvc_template: Path, tmp_path: Path
) -> None:
    host = tmp_path / "host"
    (host / ".dvc").mkdir(parents=True)
    with ExitStack() as stack:
        api = stack.enter_context(team_server(database, host, tmp_path / "server.log"))
        toy = stack.enter_context(Toy(tmp_path / "toy", api, dvc_template, PASSWORD))
        toy.stages(slow={"value": "first"})
        declare(toy)
        for command in (
            "prefect work-pool create headstart --type process",
            "prefect deploy --all",
        ):
            first, *rest = as_told(command)
            printed = toy.run(first, *rest[:2], "--no-prompt", *rest[2:])
            assert not holds_a_secret(printed.encode())
        workers = []
        for name in ("one", "two"):
            start = as_told(f"prefect worker start --pool headstart --name {name}")
            logged = ["sh", "-c", 'exec "$@" >> ../workers.log 2>&1', "sh", *start]
            workers.append(stack.enter_context(background(toy, *logged)))
        pool = "work_pools/headstart/workers/filter"
        wait_for(lambda: {w["name"] for w in toy.post(pool)} == {"one", "two"})

        def begin() -> str:
            nightly = toy.get("deployments/name/headstart/nightly")["id"]
            asked = {"parameters": {"gate": None}, "state": {"type": "SCHEDULED"}}
            return str(toy.post(f"deployments/{nightly}/create_flow_run", **asked)["id"])

        def wait_until_done(run_id: str) -> None:
            wait_for(lambda: toy.get(f"flow_runs/{run_id}")["state"]["type"] == "COMPLETED")

        toy.run(*as_told("prefect deployment run headstart/nightly --param gate=null"))
        run_id = toy.post("flow_runs/filter", sort="EXPECTED_START_TIME_DESC", limit=1)[0]["id"]
        wait_until_done(run_id)
        assert toy.heard(run_id).states() == {"update": "Completed", "slow": "Completed"}
        # The worker that has the next run dies; the other one takes the run after that.
        toy.tell("slow", seconds=600)
        (toy.root / "slow.pid").unlink()
        begin()
        stage = toy.pid("slow")
        assert not holds_a_secret(command_lines())
        above = ancestors(stage)
        (at_work,) = [worker for worker in workers if worker.pid in above]
        os.kill(at_work.pid, signal.SIGKILL)
        wait_for(lambda: not alive(stage))
        toy.tell("slow", value="second")
        wait_until_done(begin())
        assert (toy.root / "slow.out").read_text() == "second"
        # At a terminal: a run that finds nothing to do, then without a password, and a wrong one.
        done = toy.finish(toy.start())
        assert (done.code, done.states()) == (0, {"slow": "Cached"})
        assert not holds_a_secret(done.output.encode())
        for given, words in (("", "needs a password: set"), ("team:wrong", "refuses the")):
            flow = toy.start(PREFECT_API_AUTH_STRING=given)
            said = flow.communicate()[0]
            assert (flow.returncode, len(said.splitlines())) == (9, 1), said
            assert said.startswith(f"run: error: the Prefect server at {api} {words}")
        kept = subprocess.run(
            ["pg_dump"],
            env=os.environ | database | {"PGPASSWORD": OF_DATABASE},
            capture_output=True,
            check=True,
        ).stdout
    assert b"nightly" in kept
    assert b"Finished in state" in kept  # the logs of the runs
    assert not holds_a_secret(kept)
    assert "Finished in state Completed" in (tmp_path / "workers.log").read_text()
    found = [file for file in tmp_path.rglob("*") if file.is_file() and not file.is_symlink()]
    assert toy.root / "dvc.lock" in found
    assert [file for file in found if holds_a_secret(file.read_bytes())] == []


def ancestors(pid: int) -> list[int]:
    """A process and those above it."""
    found = [pid]
    while found[-1] > 1:
        status = Path(f"/proc/{found[-1]}/stat").read_text()
        found.append(int(status.rpartition(")")[2].split()[1]))
    return found[:-1]


@pytest.mark.slow
def test_a_database_that_does_not_let_the_server_in_is_a_line(
    database: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / ".dvc").mkdir()
    nowhere = database | {"PGPORT": "9"}
    for url, words in (
        (address(database, "wr0ng"), 'password authentication failed for user "prefect"'),
        (address(nowhere), "Connect call failed ('127.0.0.1', 9)"),
    ):
        command = [*as_told("headstart dashboard"), "--port", str(free_port())]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=bare(tmp_path) | {"PREFECT_API_DATABASE_CONNECTION_URL": url},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 9, done.stderr
        (line,) = done.stderr.splitlines()
        assert words in line
        assert "PREFECT_API_DATABASE_CONNECTION_URL" in line
        assert not {"wr0ng", *SECRETS} & {*line.split()}
        assert not holds_a_secret(line.encode())
