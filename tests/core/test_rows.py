"""Examples that are rows of tables: their addresses and bytes, and tables that cannot be read."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core import files, rows
from pipeline.core.errors import DataError, RefusedError
from pipeline.core.files import digest


def vector(data: bytes) -> list[float]:
    return np.load(io.BytesIO(data), allow_pickle=False).tolist()


@pytest.mark.parametrize(
    "key", ["7", "a/b", "..", "100%", "#", "a b", "Zürich", "tab\there", "%2F"]
)
def test_a_key_comes_back_from_its_address(tmp_path: Path, key: str) -> None:
    address = rows.address(tmp_path / "t.csv", key)
    assert address.parent == tmp_path
    assert rows.parted(address) == (tmp_path / "t.csv", key)


def test_a_file_of_such_a_name_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "notes.csv#1"
    file.write_bytes(b"whole")
    assert rows.parted(file) is None
    assert files.load(file, 100) == b"whole"


def test_texts_of_a_csv_are_found_by_key_and_by_number(tmp_path: Path) -> None:
    (tmp_path / "keyed.csv").write_text('key,text,label\nb,"two\nlines",x\na,Größe,y\n')
    (tmp_path / "plain.csv").write_text("text,label\none,x\ntwo,y\n")
    assert rows.load(tmp_path / "keyed.csv", "b") == b"two\nlines"
    assert files.load(tmp_path / "keyed.csv#a", 100) == "Größe".encode()
    assert [path.name for path in rows.examples(tmp_path / "plain.csv")] == [
        "plain.csv#1",
        "plain.csv#2",
    ]
    assert rows.load(tmp_path / "plain.csv", "2") == b"two"


def test_a_table_that_changed_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("text,label\none,x\n")
    assert rows.load(file, "1") == b"one"
    file.write_text("text,label\nanother,x\n")
    assert rows.load(file, "1") == b"another"


def test_vectors_of_a_matrix_beside_a_csv_and_of_parquet_have_the_same_bytes(
    tmp_path: Path,
) -> None:
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


def test_an_example_is_checked_against_its_digest(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("text,label\none,x\n")
    assert files.read(Path("t.csv#1"), digest(b"one")) == b"one"
    Path("t.csv").write_text("text,label\ntwo,x\n\n")
    with pytest.raises(DataError, match=r"t\.csv#1 changed after it was ingested"):
        files.read(Path("t.csv#1"), digest(b"one"))


def test_what_is_no_example_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"text,label\n,x\n{'a' * 200},x\n")
    for path, words in {
        "t.csv#1": "empty",
        "t.csv#2": "too large: 0.0 MB, at most 0.0001 MB",
        "t.csv#3": "has no example 3",
        "none.csv#1": "cannot be read",
    }.items():
        with pytest.raises(RefusedError, match=words):
            files.load(tmp_path / path, 100)


def write_parquet(file: Path, **columns: pa.Array) -> None:
    pq.write_table(pa.table(columns), file)


def test_tables_of_which_it_cannot_be_told_where_the_examples_are(tmp_path: Path) -> None:
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
        (np.array([[{}], [{}]], dtype=object), "cannot be read as an NPY matrix"),
    ],
)
def test_a_matrix_that_does_not_fit(tmp_path: Path, matrix: np.ndarray, words: str) -> None:
    (tmp_path / "labels.csv").write_text("key,label\na,x\nb,y\n")
    np.save(tmp_path / "vectors.npy", matrix, allow_pickle=True)
    with pytest.raises(DataError, match=words):
        rows.read(tmp_path / "labels.csv")


def test_a_table_that_only_names_files_has_no_examples(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,label,text\na.png,x,written\n")
    table = rows.read(tmp_path / "labels.csv", holds=False)
    assert (table.column, table.rows[0]["text"]) == ("", "written")
