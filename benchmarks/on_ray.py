"""What `extract` on Ray costs, beside threads of one machine.

The same pictures are extracted from an empty store, in turns by threads and by a Ray cluster that
has one CPU on each of two nodes. Both are on one machine, in network namespaces (it needs root).
The processor time of all processes is counted, from before the cluster is started until after it is
stopped.

    python -m benchmarks on_ray [--pictures 5000] [--rounds 3]
"""

import ctypes
import os
import resource
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.harness import Project, draw, need, ratios, spread, table

SUBREAPER = 36  # prctl(2): whoever a process here leaves behind becomes a child of this one
ADDRESS = "10.77.0.1:6379"


def processor_s(work: Callable[[], None]) -> float:
    """Processor time of all processes that `work` starts, also of those that are left behind."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def extract(made: Project, runner: str, ray: Any = None) -> None:
    """From an empty store."""
    for file in made.store.glob("features-*"):
        file.unlink()
    shutil.rmtree(made.folder / "data" / "features", ignore_errors=True)
    made.set(cluster={"runner": runner, "address": ADDRESS})
    command = [sys.executable, "-m", "pipeline.extract"]
    if ray is None:
        made.run(*command)
    else:
        done = ray.run(*command, cwd=made.folder, environment=made.environment)
        print(done.stdout, done.stderr, flush=True)
        assert done.returncode == 0, done.stderr


def overhead(scratch: Path, pictures: int, rounds: int) -> str:
    """Ray over threads."""
    from tests.helpers.ray_cluster import cluster

    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    draw(scratch / "drawn", range(pictures))
    made = Project(scratch, scratch / "drawn", augment={"views": 0})
    made.stages("ingest", "augment")
    store = str(made.store)

    def by_ray() -> None:
        with cluster(HEADSTART_STORE=store) as ray:
            ray.start_node()
            extract(made, "ray", ray)

    def empty_cluster() -> None:
        with cluster(HEADSTART_STORE=store) as ray:
            ray.start_node()

    extract(made, "local")  # which exports the network
    works: dict[str, Callable[[], None]] = {
        "threads": lambda: extract(made, "local"),
        "Ray, two nodes of a CPU": by_ray,
        "Ray started and stopped": empty_cluster,
    }
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(processor_s(work))
            print(name, found[name], flush=True)
    rows = [
        (name, spread(costs, "{:.1f}"), spread(ratios(costs, found["threads"])))
        for name, costs in found.items()
    ]
    return table("| processor seconds {} | over threads {}", rows)


def measure(scratch: Path, pictures: int = 5000, rounds: int = 3) -> str:
    """The table."""
    need(find_spec("ray"), "Ray: make setup EXTRAS=ray")
    from tests.helpers.ray_cluster import allowed

    need(allowed(), "root, for network namespaces, and Debian's package iproute2")
    return f"""# `extract` on Ray

## {pictures:,} pictures on two cores, from an empty store

{overhead(scratch, pictures, rounds)}

The processor time is that of all processes, with the start and the stop of the cluster; {rounds}
rounds, in turns.
"""
