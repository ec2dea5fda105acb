"""Does a run of `extract` on Ray that loses a worker, a node or its driver end, and lose nothing?

A head and a node, each a network namespace of its own with one CPU. Many times: empty the feature
store, start `extract` on the cluster, and at a random moment of the time in which it computes kill
with SIGKILL one worker, all processes of the node (which is started again), or the driver (after
which `extract` is run again). In the end the shards of features are compared with those that
threads of this machine make.

Every example that a worker opens is noted, by a hook that this script has Python load in all
processes of the cluster. So it is seen what was computed more than once; the first example does not
count, since every worker reads it before it begins. (The driver opens none.)

    python -m benchmarks tests.faults.ray_kills [--kills 20]

Half a minute a kill on two busy cores. It needs root, for the namespaces.
"""

import contextlib
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from PIL import Image

from benchmarks.harness import ROOT, spread, table
from pipeline.store.database import features_file
from tests.helpers.ray_cluster import Cluster, cluster

VICTIMS = ("worker", "node", "driver")
PIECE = 4  # examples in one
HOOK = """
import os, sys
def note(event, arguments):
    # Python reports one opening twice; what os.open reports has no mode.
    if event == "open" and arguments[1] is None and "data/raw/" in str(arguments[0]):
        log = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.write(log, f"{arguments[0]}\\n".encode())
        os.close(log)
sys.addaudithook(note)
"""
EXTRACT = (sys.executable, "-m", "pipeline.extract")


class Killed(NamedTuple):
    """What one kill led to."""

    moment: float  # share of the views that were there
    seconds: float  # until `extract` ended, or the next one did
    again: int  # examples computed more than once
    same: bool  # the bytes
    twice: bool  # whether the store has more entries than there are views
    ended: bool


class Trials:
    """A project, its store, and a cluster."""

    def __init__(self, scratch: Path, pictures: int) -> None:
        self.folder, self.store = scratch / "project", scratch / "store"
        self.log, self.pictures = scratch / "opened", pictures
        (scratch / "node").mkdir()
        hook = HOOK.replace("LOG", repr(str(self.log)))
        (scratch / "node" / "sitecustomize.py").write_text(hook)
        generator = np.random.default_rng(0)
        for i in range(pictures):
            file = self.folder / "data" / "raw" / "shapes" / "ab"[i % 2] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(file)
        document = yaml.safe_load((ROOT / "params.yaml").read_text())
        document["ingest"] |= {"source": "folder", "path": "data/raw/shapes"}
        document["augment"]["views"] = 0
        small = {"backbone": "timm:test_resnet", "weights": "random", "batch_size": PIECE}
        document["extract"] |= small
        self.document = document
        (self.folder / "reports").mkdir()
        os.chdir(self.folder)
        self.ask_for("local")
        for stage in ("ingest", "augment", "extract"):
            environment = os.environ | {"PYTHONPATH": str(ROOT), "HEADSTART_STORE": str(self.store)}
            command = [sys.executable, "-m", f"pipeline.{stage}"]
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        self.local = hashes(self.folder)
        self.ask_for("ray")

    def ask_for(self, runner: str) -> None:
        where = {"runner": runner, "address": "10.77.0.1:6379"}
        Path("params.yaml").write_text(yaml.safe_dump(self.document | {"cluster": where}))

    def entries(self) -> int:
        with contextlib.suppress(sqlite3.Error):
            address = f"file:{features_file(self.store)}?mode=ro"
            with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
                return int(database.execute("SELECT count(*) FROM entries").fetchone()[0])
        return 0

    def empty(self) -> None:
        for file in self.store.glob("features-*"):
            file.unlink()
        shutil.rmtree("data/features", ignore_errors=True)
        self.log.unlink(missing_ok=True)

    def kill(self, ray: Cluster, victim: str) -> Killed:
        """One trial."""
        self.empty()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        driver = ray.start(*EXTRACT, **quiet)
        moment = random.randint(1, self.pictures - 2 * PIECE)  # noqa: S311
        while self.entries() < moment and driver.poll() is None:
            time.sleep(0.005)
        there, began = self.entries(), time.monotonic()
        node = ray.machines[1]
        if victim == "worker":
            for pid in random.sample(sorted(ray.workers()), k=min(1, len(ray.workers()))):
                os.kill(pid, signal.SIGKILL)
        elif victim == "node":
            ray.kill(node)
            ray.join(node)
        else:
            driver.kill()
            driver.wait()
            driver = ray.start(*EXTRACT, **quiet)
        try:
            ended = driver.wait(timeout=300) == 0
        except subprocess.TimeoutExpired:
            driver.kill()
            ended = False
        seconds = time.monotonic() - began
        opened = Counter(self.log.read_text().split())
        again = sum(count == 2 for count in opened.values())  # more often: the first of a run
        found = hashes(self.folder)
        return Killed(
            there / self.pictures, seconds, again, found == self.local,
            self.entries() != self.pictures, ended,
        )  # fmt: skip


def hashes(folder: Path) -> dict[str, str]:
    files = sorted((folder / "data" / "features").rglob("*"))
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()
    }


def measure(scratch: Path, kills: int = 20, pictures: int = 160) -> str:
    """Kill, and tell what came of it."""
    trials = Trials(scratch, pictures)
    results: dict[str, list[Killed]] = {victim: [] for victim in VICTIMS}
    path = f"{scratch / 'node'}{os.pathsep}{ROOT}"
    with cluster(HEADSTART_STORE=str(trials.store), PYTHONPATH=path) as ray:
        ray.start_node()
        for number in range(kills):
            for victim in VICTIMS:
                results[victim].append(trials.kill(ray, victim))
                print(number, victim, results[victim][-1], flush=True)
    return page(results)


def page(results: dict[str, list[Killed]]) -> str:
    """The page about them."""
    rows = [
        (
            victim, len(some), sum(one.ended for one in some), sum(one.same for one in some),
            sum(not one.twice for one in some), max(one.again for one in some),
            spread((one.moment for one in some), "{:.0%}"),
            spread((one.seconds for one in some), "{:.0f}"),
        )
        for victim, some in results.items()
    ]  # fmt: skip
    form = (
        "killed | kills {} | ended well {} | the same bytes {} | as many entries as views {}"
        " | most examples computed again {} | views that were stored {} | seconds to the end {}"
    )
    return f"""# Kills of `extract` on Ray

{table(form, rows)}

A piece has {PIECE} examples, and each of the two workers computes one at a time. After a killed
worker or node at most {PIECE} examples are computed again, after a killed driver, which has both
workers, at most {2 * PIECE}. The seconds are from the kill to the end of the run; where the driver
was killed, to the end of the next run. They count the start of workers, and of the node.
"""
