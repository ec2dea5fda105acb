"""`extract` on a Ray cluster: the same bytes, whatever dies, and no node that would make others."""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from pipeline.core.paths import FEATURES, MANIFEST
from pipeline.store.database import features_file
from pipeline.store.places import default_folder
from tests.conftest import SMALL, Project
from tests.helpers.ray_cluster import PORT, TOKEN, Cluster, cluster, needs_namespaces
from tests.helpers.seaweed import SECRET

EXTRACT = (sys.executable, "-m", "pipeline.extract")
OTHER_PROCESSOR = {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"}
OTHER_CLOCK = """import time
now, now_ns = time.time, time.time_ns
time.time = lambda: now() + 400 * 86400
time.time_ns = lambda: now_ns() + 400 * 86400 * 10**9
"""
OTHER_ENGINE = "import onnxruntime\nonnxruntime.__version__ = '1.0.0'\n"


@pytest.fixture
def pictured(project: Project, small_backbone: Path, draw_shapes: Callable[..., None]) -> Project:
    """A project with pictures that are ingested, whose parameters ask for a Ray cluster."""
    project.set(
        **SMALL,
        **{"ingest.source": "folder", "ingest.path": "data/raw/shapes", "augment.views": 1},
        **{"extract.batch_size": 4},
    )
    draw_shapes(range(100))
    return project


def ask_for_ray(project: Project, on: bool = True) -> None:
    address = f"10.77.0.1:{PORT}"
    project.set(**{"cluster.runner": "ray" if on else "local", "cluster.address": address})


def shards() -> dict[str, str]:
    files = sorted(file for file in FEATURES.rglob("*") if file.is_file())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def empty() -> None:
    for file in default_folder().glob("features-*"):
        file.unlink()
    shutil.rmtree(FEATURES, ignore_errors=True)


def entries() -> int:
    with contextlib.suppress(sqlite3.Error):
        address = f"file:{features_file(default_folder())}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM entries").fetchone()[0])
    return 0


def wait_for(enough: Callable[[], object]) -> None:
    until = time.monotonic() + 120
    while not enough():
        assert time.monotonic() < until
        time.sleep(0.05)


def computed(said: str) -> str:
    found = re.search(r"(\d+ reused, \d+ computed)", said)
    return found[1] if found else said


def run_here(ray: Cluster) -> tuple[dict[str, str], int]:
    """Extract on threads, what it made, and of how many views; the store is empty afterwards."""
    for stage in ("ingest", "augment", "extract"):
        done = ray.run(sys.executable, "-m", f"pipeline.{stage}")
        assert done.returncode == 0, done.stderr
    made = shards()
    empty()
    return made, int(computed(done.stdout).split()[2])


@contextlib.contextmanager
def three_nodes(folder: Path) -> Iterator[Cluster]:
    """A head, and nodes whose processor or engine would compute different features."""
    (folder / "node").mkdir()
    (folder / "node" / "sitecustomize.py").write_text(OTHER_ENGINE)
    store = {"HEADSTART_STORE": str(default_folder())}
    with cluster(**store, AWS_SECRET_ACCESS_KEY=SECRET) as made:
        made.start_node(**OTHER_PROCESSOR)
        path = f"{folder / 'node'}{os.pathsep}{made.environment['PYTHONPATH']}"
        made.start_node(PYTHONPATH=path)
        yield made


