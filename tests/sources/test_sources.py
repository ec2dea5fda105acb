import contextlib
import os
import re
import shutil
import struct
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline import ingest, kinds
from pipeline.core.errors import DataError, RefusedError
from pipeline.core.params import IngestParams, Shares
from pipeline.core.paths import MANIFEST
from pipeline.examples import files
from pipeline.examples import rows as rows_of
from pipeline.examples.files import load
from pipeline.kinds.vector import parse
from pipeline.sources import checked, find
from pipeline.sources import folder as folder_room
from pipeline.sources.checked import check
from pipeline.sources.found import Found, Listing
from tests.conftest import Project
from tests.helpers.picture_cases import jpeg

IMAGE = kinds.named("image")


def params(source: str, path: str) -> IngestParams:
    shares = Shares(train=0.6, val=0.2, test=0.2)
    return IngestParams(source=source, path=path, shares=shares, seed=0, max_refused=1.0)


def of_vectors(source: str, root: Path) -> None:
    """Have the project ingest vectors."""
    document = yaml.safe_load(Path("params.yaml").read_text())
    ingested = {"kind": "vector", "source": source, "path": str(root)}
    document |= {"ingest": document["ingest"] | ingested, "augment": {"views": 0}}
    Path("params.yaml").write_text(yaml.safe_dump(document))


def touch(*paths: str) -> None:
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def labelled(listing: Listing) -> set[tuple[str, str, str]]:
    return {(row.path.as_posix(), row.label, row.split) for row in listing.found}


def reasons(listing: Listing) -> dict[str, str]:
    return {row.path.as_posix(): row.reason for row in listing.refused}


# Folders


def test_a_folder_of_classes(project: Project) -> None:
    touch("data/raw/x/ant/1.jpg", "data/raw/x/ant/deep/er/2.jpg", "data/raw/x/bee/1.jpg")
    listing = find.listing(params("folder", "data/raw/x"), IMAGE)
    assert labelled(listing) == {
        ("data/raw/x/ant/1.jpg", "ant", ""),
        ("data/raw/x/ant/deep/er/2.jpg", "ant", ""),
        ("data/raw/x/bee/1.jpg", "bee", ""),
    }


@pytest.mark.parametrize("held_out", [["val", "test"], ["val"], ["test"], []])
def test_folders_of_splits(project: Project, held_out: list[str]) -> None:
    touch(*(f"data/raw/x/{split}/ant/1.jpg" for split in ["train", *held_out]))
    listing = find.listing(params("folder", "data/raw/x"), IMAGE)
    assert {(row.label, row.split) for row in listing.found} == {
        ("ant", split) for split in ["train", *held_out]
    }


def test_examples_of_another_domain_need_no_label(project: Project) -> None:
    splits = [f"{split}/ant/1.jpg" for split in ("train", "val", "test")]
    touch(*(f"data/raw/x/{name}" for name in [*splits, "target/1.jpg", "target/bee/2.jpg"]))
    listing = find.listing(params("folder", "data/raw/x"), IMAGE)
    assert reasons(listing) == {}
    assert labelled(listing) == {
        *((f"data/raw/x/{name}", "ant", name.partition("/")[0]) for name in splits),
        ("data/raw/x/target/1.jpg", "", "target"),
        ("data/raw/x/target/bee/2.jpg", "bee", "target"),  # which `ingest` does not look at
    }
    in_table = table("path,label,split\n1.jpg,ant,train\n2.jpg,,target\n")
    assert labelled(in_table) == {
        ("data/raw/x/1.jpg", "ant", "train"),
        ("data/raw/x/2.jpg", "", "target"),
    }


def test_a_file_beside_the_folders_of_splits_is_refused(project: Project) -> None:
    touch("data/raw/x/train/ant/1.jpg", "data/raw/x/.DS_Store", "data/raw/x/notes.txt")
    Path("data/raw/x/more").symlink_to("train")
    listing = find.listing(params("folder", "data/raw/x"), IMAGE)
    assert labelled(listing) == {("data/raw/x/train/ant/1.jpg", "ant", "train")}
    assert reasons(listing) == {
        "data/raw/x/.DS_Store": "hidden or system file",
        "data/raw/x/more": "link to a folder",
        "data/raw/x/notes.txt": "not in a class's folder",
    }


