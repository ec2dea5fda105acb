"""What Prefect costs: the flow beside plain `dvc repro`, and fifty parallel flows on SQLite.

All in a copy of the repository that has run once. Every ratio is of runs in turns, on one machine,
in one go.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.harness import ENVIRONMENT, Cost, Repository, in_turns, ratios, run, spread, table
from flows import server

# Not `pipeline.store.local clear`, which deletes the exported backbone too.
CLEAR = "from pipeline.store.vectors import open_store; open_store().clear()"
STAGE = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[1])"
FLOW = (sys.executable, "-m", "flows.run")
LOCKED = "database is locked"


def cells(rounds: int, repro: Callable[[], Cost], flow: Callable[[], Cost]) -> list[str]:
    """Seconds of both in turns and the ratio, by the clock and by the processor."""
    costs = in_turns(rounds, {"repro": repro, "flow": flow})
    found = []
    for measure in ("wall", "cpu"):
        ours, flows = ([getattr(cost, measure) for cost in costs[name]] for name in costs)
        found += [spread(ours) + " s", spread(flows) + " s", spread(ratios(flows, ours))]
    return found


def side_by_side(folder: Path, rounds: int, **environment: str) -> int:
    """Run a parallel flow again and again; how often SQLite was locked, as the runs tell it."""
    folder.mkdir()
    run("git", "init", "--quiet", folder=folder)
    run("dvc", "init", "--quiet", folder=folder)
    (folder / "stage.py").write_text(STAGE)
    names = "abcdefgh"
    stages = {n: {"cmd": f"python stage.py {n}", "deps": ["stage.py"], "outs": [n]} for n in names}
    stages["last"] = {"cmd": "python stage.py last", "deps": list(names), "outs": ["last"]}
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    done = [run(*FLOW, "--force", folder=folder, **environment) for _ in range(rounds)]
    return sum(one.gave.count(LOCKED) for one in done)


def measure(scratch: Path, turns: int = 9, full: int = 3, parallel: int = 50) -> str:
    for environment in (os.environ, ENVIRONMENT):
        environment.pop("PREFECT_API_URL", None)
        environment["PREFECT_HOME"] = str(scratch / "home")
    copy = Repository(scratch)
    copy.run("dvc", "repro")
    alone = copy.run(*FLOW, "--force").wall
    log = scratch / "server.log"
    with log.open("wb") as errors:
        os.dup2(errors.fileno(), 2)  # the server's complaints
    begun = time.perf_counter()
    with server.running(scratch, "127.0.0.1", 4299) as api:
        first_start = time.perf_counter() - begun
        known = {"PREFECT_API_URL": api}

        def cold(*command: str) -> Cost:
            copy.run(sys.executable, "-c", CLEAR)
            return copy.run(*command, "--force", **known)

        commands = ("dvc", "repro"), FLOW
        warm = [partial(copy.run, *command, **known) for command in commands]
        rows = [
            ("nothing to do", *cells(turns, *warm)),
            ("everything", *cells(full, *(partial(cold, *command) for command in commands))),
        ]
        locked = side_by_side(scratch / "parallel", parallel, **known)
    locked += log.read_text().count(LOCKED)
    columns = "| `dvc repro` | flow | ratio | processor: `dvc repro` | flow | ratio"
    return f"""# What Prefect costs

Medians of {turns} turns (nothing to do) and of {full} turns (everything, from an empty feature
store), with the server up. If the load is above the number of cores, others were at work too,
and processor time is the better measure. The ratio is to be at most 2 with nothing to do and
1.1 with everything.

{table(columns, rows)}

Apart from that: everything with a server for this run alone, on a fresh PREFECT_HOME, took
{alone:.1f} s; the first start of a server that stays up, {first_start:.1f} s.

{parallel} runs in a row of a flow with 8 stages side by side, on SQLite: "{LOCKED}"
was said {locked} times, by the runs or by the server.
"""
