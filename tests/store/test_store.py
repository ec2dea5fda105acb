"""The feature store: nothing lost, nothing wrong, by real kills, flipped bytes and full disks."""

import contextlib
import fcntl
import inspect
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import kinds
from pipeline.core.errors import ParamsError, StoreError
from pipeline.runners.keys import view_key
from pipeline.store import vectors
from pipeline.store.database import LAYOUT
from pipeline.store.places import default_folder, default_limit, kept, replacing
from pipeline.store.vectors import FeatureStore
from tests.conftest import Project

PROJECT = Path(__file__).resolve().parents[2]
ORIGINAL = (0.0, 1.0, False, False)
DIGEST = sha256(b"a picture").hexdigest()
WIDTH = 1280
PATIENCE = 600  # seconds for a process to end: a busy machine needs its time


def key(number: int) -> bytes:
    return blake2b(number.to_bytes(8, "big"), digest_size=16).digest()


def feature(number: int, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(width, dtype=np.float32)


def some(*numbers: int) -> dict[bytes, np.ndarray]:
    return {key(number): feature(number) for number in numbers}


def assert_right(found: dict[bytes, np.ndarray], wanted: dict[bytes, np.ndarray]) -> None:
    """Every feature found is the one wanted, to the bit."""
    assert set(found) <= set(wanted)
    for name, value in found.items():
        assert value.dtype == np.float32
        assert value.tobytes() == wanted[name].tobytes()


def assert_holds(store: FeatureStore, wanted: dict[bytes, np.ndarray]) -> None:
    found = store.get(list(wanted))
    assert set(found) == set(wanted)
    assert_right(found, wanted)


def put_on(store: FeatureStore, done: list[int]) -> None:
    """Put without end; `done` are the numbers that were put."""
    while True:
        batch = range(len(done), len(done) + 16)
        store.put(some(*batch))
        done += batch


# What the processes that these tests start have in common; importing this file would take longer.
PREAMBLE = """
import sys
from hashlib import blake2b
from pathlib import Path
import numpy as np
from pipeline.core.errors import StoreError
from pipeline.store.vectors import FeatureStore

WIDTH = 1280
folder = Path(sys.argv[1])

def said(text):
    print(text, flush=True)

""" + "\n".join(
    inspect.getsource(helper) for helper in (key, feature, some, assert_right, assert_holds, put_on)
)


def start(code: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(code), *map(str, arguments)],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]", told: str = "") -> str:
    out, err = process.communicate(told, timeout=PATIENCE)
    assert process.returncode == 0, err
    return out


def fill(store: FeatureStore) -> list[int]:
    """Put until there is no room; the numbers that were put."""
    done: list[int] = []
    with pytest.raises(StoreError, match="no room"):
        put_on(store, done)
    return done


def use_up(file: Path) -> None:
    """Leave not a byte on the disk."""
    with file.open("wb", buffering=0) as opened, contextlib.suppress(OSError):
        while True:
            opened.write(bytes(1000))
    assert shutil.disk_usage(file).free == 0


# Keys


IMAGE = kinds.named("image")


def key_of(
    digest: str, view: tuple[Any, ...], backbone: str, view_code: int = IMAGE.view_code
) -> bytes:
    """The key of a view of a picture."""
    return view_key(digest, IMAGE.pack_view(view), view_code, backbone)


finite = st.floats(allow_nan=False, allow_infinity=False)
fields = st.tuples(
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    st.tuples(finite, finite, st.booleans(), st.booleans()),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.integers(0, 2**32 - 1),
)


@given(fields, fields)
def test_keys_are_equal_only_where_every_field_is(
    one: tuple[Any, ...], other: tuple[Any, ...]
) -> None:
    assert (key_of(*one) == key_of(*other)) == (one == other)


@given(fields, st.integers(0, 3), st.data())
def test_changing_one_field_changes_the_key(
    one: tuple[Any, ...], place: int, data: st.DataObject
) -> None:
    other = list(one)
    other[place] = data.draw(fields)[place]
    assert (key_of(*one) == key_of(*other)) == (one == tuple(other))


def test_characters_moved_between_fields_change_the_key() -> None:
    names = [
        key_of(DIGEST, (angle, 1.0, False, False), name)
        for angle, name in [
            (1.0, "2.0"),
            (12.0, ".0"),
            (1.0, "2.00"),
            (1.0, "\x002.0"),
            (1.0, "2.0\x00"),
        ]
    ]
    assert len(set(names)) == 5
    assert key_of(DIGEST, (2.0, 3.0, False, True), "") != key_of(
        DIGEST, (3.0, 2.0, True, False), ""
    )


