import contextlib
import csv
import os
import re
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import ingest, kinds
from pipeline.core import params
from pipeline.core.errors import DataError, ParamsError, StoreError
from pipeline.core.params import IngestParams
from pipeline.core.paths import MANIFEST, REFUSED
from pipeline.examples.files import digest, read
from pipeline.kinds import image
from pipeline.kinds.image import decode
from pipeline.kinds.image.decode import Inspection
from pipeline.kinds.image.reading import Reading
from pipeline.sources import find, splits
from pipeline.sources.checked import Checked
from pipeline.sources.found import Found, Listing
from pipeline.sources.remembered import Memory
from pipeline.store.database import LAYOUT
from pipeline.store.places import default_folder
from pipeline.store.vectors import FeatureStore
from pipeline.tables.manifest import SPLITS, read_manifest, slices
from tests.conftest import Project
from tests.faults import fuzz
from tests.helpers import picture_cases
from tests.helpers.picture_cases import TAKEN

# Pillow's remarks on damaged files
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

Draw = Callable[..., Image.Image]
ROOT = "data/raw/x"
IMAGE = kinds.named("image")


@pytest.fixture
def folder(project: Project) -> Project:
    """A project whose source is the folder `ROOT`, with any number of refusals allowed."""
    project.set(**{"ingest.source": "folder", "ingest.path": ROOT, "ingest.max_refused": 1.0})
    Path(ROOT).mkdir()
    return project