def test_a_class_may_be_called_like_a_split(project: Project) -> None:
    touch("data/raw/x/train/1.jpg", "data/raw/x/bus/1.jpg", "data/raw/x/test/1.jpg")
    listing = find.listing(params("folder", "data/raw/x"), IMAGE)
    assert {row.label for row in listing.found} == {"train", "bus", "test"}


@pytest.mark.parametrize("names", [["Train", "Test"], ["training", "validation"], ["train", "dev"]])
def test_other_names_for_splits_are_not_taken_for_classes(
    project: Project, names: list[str]
) -> None:
    touch(*(f"data/raw/x/{name}/ant/1.jpg" for name in names))
    with pytest.raises(DataError, match="name them train, val and test"):
        find.listing(params("folder", "data/raw/x"), IMAGE)


def test_an_empty_class_is_named(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    touch("data/raw/x/train/ant/1.jpg", "data/raw/x/test/ant/2.jpg")
    Path("data/raw/x/train/wasp").mkdir()
    Path("data/raw/x/train/.hidden").mkdir()
    find.listing(params("folder", "data/raw/x"), IMAGE)
    assert capsys.readouterr().out == (
        "ingest: warning: class 'wasp' has no examples and is left out\n"
    )


def test_labels_of_one_unicode_form(project: Project) -> None:
    touch("data/raw/x/caf\u00e9/1.jpg", "data/raw/x/cafe\u0301/2.jpg", "data/raw/x/ two  words /3")
    listing = find.listing(params("folder", "data/raw/x"), IMAGE)
    assert {row.label for row in listing.found} == {"caf\u00e9", "two words"}


def test_the_folder_itself_may_be_a_link(project: Project, tmp_path: Path) -> None:
    touch("data/raw/x/ant/1.jpg")
    shutil.move("data/raw/x", tmp_path / "elsewhere")
    Path("data/raw/x").symlink_to(tmp_path / "elsewhere")
    listing = find.listing(params("folder", "data/raw/x"), IMAGE)
    assert labelled(listing) == {("data/raw/x/ant/1.jpg", "ant", "")}


@contextlib.contextmanager
def powerless() -> Iterator[Path]:
    """A folder to work in as a user whom file permissions bind; root may read everything."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    root = os.geteuid() == 0
    try:
        (folder / "ant").mkdir()
        for name in ("open.jpg", "closed.jpg"):
            (folder / "ant" / name).write_bytes(jpeg())
        (folder / "ant" / "closed.jpg").chmod(0)
        (folder / "bee").mkdir()
        (folder / "bee").chmod(0)
        if root:
            os.seteuid(65534)
        yield folder
    finally:
        if root:
            os.seteuid(0)
        (folder / "bee").chmod(0o700)
        shutil.rmtree(folder)


def test_what_may_not_be_read_is_refused() -> None:
    with powerless() as root:
        listing = folder_room.folder(root)
        assert {row.path.name for row in listing.found} == {"open.jpg", "closed.jpg"}
        assert reasons(listing) == {f"{root}/bee": "folder cannot be listed (Permission denied)"}
        with pytest.raises(RefusedError, match=r"^cannot be read \(Permission denied\)$"):
            load(root / "ant" / "closed.jpg", most_bytes=10**6)


@pytest.mark.parametrize(
    ("source", "path", "words"),
    [
        ("folder", "data/raw/nowhere", "data/raw/nowhere does not exist"),
        ("folder", "params.yaml", "params.yaml is not a folder"),
        ("folder", "data/pictures/mine", "overlaps with data/pictures"),
        ("folder", ".", "overlaps with data/pictures"),
        ("csv", "data/raw", r"needs the file data/raw/labels\.csv"),
    ],
)
def test_a_path_that_cannot_be_a_source(
    project: Project, source: str, path: str, words: str
) -> None:
    touch("data/pictures/mine/ant/1.jpg")
    with pytest.raises(DataError, match=words):
        find.listing(params(source, path), IMAGE)
    if "each other" in words:
        assert Path("data/pictures/mine/ant/1.jpg").exists()


# Tables


def table(text: str | bytes) -> Listing:
    touch(
        "data/raw/x/1.jpg", "data/raw/x/2.jpg", "data/raw/x/sub/3.jpg", "data/raw/x/new\nline.jpg"
    )
    data = text.encode() if isinstance(text, str) else text
    Path("data/raw/x/labels.csv").write_bytes(data)
    return find.listing(params("csv", "data/raw/x"), IMAGE)


@pytest.mark.parametrize(
    ("name", "todo"),
    [("labels.csv", ""), ("my.csv", " and rename the table to labels.csv")],
)
def test_the_path_of_the_table_itself_is_answered_with_what_to_write(
    project: Project, name: str, todo: str
) -> None:
    table("path,label\n1.jpg,ant\n")
    Path("data/raw/x/my.csv").write_bytes(b"path,label\n")
    with pytest.raises(DataError) as caught:
        find.listing(params("csv", f"data/raw/x/{name}"), IMAGE)
    assert str(caught.value) == (
        f"ingest.path data/raw/x/{name} is a file; source: csv needs its folder, so that DVC sees"
        f" changes to the examples too: write ingest.path: data/raw/x{todo}"
    )


def test_a_table_of_all_columns_in_any_order(project: Project) -> None:
    text = ",group,site,split,label,path,camera,_note\n0,nest 1,,train,ant,1.jpg, A ,-\n"
    listing = table(text + "1,,hill,,bee,sub/3.jpg,B,\n")
    assert listing.refused == []
    assert listing.columns == ("camera", "site")  # not the index of pandas, nor what is left out
    assert listing.found == [
        Found(Path("data/raw/x/1.jpg"), "ant", "train", "nest 1", ("A", "")),
        Found(Path("data/raw/x/sub/3.jpg"), "bee", slices=("B", "hill")),
    ]


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        (
            "id",
            10_000,
            "id has 10,000 different values, too many to slice by (at most 100); remove it, or",
        ),
        ("correct", 2, "correct has a name that reports/predictions.csv uses for something else;"),
        ("p(ant)", 2, "p(ant) has a name that reports/predictions.csv uses for something else;"),
    ],
)
def test_a_column_that_cannot_slice_is_refused_with_what_to_do(
    project: Project, column: str, values: int, words: str
) -> None:
    rows = "".join(f"1.jpg,ant,{number}\n" for number in range(values))
    with pytest.raises(DataError) as caught:
        table(f"path,label,{column}\n{rows}")
    assert str(caught.value).startswith(f"data/raw/x/labels.csv: the column {words}")
    assert str(caught.value).endswith(f"rename it to _{column} to have it left out")
    assert table(f"path,label,_{column}\n{rows}").columns == ()


@pytest.mark.parametrize(
    "text",
    [
        '\ufeffpath,label\n1.jpg,ant\n"new\nline.jpg",bee\n',
        'path, label \r\n1.jpg,ant\r\n\r\n"new\nline.jpg","bee"\r\n',
        '"path","label"\n"1.jpg","a\u006et"\n"new\nline.jpg"," bee\t"',
    ],
)
def test_marks_quotes_and_line_ends_of_other_programs(project: Project, text: str) -> None:
    assert labelled(table(text)) == {
        ("data/raw/x/1.jpg", "ant", ""),
        ("data/raw/x/new\nline.jpg", "bee", ""),
    }


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("../outside.jpg,ant,", "path leaves the folder data/raw/x"),
        ("sub/../../x/1.jpg,ant,", "path leaves the folder data/raw/x"),
        ("/etc/hostname,ant,", "path leaves the folder data/raw/x"),
        ("away/outside.jpg,ant,", "path leaves the folder data/raw/x through a link"),
        ("away,ant,", "link to a folder"),
        ("sub,ant,", "a folder"),
        (".,ant,", "a folder"),
        (",ant,", "no path"),
        ("nothing.jpg,ant,", "cannot be read (No such file or directory)"),
        (f"{'long' * 100}.jpg,ant,", "cannot be read (File name too long)"),
        ("1\0.jpg,ant,", "name contains a zero byte"),
        ("1.jpg/2.jpg,ant,", "cannot be read (Not a directory)"),
        ("1.jpg,,", "no label"),
        ("1.jpg,  ,", "no label"),
        ("1.jpg,a\0nt,", "label contains a control character"),
        ("1.jpg,a\x1b[31mnt,", "label contains a control character"),
        ("1.jpg,ant,dev", "split is 'dev'; it should be train, val, test or target"),
        ("1.jpg", "its row and the header have different numbers of fields"),
        ("1.jpg,ant,train,more", "its row and the header have different numbers of fields"),
    ],
)
def test_rows_that_are_refused(project: Project, row: str, reason: str) -> None:
    touch("data/raw/outside.jpg")
    Path("data/raw/x").mkdir()
    Path("data/raw/x/away").symlink_to("..")
    listing = table(f"path,label,split\n2.jpg,bee,\n{row}\n")
    assert labelled(listing) == {("data/raw/x/2.jpg", "bee", "")}
    assert list(reasons(listing).values()) == [reason]


@pytest.mark.parametrize("label", ["..", "a/b", "/etc/passwd", "=1+1", "-rf", "漢字 😀"])
def test_a_label_is_text_and_no_path(project: Project, label: str) -> None:
    assert labelled(table(f"path,label\n1.jpg,{label}\n")) == {("data/raw/x/1.jpg", label, "")}


def test_a_file_of_the_table_may_be_a_link_as_dvc_makes_them(project: Project) -> None:
    touch("cache/ab/cd")
    Path("data/raw/x").mkdir()
    Path("data/raw/x/linked.jpg").symlink_to(Path("cache/ab/cd").resolve())
    assert labelled(table("path,label\nlinked.jpg,ant\n")) == {("data/raw/x/linked.jpg", "ant", "")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"labels\.csv has no column path or label"),
        (
            "path,class\n1.jpg,ant\n",
            "has no column label; it has path, class; set ingest.label to the column of the labels",
        ),
        (
            "path;label\n1.jpg;ant\n",
            "no column path or label; it has path;label; the columns seem to be separated by ';':"
            ' set ingest.separator to ";"',
        ),
        ("path\tlabel\n1.jpg\tant\n", r"separated by '\\t': set ingest.separator to \"\\t\""),
        (
            "path,label\n1.jpg,a\rnt\n",
            "near line 2, has a carriage return in a cell without quotes",
        ),
        ("1.jpg,ant\n", "has no column path or label; it has 1.jpg, ant"),
        ("path,label,label\n1.jpg,ant,bee\n", "two columns with the same name: path, label, label"),
        ('path,label\n1.jpg,"ant\n2.jpg,bee\n', "cannot be read as CSV in UTF-8: unexpected end"),
        ('path,label\n1.jpg,"ant"s\n', r"labels\.csv, near line 2, cannot be read as CSV"),
        (
            "path,label\n1.jpg,caf\u00e9\n".encode("cp1252"),
            "in latin-1 .with words such as caf\u00e9.*to latin-1",
        ),
        (
            "path,label\n1.jpg,\u201cant\u201d\n".encode("cp1252"),
            "it seems to be in cp1252. Set ingest",
        ),
        ("path,label\n1.jpg,ant\n".encode("utf-16"), "Set ingest.encoding to utf-16, or save"),
        (f"path,label\n1.jpg,{'a' * 200_000}\n", "field larger than field limit"),
    ],
)
def test_tables_that_cannot_be_read(project: Project, text: str | bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        table(text)


@pytest.mark.parametrize(
    ("encoding", "separator"), [("latin-1", ";"), ("utf-16", "\t"), ("utf-8", "|")]
)
def test_the_dialect_of_a_table_can_be_named(
    project: Project, encoding: str, separator: str
) -> None:
    rows = [["Sorte", "text"], ["Gem\u00fcse", "K\u00fcrbis, gro\u00df"], ["Obst", "Birne"]]
    file = Path("data/raw/x.csv")
    file.write_text("\n".join(map(separator.join, rows)), encoding=encoding)
    assert rows_of.guessed(file) == (encoding, separator)
    named = {"encoding": encoding, "separator": separator, "label": "Sorte"}
    found = find.listing(params("csv", str(file)).model_copy(update=named), kinds.named("text"))
    assert labelled(found) == {
        ("data/pictures/x.csv#1", "Gem\u00fcse", ""),
        ("data/pictures/x.csv#2", "Obst", ""),
    }
    assert load(found.found[0].path, 100).decode() == "K\u00fcrbis, gro\u00df"


def test_carriage_returns_end_the_lines_of_an_old_mac(project: Project) -> None:
    assert labelled(table("path,label\r1.jpg,ant\r2.jpg,bee\r")) == {
        ("data/raw/x/1.jpg", "ant", ""),
        ("data/raw/x/2.jpg", "bee", ""),
    }
    quoted = table('path,label\n1.jpg,"an\rt"\n')
    assert labelled(quoted) == {("data/raw/x/1.jpg", "an t", "")}


def test_a_carriage_return_in_quotes_stays_in_the_copy_of_a_table(project: Project) -> None:
    file = Path("data/raw/x.csv")
    file.write_bytes(b'text;label\n"one\rtwo";a\nthree;b\n')
    asked = params("csv", str(file)).model_copy(update={"separator": ";"})
    found = find.listing(asked, kinds.named("text")).found
    assert [load(row.path, 100) for row in found] == [b"one\rtwo", b"three"]


@pytest.mark.parametrize(
    ("deed", "encoding"),
    [("overwrite", ""), ("replace", ""), ("truncate", ""), ("replace", "latin-1")],
)
def test_a_matrix_that_changes_while_ingest_runs_stops_it_and_is_named(
    project: Project, monkeypatch: pytest.MonkeyPatch, deed: str, encoding: str
) -> None:
    folder = Path("data/raw/x")
    folder.mkdir()
    (folder / "labels.csv").write_text("label\n" + "ant\nbee\n" * 20)
    matrix, numbers = folder / "vectors.npy", np.random.default_rng(0).normal(size=(40, 600))
    np.save(matrix, numbers)
    of_vectors("csv", folder)
    if encoding:
        project.set(**{"ingest.encoding": encoding})  # `ingest` copies the table and the matrix
    inspect, done = parse.vector, threading.Event()

    def at_the_first(data: bytes) -> Any:
        if not done.is_set():
            done.set()
            if deed == "overwrite":
                with matrix.open("r+b") as file:
                    file.seek(-8, os.SEEK_END)
                    file.write(np.float64(7).tobytes())
            elif deed == "replace":
                np.save(folder / "other.npy", -numbers)
                (folder / "other.npy").replace(matrix)
            else:
                os.truncate(matrix, 4096)
        return inspect(data)

    monkeypatch.setattr(parse, "vector", at_the_first)
    with pytest.raises(
        DataError,
        match=r"^1 file changed while ingest was reading the source, such as data/raw/x/vectors"
        r"\.npy;"
        " run ingest again when nothing writes there any more$",
    ):
        ingest.ingest()
    assert not MANIFEST.exists()


def test_pictures_beside_the_table_are_counted(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    table("path,label\n1.jpg,ant\n")
    assert capsys.readouterr().out == (
        "ingest: 3 other files in data/raw/x are not listed in labels.csv\n"
    )


# Reading them


def test_what_was_read_when_one_cannot_be_is_remembered_that_of_slow_threads_too(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket fails, which ends `ingest`, while other threads read an example."""
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(checked, "BATCH", 1)
    folder = Path("data/raw/x/ant")
    folder.mkdir(parents=True)
    for number in range(4):
        np.save(folder / f"{number}.npy", np.full(3, number, np.float32))
    kind = kinds.named("vector")
    found = find.listing(params("folder", "data/raw/x"), kind).found
    read, inspect, begun = files.load, parse.vector, threading.Semaphore(0)
    inspected: list[float] = []

    def first_fails(path: Path, most_bytes: int) -> bytes:
        if path.stem == "0":
            for _ in range(3):
                begun.acquire()
            raise DataError("the bucket does not answer")
        return read(path, most_bytes)

    def slowly(data: bytes) -> Any:
        begun.release()
        time.sleep(0.1 * (len(inspected) + 1))
        numbers = inspect(data)
        inspected.append(numbers[0])
        return numbers

    monkeypatch.setattr(parse, "vector", slowly)
    with monkeypatch.context() as patch:
        patch.setattr(files, "load", first_fails)
        with pytest.raises(DataError, match="the bucket does not answer"):
            check(found, kind, {})
    assert sorted(inspected) == [1, 2, 3]
    passed, _ = check(found, kind, {})
    assert [one.seen for one in passed] == [(3,)] * 4
    assert sorted(inspected) == [0, 1, 2, 3]  # the others were remembered


@pytest.mark.parametrize(
    ("source", "deed", "said"),
    [
        (
            "csv",
            "relabel",
            "1 file changed while ingest was reading the source, such as data/raw/x/labels.csv;",
        ),
        (
            "folder",
            "come",
            "1 file was added while ingest was reading data/raw/x, such as data/raw/x/ant/new",
        ),
        ("folder", "hidden", ""),
    ],
)
def test_a_label_or_a_picture_that_comes_while_ingest_reads_is_not_taken_for_ingested(
    project: Project, monkeypatch: pytest.MonkeyPatch, source: str, deed: str, said: str
) -> None:
    root = Path("data/raw/x")
    lines = ["path,label\n"]
    for number in range(40):
        file = root / ("ant", "bee")[number % 2] / f"{number}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, np.random.default_rng(number).normal(size=3))
        lines.append(f"{file.relative_to(root)},{file.parent.name}\n")
    if source == "csv":
        (root / "labels.csv").write_text("".join(lines))
    of_vectors(source, root)
    inspect, done = parse.vector, threading.Event()

    def at_the_first(data: bytes) -> Any:
        if not done.is_set():
            done.set()
            if deed == "relabel":
                (root / "labels.csv").write_text("".join(lines).replace(",ant", ",cow"))
            else:
                name = {"come": "new.npy", "hidden": ".DS_Store"}[deed]
                (root / "ant" / name).write_bytes(b"x")
        return inspect(data)

    monkeypatch.setattr(parse, "vector", at_the_first)
    if not said:
        ingest.ingest()
        return
    with pytest.raises(DataError, match=f"^{re.escape(said)}"):
        ingest.ingest()
    assert not MANIFEST.exists()


# torchvision


def idx(array: np.ndarray[Any, Any]) -> bytes:
    """The format of MNIST's files."""
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def test_a_torchvision_set_that_is_there_already(project: Project) -> None:
    random = np.random.default_rng(0)
    raw = Path("data/raw/torchvision/FashionMNIST/raw")
    raw.mkdir(parents=True)
    made = {}
    for split, name, count in (("train", "train", 20), ("test", "t10k", 6)):
        made[split] = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(idx(made[split]))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 10))
    listing = find.listing(params("torchvision:FashionMNIST", "data/raw/torchvision"), IMAGE)
    assert listing.refused == []
    assert [row.split for row in listing.found].count("train") == 20
    assert [row.split for row in listing.found].count("test") == 6
    ankle_boot = next(row for row in listing.found if row.path.stem == "000009")
    assert ankle_boot.label == "Ankle boot"
    assert ankle_boot.path == Path("data/pictures/train/0009-Ankle-boot/000009.png")
    np.testing.assert_array_equal(np.asarray(Image.open(ankle_boot.path)), made["train"][9])
    shirt = next(row for row in listing.found if row.label == "T-shirt/top")
    assert shirt.path.parent == Path(f"data/pictures/{shirt.split}/0000-T-shirt-top")