def test_numbers_that_are_equal_give_the_same_key() -> None:
    wanted = key_of(DIGEST, ORIGINAL, "backbone")
    assert len(wanted) == 16
    assert key_of(DIGEST.upper(), (-0.0, 1, 0, 0), "backbone") == wanted
    numpy = (np.float64(0), np.float32(1), np.bool_(False), np.bool_(False))
    assert key_of(DIGEST, numpy, "backbone") == wanted
    assert key_of(DIGEST, (0.0, 1.0, True, False), "backbone") != wanted


def test_the_form_of_a_key_is_fixed() -> None:
    # Another value here makes every store worthless: raise VIEW_CODE or LAYOUT knowingly.
    assert (
        key_of(DIGEST, (12.5, 0.9, True, False), "b0").hex() == "1189c39bda2260725caaea95691353cd"
    )


@pytest.mark.parametrize(
    ("digest", "view"),
    [
        (DIGEST[:-2], ORIGINAL),
        ("0" + DIGEST[:-1] + " ", ORIGINAL),
        (DIGEST[:31] + " " + DIGEST[31:-1], ORIGINAL),
        (DIGEST, (float("nan"), 1.0, False, False)),
        (DIGEST, (0.0, float("inf"), False, False)),
    ],
)
def test_a_key_of_something_impossible_is_refused(digest: str, view: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"hex|finite"):
        key_of(digest, view, "backbone")


# Putting and getting


def test_what_is_put_is_got_to_the_bit(tmp_path: Path) -> None:
    odd = np.array([np.nan, -0.0, np.inf, 1e-45, 3], np.float32)
    wanted = {
        key(0): odd,
        key(1): feature(1, 1),
        key(2): feature(2, 20_000),
        **some(*range(3, 900)),
    }
    wanted[key(900)] = np.zeros(0, np.float32)
    with FeatureStore(tmp_path, None) as store:
        store.put(wanted)
        assert_holds(store, wanted)
    with FeatureStore(tmp_path, None) as store:
        assert_holds(store, wanted)
        assert set(store.get([key(5), key(5), key(1000)])) == {key(5)}
        assert store.held([key(5), key(1000)]) == {key(5)}
        assert store.get([]) == {}
        store.put({})
        assert store.statistics().entries == 901
        assert store.damaged == 0


def test_of_many_keys_the_same_are_held_as_of_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list(some(*range(0, 60, 2)))
    with FeatureStore(tmp_path, None) as store:
        store.put(some(*range(40)))
        few = store.held(asked)
        monkeypatch.setattr(vectors, "MANY", 10)
        assert store.held(asked) == few == set(some(*range(0, 40, 2)))  # all keys are read
        monkeypatch.setattr(vectors, "SCANNED", 1)
        assert store.held(asked) == few


def test_put_again_replaces(tmp_path: Path) -> None:
    with FeatureStore(tmp_path, None) as store:
        store.put(some(*range(10)))
        store.put({key(3): feature(30), key(10): feature(10)})
        assert_holds(store, {**some(*range(11)), key(3): feature(30)})
        assert store.statistics().entries == 11


@pytest.mark.parametrize("wrong", [np.zeros(3), np.zeros((1, 3), np.float32), np.float32(1)])
def test_only_float32_vectors_are_stored(tmp_path: Path, wrong: np.ndarray) -> None:
    with FeatureStore(tmp_path, None) as store:
        with pytest.raises(ValueError, match="float32 vector"):
            store.put({key(0): feature(0), key(1): wrong})
        assert store.get([key(0)]) == {}