def put(name: str, data: bytes) -> Path:
    path = Path(ROOT, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def put_classes(draw: Draw, count: int = 12, classes: tuple[str, ...] = ("ant", "bee")) -> None:
    for i in range(count):
        put(f"{classes[i % len(classes)]}/{i}.png", picture_cases.png(draw(i)))


def refusals() -> dict[str, str]:
    with REFUSED.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    table = {row["path"]: row["reason"] for row in rows}
    assert len(table) == len(rows)
    return table


def files_of(root: str) -> set[str]:
    """Every file and every link, as the operating system lists them."""
    names = set()
    for directory, folders, files in os.walk(root):
        links = [name for name in folders if Path(directory, name).is_symlink()]
        names |= {f"{directory}/{name}" for name in [*files, *links]}
    return names


# The dirty folder: everything at once, and an outcome for each.


def fill_dirty_folder(outside: Path) -> dict[str, str]:
    """Make it; return, for each file, `taken` or a pattern of the reason why not."""
    outcome: dict[str, str] = {}
    for i, (name, case) in enumerate(TAKEN.items()):
        label = ("ant", "bee", "caf\u00e9", "cafe\u0301")[i % 4]  # the last two are one
        outcome[str(put(f"{label}/{name}", case.data()))] = "taken"
    for name, wrong in picture_cases.REFUSED.items():
        outcome[str(put(f"ant/{name}", wrong.data()))] = wrong.reason

    numbers = iter(range(1, 1000))

    def fresh() -> bytes:
        return picture_cases.png(Image.new("RGB", (8, 8), (next(numbers) % 256, 7, 9)))

    for name in (
        "with spaces  and 'quotes' \", semi;colons and, commas.jpg",
        "new\nline.jpg",
        "return\rand\ttab.jpg",
        "-rf.jpg",
        "=cmd().jpg",
        "漢字 кириллица עברית ไทย 😀.jpg",
        "%s{0}$HOME`id`.jpg",
        f"{'long' * 62}.jpg",
        "no ending",
        "deep/er/and/deeper/x.jpg",
    ):
        outcome[str(put(f"bee/{name}", fresh()))] = "taken"
    for name in (".hidden.jpg", "._x.jpg", ".DS_Store", "Thumbs.db", "desktop.ini"):
        outcome[str(put(f"bee/{name}", fresh()))] = "^hidden or system file$"
    for name in ("@eaDir/x.jpg", "__MACOSX/bee/x.jpg", ".git/x.jpg"):
        outcome[str(put(name, fresh()))] = "^hidden or system file$"
    outcome[str(put("top.jpg", fresh()))] = "^not in a class's folder$"
    odd = os.fsdecode(b"\xff\xfe.jpg")
    put(f"bee/{odd}", fresh())
    outcome[f"{ROOT}/bee/\\udcff\\udcfe.jpg"] = "^name is not valid UTF-8$"
    outcome[str(put("\x07bell/x.jpg", fresh()))] = "^label contains a control character$"
    outcome[str(put(" /x.jpg", fresh()))] = "^no label$"

    # Links
    outside.write_bytes(fresh())

    def link(name: str, to: str | Path, expected: str) -> None:
        path = Path(ROOT, "link", name)
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(to)
        outcome[str(path)] = expected

    link("out.jpg", outside.resolve(), "taken")
    link("in.jpg", "../bee/-rf.jpg", "^the same picture has the labels bee and link$")
    outcome[f"{ROOT}/bee/-rf.jpg"] = "^the same picture has the labels bee and link$"
    link("nowhere.jpg", "gone.jpg", "^link that leads nowhere$")
    link("itself.jpg", "itself.jpg", "^link that leads nowhere$")
    link("up", "..", "^link to a folder$")
    link("circle", ".", "^link to a folder$")
    link("zeros.jpg", "/dev/zero", "^not a regular file$")
    link("kernel.jpg", "/proc/kmsg", "^empty file$")
    outcome[str(put("link/b.jpg", Path(ROOT, "link/out.jpg").read_bytes()))] = "taken"
    outcome[f"{ROOT}/link/out.jpg"] = "^the same picture as data/raw/x/link/b.jpg$"

    # No files at all
    os.mkfifo(f"{ROOT}/ant/pipe.jpg")
    outcome[f"{ROOT}/ant/pipe.jpg"] = "^not a regular file$"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{ROOT}/ant/socket.jpg")
    outcome[f"{ROOT}/ant/socket.jpg"] = "^not a regular file$"
    with Path(ROOT, "ant/huge.jpg").open("wb") as file:
        file.truncate(5_000_000_000)
    outcome[f"{ROOT}/ant/huge.jpg"] = "^too large: 5,000 MB, at most 200 MB; cut it into tiles"
    return outcome


def test_every_file_of_a_dirty_folder_has_its_outcome(folder: Project, tmp_path: Path) -> None:
    outcome = fill_dirty_folder(tmp_path / "outside.png")
    ingest.ingest()
    manifest = pd.read_parquet(MANIFEST).set_index("path")
    refused = refusals()

    there = {name.encode(errors="backslashreplace").decode() for name in files_of(ROOT)}
    assert outcome.keys() == there
    assert len(manifest) + len(refused) == len(there)
    assert set(manifest.index) == {path for path, word in outcome.items() if word == "taken"}
    for path, reason in refused.items():
        assert re.search(outcome[path], reason), (path, reason)
    for path, row in manifest.iterrows():
        assert row["digest"] == digest(Path(str(path)).read_bytes())
        name = Path(str(path)).name
        if name in TAKEN:
            assert (row["width"], row["height"]) == TAKEN[name].size
            assert row["format"] == TAKEN[name].format
            picture = decode.decode(read(Path(str(path)), row["digest"]))
            seen = picture_cases.fields_of(picture)
            np.testing.assert_allclose(seen, TAKEN[name].fields, atol=TAKEN[name].near)
    assert set(manifest["label"]) == {"ant", "bee", "caf\u00e9", "link"}


def test_no_damaged_picture_is_lost(tmp_path: Path) -> None:
    """A slice of `tests/faults/fuzz.py`, whose page has the figures of a whole run."""
    ingested = fuzz.ingest_all(200, fuzz.seeds(), tmp_path)
    assert len(ingested.taken) > 20
    assert ingested.taken | ingested.refused.keys() == set(range(200))


# What is written


def test_the_manifest_has_its_columns_and_order(folder: Project, draw_picture: Draw) -> None:
    put_classes(draw_picture)
    ingest.ingest()
    manifest = pd.read_parquet(MANIFEST)
    columns = ["digest", "path", "label", "split", "width", "height", "format", "group"]
    assert pq.read_schema(MANIFEST).names == columns  # and none for an index
    assert list(manifest["path"]) == sorted(manifest["path"])
    assert set(manifest["split"]) <= set(SPLITS)
    assert set(manifest["group"]) == {""}
    assert (manifest[["width", "height"]] == [80, 60]).all(axis=None)
    assert refusals() == {}


def test_same_pictures_same_bytes(
    folder: Project, draw_picture: Draw, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = [f"{('ant', 'bee')[i % 2]}/{i}.png" for i in range(40)]
    outputs = []
    for order, workers in ((names, 1), (reversed(names), 7)):
        for name in order:
            put(name, picture_cases.png(draw_picture(int(Path(name).stem))))
        put("ant/page.jpg", picture_cases.HTML)
        monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / f"store {workers}"))
        monkeypatch.setattr(os, "cpu_count", lambda workers=workers: workers)
        ingest.ingest()
        outputs.append((MANIFEST.read_bytes(), REFUSED.read_bytes()))
        for name in names:
            Path(ROOT, name).unlink()
    assert outputs[0] == outputs[1]


