"""Examples that are rows of tables: their addresses and bytes, and tables that cannot be read."""

import io
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.errors import DataError, RefusedError
from pipeline.examples import files, rows
from pipeline.examples.files import digest
from tests.conftest import ROOT


def npy_header(shape):
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def vector(data):
    return np.load(io.BytesIO(data), allow_pickle=False).tolist()


@pytest.mark.parametrize(
    "key", ["7", "a/b", "..", "100%", "#", "a b", "Zürich", "tab\there", "%2F"]
)
def test_a_key_comes_back_from_its_address(tmp_path, key):
    address = rows.address(tmp_path / "t.csv", key)
    assert address.parent == tmp_path
    assert rows.parted(address) == (tmp_path / "t.csv", key)


def test_of_threads_that_ask_at_once_one_reads_the_table(tmp_path, monkeypatch):
    file, read, times = tmp_path / "t.csv", rows.read, []
    file.write_text("text,label\n" + "word,x\n" * 8)

    def slowly(*given, **more):
        times.append(1)
        time.sleep(0.2)
        return read(*given, **more)

    monkeypatch.setattr(rows, "read", slowly)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda number: rows.load(file, str(number)), range(1, 9))) == {b"word"}
    assert len(times) == 1


def test_a_file_of_such_a_name_is_a_file(tmp_path):
    file = tmp_path / "notes.csv#1"
    file.write_bytes(b"whole")
    assert rows.parted(file) is None
    assert files.load(file, 100) == b"whole"


def test_texts_of_a_csv_are_found_by_key_and_by_number(tmp_path):
    (tmp_path / "keyed.csv").write_text('key,text,label\nb,"two\nlines",x\na,Größe,y\n')
    (tmp_path / "plain.csv").write_text("text,label\none,x\ntwo,y\n")
    assert rows.load(tmp_path / "keyed.csv", "b") == b"two\nlines"
    assert files.load(tmp_path / "keyed.csv#a", 100) == "Größe".encode()
    assert [path.name for path in rows.examples(tmp_path / "plain.csv")] == [
        "plain.csv#1",
        "plain.csv#2",
    ]
    assert rows.load(tmp_path / "plain.csv", "2") == b"two"


@pytest.mark.parametrize(
    ("encoding", "separator"), [("cp1252", ","), ("utf-8", ";"), ("utf-16", "\t")]
)
def test_texts_of_another_dialect_are_found(tmp_path, encoding, separator):
    rows_of_it = ["text{}label", "Größe{}x", "“zwei”{}y"]
    written = "\n".join(row.format(separator) for row in rows_of_it)
    (tmp_path / "t.csv").write_bytes(written.encode(encoding))
    found = rows.examples(tmp_path / "t.csv", "text")
    assert [files.load(path, 100).decode() for path in found] == ["Größe", "“zwei”"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [("Text,label\none,x\n", "has no column text; it has Text, label: rename yours"),
     ("text,label\n", "has no rows")],
)  # fmt: skip
def test_a_table_without_examples_is_refused_if_they_are_wanted(tmp_path, content, reason):
    file = tmp_path / "t.csv"
    file.write_text(content)
    assert rows.examples(file) == []
    with pytest.raises(DataError, match=reason):
        rows.examples(file, "text")


