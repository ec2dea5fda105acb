"""The store is a cache: empty, full or damaged, no stage writes another byte.

So `dvc.yaml` lists `pipeline/store` nowhere; `tests/test_dvc_yaml.py` asks here for which stages
that is shown.
"""

import importlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core.errors import DataError
from pipeline.store.database import features_file
from pipeline.store.interface import checksum
from pipeline.store.places import default_folder
from pipeline.store.vectors import FeatureStore
from pipeline.tables import by_key
from tests import test_adapt
from tests.conftest import Project

LINEAR = (
    "ingest", "extract", "train", "evaluate", "checks", "bundle", "report", "learning_curve",
    "rank", "adapt",
)  # fmt: skip
TRAINED = ("finetune", "best", "from_scratch")  # in tests/test_finetune.py
SHOWN = LINEAR + TRAINED
vectors = test_adapt.vectors


def stage(name: str) -> Callable[[], None]:
    found: Callable[[], None] = getattr(importlib.import_module(f"pipeline.{name}"), name)
    return found


def empty() -> None:
    with FeatureStore(default_folder(), None) as store:
        store.clear()


def damaged() -> None:
    """Every vector, verdict and outcome of an inspection is there, and is another."""
    with sqlite3.connect(features_file(default_folder())) as database:
        database.execute("UPDATE vectors SET value = zeroblob(length(value))")
    database.close()


def full() -> None:
    """As the stages before left it."""


def run(stages: tuple[str, ...], harm: Callable[[], None] = full) -> dict[str, bytes]:
    """What the stages write, each begun on a store that was harmed."""
    for name in stages:
        harm()
        while True:
            try:
                stage(name)()
                break
            except DataError as error:  # vectors that a table of keys names are not there
                if by_key.BRING_BACK not in str(error):
                    raise
                stage("extract")()
    files = [file for file in Path().rglob("*") if file.is_file() and file.name != "params.yaml"]
    # The feature table has one of two forms, and how quick a backbone is differs by the run.
    others = {file for file in files if "features" in file.parts} | {Path("reports/rank_speed.csv")}
    return {str(file): file.read_bytes() for file in files if file not in others}


def features() -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in Path("data/features").iterdir()}


def assert_no_byte_changes(project: Project, stages: tuple[str, ...]) -> None:
    first, of_first = run(stages, empty), features()
    for harm in (full, damaged):
        assert run(stages, harm) == first
        assert features() == of_first
    project.set(**{"extract.features": "keys"})
    stage("extract")()
    of_keys = features()
    for harm in (empty, damaged):  # a stage that reads vectors runs again after they are back: full
        assert run(stages, harm) == first
        assert features() == of_keys


@pytest.mark.slow
def test_what_is_in_the_store_changes_no_byte(vectors: Project) -> None:
    test_adapt.write(0.4, [0.6, 0.2, 0.2], train=60, val=30, test=60)
    vectors.set(**{"rank.backbones": ["identity"], "learning_curve.draws": 1})
    stage("ingest")()
    stage("augment")()
    assert_no_byte_changes(vectors, LINEAR)


def test_a_checksum_in_the_feature_table_is_fixed() -> None:
    """Another one would have every stage behind `extract` refuse the table."""
    assert checksum(bytes(range(16)), b"\0\0\x80?") == 126870791