def test_threads_share_a_store(tmp_path: Path) -> None:
    wanted = some(*range(400))
    problems: list[BaseException] = []

    def put_and_get(first: int) -> None:
        try:
            for at in range(first, first + 100, 10):
                store.put(some(*range(at, at + 10)))
                assert_holds(store, some(*range(first, at + 10)))
        except BaseException as problem:
            problems.append(problem)

    with FeatureStore(tmp_path, None) as store:
        threads = [
            threading.Thread(target=put_and_get, args=(first,)) for first in (0, 100, 200, 300)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not problems
        assert_holds(store, wanted)


def test_importing_the_store_is_cheap() -> None:
    code = (
        "import pipeline.store.vectors, sys;"
        "print('torch' in sys.modules or 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.stdout == "False\n"


# Kills


PUT_ON_AND_ON = """
with FeatureStore(folder, None) as store:
    for batch in range(int(sys.argv[2]), 10**9):
        store.put(some(*range(batch * 16, batch * 16 + 16)))
        said(batch)
"""


def test_a_kill_keeps_what_was_put(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    batch = 0
    for _ in range(5):
        process = start(PUT_ON_AND_ON, tmp_path, batch)
        assert process.stdout is not None
        for _ in range(chance.integers(1, 20)):
            process.stdout.readline()
        time.sleep(chance.uniform() * 0.05)
        process.send_signal(signal.SIGKILL)
        finished = process.communicate()[0].split()
        assert process.returncode == -signal.SIGKILL
        first_unsaid = max([batch, *(int(line) + 1 for line in finished)])
        with FeatureStore(tmp_path, None) as store:
            assert_holds(store, some(*range(first_unsaid * 16)))
            # The batch it was in: all of it or none.
            assert len(
                store.get(list(some(*range(first_unsaid * 16, first_unsaid * 16 + 16))))
            ) in (0, 16)
            assert store.damaged == 0
        batch = first_unsaid
    assert batch > 20


@pytest.mark.slow
def test_a_kill_while_the_store_is_begun_leaves_one_that_opens(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    chance = np.random.default_rng(1)
    begin_on_and_on = """
    with FeatureStore(folder, None) as store:
        said("begun")
        while True:
            store.clear()
            store.put(some(1, 2))
    """
    for _ in range(6):
        process = start(begin_on_and_on, tmp_path)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform() * 0.1)
        process.kill()
        process.communicate()
        with FeatureStore(tmp_path, None) as store:
            assert_right(store.get([key(1), key(2)]), some(1, 2))
            store.put(some(3))
            assert_holds(store, some(3))
    assert "damaged" not in capfd.readouterr().err


# Damage


def file_of(folder: Path) -> Path:
    return folder / f"features-v{LAYOUT}.sqlite"


def flip(path: Path, at: int, mask: int = 0x10) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ mask]))


def test_a_flipped_byte_makes_its_entry_missing(tmp_path: Path) -> None:
    wanted = some(*range(50))
    with FeatureStore(tmp_path, None) as store:
        store.put(wanted)
    flip(file_of(tmp_path), file_of(tmp_path).read_bytes().index(feature(7)[:100].tobytes()) + 30)
    with FeatureStore(tmp_path, None) as store:
        found = store.get(list(wanted))
        assert_right(found, wanted)
        assert set(wanted) - set(found) == {key(7)}
        assert store.damaged == 1
        assert store.held([key(7)]) == set()
        assert store.statistics().entries == 49
        store.put(some(7))
        assert_holds(store, wanted)
    assert not file_of(tmp_path).with_suffix(".damaged").exists()


def test_a_vector_marked_as_text_is_no_error(tmp_path: Path) -> None:
    with FeatureStore(tmp_path, None) as store:
        store.put(some(1, 2))
    # SQLite writes "5120 bytes" as D0 0C, and "text of 5120 bytes" as D0 0D.
    value = file_of(tmp_path).read_bytes().index(feature(1)[:100].tobytes())
    length = file_of(tmp_path).read_bytes().rindex(b"\xd0\x0c", value - 16, value)
    flip(file_of(tmp_path), length + 1, 1)
    with FeatureStore(tmp_path, None) as store:
        assert_holds(store, some(1, 2))


def test_an_entry_whose_value_is_anothers_is_missing(tmp_path: Path) -> None:
    with FeatureStore(tmp_path, None) as store:
        store.put(some(1, 2))
    with sqlite3.connect(file_of(tmp_path)) as database:
        database.execute("UPDATE entries SET id = 3 - id")
    database.close()
    with FeatureStore(tmp_path, None) as store:
        assert store.get([key(1), key(2)]) == {}
        assert store.damaged == 2


def test_no_flipped_byte_anywhere_gives_a_wrong_feature_or_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sound = tmp_path / "sound"
    wanted = some(*range(60))
    with FeatureStore(sound, None) as store:
        store.put(wanted)
    size = file_of(sound).stat().st_size
    chance = np.random.default_rng(2)
    # Anywhere, and the first page, which holds SQLite's header and tables.
    places = [*chance.integers(size, size=60), *chance.integers(4096, size=40), *range(100)]
    for number, place in enumerate(places):
        folder = tmp_path / str(number)
        shutil.copytree(sound, folder)
        flip(file_of(folder), place, 1 << int(chance.integers(8)))
        with FeatureStore(folder, 10**9) as store:
            assert_right(store.get(list(wanted)), wanted)
            store.put(wanted)
            assert_holds(store, wanted)
            store.statistics()
        shutil.rmtree(folder)


def garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(3).bytes(path.stat().st_size))


def garbage_after_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:4096] + np.random.default_rng(3).bytes(path.stat().st_size))


def cut_to_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_within_the_header(path: Path) -> None:
    os.truncate(path, 50)


def text(path: Path) -> None:
    path.write_text("not a database " * 500)


def another_database(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE entries (something)")
    database.close()


def a_later_layout(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {LAYOUT + 1}")
    database.close()


def a_missing_table(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE vectors")
    database.close()


HARMS = [
    garbage,
    garbage_after_the_header,
    cut_to_half,
    cut_within_the_header,
    text,
    another_database,
    a_later_layout,
    a_missing_table,
]


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_file_is_set_aside(
    harm, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = some(*range(200))
    with FeatureStore(tmp_path, None) as store:
        store.put(wanted)
    harm(file_of(tmp_path))
    harmed = file_of(tmp_path).read_bytes()
    with FeatureStore(tmp_path, None) as store:
        assert store.get(list(wanted)) == {}
        store.put(wanted)
        assert_holds(store, wanted)
    (line,) = capfd.readouterr().err.splitlines()
    assert "is damaged" in line
    assert len(file_of(tmp_path).with_suffix(".damaged").read_bytes()) == len(harmed)
    with FeatureStore(tmp_path, None) as store:
        assert_holds(store, wanted)
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("harm", [garbage_after_the_header, cut_to_half])
def test_a_file_damaged_under_several_processes_is_set_aside_once(harm, tmp_path: Path) -> None:
    go_on = """
    first, wanted = int(sys.argv[2]), some(*range(1000))
    with FeatureStore(folder, None) as store:
        said("open")
        sys.stdin.readline()
        for i in range(first, first + 200, 20):
            assert_right(store.get(list(wanted)), wanted)
            store.put(some(*range(i, i + 20)))
        assert_holds(store, some(*range(first, first + 200)))
    """
    with FeatureStore(tmp_path, None) as store:
        store.put(some(*range(1000)))
    processes = [start(go_on, tmp_path, first) for first in (0, 200, 400)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
    harm(file_of(tmp_path))
    errors = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        errors += err.splitlines()
    assert len(errors) == 1
    assert "is damaged" in errors[0]
    with FeatureStore(tmp_path, None) as store:
        assert_holds(store, some(*range(600)))


def test_a_file_that_another_has_just_begun_is_not_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FeatureStore(tmp_path, None) as store:
        store.put(some(*range(1000)))
    with FeatureStore(tmp_path, None) as first, FeatureStore(tmp_path, None) as second:
        garbage_after_the_header(file_of(tmp_path))
        get = second._get

        def get_after_the_other(keys: list[bytes]) -> dict[bytes, np.ndarray]:
            monkeypatch.setattr(second, "_get", get)
            first.put(some(*range(1000, 1100)))
            return get(keys)

        monkeypatch.setattr(second, "_get", get_after_the_other)
        assert_holds(second, some(*range(1000, 1100)))
        second.put(some(1))
        assert_holds(first, some(1, *range(1000, 1100)))


def test_a_log_left_without_its_file_is_not_taken_up(tmp_path: Path) -> None:
    process = start(PUT_ON_AND_ON, tmp_path, 0)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate()
    file_of(tmp_path).unlink()
    assert (tmp_path / f"{file_of(tmp_path).name}-wal").stat().st_size > 16 * WIDTH * 4
    with FeatureStore(tmp_path, None) as store:
        assert store.statistics().entries == 0
        store.put(some(1000))
    with FeatureStore(tmp_path, None) as store:
        assert_holds(store, some(1000))
        assert store.statistics().entries == 1


# Disks


def test_a_full_disk_is_one_clear_error(small_disk: Path) -> None:
    other = small_disk / "other"
    other.write_bytes(bytes(3_000_000))
    with FeatureStore(small_disk / "store", None) as store:
        done = fill(store)
        assert len(done) > 100
        assert_holds(store, some(*done))
        other.unlink()
        store.put(some(-1 + 10**6))
        assert_holds(store, some(*done, -1 + 10**6))
    with FeatureStore(small_disk / "store", None) as store:
        assert_holds(store, some(*done, -1 + 10**6))
        assert store.damaged == 0


def test_a_store_on_a_full_disk_is_opened_read_and_cleared(small_disk: Path) -> None:
    wanted = some(*range(200))
    with FeatureStore(small_disk / "store", None) as store:
        store.put(wanted)
    other = small_disk / "other"
    use_up(other)
    with FeatureStore(small_disk / "store", None) as store:
        assert_holds(store, wanted)
        assert store.statistics().entries == 200
        with pytest.raises(StoreError, match="no room"):
            store.put(some(*range(200, 300)))
        other.unlink()
        store.put(some(*range(200, 300)))
        assert_holds(store, some(*range(300)))
    use_up(other)
    with FeatureStore(small_disk / "store", None) as store:
        store.clear()
        store.put(some(1))
        assert_holds(store, some(1))
    use_up(other)
    with pytest.raises(StoreError, match="no room"):
        FeatureStore(small_disk / "another", None)


def test_a_file_size_limit_is_like_a_full_disk(tmp_path: Path) -> None:
    limited = """
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))
    with FeatureStore(folder, None) as store:
        done = []
        try:
            put_on(store, done)
        except StoreError as error:
            assert "no room" in str(error)
        assert_holds(store, some(*done))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        store.put(some(10**6))
        assert_holds(store, some(*done, 10**6))
    said(len(done))
    """
    assert int(finish(start(limited, tmp_path))) > 100


def test_a_folder_that_cannot_be_written_is_read(small_disk: Path) -> None:
    wanted = some(*range(100))
    with FeatureStore(small_disk, None) as store:
        store.put(wanted)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with FeatureStore(small_disk, 1000) as store:
        assert_holds(store, wanted)
        assert store.held(list(some(1, 100))) == {key(1)}
        with pytest.raises(StoreError, match="Read-only file system"):
            store.put(some(100))
        with pytest.raises(StoreError, match="Read-only file system"):
            store.clear()
        assert_holds(store, wanted)
    with pytest.raises(StoreError, match="Read-only file system"):
        FeatureStore(small_disk / "another", None)


def test_a_folder_that_is_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match="HEADSTART_STORE"):
        FeatureStore(tmp_path / "store", None)


# Several processes


@pytest.mark.slow
def test_four_writers_and_four_readers_at_once(tmp_path: Path) -> None:
    put = """
    with FeatureStore(folder, None) as store:
        sys.stdin.readline()
        first = int(sys.argv[2])
        for i in range(first, first + 800, 16):  # half of them another's as well
            store.put(some(*range(i, i + 16)))
    """
    get = """
    wanted = some(*range(2000))
    with FeatureStore(folder, None) as store:
        sys.stdin.readline()
        while len(found := store.get(list(wanted))) < len(wanted):
            assert_right(found, wanted)
        assert_right(found, wanted)
        said(store.damaged)
    """
    writers = [start(put, tmp_path, first) for first in (0, 400, 800, 1200)]
    readers = [start(get, tmp_path) for _ in range(4)]
    for process in [*writers, *readers]:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [finish(writer) for writer in writers] == [""] * 4
    assert [finish(reader) for reader in readers] == ["0\n"] * 4


def test_a_lock_that_is_never_let_go_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.store.database.PATIENCE_S", 0.1)
    with FeatureStore(tmp_path, None) as store:
        store.put(some(1))
        with (tmp_path / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(StoreError, match="another process keeps"):
                store.put(some(2))
            assert_holds(store, some(1))
        store.put(some(2))
        assert_holds(store, some(1, 2))


def test_a_fork_that_inherited_the_lock_does_not_keep_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.store.database.PATIENCE_S", 1)
    with FeatureStore(tmp_path, None) as store:
        with store._file.alone():
            child = os.fork()
            if child == 0:  # as a worker process forked while a thread puts
                time.sleep(60)
                os._exit(0)
        store.put(some(1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert_holds(store, some(1))


@pytest.mark.slow
def test_the_log_does_not_grow_under_readers_without_a_pause(tmp_path: Path) -> None:
    read_on_and_on = """
    with FeatureStore(folder, None) as store:
        said("open")
        while True:
            store.get([key(i) for i in range(100)])
    """
    with FeatureStore(tmp_path, None) as store:
        store.put(some(*range(100)))
        readers = [start(read_on_and_on, tmp_path) for _ in range(3)]
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "open\n"
        batch = some(*range(100, 300))
        longest = 0
        for _ in range(50):  # 50 MB
            store.put(batch)
            longest = max(longest, (tmp_path / f"{file_of(tmp_path).name}-wal").stat().st_size)
        for reader in readers:
            reader.kill()
            reader.communicate()
        assert longest < 20_000_000


def test_a_store_cleared_by_another_process_is_found_again(tmp_path: Path) -> None:
    # What the first process still holds open is gone; closing it must not harm the new file.
    old = FeatureStore(tmp_path, None)
    old.put(some(*range(100)))
    idle = start(
        "store = FeatureStore(folder, None)\nstore.get([key(0)])\nsaid('open')\n"
        "sys.stdin.readline()\nstore.close()",
        tmp_path,
    )
    assert idle.stdout is not None
    idle.stdout.readline()
    clearing = "with FeatureStore(folder, None) as s:\n s.clear()\n s.put(some(*range(200, 300)))"
    new = FeatureStore(tmp_path, None)
    finish(start(clearing, tmp_path))
    assert_holds(new, some(*range(200, 300)))
    new.put(some(300))
    finish(idle, "close\n")
    assert old.get([key(0)]) == {}
    old.put(some(301))
    assert_holds(new, some(*range(200, 302)))
    old.close()
    new.close()
    with sqlite3.connect(file_of(tmp_path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    with FeatureStore(tmp_path, None) as store:
        assert_holds(store, some(*range(200, 302)))
        assert store.statistics().entries == 102


def test_a_deleted_folder_is_begun_again(tmp_path: Path) -> None:
    with FeatureStore(tmp_path / "store", None) as store:
        store.put(some(1))
        shutil.rmtree(tmp_path / "store")
        assert store.get([key(1)]) == {}
        store.put(some(2))
    with FeatureStore(tmp_path / "store", None) as store:
        assert_holds(store, some(2))


# The limit


LIMIT = 2_000_000  # some 360 features


def put_all(folder: Path, numbers: range, limit: int | None = LIMIT) -> None:
    with FeatureStore(folder, limit) as store:
        for first in range(numbers.start, numbers.stop, 10):
            store.put(some(*range(first, first + 10)))


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    for first in range(0, 300, 100):
        put_all(tmp_path, range(first, first + 100))
    with FeatureStore(tmp_path, LIMIT) as store:  # the first hundred are used again
        assert len(store.get([key(i) for i in range(100)])) == 100
    put_all(tmp_path, range(300, 400))
    with FeatureStore(tmp_path, LIMIT) as store:
        held = store.held([key(i) for i in range(400)])
    assert held >= {key(i) for i in [*range(100), *range(200, 400)]}
    assert 0 < len(held & {key(i) for i in range(100, 200)}) < 100


def test_the_file_stays_within_the_limit(tmp_path: Path) -> None:
    for first in range(0, 2000, 100):
        put_all(tmp_path, range(first, first + 100))
        assert file_of(tmp_path).stat().st_size <= LIMIT
    with FeatureStore(tmp_path, LIMIT) as store:
        assert 300 < store.statistics().entries < 380
        assert_holds(store, some(*range(1900, 2000)))


def test_a_lower_limit_shrinks_the_file(tmp_path: Path) -> None:
    put_all(tmp_path, range(1000), None)
    assert file_of(tmp_path).stat().st_size > 5_000_000
    put_all(tmp_path, range(1000, 1010))
    assert file_of(tmp_path).stat().st_size <= LIMIT
    with FeatureStore(tmp_path, LIMIT) as store:
        assert 300 < store.statistics().entries < 380
        assert_holds(store, some(*range(1000, 1010)))


def test_what_this_run_used_is_never_evicted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    put_all(tmp_path, range(300))
    with FeatureStore(tmp_path, LIMIT) as store:
        assert len(store.get([key(i) for i in range(100)])) == 100
        for first in range(300, 600, 10):
            store.put(some(*range(first, first + 10)))
        assert_holds(store, some(*range(100), *range(300, 600)))
        assert store.held([key(i) for i in range(100, 300)]) == set()
    (line,) = capfd.readouterr().err.splitlines()
    assert "limit of 0.002 GB, so nothing more" in line
    put_all(tmp_path, range(600, 610))  # the next run is within the limit again
    assert file_of(tmp_path).stat().st_size <= LIMIT


def test_what_this_run_found_and_will_read_is_not_evicted_by_what_it_puts_first(
    tmp_path: Path,
) -> None:
    put_all(tmp_path, range(300))
    with FeatureStore(tmp_path, LIMIT) as store:
        assert len(store.held([key(i) for i in range(100)])) == 100  # the oldest
        for first in range(300, 500, 10):
            store.put(some(*range(first, first + 10)))
        assert_holds(store, some(*range(100), *range(300, 500)))
        assert len(store.held([key(i) for i in range(100, 300)])) < 100


def test_a_look_that_nothing_follows_is_no_use(tmp_path: Path) -> None:
    put_all(tmp_path, range(300))
    with FeatureStore(tmp_path, LIMIT) as store:
        assert len(store.held([key(i) for i in range(100)])) == 100
    put_all(tmp_path, range(300, 500))
    with FeatureStore(tmp_path, LIMIT) as store:
        assert store.held([key(i) for i in range(100)]) == set()


def test_stamps_from_a_clock_set_back_do_not_keep_entries(tmp_path: Path) -> None:
    put_all(tmp_path, range(300))
    with sqlite3.connect(file_of(tmp_path)) as database:
        database.execute("UPDATE entries SET used = used + 1000000000000000")
    database.close()
    put_all(tmp_path, range(300, 600))
    assert file_of(tmp_path).stat().st_size <= LIMIT
    with FeatureStore(tmp_path, LIMIT) as store:
        assert_holds(store, some(*range(300, 600)))


# Layouts, settings and the command


def test_a_file_of_an_older_layout_is_left_alone(tmp_path: Path) -> None:
    older = tmp_path / f"features-v{LAYOUT - 1}.sqlite"
    older.write_bytes(b"as it was")
    with FeatureStore(tmp_path, None) as store:
        store.put(some(1))
        assert_holds(store, some(1))
    assert older.read_bytes() == b"as it was"


def test_clear_frees_the_disk(tmp_path: Path) -> None:
    (tmp_path / f"features-v{LAYOUT - 1}.sqlite").write_bytes(bytes(1000))
    (tmp_path / f"features-v{LAYOUT}.damaged").write_bytes(bytes(1000))
    (tmp_path / "someone's").write_bytes(bytes(1000))
    with FeatureStore(tmp_path, None) as store:
        store.put(some(*range(100)))
        store.clear()
        assert store.statistics().entries == 0
        assert store.get([key(1)]) == {}
        store.put(some(1))
        assert_holds(store, some(1))
    assert {file.name for file in tmp_path.iterdir()} == {
        "someone's",
        "lock",
        file_of(tmp_path).name,
    }
    assert file_of(tmp_path).stat().st_size < 50_000


def test_a_file_that_cannot_be_replaced_is_named_and_stays(small_disk: Path) -> None:
    file = small_disk / "file"
    file.write_text("first")
    with pytest.raises(OSError, match=r"No space left on device: .*/file'$"):  # noqa: SIM117
        with replacing(file) as unfinished:
            unfinished.write_bytes(bytes(10_000_000))
    assert file.read_text() == "first"
    assert list(small_disk.iterdir()) == [file]


def test_the_folder_is_one_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HEADSTART_STORE", raising=False)
    assert default_folder() == tmp_path / ".cache/headstart/features"
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert default_folder() == Path("/var/cache/headstart/features")
    monkeypatch.setenv("HEADSTART_STORE", "~/shared")
    assert default_folder() == tmp_path / "shared"
    monkeypatch.setenv("HEADSTART_STORE", "store")
    with pytest.raises(ParamsError, match="HEADSTART_STORE is 'store'; should be an absolute"):
        default_folder()


def test_the_setting_in_params_yaml_counts_where_the_environment_has_none(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project.set(**{"store.folder": str(tmp_path / "shared"), "store.limit": "3MB"})
    assert default_folder() != tmp_path / "shared"
    monkeypatch.delenv("HEADSTART_STORE")
    monkeypatch.delenv("HEADSTART_STORE_LIMIT", raising=False)
    assert default_folder() == tmp_path / "shared"
    assert default_limit() == 3_000_000
    project.set(**{"store.folder": "~/shared"})
    assert default_folder() == Path.home() / "shared"
    project.set(**{"store.folder": "shared"})
    with pytest.raises(ParamsError, match=r"store.folder is 'shared'; should be an absolute"):
        default_folder()
    project.set(**{"store.folder": None, "store.limit": "lots"})
    with pytest.raises(ParamsError, match=r"store.limit is 'lots'; should be a size such as"):
        default_limit()


def test_the_limit_is_one_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADSTART_STORE_LIMIT", raising=False)
    assert default_limit() == 20_000_000_000
    for chosen, wanted in [("1.5GB", 1_500_000_000), ("500 mb", 500_000_000), ("12", 12)]:
        monkeypatch.setenv("HEADSTART_STORE_LIMIT", chosen)
        assert default_limit() == wanted
    monkeypatch.setenv("HEADSTART_STORE_LIMIT", "none")
    assert default_limit() is None
    for wrong in ("lots", "-1GB", "5GiB", "1e3"):
        monkeypatch.setenv("HEADSTART_STORE_LIMIT", wrong)
        with pytest.raises(ParamsError, match="500MB or 20GB"):
            default_limit()


def command(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    settings = {**os.environ, "HEADSTART_STORE": str(folder), "HEADSTART_STORE_LIMIT": "3MB"}
    return subprocess.run(
        [sys.executable, "-m", "pipeline.store", *arguments],
        cwd=PROJECT,
        env=settings,
        capture_output=True,
        text=True,
    )


def test_the_command_prints_what_is_in_it_and_clears_it(tmp_path: Path) -> None:
    put_all(tmp_path, range(120))
    printed = command(tmp_path).stdout
    assert str(file_of(tmp_path)) in printed
    assert "entries      120\n" in printed
    assert "limit        3.0 MB\n" in printed
    assert "oldest       last used 20" in printed
    assert "backbones    0, 0.0 MB\n" in printed
    assert "entries      0\n" in command(tmp_path, "clear").stdout
    assert "oldest" not in command(tmp_path).stdout
    wrong = command(tmp_path, "empty")
    assert wrong.returncode == ParamsError.exit_code
    assert wrong.stderr == "store: error: 'empty' is not understood; give no argument, or clear\n"


def test_two_who_write_the_same_file_at_a_time_do_not_share_the_unfinished_one(
    tmp_path: Path,
) -> None:
    file = tmp_path / f"{'a' * 64}.onnx"
    with replacing(file) as last:
        last.write_bytes(b"last")
        with replacing(file) as first:
            first.write_bytes(b"first")
            assert sorted(kept(tmp_path)) == sorted([first, last])
        assert file.read_bytes() == b"first"
    assert file.read_bytes() == b"last"
    assert kept(tmp_path) == [file]


def test_the_command_tells_of_backbones_and_checkpoints_and_clears_them(tmp_path: Path) -> None:
    # Two backbones, a checkpoint, and what was killed while it wrote another of each.
    backbones, checkpoints = tmp_path / "backbones", tmp_path / "checkpoints"
    name, other = DIGEST, DIGEST[::-1]
    ours = [backbones / f"{of}{end}" for of in (name, other) for end in (".onnx", ".safetensors")]
    ours += [checkpoints / f"{name}.safetensors"]
    for file in ours:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes(1_000_000))
    for killed in (backbones / f"{name}.onnx", checkpoints / f"{name}.safetensors"):
        killed_in = f"""
        import os, signal
        from pipeline.store.places import replacing
        with replacing(folder / "{killed.relative_to(tmp_path)}") as unfinished:
            unfinished.write_bytes(bytes(1_000_000))
            os.kill(os.getpid(), signal.SIGKILL)
        """
        assert start(killed_in, tmp_path).wait() == -signal.SIGKILL
    foreign = [backbones / "mine.onnx", backbones / f"{name}.pkl", checkpoints / f"{name}.partial"]
    foreign += [tmp_path / f"{name}.onnx"]
    for file in foreign:
        file.write_bytes(bytes(1_000_000))
    assert len(list(tmp_path.rglob("*.*.*.partial"))) == 2
    printed = command(tmp_path).stdout
    assert "backbones    2, 5.0 MB\n" in printed
    assert "checkpoints  1, 2.0 MB\n" in printed
    printed = command(tmp_path, "clear").stdout
    assert "backbones    0, 0.0 MB\n" in printed
    assert "checkpoints  0, 0.0 MB\n" in printed
    assert {file for file in tmp_path.rglob("*") if file.is_file()} == {
        *foreign,
        tmp_path / "lock",
        file_of(tmp_path),
    }