def test_a_table_that_changed_is_read_again(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("text,label\none,x\n")
    assert rows.load(file, "1") == b"one"
    file.write_text("text,label\nanother,x\n")
    assert rows.load(file, "1") == b"another"


def test_vectors_of_a_matrix_beside_a_csv_and_of_parquet_have_the_same_bytes(tmp_path):
    numbers = np.random.default_rng(0).normal(size=(3, 5))
    (tmp_path / "labels.csv").write_text("key,label\na,x\nb,y\nc,x\n")
    np.save(tmp_path / "vectors.npy", numbers)
    forms = {"lists": pa.list_(pa.float64()), "fixed": pa.list_(pa.float32(), 5)}
    for name, form in forms.items():
        table = pa.table({"key": ["a", "b", "c"], "vector": pa.array(numbers.tolist(), form)})
        pq.write_table(table, tmp_path / f"{name}.parquet")
        for key in "abc":
            found = rows.load(tmp_path / f"{name}.parquet", key)
            assert found == rows.load(tmp_path / "labels.csv", key)
    assert vector(found) == numbers[2].astype(np.float32).tolist()


@pytest.mark.parametrize("form", ["<f8", ">f8", "<f2", ">i4", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_matrix_of_any_form_and_order_gives_the_rows_that_numpy_reads(tmp_path, form, order):
    numbers = np.arange(12).reshape(4, 3).astype(form, order=order)
    (tmp_path / "labels.csv").write_text("label\n" + "x\n" * 4)
    np.save(tmp_path / "vectors.npy", numbers)
    assert np.load(tmp_path / "vectors.npy", mmap_mode="r").flags.f_contiguous == (order == "F")
    found = [vector(rows.load(tmp_path / "labels.csv", str(n))) for n in range(1, 5)]
    assert found == numbers.astype(np.float32).tolist()


def test_a_matrix_that_changed_is_read_again_though_its_table_did_not(tmp_path):
    file, table = tmp_path / "vectors.npy", tmp_path / "labels.csv"
    table.write_text("label\nx\ny\n")
    np.save(file, np.zeros((2, 3)))
    assert vector(rows.load(table, "2")) == [0, 0, 0]
    np.save(tmp_path / "other.npy", np.ones((2, 3)))
    (tmp_path / "other.npy").replace(file)
    assert vector(rows.load(table, "2")) == [1, 1, 1]
    np.save(file, np.ones((1, 3)))
    with pytest.raises(RefusedError, match=r"vectors\.npy has 1 rows and .*labels\.csv has 2"):
        rows.load(table, "1")
    file.unlink()
    with pytest.raises(RefusedError, match="has no example 1"):
        rows.load(table, "1")


TRUNCATING = """
import os, sys
import numpy as np
from pathlib import Path
from pipeline.examples import files, rows

folder = Path(sys.argv[1])
held = rows.read(folder / "labels.csv").cells
os.truncate(folder / "vectors.npy", 4096)
try:
    held[999]
except Exception as error:
    print(type(error).__name__, error)
for path in ("labels.csv#1", "labels.csv#1000"):
    try:
        files.load(folder / path, 10**6)
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_a_matrix_that_is_truncated_while_it_is_open_ends_no_process(tmp_path):
    """By a memory map it would, by signal 7: so it is another process that reads."""
    (tmp_path / "labels.csv").write_text("label\n" + "x\n" * 1000)
    np.save(tmp_path / "vectors.npy", np.zeros((1000, 100)))
    done = subprocess.run(
        [sys.executable, "-c", TRUNCATING, tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    file = tmp_path / "vectors.npy"
    short = (
        f"RefusedError {file} cannot be read as an NPY matrix: it has 4,096 bytes, but"
        " [1000, 100] float64 needs 800,128"
    )
    assert done.stdout.splitlines() == [
        f"RefusedError {file} was truncated while it was read",
        short,
        short,
    ]
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04 a zip, as np.savez makes it",
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8'",
        b"\x93NUMPY\x01\x00\xff\x7f" + b"(" * 0x7FFF,
        b"\x93NUMPY\x01\x00\xff\x1f" + b"-" * 0x1FFF,
        b"\x93NUMPY\x09\x00\x10\x00" + b" " * 16,
        npy_header("(-1, 3)"),
        npy_header(f"({2**62}, 3)"),
        npy_header("(2, True)"),
    ],
)
def test_what_is_no_matrix_is_one_line(tmp_path, data):
    (tmp_path / "labels.csv").write_text("label\nx\ny\n")
    (tmp_path / "vectors.npy").write_bytes(data)
    with pytest.raises(DataError, match=r"vectors\.npy cannot be read as an NPY matrix") as refused:
        rows.read(tmp_path / "labels.csv")
    assert len(str(refused.value).splitlines()) == 1
    with pytest.raises(RefusedError, match="cannot be read as an NPY matrix"):
        rows.load(tmp_path / "labels.csv", "1")


def test_an_example_is_checked_against_its_digest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("text,label\none,x\n")
    assert files.read(Path("t.csv#1"), digest(b"one")) == b"one"
    Path("t.csv").write_text("text,label\ntwo,x\n\n")
    with pytest.raises(DataError, match=r"t\.csv#1 changed after it was ingested"):
        files.read(Path("t.csv#1"), digest(b"one"))


def test_what_is_no_example_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text(f"text,label\n,x\n{'a' * 200},x\n")
    for path, words in {
        "t.csv#1": "empty",
        "t.csv#2": "too large: 0.0 MB, at most 0.0001 MB",
        "t.csv#3": "has no example 3",
        "none.csv#1": "cannot be read",
    }.items():
        with pytest.raises(RefusedError, match=words):
            files.load(tmp_path / path, 100)


def write_parquet(file, **columns):
    pq.write_table(pa.table(columns), file)


def test_tables_of_which_it_cannot_be_told_where_the_examples_are(tmp_path):
    numbers = pa.array([[1.0], [2.0]])
    write_parquet(tmp_path / "both.parquet", text=pa.array(["a", "b"]), vector=numbers)
    write_parquet(tmp_path / "words.parquet", vector=pa.array(["a", "b"]))
    write_parquet(tmp_path / "counts.parquet", text=pa.array([1, 2]))
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "both.parquet").read_bytes()[:-9])
    for name, words in {
        "both.parquet": "a column text and a column vector; remove one",
        "words.parquet": "the column vector is string; it should be a list of numbers",
        "counts.parquet": "the column text is int64; it should be text",
        "torn.parquet": "cannot be read as Parquet",
    }.items():
        with pytest.raises(DataError, match=words):
            rows.read(tmp_path / name)


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (np.zeros((3, 4)), "has 3 rows and .* has 2"),
        (np.zeros(2), r"is float64 \[2\]; it should be a matrix"),
        (np.array([["a"], ["b"]]), "it should be a matrix of numbers"),
        (np.array([[{}], [{}]], dtype=object), r"is object \[2, 1\]; it should be a matrix"),
    ],
)
def test_a_matrix_that_does_not_fit(tmp_path, matrix, words):
    (tmp_path / "labels.csv").write_text("key,label\na,x\nb,y\n")
    np.save(tmp_path / "vectors.npy", matrix, allow_pickle=True)
    with pytest.raises(DataError, match=words):
        rows.read(tmp_path / "labels.csv")


def test_a_table_that_only_names_files_has_no_examples(tmp_path):
    (tmp_path / "labels.csv").write_text("path,label,text\na.png,x,written\n")
    table = rows.read(tmp_path / "labels.csv", holds=False)
    assert (table.column, table.rows[0]["text"]) == ("", "written")