# Repeats


def test_the_same_picture_under_one_label_is_taken_once(
    folder: Project, draw_picture: Draw
) -> None:
    put_classes(draw_picture)
    put("ant/copy.png", Path(ROOT, "ant/0.png").read_bytes())
    ingest.ingest()
    assert refusals() == {f"{ROOT}/ant/copy.png": f"the same picture as {ROOT}/ant/0.png"}


def test_the_same_picture_under_two_labels_is_refused(folder: Project, draw_picture: Draw) -> None:
    put_classes(draw_picture)
    put("bee/copy.png", Path(ROOT, "ant/0.png").read_bytes())
    ingest.ingest()
    reason = "the same picture has the labels ant and bee"
    assert refusals() == {f"{ROOT}/ant/0.png": reason, f"{ROOT}/bee/copy.png": reason}


def test_of_copies_in_several_splits_the_held_out_one_stays(
    folder: Project, draw_picture: Draw
) -> None:
    for i, split in enumerate(("train", "val", "test")):
        for j, label in enumerate(("ant", "bee")):
            put(f"{split}/{label}/{i}.png", picture_cases.png(draw_picture(2 * i + j)))
    put("train/bee/copy.png", Path(ROOT, "test/bee/2.png").read_bytes())
    put("train/ant/copy.png", Path(ROOT, "val/ant/1.png").read_bytes())
    ingest.ingest()
    assert set(refusals()) == {f"{ROOT}/train/bee/copy.png", f"{ROOT}/train/ant/copy.png"}
    manifest = pd.read_parquet(MANIFEST).set_index("path")
    assert manifest.loc[f"{ROOT}/test/bee/2.png", "split"] == "test"
    assert manifest.loc[f"{ROOT}/val/ant/1.png", "split"] == "val"


def test_a_path_named_twice(project: Project, draw_picture: Draw) -> None:
    project.set(**{"ingest.source": "csv", "ingest.path": ROOT, "ingest.max_refused": 1.0})
    put_classes(draw_picture)
    rows = [f"ant/{i}.png,ant" for i in range(0, 12, 2)] + [f"bee/{i}.png,bee" for i in (1, 3, 5)]
    rows += ["ant//0.png,ant", "./bee/1.png,ant"]
    put("labels.csv", "\n".join(["path,label", *rows]).encode())
    ingest.ingest()
    reasons = pd.read_csv(REFUSED)["reason"].tolist()
    two = "the same picture has the labels ant and bee"
    assert reasons == ["named twice", two, two]
    assert len(pd.read_parquet(MANIFEST)) + len(reasons) == len(rows)


# Splits


def picture(name: str, split: str = "", group: str = "") -> Checked:
    found = Found(Path(name), "ant", split, group)
    return Checked(found, digest(name.encode()), Inspection(8, 8, "PNG"))


def split(project: Project, *kept: Checked) -> dict[str, str]:
    settings = params.load(kinds.schema).ingest
    manifest = splits.split(list(kept), settings, IMAGE)
    return dict(zip(manifest["path"], manifest["split"], strict=True))


