"""Features named by their keys: the vectors come from the store, and what it lacks is one line."""

import importlib
import re
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.core import paths
from pipeline.core.errors import DataError, ParamsError
from pipeline.store.database import LAYOUT
from pipeline.store.places import default_folder
from pipeline.store.vectors import FeatureStore, open_store
from pipeline.tables import by_key, joined
from pipeline.tables.features import are_counts, read_splits, write_shards
from tests.kinds.text import test_text
from tests.kinds.vector import test_vector
from tests.tables.test_features import digest, manifest, rows

SPLITS = ["train", "val", "test"]
LENGTHS = (5, 3)  # of what the networks give


@pytest.fixture(autouse=True)
def of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))


def key(code, view, network):
    return bytes.fromhex(code[:28]) + bytes([view, network])


def vector(code, view, network):
    draw = np.random.default_rng([int(code[:7], 16), view, network])
    return draw.standard_normal(LENGTHS[network]).astype(np.float32)


def write(folder, networks, counts=False):
    """What `extract` leaves of both forms: `vectors` and `keys` in the folder."""
    table = rows(manifest())
    digests, views = [code for code, _ in table], [view for _, view in table]
    parts, kept = [], []
    with open_store() as store:
        for network in range(networks):
            keys = [key(*row, network) for row in table]
            parts.append(np.stack([vector(*row, network) for row in table]))
            store.put(dict(zip(keys, parts[-1], strict=True)))
            kept.append(by_key.kept(keys, store.checksums(keys)))
    write_shards(folder / "vectors", [(digests, views, joined.beside(parts))], counts)
    write_shards(folder / "keys", [(digests, views, np.stack(kept, axis=1))], counts)


def read(folder, *splits):
    found = read_splits(folder, manifest(), ["ants", "bees"], splits or SPLITS, power=0.5)
    return {split: of.features for split, of in found.items()}


@pytest.mark.parametrize("networks", [1, 2])
def test_keys_and_vectors_are_read_alike_to_the_bit(tmp_path, networks):
    write(tmp_path, networks, counts=networks == 1)
    by_vectors, by_keys = read(tmp_path / "vectors"), read(tmp_path / "keys")
    for split in SPLITS:
        assert by_keys[split].dtype == np.float32
        assert by_keys[split].tobytes() == by_vectors[split].tobytes()
        assert by_keys[split].shape == by_vectors[split].shape
    assert are_counts(tmp_path / "keys") == are_counts(tmp_path / "vectors") == (networks == 1)
    shard = next((tmp_path / "keys").iterdir())
    first = pq.read_table(shard).to_pylist()[0]
    told = {"digest", "view"}
    for network, ending in enumerate(["", "_2"][:networks]):
        assert first[f"key{ending}"] == key(first["digest"], first["view"], network)
        told |= {f"key{ending}", f"checksum{ending}"}
    assert first.keys() == told


def test_a_split_without_examples_has_features_of_the_same_length(tmp_path):
    write(tmp_path, networks=1)
    table = manifest()
    table["split"] = table["split"].replace("val", "test")
    splits = read_splits(tmp_path / "keys", table, ["ants", "bees"], SPLITS)
    assert splits["val"].features.shape == (0, 5)


def lose(*keys):
    with sqlite3.connect(default_folder() / f"features-v{LAYOUT}.sqlite") as database:
        database.executemany("DELETE FROM entries WHERE key = ?", [(one,) for one in keys])
    database.close()


def test_what_the_store_lacks_is_one_line_with_the_command(tmp_path):
    write(tmp_path, networks=2)
    lose(key(digest(0), 1, 0), key(digest(0), 1, 1), key(digest(9), 0, 0))
    with pytest.raises(DataError) as told:
        read(tmp_path / "keys")
    assert str(told.value) == (
        f"{tmp_path / 'keys'} needs 48 vectors of the feature store {default_folder()}, which lacks"
        f" 3 of them; run `{by_key.BRING_BACK}`, which computes what is missing, and then run this"
        " again"
    )
    assert len(read(tmp_path / "keys", "val")["val"]) == 3  # which lacks none
    with pytest.raises(DataError, match=r"needs 6 vectors .* lacks 1 of them; run"):
        read(tmp_path / "keys", "test")


