"""What Prefect costs: the flow beside plain `dvc repro`, and fifty parallel flows on SQLite.

`python benchmarks/flow_cost.py [WORKING_COPY]` writes benchmarks/flow_cost.md. WORKING_COPY is a
clone with everything up to date that this script may run in; by default it makes one.
Every ratio is of runs in turns, on one machine, in one go.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from flows import server  # noqa: E402

TURNS, FULL_TURNS, PARALLEL_RUNS = 9, 3, 50
# Not `pipeline.store.local clear`, which deletes the exported backbone too.
CLEAR = "from pipeline import store; store.FeatureStore(store.default_folder(), None).clear()"
STAGE = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[1])"


def seconds(folder: Path, *command: str) -> float:
    """Wall-clock time of a command that has to succeed."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return time.perf_counter() - start


def cost(folder: Path, command: list[str]) -> tuple[float, float]:
    """Wall-clock seconds and processor seconds of a command, its children's included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = seconds(folder, *command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def row(name: str, folder: Path, turns: int, flow: list[str], *more: str, clear: bool) -> str:
    """A line of the table: `dvc repro` and the flow in turns, from an empty store if `clear`."""
    costs: list[list[tuple[float, float]]] = [[], []]
    for _ in range(turns):
        for column, command in zip(costs, (["dvc", "repro"], flow), strict=True):
            if clear:
                seconds(folder, sys.executable, "-c", CLEAR)
            column.append(cost(folder, [*command, *more]))
    (repro, repro_cpu), (flowed, flowed_cpu) = (
        [statistics.median(figures) for figures in zip(*column, strict=True)] for column in costs
    )
    return (
        f"| {name} | {repro:.2f} s | {flowed:.2f} s | {flowed / repro:.2f} "
        f"| {repro_cpu:.2f} s | {flowed_cpu:.2f} s | {flowed_cpu / repro_cpu:.2f} |"
    )


def clone(into: Path) -> Path:
    """A clone of this project, run once from pictures to metrics."""
    subprocess.run(["git", "clone", "--quiet", PROJECT, into], check=True)
    seconds(into, "dvc", "repro")
    return into


def parallel(folder: Path, flow: list[str]) -> int:
    """Run a parallel flow again and again; how often SQLite was locked, as the runs tell it."""
    folder.mkdir()
    seconds(folder, "git", "init", "--quiet")
    seconds(folder, "dvc", "init", "--quiet")
    (folder / "stage.py").write_text(STAGE)
    names = "abcdefgh"
    stages = {n: {"cmd": f"python stage.py {n}", "deps": ["stage.py"], "outs": [n]} for n in names}
    stages["last"] = {"cmd": "python stage.py last", "deps": list(names), "outs": ["last"]}
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    locked = 0
    for _ in range(PARALLEL_RUNS):
        done = subprocess.run([*flow, "--force"], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        locked += (done.stdout + done.stderr).count("database is locked")
    return locked


def main() -> None:
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["PYTHONPATH"] = f"{PROJECT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    os.environ.pop("PREFECT_API_URL", None)
    flow = [sys.executable, "-m", "flows.run"]
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        os.environ["PREFECT_HOME"] = str(scratch / "home")
        copy = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else clone(scratch / "copy")
        alone = seconds(copy, *flow, "--force")
        log = scratch / "server.log"
        with log.open("wb") as errors:
            os.dup2(errors.fileno(), 2)  # the server's complaints
            begun = time.perf_counter()
            with server.running(scratch, "127.0.0.1", 4299) as api:
                first_start = time.perf_counter() - begun
                os.environ["PREFECT_API_URL"] = api
                nothing = row("nothing to do", copy, TURNS, flow, clear=False)
                everything = row("everything", copy, FULL_TURNS, flow, "--force", clear=True)
                load = os.getloadavg()[1]
                locked = parallel(scratch / "parallel", flow)
        locked += log.read_text().count("database is locked")
    table = f"""# What Prefect costs

Written by `benchmarks/flow_cost.py`: medians of {TURNS} turns (nothing to do) and of
{FULL_TURNS} turns (everything, from an empty feature store), with the server up, on
{os.cpu_count()} cores. The load was {load:.1f}; above the number of cores, others
were at work too, and processor time tells more than the clock. The ratio is to be at most 2 with
nothing to do and 1.1 with everything.

| | `dvc repro` | flow | ratio | processor: `dvc repro` | flow | ratio |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
{nothing}
{everything}

Apart from that: everything with a server for this run alone, on a fresh PREFECT_HOME, took
{alone:.1f} s; the first start of a server that stays up, {first_start:.1f} s.

{PARALLEL_RUNS} runs in a row of a flow with 8 stages side by side, on SQLite: "database is locked"
was said {locked} times, by the runs or by the server.
"""
    (PROJECT / "benchmarks" / "flow_cost.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