@needs_namespaces
@pytest.mark.slow
def test_a_cluster_makes_the_same_bytes_and_refuses_who_would_make_others(
    pictured: Project, tmp_path: Path, draw_shapes: Callable[..., None]
) -> None:
    with three_nodes(tmp_path) as ray:
        local, views = run_here(ray)

        # Two nodes are refused by name; what they would have done the third does.
        # A node that opens after all is computed is not heard of, so there may be a further run.
        ask_for_ray(pictured)
        lines: set[str] = set()
        for _ in range(5):
            empty()
            first = ray.run(*EXTRACT)
            assert first.returncode == 0, first.stderr
            assert computed(first.stdout) == f"0 reused, {views} computed"
            assert shards() == local
            lines |= {*first.stderr.splitlines()}
            if len(lines) == 2:
                break
        told = sorted(lines)
        assert len(told) == 2, told
        assert re.fullmatch(
            r"extract: node 10\.77\.0\.2 is not used: it would compute different features:"
            r" it has '.* x86_64 avx', and this process has '.* x86_64 avx\w+'",
            told[0],
        ), told
        assert re.match(
            r"extract: node 10\.77\.0\.3 is not used: it .* onnxruntime 1\.0\.0 cpu .*, and",
            told[1],
        ), told

        # By any door a second run has nothing to do, and ten more pictures are ten more.
        for asked in (True, False):
            ask_for_ray(pictured, asked)
            assert computed(ray.run(*EXTRACT).stdout) == f"{views} reused, 0 computed"
        draw_shapes(range(100, 110))
        for stage in ("ingest", "augment"):
            assert ray.run(sys.executable, "-m", f"pipeline.{stage}").returncode == 0
        ask_for_ray(pictured)
        more = computed(ray.run(*EXTRACT).stdout)
        train = pd.read_parquet(MANIFEST)["split"].value_counts()["train"]
        assert more == f"{views} reused, {110 + train - views} computed"

        # A token that is wrong, or none, or a cluster that asks for none: one line.
        for name, value, said in (
            ("RAY_AUTH_TOKEN", "another-token-of-more-than-a-few-letters", "rejects the token"),
            ("RAY_AUTH_TOKEN", "", "and none is set"),
            ("RAY_AUTH_MODE", "disabled", "would be joined without a token"),
        ):
            empty()
            wrong = ray.run(*EXTRACT, environment={name: value})
            assert wrong.returncode == 11
            (line,) = wrong.stderr.splitlines()
            assert line.startswith(f"extract: error: the Ray cluster at 10.77.0.1:{PORT} ")
            assert said in line

        # The secrets are in no file of Ray, of the project or of the store.
        looked = 0
        for folder in (ray.folder, tmp_path):
            for file in (file for file in folder.rglob("*") if file.is_file()):
                data = file.read_bytes()
                looked += 1
                assert TOKEN.encode() not in data, file
                assert SECRET.encode() not in data, file
        assert looked > 50
        assert not [it for it in ray.processes().values() if TOKEN in it or SECRET in it]


@needs_namespaces
@pytest.mark.slow
def test_a_killed_worker_node_or_driver_loses_nothing(
    pictured: Project, tmp_path: Path, draw_shapes: Callable[..., None]
) -> None:
    draw_shapes(range(100, 200))
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "sitecustomize.py").write_text(OTHER_CLOCK)
    with cluster(HEADSTART_STORE=str(default_folder())) as ray:
        # The clock of the second node is 400 days ahead.
        path = f"{tmp_path / 'node'}{os.pathsep}{ray.environment['PYTHONPATH']}"
        second = ray.start_node(PYTHONPATH=path)
        local, views = run_here(ray)
        ask_for_ray(pictured)

        driver = ray.start(*EXTRACT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_for(lambda: entries() > 8)
        driver.kill()
        driver.wait()
        wait_for(lambda: not ray.workers())
        kept = entries()
        assert 8 < kept < views - 20

        # One of the two workers is killed, and the other with its machine.
        log = tmp_path / "said"
        with log.open("w") as file:
            again = ray.start(*EXTRACT, stderr=file, stdout=file)
            wait_for(lambda: entries() > kept + 4)
            (victim,) = ray.workers().keys() - ray.processes(second).keys()
            os.kill(victim, signal.SIGKILL)
            ray.kill(second)
            assert again.wait(timeout=240) == 0, log.read_text()
        said = log.read_text()
        assert computed(said) == f"{kept} reused, {views - kept} computed"
        for node in ("10.77.0.1", "10.77.0.2"):
            assert f"a worker on node {node} is lost; other workers do its work" in said
        assert shards() == local
        assert entries() == views + 200 + 1  # the floor's, and a note about the shards
