"""A stage of which an input is damaged ends in one line that names the file, whatever it holds."""

import importlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline import extract, kinds
from pipeline.core.errors import DataError, HeadstartError
from pipeline.examples import objects, rows
from pipeline.tables import manifest
from tests.conftest import ROOT

OTHER_TYPES = (b"[]", b"5", b"null", b"[" * 100_000)
# What the report does not read: plots that it draws itself, and of a model without mistakes what
# they would be explained with.
UNREAD = {
    *(f"bundle/{name}.safetensors" for name in ("backbone", "head", "neighbours")),
    *("bundle/README.md", "bundle/model.onnx", "bundle/neighbours.json"),
    "reports/plots/confusion_matrix.png",
    *(f"reports/plots/{name}.csv" for name in ("confusion", "precision_recall", "roc")),
}


@pytest.fixture
def folder(bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which all stages before the report ran."""
    folder = tmp_path / "project"
    shutil.copytree(bundled, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HEADSTART_STORE", str(folder / "cache" / "features"))
    return folder


def inputs(stage: str) -> list[Path]:
    """The files that other stages left for this one, of each folder of many the first."""
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]["deps"]
    found: list[Path] = []
    for path in map(Path, declared):
        if path.parts[0] in ("data", "models", "reports", "bundle"):
            inside = sorted(file for file in path.rglob("*") if file.is_file())
            found += inside[:1] if path.name == "features" else inside or [path]
    unread = {"report": UNREAD, "bundle": {"models/floor.safetensors"}}.get(stage, set())
    return [path for path in found if path.is_file() and path.as_posix() not in unread]


def damages(file: Path) -> Iterator[bytes]:
    """What may be in its place."""
    data = file.read_bytes()
    yield b""
    yield data[: len(data) // 2]
    yield b"\x00\xff\xfe" * 40
    if file.suffix == ".json":
        yield from OTHER_TYPES
    if file.suffix == ".csv":
        yield b"other,columns\n1,2\n"


def lines_of(stage: str, files: list[Path]) -> Iterator[tuple[Path, str]]:
    """What the stage ends with when each is damaged in each way."""
    run = getattr(importlib.import_module(f"pipeline.{stage}"), stage)
    for file in files:
        whole = file.read_bytes()
        for data in damages(file):
            file.unlink()
            file.write_bytes(data)
            with pytest.raises(HeadstartError) as stopped:
                run()
            yield file, str(stopped.value)
        file.write_bytes(whole)


@pytest.mark.parametrize(
    ("stage", "files"),
    [
        ("extract", ["data/plan.parquet"]),
        ("bundle", ["reports/metrics.json"]),
        ("report", ["reports/metrics.json", "bundle/bundle.json", "reports/predictions.csv"]),
    ],
)
def test_a_damaged_input_is_named_with_what_to_run(
    stage: str, files: list[str], folder: Path
) -> None:
    for file, line in lines_of(stage, [Path(name) for name in files]):
        assert len(line.splitlines()) == 1
        assert line.startswith(f"{file} ")
        assert "; run " in line


@pytest.mark.parametrize(
    "stage",
    [
        *("augment", "extract", "checks", "bundle"),
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("train", "evaluate", "report")),
    ],
)
def test_any_damaged_input_of_any_stage_is_named(stage: str, folder: Path) -> None:
    files = inputs(stage)
    assert Path("data/manifest.parquet") in files
    for file, line in lines_of(stage, files):
        assert len(line.splitlines()) == 1
        assert str(file) in line


def test_a_plan_of_another_kind_is_named(folder: Path) -> None:
    pd.DataFrame({"digest": ["a"], "view": [1]}).to_parquet("data/plan.parquet")
    with pytest.raises(
        DataError, match=r"^data/plan\.parquet has no column angle; run the augment"
    ):
        extract.extract()


def of_manifest(file: Path) -> None:
    manifest.kind_in(file)
    manifest.task_in(file)
    manifest.origins_in(file)
    manifest.read_manifest(file)


def of_table(file: Path) -> None:
    for path in rows.examples(file):
        rows.load(*rows.parted(path) or (file, ""))


def of_listing(file: Path) -> None:
    found = objects.Objects(file)
    assert [found.named(one.key) for one in found][:1]


COUNT = 20
NAMES = {"key": [f"ü{n:02}" for n in range(COUNT)], "label": ["ant", "bee"] * (COUNT // 2)}
PARQUET = {
    "texts": (of_table, NAMES | {"text": [f"Größe {n}" for n in range(COUNT)]}, {}),
    "vectors": (of_table, NAMES | {"vector": [[float(n), 1.0] for n in range(COUNT)]}, {}),
    "manifest": (
        of_manifest,
        {name: NAMES["key"] for name in ("digest", "path", "label", "split")},
        {b"headstart.splits": b'{"val": "drawn"}'},
    ),
    "plan": (
        lambda file: extract.read_plan(kinds.named("image")),
        {name: [1.0] * COUNT for name in ("digest", "view", "angle", "scale", "hflip", "vflip")},
        {},
    ),
    "listing": (
        of_listing,
        {"key": NAMES["key"], "etag": NAMES["key"], "size": [1] * COUNT},
        {b"address": b"s3://bucket/place"},
    ),
}


@pytest.mark.parametrize("name", PARQUET)
def test_a_parquet_file_with_any_flipped_bytes_is_read_or_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use, columns, metadata = PARQUET[name]
    file = tmp_path / f"{name}.parquet"
    monkeypatch.setattr(extract, "PLAN", file)
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), file, compression="none")
    use(file)
    whole, lines = file.read_bytes(), []
    for seed in range(150):
        draw, data = np.random.default_rng(seed), bytearray(whole)
        for place in draw.integers(0, len(data), draw.choice([1, 2, 8])):
            data[place] = draw.integers(0, 256)
        file.write_bytes(data)
        os.utime(file, ns=(seed, seed))  # or a table would be taken for the one before
        try:
            use(file)
        except HeadstartError as error:
            lines.append(str(error))
    assert lines
    assert not [line for line in lines if len(line.splitlines()) > 1]
