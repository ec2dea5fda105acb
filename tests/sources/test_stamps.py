"""Files with the stamp that they had are not read again; any change of one is seen."""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline import ingest
from pipeline.core import packages
from pipeline.core.paths import MANIFEST, REFUSED
from pipeline.examples import files
from pipeline.kinds import vector
from pipeline.sources import remembered, stamps
from pipeline.store.interface import Feature
from pipeline.store.places import default_folder
from pipeline.store.vectors import FeatureStore
from pipeline.tables.manifest import read_manifest
from tests.conftest import Project

ROOT = Path("data/raw/x")
FIRST = ROOT / "ant" / "0.npy"
MATRIX = ROOT / "vectors.npy"


@pytest.fixture
def read(project: Project, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What is read, in a project of 20 vectors that count as long there."""
    source("folder")
    monkeypatch.setattr(stamps, "SETTLED_NS", 0)
    for number in range(20):
        put(number)
    paths: list[Path] = []
    load = files.load

    def noting(path: Path, most_bytes: int) -> bytes:
        paths.append(path)
        return load(path, most_bytes)

    monkeypatch.setattr(files, "load", noting)
    return paths


def source(name: str) -> None:
    document = yaml.safe_load(Path("params.yaml").read_text())
    ingested = {"kind": "vector", "source": name, "path": str(ROOT), "max_refused": 0.5}
    document |= {"ingest": document["ingest"] | ingested, "augment": {"views": 0}}
    Path("params.yaml").write_text(yaml.safe_dump(document))


def numbers(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=3)


def put(number: int) -> Path:
    file = ROOT / ("ant", "bee")[number % 2] / f"{number}.npy"
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, numbers(number))
    return file


def run() -> tuple[bytes, bytes]:
    ingest.ingest()
    return MANIFEST.read_bytes(), REFUSED.read_bytes()


def digests() -> dict[str, str]:
    table = read_manifest(MANIFEST)
    return dict(zip(table["path"], table["digest"], strict=True))


def test_a_file_with_the_stamp_that_it_had_is_not_read(read: list[Path]) -> None:
    first = run()
    assert len(read) == 20
    read.clear()
    assert run() == first
    assert read == []
    new = put(20)
    run()
    assert read == [new]
    new.unlink()
    assert run() == first
    assert read == [new]


@pytest.mark.parametrize("deed", ["edited in place", "renamed over"])
def test_a_change_that_keeps_size_and_time_is_seen(read: list[Path], deed: str) -> None:
    run()
    before, was = FIRST.stat(), digests()
    target = FIRST
    if deed == "renamed over":
        target = Path(shutil.copy(FIRST, FIRST.with_name("other")))
    with target.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(np.float64(7).tobytes())
    target.replace(FIRST)
    os.utime(FIRST, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = FIRST.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert (after.st_ino == before.st_ino) == (deed == "edited in place")
    read.clear()
    run()
    assert read == [FIRST]
    assert {path for path, digest in digests().items() if digest != was[path]} == {str(FIRST)}


@pytest.mark.parametrize("deed", ["young", "of the future"])
def test_a_young_stamp_is_not_trusted_nor_one_of_the_future(
    read: list[Path], monkeypatch: pytest.MonkeyPatch, deed: str
) -> None:
    now = time.time_ns
    with monkeypatch.context() as patch:
        if deed == "young":
            patch.setattr(stamps, "SETTLED_NS", 3_600_000_000_000)
        else:  # the clock was set back
            patch.setattr(time, "time_ns", lambda: now() - 3_600_000_000_000)
        run()
    read.clear()
    run()
    assert len(read) == 20


def test_of_a_folder_or_a_cache_from_elsewhere_all_is_read(
    read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The times of the files are copied, and the cache has the folder's path."""
    run()
    cache = default_folder()
    shutil.copytree(cache, cache.with_name("copied"))
    shutil.copytree(ROOT, "copied", copy_function=shutil.copy2)
    shutil.rmtree(ROOT)
    Path("copied").rename(ROOT)
    monkeypatch.setenv("HEADSTART_STORE", str(cache.with_name("copied")))
    read.clear()
    run()
    assert len(read) == 20
    there = Path.cwd()
    shutil.copytree(there, "../moved")
    monkeypatch.chdir("../moved")
    read.clear()
    run()
    assert len(read) == 20


def test_rows_follow_their_table_and_its_matrix(read: list[Path]) -> None:
    shutil.rmtree(ROOT)
    ROOT.mkdir(parents=True)
    source("csv")
    np.save(MATRIX, np.stack([numbers(number) for number in range(20)]))
    labels = ROOT / "labels.csv"
    labels.write_text("label\n" + "ant\nbee\n" * 10)
    first = run()
    read.clear()
    assert run() == first
    assert read == []
    before = MATRIX.stat()
    with MATRIX.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(np.float64(7).tobytes())
    os.utime(MATRIX, ns=(before.st_atime_ns, before.st_mtime_ns))
    was = digests()
    run()
    assert len(read) == 20
    changed = {path for path, digest in digests().items() if digest != was[path]}
    assert changed == {f"{labels}#20"}
    read.clear()
    labels.write_text(labels.read_text().replace("bee", "cow"))
    run()
    assert len(read) == 20


def test_what_was_refused_is_not_read_until_it_could_be_taken(
    read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (ROOT / "ant" / "none.npy").write_bytes(b"no vector")
    empty = ROOT / "ant" / "empty.npy"
    empty.touch()
    first = run()
    read.clear()
    assert run() == first
    assert read == [empty]  # not refused for what it contains
    read.clear()
    monkeypatch.setitem(packages.SETS, "another", ("json",))  # a set that is installed meanwhile
    assert run() == first
    assert len(read) == 22


def test_after_an_update_of_what_reads_a_format_all_is_read(
    read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector.KIND, "form", lambda data: "X")
    for by, count in (("library 1", 20), ("library 1", 0), ("library 2", 20), ("library 2", 0)):
        monkeypatch.setattr(vector.KIND, "read_by", lambda form, by=by: by)
        read.clear()
        run()
        assert len(read) == count


def test_stamps_stay_on_this_machine(read: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine's files may have the same stamps."""
    sent: dict[bytes, Feature] = {}

    class Bucket:
        def get(self, keys: Sequence[bytes]) -> dict[bytes, Feature]:
            return {key: sent[key] for key in keys if key in sent}

        def put(self, entries: Mapping[bytes, Feature]) -> None:
            sent.update(entries)

        def close(self) -> None:
            pass

    monkeypatch.setattr(remembered, "open_store", Bucket)
    monkeypatch.setenv("XDG_CACHE_HOME", str(default_folder().parent))
    monkeypatch.setenv("HEADSTART_STORE", "s3://bucket/features")
    first = run()
    assert len(sent) == 20
    with FeatureStore(default_folder(), None) as local:
        assert local.statistics().entries == 1
    read.clear()
    assert run() == first
    assert read == []