def test_a_damaged_picture_of_a_torchvision_set_is_refused(project: Project) -> None:
    for label in ("Forest", "River"):
        folder = Path("data/raw/torchvision/eurosat/2750") / label
        folder.mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (64, 64), (40 * number, 99, len(label))).save(folder / f"{number}.jpg")
    (folder / "0.jpg").write_bytes(b"no picture")
    listing = find.listing(params("torchvision:EuroSAT", "data/raw/torchvision"), IMAGE)
    assert [row.label for row in listing.found] == ["Forest", "Forest", "River"]
    assert [row.reason[:27] for row in listing.refused] == ["torchvision cannot read it "]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Nothing", "torchvision has no data set 'Nothing'"),
        ("wrap_dataset_for_transforms_v2", "torchvision has no data set"),
        ("FakeData", "torchvision has no data set"),
        ("MNIST", "cannot download MNIST into data/raw .*; without a network, copy the set there"),
        ("CIFAR10", "cannot download CIFAR10 into data/raw .*copy the set there"),
        ("CocoDetection", "cannot download CocoDetection into data/raw .*annFile"),
        ("EMNIST", "cannot download EMNIST into data/raw .*argument split"),
    ],
)
def test_a_torchvision_set_that_cannot_be_had(
    project: Project, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    for protocol in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(protocol, "http://127.0.0.1:9")  # nobody listens: as without a network
    # The first `urlopen` of a process keeps its proxies for all later ones.
    monkeypatch.setattr(urllib.request, "_opener", None)
    with pytest.raises(DataError, match=words) as error:
        find.listing(params(f"torchvision:{name}", "data/raw"), IMAGE)
    assert len(str(error.value).splitlines()) == 1