def test_three_given_splits_stay(project: Project) -> None:
    names = [*SPLITS] * 20
    drawn = split(project, *(picture(f"{i}", name) for i, name in enumerate(names)))
    assert [drawn[f"{i}"] for i in range(60)] == names


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_of_two_given_splits_the_other_is_the_test(
    project: Project, held_out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [*["train"] * 400, *[held_out] * 100]
    drawn = split(project, *(picture(f"{i}", name) for i, name in enumerate(names)))
    assert capsys.readouterr().out == (
        f"ingest: the source has only train and {held_out}: {held_out} is used as test, and val is"
        " drawn from train\n"
    )
    assert {drawn[f"{i}"] for i in range(400, 500)} == {"test"}
    rest = [drawn[f"{i}"] for i in range(400)]
    assert set(rest) == {"train", "val"}
    assert 0.65 < rest.count("train") / 400 < 0.85  # 0.6 of 0.8


def test_train_alone_is_drawn_from(project: Project) -> None:
    drawn = split(project, *(picture(f"{i}", "train") for i in range(200)))
    assert set(drawn.values()) == {"train", "val", "test"}


def test_pictures_without_a_split_are_drawn_beside_those_that_have_one(project: Project) -> None:
    given = [picture(f"test {i}", "test") for i in range(100)]
    drawn = split(project, *given, *(picture(f"{i}") for i in range(200)))
    assert {drawn[f"test {i}"] for i in range(100)} == {"test"}
    assert {drawn[f"{i}"] for i in range(200)} == {"train", "val", "test"}


@pytest.mark.parametrize("given", ["", "train"])
def test_no_group_is_divided(project: Project, given: str) -> None:
    kept = [picture(f"{i}", given, group=f"nest {i % 40}") for i in range(400)]
    drawn = split(project, *kept, picture("a", "test"), picture("b", "val"))
    for nest in range(40):
        assert len({drawn[f"{i}"] for i in range(nest, 400, 40)}) == 1
    assert len(set(drawn.values())) == 3


def test_a_group_that_the_source_places_is_followed(project: Project) -> None:
    placed = [picture(f"placed {i}", "test", group=f"nest {i}") for i in range(30)]
    drawn = split(project, *placed, *(picture(f"{i}", group=f"nest {i}") for i in range(30)))
    assert set(drawn.values()) == {"test"}


def test_no_picture_moves_when_others_come_or_go(folder: Project, draw_picture: Draw) -> None:
    put_classes(draw_picture, 30)
    ingest.ingest()
    before = pd.read_parquet(MANIFEST).set_index("path")["split"]
    for i in range(100, 110):
        put(f"ant/{i}.png", picture_cases.png(draw_picture(i)))
    Path(ROOT, "bee/1.png").unlink()
    Path(ROOT, "bee/3.png").rename(Path(ROOT, "bee/renamed.png"))
    ingest.ingest()
    after = pd.read_parquet(MANIFEST).set_index("path")["split"]
    assert after[f"{ROOT}/bee/renamed.png"] == before[f"{ROOT}/bee/3.png"]
    both = before.index.intersection(after.index)
    assert len(both) == 28
    assert (before[both] == after[both]).all()


def test_the_seed_draws_another_split(folder: Project, draw_picture: Draw) -> None:
    put_classes(draw_picture, 30)
    drawn = []
    for seed in (0, 1):
        folder.set(**{"ingest.seed": seed})
        ingest.ingest()
        drawn.append(pd.read_parquet(MANIFEST)["split"].tolist())
    assert drawn[0] != drawn[1]


# Words for people


def test_of_a_set_in_order_only_the_counts_are_said(
    project: Project, draw_picture: Draw, capsys: pytest.CaptureFixture[str]
) -> None:
    project.set(**{"ingest.source": "csv", "ingest.path": ROOT})
    put_classes(draw_picture, 12)
    places = ("train", "val", "test")
    rows = [
        f"{label}/{i}.png,{label},{places[i // 4]},{f'nest {i // 4}' if i % 3 else ''}"
        for i, label in enumerate(("ant", "bee") * 6)
    ]
    put("labels.csv", "\n".join(["path,label,split,group", *rows]).encode())
    ingest.ingest()
    said = capsys.readouterr().out
    assert "ingest: 12 of 12 files accepted: 2 classes, 4 train, 4 val, 4 test" in said
    assert "ingest: 12/12 pictures, " in said
    assert "warning" not in said


def test_further_columns_of_a_table_are_the_last_of_the_manifest(
    project: Project, draw_picture: Draw
) -> None:
    project.set(**{"ingest.source": "csv", "ingest.path": ROOT})
    put_classes(draw_picture, 12)
    places, labels = ("train", "val", "test"), ("ant", "bee") * 6
    rows = [f"{label}/{i}.png,{label},{places[i // 4]}" for i, label in enumerate(labels)]
    put("labels.csv", "\n".join(["path,label,split", *rows]).encode())
    ingest.ingest()
    plain, without = read_manifest(MANIFEST), MANIFEST.read_bytes()
    # A name of the manifest's own is no clash.
    sliced = [f"{row},{number % 3}," for number, row in enumerate(rows)]
    put("labels.csv", "\n".join(["path,label,split,width,site", *sliced]).encode())
    ingest.ingest()
    manifest = read_manifest(MANIFEST)
    assert manifest.columns.tolist() == [*plain.columns, "slice:site", "slice:width"]
    assert manifest[plain.columns].equals(plain)
    assert slices(manifest)["width"].value_counts().to_dict() == {"0": 4, "1": 4, "2": 4}
    put("labels.csv", "\n".join(["path,label,split", *rows]).encode())
    ingest.ingest()
    assert MANIFEST.read_bytes() == without


def test_of_many_classes_that_a_split_misses_ten_are_named(
    folder: Project, draw_picture: Draw, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, classes in (("train", 12), ("val", 1), ("test", 2)):
        for i in range(classes):
            name = f"{place}/class {i:02}/{i}.png"
            put(name, picture_cases.png(draw_picture(i, width=40 + len(place))))
    put("train/class 00/page.jpg", picture_cases.HTML)
    ingest.ingest()
    names = [f"class {i:02}" for i in range(12)]
    said = capsys.readouterr().out.splitlines()
    assert f"ingest: warning: no val pictures of {', '.join(names[1:11])} and 1 more" in said
    assert f"ingest: warning: no test pictures of {', '.join(names[2:])}" in said
    assert b"\r" not in REFUSED.read_bytes()


def test_what_a_person_should_look_at_is_said(
    folder: Project, draw_picture: Draw, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, (split_name, label) in enumerate(
        [("train", "ant"), ("train", "Ant"), ("val", "ant"), ("test", "ant"), ("test", "Ant")]
    ):
        put(f"{split_name}/{label}/{i}.png", picture_cases.png(draw_picture(i)))
    put("train/ant/page.jpg", picture_cases.HTML)
    Path(ROOT, "train/wasp").mkdir()
    ingest.ingest()
    said = capsys.readouterr().out.splitlines()
    assert "ingest: warning: class 'wasp' has no examples and is left out" in said
    assert "ingest: 5 of 6 files accepted: 2 classes, 2 train, 1 val, 2 test" in said
    assert "ingest: 1 file refused, with its reason in data/refused.csv" in said
    assert "ingest: warning: no val pictures of Ant" in said
    assert "ingest: warning: classes differ only in case: Ant, ant" in said


def test_a_group_that_the_source_divides_is_named(
    project: Project, draw_picture: Draw, capsys: pytest.CaptureFixture[str]
) -> None:
    project.set(**{"ingest.source": "csv", "ingest.path": ROOT})
    put_classes(draw_picture, 6)
    rows = ["ant/0.png,ant,train,nest", "ant/2.png,ant,test,nest", "bee/1.png,bee,train,other"]
    rows += ["bee/3.png,bee,val,"]
    put("labels.csv", "\n".join(["path,label,split,group", *rows]).encode())
    ingest.ingest()
    assert "divides 1 of 2 groups between splits, such as 'nest'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], f"^{ROOT} has no files$"),
        (["ant/0.png"], r"^data/raw/x holds examples of 1 class \(ant\); a classifier needs two"),
        (["ant/0.png", "ant/1.png"], r"^data/raw/x holds examples of 1 class \(ant\)"),
        (["0.png"], r"^data/raw/x holds examples of 0 class \(none\)"),
    ],
)
def test_a_folder_that_nothing_can_be_learnt_from(
    folder: Project, draw_picture: Draw, names: list[str], words: str
) -> None:
    for i, name in enumerate(names):
        put(name, picture_cases.png(draw_picture(i)))
    MANIFEST.write_bytes(b"of an earlier run")
    with pytest.raises(DataError, match=words):
        ingest.ingest()
    assert not MANIFEST.exists()


def test_no_training_picture(project: Project, draw_picture: Draw) -> None:
    project.set(**{"ingest.source": "csv", "ingest.path": ROOT})
    put_classes(draw_picture, 4)
    rows = [f"{('ant', 'bee')[i % 2]}/{i}.png,{('ant', 'bee')[i % 2]},test" for i in range(4)]
    put("labels.csv", "\n".join(["path,label,split", *rows]).encode())
    with pytest.raises(DataError, match=r"^there is no training example"):
        ingest.ingest()


@pytest.mark.parametrize(
    ("labels", "knobs", "words"),
    [
        ("ab|ab|abc", {}, r"^no training example is labelled c, but other splits have such ex"),
        ("a|a|ab", {}, r"^every training example is labelled 'a'"),
        ("ab||", {}, r"^evaluate has no test example"),
        ("ab||ab", {"train.optimizer": ["sgd", "lbfgs"]}, r"^train has no validation example"),
        *(
            ("ab||ab", {f"{stage}.run": ["asked"]}, rf"^{stage} has no val.* set {stage}\.run to")
            for stage in ("learning_curve", "finetune", "from_scratch", "adapt")
        ),
    ],
)
def test_what_a_later_stage_would_refuse_is_refused_at_once(
    project: Project, draw_picture: Draw, labels: str, knobs: dict[str, object], words: str
) -> None:
    project.set(**{"ingest.source": "csv", "ingest.path": ROOT}, **knobs)
    project.set(**{"ingest.shares": {"train": 1.0, "val": 0.0, "test": 0.0}})
    rows = []
    for split_name, of_split in zip(SPLITS, labels.split("|"), strict=True):
        for label in of_split:
            put(f"{len(rows)}.png", picture_cases.png(draw_picture(len(rows))))
            rows.append(f"{len(rows)}.png,{label},{split_name}")
    put("labels.csv", "\n".join(["path,label,split", *rows]).encode())
    with pytest.raises(DataError, match=words):
        ingest.ingest()
    assert not MANIFEST.exists()


STRANGERS = [f"stranger {number:02}" for number in range(12)]


@pytest.fixture
def with_strangers(project: Project, draw_picture: Draw) -> Project:
    """Two classes with training pictures, and twelve with one test or validation picture each."""
    project.set(**{"ingest.source": "csv", "ingest.path": ROOT})
    rows = [(f"{i}.png", "ab"[i % 2], SPLITS[i // 2 % 3]) for i in range(12)]
    rows += [(f"{name}.png", name, SPLITS[1 + i % 2]) for i, name in enumerate(STRANGERS)]
    for seed, (file, *_) in enumerate(rows):
        put(file, picture_cases.png(draw_picture(seed)))
    put("labels.csv", "\n".join(["path,label,split", *map(",".join, rows)]).encode())
    return project


def test_all_classes_without_a_training_picture_are_named_at_once(with_strangers: Project) -> None:
    with pytest.raises(DataError, match="these 12 classes") as raised:
        ingest.ingest()
    assert all(name in str(raised.value) for name in STRANGERS)
    assert "set ingest.classes_without_training to leave_out" in str(raised.value)
    assert not MANIFEST.exists()


def test_classes_without_a_training_picture_can_be_left_out(
    with_strangers: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the pictures are of such classes, and one in ten may be refused."""
    with_strangers.set(**{"ingest.classes_without_training": "leave_out"})
    ingest.ingest()
    manifest = read_manifest(MANIFEST)
    assert sorted(set(manifest["label"])) == ["a", "b"]
    assert len(manifest) == 12
    reasons = {
        f"{ROOT}/{name}.png": f"no training example is labelled {name}" for name in STRANGERS
    }
    assert dict(refusals()) == reasons
    printed = capsys.readouterr().out
    assert "12 of 24 files accepted: 2 classes" in printed
    assert (
        "12 classes cannot be learned from the training examples, and are left out with 12 files"
        in printed
    )
    # What is truly refused still counts.
    put("0.png", b"no picture")
    put("1.png", b"no picture")
    put("2.png", b"no picture")
    with pytest.raises(DataError, match=r"^3 of 24 files were refused"):
        ingest.ingest()


def test_labels_that_nothing_tells_of_can_be_left_out(
    project: Project, draw_picture: Draw, capsys: pytest.CaptureFixture[str]
) -> None:
    project.set(**{"ingest.source": "csv", "ingest.path": ROOT, "ingest.task": "multilabel"})
    project.set(**{"ingest.classes_without_training": "leave_out"})
    labels = ["ever|sun", "ever|rain", "ever|rain|sun", "ever|hail|rain", "ever|sun", "ever|hail"]
    rows = []
    for i, text in enumerate(labels):
        put(f"{i}.png", picture_cases.png(draw_picture(i)))
        rows.append(f"{i}.png,{text},{('train', 'train', 'train', 'val', 'test', 'test')[i]}")
    put("labels.csv", "\n".join(["path,label,split", *rows]).encode())
    ingest.ingest()
    manifest = read_manifest(MANIFEST)
    assert [name for name in manifest if name.startswith("target:")] == [
        "target:rain",
        "target:sun",
    ]
    assert manifest["label"].tolist() == ["sun", "rain", "rain|sun", "rain", "sun", ""]
    assert refusals() == {}
    assert (
        "2 labels cannot be learned from the training examples, and are left out: ever, hail"
        in capsys.readouterr().out
    )


def test_without_validation_pictures_one_head_can_be_trained(
    folder: Project, draw_picture: Draw
) -> None:
    folder.set(**{"ingest.shares": {"train": 0.6, "val": 0.0, "test": 0.4}})
    folder.set(**{"train.optimizer": "lbfgs", "train.seed": [0, 1]})  # which lbfgs does not read
    put_classes(draw_picture)
    ingest.ingest()
    assert set(pd.read_parquet(MANIFEST)["split"]) == {"train", "test"}


def test_too_many_refusals_stop_the_run(folder: Project, draw_picture: Draw) -> None:
    folder.set(**{"ingest.max_refused": 0.2})
    put_classes(draw_picture, 8)
    put("ant/page 1.jpg", picture_cases.HTML)
    put("ant/page 2.jpg", picture_cases.HTML)
    ingest.ingest()  # two of ten
    put("ant/page 3.jpg", picture_cases.HTML)
    with pytest.raises(
        DataError, match=r"^3 of 11 files were refused, more than ingest\.max_refused"
    ):
        ingest.ingest()
    assert len(refusals()) == 3
    assert not MANIFEST.exists()


# Moments


def test_a_picture_that_vanishes_before_it_is_read_is_refused(
    folder: Project, draw_picture: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_classes(draw_picture)
    listing = find.listing

    def vanish_after(params: IngestParams, kind: kinds.Kind) -> Listing:
        listed = listing(params, kind)
        Path(ROOT, "ant/0.png").unlink()
        return listed

    monkeypatch.setattr(ingest, "listing", vanish_after)
    ingest.ingest()
    assert refusals() == {f"{ROOT}/ant/0.png": "cannot be read (No such file or directory)"}


@pytest.mark.parametrize("deed", ["change", "vanish", "replace"])
def test_a_picture_that_changes_while_ingest_runs_stops_it(
    folder: Project, draw_picture: Draw, monkeypatch: pytest.MonkeyPatch, deed: str
) -> None:
    put_classes(draw_picture)
    inspect = decode.inspect
    path = Path(ROOT, "ant/0.png")
    other = path.with_name("other").write_bytes(path.read_bytes())
    done = threading.Event()

    def at_the_first(data: bytes, reading: Reading) -> Inspection:
        if not done.is_set():
            done.set()
            if deed == "change":
                path.write_bytes(b"another" * other)
            elif deed == "vanish":
                path.unlink()
            else:
                path.with_name("other").replace(path)
        return inspect(data, reading)

    monkeypatch.setattr(decode, "inspect", at_the_first)
    with pytest.raises(
        DataError,
        match=r"^(1 file|2 files) changed while ingest was reading the source,"
        r" such as data/raw/x/ant/0\.png;"
        " run ingest again when nothing writes there any more$",
    ):
        ingest.ingest()
    assert not MANIFEST.exists()


# Pictures seen before


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests of what was decoded, as it happens."""
    inspect = decode.inspect
    digests: list[str] = []

    def noting(data: bytes, reading: Reading) -> Inspection:
        digests.append(digest(data))
        return inspect(data, reading)

    monkeypatch.setattr(decode, "inspect", noting)
    return digests


def run() -> tuple[bytes, bytes]:
    ingest.ingest()
    return MANIFEST.read_bytes(), REFUSED.read_bytes()


def test_only_new_pictures_are_decoded(
    folder: Project, draw_picture: Draw, decoded: list[str]
) -> None:
    put_classes(draw_picture, 20)
    put("ant/page.jpg", picture_cases.HTML)
    put("ant/large.jpg", picture_cases.jpeg(draw_picture(1, width=5000, height=300)))
    for file in Path(ROOT).rglob("*.*"):
        os.utime(file, (time.time() + 3600,) * 2)  # its stamp is not trusted, however slow this is
    first = run()
    assert len(decoded) == 22
    decoded.clear()
    assert run() == first
    assert decoded == [digest(picture_cases.HTML)]  # what was refused is looked at again
    decoded.clear()
    new = put("bee/new.png", picture_cases.png(draw_picture(99)))
    put("bee/1.png", picture_cases.png(draw_picture(98)))
    ingest.ingest()
    assert len(decoded) == 3
    assert digest(new.read_bytes()) in decoded


def test_another_pillow_decodes_all_again(
    folder: Project, draw_picture: Draw, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_classes(draw_picture)
    first = run()
    monkeypatch.setattr(image, "version", lambda name: "99.9")
    assert run() == first
    assert len(decoded) == 24


def test_a_damaged_store_costs_time_only(
    folder: Project, draw_picture: Draw, decoded: list[str]
) -> None:
    put_classes(draw_picture)
    first = run()
    for file in default_folder().glob("features-v*"):
        file.write_bytes(b"junk" * 3000)
    assert run() == first
    assert len(decoded) == 24
    assert run() == first
    assert len(decoded) == 24


def test_what_was_seen_is_kept_as_the_store_wants_it(
    folder: Project, draw_picture: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_classes(draw_picture)
    ingest.ingest()
    with sqlite3.connect(default_folder() / f"features-v{LAYOUT}.sqlite") as database:
        assert database.execute("SELECT DISTINCT length(key) FROM entries").fetchall() == [(16,)]
    monkeypatch.setenv("HEADSTART_STORE_LIMIT", "much")
    with pytest.raises(ParamsError, match="HEADSTART_STORE_LIMIT is 'much'"):
        ingest.ingest()


def test_no_store_at_all_costs_time_only(
    folder: Project,
    draw_picture: Draw,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put_classes(draw_picture)
    first = run()
    (tmp_path / "a file").touch()
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "a file"))
    assert run() == first
    said = capsys.readouterr().out
    assert re.search("ingest: warning: pictures seen before are decoded again: .*a file", said)


def test_a_store_that_fails_several_threads_is_given_up_once(
    folder: Project,
    draw_picture: Draw,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    together = threading.Barrier(4)

    def fail(*_: object) -> None:
        together.wait(60)
        raise StoreError("no room")

    # As below; and the threads are to have asked before the first of them gets an answer.
    monkeypatch.setattr(FeatureStore, "get", fail)
    with contextlib.closing(Memory(IMAGE, {})) as memory, ThreadPoolExecutor(4) as pool:
        data = [picture_cases.png(draw_picture(i)) for i in range(4)]
        seen = list(pool.map(memory.inspect, [[(one, digest(one))] for one in data]))
        assert [one[2] for (one,) in seen] == ["PNG"] * 4
        open_files = [os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()]
        assert not any(file.startswith(str(default_folder())) for file in open_files)
    said = capsys.readouterr().out
    assert said.count("pictures seen before are decoded again: no room") == 1


@pytest.mark.parametrize("deed", ["get", "put", "close"])
def test_a_store_that_fails_on_the_way_costs_time_only(
    folder: Project,
    draw_picture: Draw,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    deed: str,
) -> None:
    put_classes(draw_picture)
    first = run()
    put("ant/new.png", picture_cases.png(draw_picture(99)))
    second = run()
    Path(ROOT, "ant/new.png").unlink()
    assert run() == first
    put("ant/new.png", picture_cases.png(draw_picture(99)))

    def fail(*_: object) -> None:
        raise StoreError("no room")

    # A disk that is full, or fails, cannot be had in a test.
    monkeypatch.setattr(FeatureStore, deed, fail)
    monkeypatch.setattr(image, "INSPECTION_CODE", 99)  # so that there is something to put
    assert run() == second
    assert "pictures seen before are decoded again: no room" in capsys.readouterr().out