def test_a_damaged_vector_and_another_one_count_as_missing(tmp_path):
    write(tmp_path, networks=1)
    other = key(digest(1), 0, 0)
    with open_store() as store:
        store.put({other: vector(digest(1), 1, 0)})
    with sqlite3.connect(default_folder() / f"features-v{LAYOUT}.sqlite") as database:
        torn = "UPDATE vectors SET value = ? WHERE id = (SELECT id FROM entries WHERE key = ?)"
        database.execute(torn, (bytes(20), key(digest(0), 0, 0)))
    database.close()
    with pytest.raises(
        DataError, match=r"needs 24 vectors .* lacks 2 of them \(and has different values for 1 of"
    ):
        read(tmp_path / "keys")
    with open_store() as store:  # the command finds that it is to be computed
        assert key(digest(0), 0, 0) not in store.held([key(digest(0), 0, 0)])


def test_a_folder_of_both_forms_is_refused(tmp_path):
    write(tmp_path, networks=1)
    shard = next((tmp_path / "vectors").iterdir())
    shard.replace(tmp_path / "keys" / shard.name)
    with pytest.raises(DataError, match=r"mixes keys and vectors; delete it and run the extract"):
        read(tmp_path / "keys")


def test_reading_and_asking_for_checksums_are_uses(tmp_path):
    with FeatureStore(default_folder(), 2_000_000) as store:
        for number in range(300):
            store.put({number.to_bytes(16): np.full(1280, number, np.float32)})
    asked = [number.to_bytes(16) for number in range(100)]
    with FeatureStore(default_folder(), 2_000_000) as store:
        assert store.checksums([*asked, b"0" * 16]).keys() == set(asked)
    with FeatureStore(default_folder(), 2_000_000) as store:
        for number in range(300, 500):
            store.put({number.to_bytes(16): np.full(1280, number, np.float32)})
        assert store.held(asked) == set(asked)


STAGES = ("ingest", "augment", "extract", "train", "evaluate", "checks", "bundle")
vectors, texts = test_vector.vectors, test_text.texts


def run(*stages):
    for stage in stages:
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()


def outputs():
    folders = ("models", "reports", "bundle")
    files = [file for name in folders for file in Path(name).rglob("*") if file.is_file()]
    return {str(file): file.read_bytes() for file in files}


def bytes_of_features():
    return sum(file.stat().st_size for file in paths.FEATURES.iterdir())


@pytest.mark.slow
def test_every_stage_gives_the_same_bytes(texts):
    test_text.write(test_text.notes(120))  # counts of terms; vectors are in tests/store/test_cache
    run(*STAGES, "learning_curve")
    before, size = outputs(), bytes_of_features()
    texts.set(**{"extract.features": "keys"})
    run(*STAGES[2:], "learning_curve")
    assert outputs() == before
    assert are_counts(paths.FEATURES)
    assert bytes_of_features() < size / 10


def test_ten_added_compute_ten_and_an_emptied_store_is_filled_by_the_command(vectors, capsys):
    vectors.set(**{"extract.features": "keys"})
    test_vector.write(120)
    run(*STAGES[:4])
    test_vector.write(130)
    capsys.readouterr()
    run(*STAGES[:3])
    assert "120 reused, 10 computed" in capsys.readouterr().out
    run("train")
    kept = {file.name: file.read_bytes() for file in paths.FEATURES.iterdir()}
    with FeatureStore(default_folder(), None) as store:
        store.clear()
    with pytest.raises(DataError, match=re.escape(by_key.BRING_BACK)):
        run("train")
    run("extract")
    assert {file.name: file.read_bytes() for file in paths.FEATURES.iterdir()} == kept
    run("train")


def test_a_limit_below_what_is_to_be_kept_is_refused_before_anything_is_computed(texts):
    texts.set(**{"extract.features": "keys", "store.limit": "1MB"})
    test_text.write(test_text.notes(120))
    run(*STAGES[:2])
    words = r"^extract\.features keys needs \S+ GB of vectors .* is 0\.001 GB; raise it, or set "
    with pytest.raises(ParamsError, match=words):
        run("extract")
    assert not paths.FEATURES.exists()


def test_older_parameters_keep_vectors(vectors):
    file = Path("params.yaml")
    file.write_text(re.sub(r" *features: vectors.*\n", "", file.read_text()))
    test_vector.write(120)
    run(*STAGES[:3])
    assert "feature" in pd.read_parquet(paths.FEATURES).columns
