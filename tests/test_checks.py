"""The checks stage on features of real patches: what is planted is found, clean data are quiet."""

import importlib
import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skimage
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from pipeline.checks import checks
from pipeline.core.errors import DataError, StoreError
from pipeline.core.params import ChecksParams
from pipeline.core.paths import CHECKS, CHECKS_COUNTS, CHECKS_MAP, CONFIRMED, MANIFEST
from pipeline.examples.files import digest
from pipeline.kinds import image
from pipeline.kinds.image import copies
from pipeline.kinds.image.copies import IN_A_ROW, ROUNDING, SIDE, SIZES, fits, thumbnail
from pipeline.quality import drift, duplicates, held_out
from pipeline.sources.surfaces import PATCH, cut
from pipeline.store.database import features_file
from pipeline.store.places import default_folder
from pipeline.store.vectors import FeatureStore
from pipeline.tables import confirmed, large
from pipeline.tables.manifest import write_manifest
from pipeline.tasks.classification import issues
from tests.conftest import ROOT, Project, enter_copy, project_in

CLASSES = ("galaxies", "grass", "gravel", "moon")
HEADERS = {
    "near_duplicates": "path,split,label,other_path,other_split,other_label,cosine",
    "label_issues": "path,split,label,suggested,probability,given_probability,wrong",
    "flawed": "path,split,label,problem,beyond",
    "notes": "check,note",
    "few_examples": "class,train,val,test",
    "drift": "split,pictures,origin,compared,distance,by_chance,p_value,drifted",
}
QUIET = {"near_duplicates": 0, "label_issues": 0, "flawed": 0, "few_examples": 0}
QUIET |= {"drifted_splits": 0}
RAW = Path("data/raw/patches")


def prepare() -> None:
    """Run the stages that come before."""
    for stage in ("ingest", "augment", "extract"):
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, lite0: Path) -> Path:
    """A project of patches of four surfaces, up to their features; splits are drawn."""
    folder = tmp_path_factory.mktemp("clean")
    with project_in(folder, lite0.parent) as project:
        project.set(**{"ingest.source": "folder", "ingest.path": str(RAW), "augment.views": 0})
        recipe = pd.read_csv(ROOT / "data/raw/surfaces.csv")
        wide = recipe["right"] - recipe["left"] >= PATCH * recipe["across"]
        high = recipe["bottom"] - recipe["top"] >= PATCH * recipe["down"]
        # In the other boxes patches overlap, and two that overlap may fall into two splits.
        recipe[recipe["label"].isin(CLASSES) & wide & high].to_csv("recipe.csv", index=False)
        for path, label, _ in cut(Path("recipe.csv"), Path("cut")):
            (RAW / label).mkdir(parents=True, exist_ok=True)
            path.rename(RAW / label / path.name)
        prepare()
    return folder


@pytest.fixture
def planted(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of `clean` to plant something in."""
    return enter_copy(clean, tmp_path / "project", monkeypatch)


def found(name: str) -> pd.DataFrame:
    return pd.read_csv(CHECKS / f"{name}.csv")


def counts() -> dict[str, int]:
    return json.loads(CHECKS_COUNTS.read_text())


def of_split(split: str) -> pd.DataFrame:
    manifest = pd.read_parquet(MANIFEST)
    return manifest[manifest["split"] == split]


def relabel(paths: list[str], label: str) -> None:
    manifest = pd.read_parquet(MANIFEST)
    manifest.loc[manifest["path"].isin(paths), "label"] = label
    manifest.to_parquet(MANIFEST)


def test_clean_data_are_quiet_and_empty_tables_have_their_header(planted, capsys):
    checks()
    assert counts() == QUIET
    for name, header in HEADERS.items():
        lines = (CHECKS / f"{name}.csv").read_text().splitlines()
        assert lines[0] == header
        assert len(lines) == (3 if name == "drift" else 1)
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines == [
        "checks: no near-duplicates across splits",
        "checks: no label issues",
        "checks: no classes with fewer than 10 training pictures",
        "checks: drift of val and test is not tested: ingest drew them at random",
    ]
    compared = r"checks: \d+ pairs of similar pictures compared, 0 of them in earlier runs"
    assert re.fullmatch(compared, last)


def test_twice_the_same_bytes_whatever_cores_are_allowed_and_no_torch(planted):
    relabel(of_split("train")["path"].tolist()[:3], "moon")
    written = []
    for threads in ("1", "2"):
        script = "import sys, pipeline.checks as c; c.checks(); assert 'torch' not in sys.modules"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": threads}
        subprocess.run([sys.executable, "-c", script], check=True, env=environment)
        files = [*CHECKS.iterdir(), CHECKS_COUNTS]
        written.append({file.name: file.read_bytes() for file in files})
        shutil.rmtree(CHECKS)
    assert written[0] == written[1]
    others = {"checks.json", "map.parquet"}
    assert written[0].keys() == {f"{name}.csv" for name in HEADERS} | others


def test_copies_in_another_split_are_found_whatever_was_done_to_them(planted, capsys):
    originals = of_split("train").groupby("label").first()["path"]
    # In folders of their own, so that the copies' split is given and no draw decides it.
    for split in ("train", "val", "test"):
        for row in of_split(split).itertuples():
            into = Path("data/raw/given") / split / row.label
            into.mkdir(parents=True, exist_ok=True)
            shutil.copy(row.path, into / Path(row.path).name)
    planted.set(**{"ingest.path": "data/raw/given"})
    done_to = {
        "galaxies": lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
        "grass": ImageOps.mirror,
        "moon": lambda picture: picture.resize((96, 96), Image.Resampling.LANCZOS),
        "gravel": lambda picture: picture.crop((3, 3, 61, 61)),
    }
    wanted = set()
    for i, (label, change) in enumerate(done_to.items()):
        original, split = Path(originals[label]), ("val", "test")[i % 2]
        copy = Path("data/raw/given") / split / label / "copy.jpg"
        change(Image.open(original)).save(copy, quality=80)
        wanted.add((str(copy), f"data/raw/given/train/{label}/{original.name}"))
    prepare()
    checks()
    pairs = found("near_duplicates")
    assert set(zip(pairs["path"], pairs["other_path"], strict=True)) == wanted
    assert pairs["cosine"].is_monotonic_decreasing
    assert (pairs["label"] == pairs["other_label"]).all()
    assert set(pairs["other_split"]) == {"train"}
    assert counts()["near_duplicates"] == 4
    assert "checks: 4 near-duplicates across splits: data/raw/given/" in capsys.readouterr().out


def written() -> dict[str, bytes]:
    """The stage's outputs, which it then has to make again."""
    files = {file.name: file.read_bytes() for file in [*CHECKS.iterdir(), CHECKS_COUNTS]}
    shutil.rmtree(CHECKS)
    return files


def compared(capsys: pytest.CaptureFixture[str]) -> tuple[int, int]:
    """How many pairs the stage says it compared, and how many of these in earlier runs."""
    said = capsys.readouterr().out.splitlines()[-1]
    now, before = re.findall(r"\d+", said)
    return int(now), int(before)


@pytest.fixture
def with_a_copy(planted: Project) -> dict[str, bytes]:
    """What the stage writes where a training picture has a copy in the test split, cold store."""
    row = of_split("train").iloc[0]
    copy = Path(row["path"]).with_name("copy.jpg")
    ImageOps.mirror(Image.open(row["path"])).save(copy, quality=90)
    prepare()
    manifest = pd.read_parquet(MANIFEST)
    manifest.loc[manifest["path"] == str(copy), "split"] = "test"
    manifest.to_parquet(MANIFEST)
    checks()
    assert counts()["near_duplicates"] == 1
    return written()


@pytest.mark.usefixtures("with_a_copy")
def test_the_map_has_both_examples_of_a_pair(monkeypatch):
    monkeypatch.setattr("pipeline.quality.map.MOST", len(of_split("test")) + 1)
    checks()
    (other,) = found("near_duplicates")["other_path"]
    digests = pd.read_parquet(MANIFEST).set_index("path")["digest"]
    assert digests[other] in set(pd.read_parquet(CHECKS_MAP)["digest"])


def test_pairs_are_compared_once(with_a_copy, capsys):
    with FeatureStore(default_folder(), None) as cache:
        cache.clear()
    checks()
    pairs, known = compared(capsys)
    assert (pairs > 100, known) == (True, 0)
    assert written() == with_a_copy
    RAW.rename("elsewhere")  # the pictures of known pairs are not even opened
    checks()
    assert compared(capsys) == (pairs, pairs)
    assert written() == with_a_copy

    Path("elsewhere").rename(RAW)
    with sqlite3.connect(features_file(default_folder())) as database:
        database.execute("DELETE FROM entries WHERE id % 2")
    checks()
    assert 0 < compared(capsys)[1] < pairs
    assert written() == with_a_copy
    checks()
    assert compared(capsys) == (pairs, pairs)


def test_other_code_compares_anew(with_a_copy, capsys, monkeypatch):
    for changed in ("code", "pillow", "opencv-python-headless"):
        with monkeypatch.context() as patch:
            if changed == "code":
                patch.setattr(image, "COPIES_CODE", 99)
            else:
                of = {changed: "99"}
                patch.setattr(image, "version", lambda name, of=of: of.get(name) or version(name))
            checks()
        assert compared(capsys)[1] == 0, changed
        assert written() == with_a_copy


def test_no_store_at_all_costs_time_only(with_a_copy, capsys, monkeypatch, tmp_path):
    (tmp_path / "a file").touch()
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "a file"))
    checks()
    said = capsys.readouterr().out
    assert re.search("warning: the next run compares the same pairs again: .*a file", said)
    assert said.endswith(" pairs of similar pictures compared, 0 of them in earlier runs\n")
    assert written() == with_a_copy


@pytest.mark.slow
def test_a_store_that_fails_on_the_way_costs_time_only(with_a_copy, capsys, monkeypatch):
    def fail(*_: object) -> None:
        raise StoreError("no room")

    # A disk that is full, or fails, cannot be had in a test.
    for code, deed in enumerate(("get", "put", "close")):
        with monkeypatch.context() as patch:
            patch.setattr(FeatureStore, deed, fail)
            patch.setattr(image, "COPIES_CODE", 97 + code)  # so that there is something to put
            checks()
        assert capsys.readouterr().out.count("compares the same pairs again: no room") == 1, deed
        assert written() == with_a_copy


def test_a_picture_that_changed_is_an_error(planted):
    Path(of_split("test")["path"].iloc[0]).write_bytes(b"another")
    with pytest.raises(DataError, match="changed after it was ingested"):
        checks()


def crops() -> list[Image.Image]:
    """Crops of three photographs, of which many overlap by about as much as a copy may lack."""
    random = np.random.default_rng(0)
    made = []
    for name in ("chelsea", "coffee", "brick"):
        photograph = Image.fromarray(getattr(skimage.data, name)())
        for _ in range(23):
            side = int(random.integers(200, 256))
            left, top = (int(number) for number in random.integers(0, 45, 2))
            crop = photograph.crop((left, top, left + side, top + side))
            made.append(ImageOps.mirror(crop) if random.random() < 0.5 else crop)
    return made


def plain_likeness(one: np.ndarray, other: np.ndarray) -> float:
    """As `best_fit`, in NumPy alone: the correlation at each size and place, one by one."""
    best = 0.0
    for whole, part in ((one, other), (one, other[:, ::-1]), (other, one), (other, one[:, ::-1])):
        for size in SIZES:
            steps = np.linspace(0, SIDE, size + 1)
            # The share of each pixel that falls between two steps.
            edges = np.clip(steps[:, None] - np.arange(SIDE), 0, 1)
            shares = np.diff(edges, axis=0) * size / SIDE
            small = (shares @ part @ shares.T).ravel()
            for down in range(SIDE - size + 1):
                for right in range(SIDE - size + 1):
                    window = whole[down : down + size, right : right + size].ravel()
                    best = max(best, np.corrcoef(window, small)[0, 1])
    return best


def fits_of(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[2, sizes, 2]: the fits of a pair by itself."""
    return np.stack([fits(other, [one])[0], fits(one, [other])[0]])


def listed(pictures: list[Image.Image]) -> list[tuple[str, str]]:
    """Path and digest of each picture, saved here."""
    made = []
    for number, picture in enumerate(pictures):
        picture.save(f"{number}.png")
        made.append((f"{number}.png", digest(Path(f"{number}.png").read_bytes())))
    return made


@pytest.mark.slow
def test_pairs_looked_at_together_are_those_that_are_alike_one_by_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = [*crops(), Image.new("RGB", (80, 80), "white"), Image.new("RGB", (80, 80), "grey")]
    files = listed(made)
    assert len(made) > IN_A_ROW
    pairs = [(files[i], files[j]) for i in range(len(made)) for j in range(i)]
    alike = copies.copies(pairs)
    assert min(alike.count(True), alike.count(False)) > 50
    random = np.random.default_rng(1)
    for at in random.choice(len(pairs), 40, replace=False):
        assert copies.copies([pairs[at]]) == [alike[at]]
    small = [thumbnail(picture_bytes(picture)) for picture in crops()]
    for _ in range(2):
        one, other = (small[at] for at in random.choice(len(small), 2, replace=False))
        found, place = copies.best_fit(one, other, fits_of(one, other))
        assert found == pytest.approx(plain_likeness(one, other), abs=1e-4)
        assert place.size in SIZES


def test_a_thumbnail_in_a_row_fits_as_it_does_alone():
    """A tenth of the rounding that is allowed for, and no place across two of them counts.

    Faint pictures (fog, paper) stand beside strong ones.
    """
    strong = crops()[::10]
    faint = [ImageEnhance.Contrast(picture).enhance(0.05) for picture in crops()[5::10]]
    small = [thumbnail(picture_bytes(picture)) for picture in [*strong, *faint]]
    small = [grey for grey in small if grey.any()]  # flat ones are compared with nothing
    assert len(small) > len(strong)
    for one in small:
        together = fits(one, small)
        alone = [fits(one, [other])[0] for other in small]
        np.testing.assert_allclose(together, alone, atol=ROUNDING / 10)


def patch(name: str, left: int, top: int, side: int = 96) -> Image.Image:
    photograph = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
    return photograph.crop((left, top, left + side, top + side))


def clock(hour: int, colour: str = "white") -> Image.Image:
    """A drawing of 64 pixels that shows a time."""
    large = Image.new("RGB", (256, 256), "white")
    draw = ImageDraw.Draw(large)
    draw.ellipse((12, 12, 244, 244), fill=colour, outline="black", width=12)
    for one in range(12):
        x, y = (128 + 96 * turned(one * np.pi / 6) for turned in (np.sin, np.cos))
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill="black")
    x, y = (128 + 64 * turned(hour * np.pi / 6) for turned in (np.sin, np.cos))
    draw.line((128, 128, x, y), fill="red", width=12)
    return large.resize((64, 64), Image.Resampling.LANCZOS)


def saved_again(picture: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=70)
    return Image.open(stream).convert("RGB")


def test_patches_that_do_not_overlap_and_drawings_that_differ_are_no_copies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wall = [patch("brick", left, top) for left in (0, 100, 200, 300) for top in (0, 200, 400)]
    coins = [patch("coins", left, top, 60) for left in (20, 80, 140, 200) for top in (20, 80)]
    drawn = [clock(hour) for hour in (1, 2, 4, 9)] + [clock(1, "orange"), clock(1, "yellow")]
    for pictures in (wall, coins, drawn):
        files = listed(pictures)
        pairs = [(one, other) for at, one in enumerate(files) for other in files[:at]]
        assert not any(copies.copies(pairs))
        again = [saved_again(picture) for picture in pictures]
        files = listed([*pictures, *again])
        assert all(copies.copies(list(zip(files, files[len(pictures) :], strict=False))))


@pytest.mark.parametrize(
    "change",
    [
        lambda picture: picture.crop((6, 6, 90, 90)),
        lambda picture: picture.crop((8, 8, 96, 96)),
        lambda picture: picture.resize((48, 48), Image.Resampling.LANCZOS),
        lambda picture: ImageEnhance.Brightness(picture).enhance(1.3),
        lambda picture: ImageOps.mirror(picture).convert("L").convert("RGB"),
    ],
    ids=["cropped", "shifted", "scaled", "brightened", "grey and mirrored"],
)
def test_a_part_of_a_picture_or_the_picture_made_otherwise_is_a_copy(tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    pictures = [
        patch(*where) for where in (("brick", 100, 200), ("chelsea", 180, 60), ("grass", 9, 9))
    ]
    files = listed([*pictures, *(saved_again(change(picture)) for picture in pictures)])
    assert copies.copies(list(zip(files, files[3:], strict=False))) == [True] * 3


def picture_bytes(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def test_wrong_labels_are_found_with_the_right_ones_suggested(planted, capsys):
    wrong = of_split("train").query("label == 'grass'")["path"].tolist()[:2]
    wrong += of_split("test").query("label == 'grass'")["path"].tolist()[:1]
    relabel(wrong, "moon")
    checks()
    doubted = found("label_issues")
    assert set(doubted["path"]) == set(wrong)
    assert set(doubted["label"]) == {"moon"}
    assert set(doubted["suggested"]) == {"grass"}
    margin = doubted["probability"] - doubted["given_probability"]
    assert (margin >= 0.5).all()
    assert margin.is_monotonic_decreasing
    said = capsys.readouterr().out
    assert "checks: 3 label issues: data/raw/patches/grass/" in said
    assert "(moon, or grass?)" in said


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_classes_that_overlap_are_told_from_labels_that_are_wrong(rate):
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 3000)
    centres = 2.5 * np.eye(3)
    scores = (centres[labels] + random.standard_normal((3000, 3))).astype(np.float32)
    assert (scores.argmax(axis=1) != labels).mean() > 0.05
    flipped = random.random(3000) < rate
    given = np.where(flipped, (labels + 1) % 3, labels)
    scale, share = issues.noise(scores, given)
    assert scale == pytest.approx(2.5, rel=0.15)
    assert share == pytest.approx(rate, abs=0.02)
    sure = np.array([0.001, 0.3, 0.999])
    wrong = issues.wrong(sure, share, 3)
    assert (np.diff(wrong) < 0).all()
    assert (wrong[0] > 0.9) == bool(rate)


def test_scarce_classes_are_counted(planted, capsys):
    least = len(of_split("train").query("label == 'gravel'")) + 1
    sizes = pd.read_parquet(MANIFEST).groupby(["label", "split"]).size()
    scarce = [label for label in CLASSES if sizes[label, "train"] < least]
    planted.set(**{"checks.least_examples": least})
    checks()
    table = found("few_examples")
    assert table["class"].tolist() == scarce
    for row in table.itertuples():
        assert (row.train, row.val, row.test) == tuple(sizes[row[1]][["train", "val", "test"]])
    assert f"with fewer than {least} training pictures: " in capsys.readouterr().out


def test_a_split_of_darker_pictures_is_drift_and_the_other_is_not(planted):
    for path in of_split("test")["path"]:
        dark = ImageEnhance.Brightness(Image.open(path)).enhance(0.4)
        into = Path("data/raw/given/test") / Path(path).parent.name
        into.mkdir(parents=True, exist_ok=True)
        dark.save(into / Path(path).name)
    for split in ("train", "val"):
        for path in of_split(split)["path"]:
            into = Path("data/raw/given") / split / Path(path).parent.name
            into.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, into)
    planted.set(**{"ingest.path": "data/raw/given"})
    prepare()
    checks()
    assert found("drift").set_index("split")["drifted"].to_dict() == {"val": False, "test": True}
    assert counts()["drifted_splits"] == 1


def test_splits_that_were_drawn_or_are_by_place_are_not_tested(planted, capsys):
    manifest = pd.read_parquet(MANIFEST)
    dark = manifest.query("split == 'test' and label in ['moon', 'grass']").index
    manifest.loc[dark, "split"], rest = "val", manifest.query("label in ['gravel']").index
    manifest.loc[rest, "split"] = np.where(np.arange(len(rest)) < 20, "train", "test")
    manifest.loc[rest[19:21], "group"] = "north"  # one in train, one in test
    write_manifest(manifest, "image", MANIFEST, {"val": "drawn", "test": "place"})
    checks()
    (note,) = found("notes").query("check == 'groups'")["note"]
    assert note.startswith(
        "the source itself divides 1 of 1 groups between splits, such as 'north'"
    )
    table = found("drift").set_index("split")
    assert table["origin"].to_dict() == {"val": "drawn", "test": "place"}
    assert table["p_value"].isna().all()
    assert counts()["drifted_splits"] == 0
    said = capsys.readouterr().out
    assert "checks: drift of val is not tested: ingest drew them at random\n" in said
    assert "checks: drift of test is not tested: the source divides its splits by place" in said
    assert f"checks: warning: {note}" in said
    assert "from the training split" not in said


def test_another_mix_of_classes_is_no_drift(planted):
    manifest = pd.read_parquet(MANIFEST)
    rare = manifest.query("split == 'test' and label in ['galaxies', 'grass']")["path"][2:]
    manifest.loc[manifest["path"].isin(rare), "split"] = "train"
    manifest.to_parquet(MANIFEST)
    checks()
    assert not found("drift")["drifted"].any()


def test_a_class_of_one_split_and_an_empty_split_are_no_trouble(planted):
    manifest = pd.read_parquet(MANIFEST)
    manifest.loc[manifest["label"] == "moon", "split"] = "train"
    manifest.loc[(manifest["label"] != "moon") & (manifest["split"] == "test"), "split"] = "val"
    manifest.to_parquet(MANIFEST)
    checks()
    val, test = found("drift").to_dict("records")
    assert val["compared"] == val["pictures"] == len(of_split("val"))
    assert (test["pictures"], test["compared"], test["drifted"]) == (0, 0, False)
    assert np.isnan(test["p_value"])


@pytest.mark.parametrize("other", ["copy", "stranger"])
def test_two_pictures(project, draw_picture, monkeypatch, other):
    # Two classes, one of which has no training picture: checks would bear it.
    monkeypatch.setattr("pipeline.ingest.stop_if_unusable", lambda *_: None)
    for folder in ("train/disc", "test/square"):
        Path("data/raw/two", folder).mkdir(parents=True)
    draw_picture(1, 200, 150).save("data/raw/two/train/disc/one.png")
    second = draw_picture(1 if other == "copy" else 2, 200, 150)
    second.save("data/raw/two/test/square/two.jpg", quality=85)
    project.set(**{"ingest.source": "folder", "ingest.path": "data/raw/two", "augment.views": 0})
    prepare()
    checks()
    assert counts() == QUIET | {"near_duplicates": int(other == "copy"), "few_examples": 2}


def test_a_manifest_without_groups_is_an_error(planted):
    pd.read_parquet(MANIFEST).drop(columns="group").to_parquet(MANIFEST)
    with pytest.raises(DataError, match="no column group"):
        checks()


def test_candidates_are_the_nearest_of_every_block():
    random = np.random.default_rng(0)
    rows = random.standard_normal((2 * duplicates.ROWS + 5, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    bank = rows[::-1][:700]
    cosines = rows @ bank.T
    wanted = {
        (row, int(column))
        for row in range(len(rows))
        for column in np.argsort(-cosines[row])[: duplicates.NEAREST]
        if cosines[row, column] >= 0.8
    }
    assert {(i, j) for i, j, _ in duplicates.candidates(rows, bank, 0.8)} == wanted


@pytest.mark.parametrize(("dimension", "at_once"), [(20, 2**22), (20, 60), (90, 2**22)])
def test_held_out_predictions_are_those_of_a_ridge_of_each_fold(
    dimension: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More rows than features, also in nine parts, and fewer."""
    monkeypatch.setattr(large, "AT_ONCE", at_once)
    random = np.random.default_rng(0)
    features = random.standard_normal((100, dimension)).astype(np.float32) + 3
    wanted = features[:, :3] + random.standard_normal((100, 3)).astype(np.float32)
    fold = np.arange(100) % 6 - 1  # 17 rows are in no fold
    answers, scored = held_out.predicted(features, wanted, fold)
    np.testing.assert_array_equal(scored, fold >= 0)
    scaled = (features - features.mean(axis=0)).astype(np.float64)
    scaled /= np.sqrt(np.square(scaled).mean())
    for held in range(5):
        out = fold == held
        mean, means = scaled[~out].mean(axis=0), wanted[~out].mean(axis=0)
        rows = scaled[~out] - mean
        damping = held_out.PENALTY * len(rows) * dimension
        of = np.linalg.solve(
            rows.T @ rows + damping * np.eye(dimension), rows.T @ (wanted[~out] - means)
        )
        np.testing.assert_allclose(answers[out], (scaled[out] - mean) @ of + means, atol=1e-4)


def test_p_values_of_no_drift_are_spread_evenly():
    p_values = []
    for seed in range(60):
        features = np.random.default_rng(seed).standard_normal((60, 5)).astype(np.float32)
        labels = np.arange(60) % 3
        outcome = drift.test(features[:40], labels[:40], features[40:], labels[40:], seed, None, 1)
        p_values.append(outcome.p_value)
    assert 0.35 < np.mean(p_values) < 0.65
    assert np.mean(np.array(p_values) <= 0.1) < 0.25


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory, lite0: Path) -> Path:
    """The default pictures up to their features, without augmented views."""
    folder = tmp_path_factory.mktemp("default")
    with project_in(folder, lite0.parent) as project:
        shutil.copy(ROOT / "data/raw/surfaces.csv", "data/raw/surfaces.csv")
        project.set(**{"augment.views": 0})
        prepare()
    return folder


@pytest.mark.slow
def test_the_default_run_ends_without_an_alarm(default, monkeypatch, capsys):
    monkeypatch.chdir(default)
    monkeypatch.setenv("HEADSTART_STORE", str(default / "cache" / "features"))
    checks()
    assert counts() == QUIET
    assert set(found("drift")["origin"]) == {"place"}
    assert "drift of val and test is not tested: the source divides" in capsys.readouterr().out


@pytest.mark.slow
def test_copies_and_wrong_labels_planted_in_the_default_set_are_found(default, monkeypatch):
    monkeypatch.chdir(default)
    monkeypatch.setenv("HEADSTART_STORE", str(default / "cache" / "features"))
    manifest = pd.read_parquet(MANIFEST)
    train = manifest[manifest["split"] == "train"]
    originals = train.groupby("label").nth(3).head(6)
    made = []
    for number, row in enumerate(originals.to_dict("records")):
        file = Path(f"data/raw/copy-{number}.jpg")
        picture = Image.open(row["path"])
        (picture if number % 2 else picture.crop((3, 3, 61, 61))).save(file, quality=80)
        made.append(row | {"path": str(file), "digest": digest(file.read_bytes()), "split": "test"})
    copied = dict(zip((row["path"] for row in made), originals["path"], strict=True))
    wrong = train.groupby("label").nth(7)["path"].iloc[6:11]
    manifest.loc[manifest["path"].isin(wrong), "label"] = "galaxies"
    pd.concat([manifest, pd.DataFrame(made)]).to_parquet(MANIFEST)
    importlib.import_module("pipeline.augment").augment()
    importlib.import_module("pipeline.extract").extract()
    checks()
    pairs = found("near_duplicates")
    assert dict(zip(pairs["path"], pairs["other_path"], strict=True)) == copied
    assert len(pairs) == len(copied)
    issues = found("label_issues")
    assert set(wrong) >= set(issues["path"])
    assert len(issues) >= 4


def of_groups(counts, size=8, seed=0, shift=0.0):
    """Rows and features of so many groups in each split; the test split's are shifted.

    Each group has a place of its own in the features, and its examples are of one class.
    """
    random = np.random.default_rng(seed)
    split = np.repeat(list(counts), list(counts.values()))
    places = random.standard_normal((len(split), 6)) + np.where(split == "test", shift, 0)[:, None]
    group = np.repeat(np.arange(len(split)), size)
    features = places[group] + 0.5 * random.standard_normal((len(group), 6))
    rows = {"digest": [f"{n:064x}" for n in range(len(group))], "split": split[group]}
    rows |= {"number": group % 2, "group": [f"patient {n}" for n in group]}
    return pd.DataFrame(rows), features.astype(np.float32)


GIVEN = {"val": "given", "test": "given"}


def test_other_groups_of_the_same_kind_are_no_drift_and_others_are():
    alike, single = 0, 0
    for seed in range(4):
        rows, features = of_groups({"train": 24, "val": 10, "test": 10}, seed=seed)
        found = drift.drifts(rows, features, GIVEN, ChecksParams())
        assert found["p_value"].notna().all()
        alike += found["drifted"].sum()
        single += drift.drifts(rows.assign(group=""), features, GIVEN, ChecksParams())[
            "drifted"
        ].sum()
    assert (alike, single) == (0, 8)
    rows, features = of_groups({"train": 24, "val": 10, "test": 10}, shift=2)
    assert drift.drifts(rows, features, GIVEN, ChecksParams())["drifted"].tolist() == [False, True]


def test_drift_of_too_few_groups_is_not_tested():
    rows, features = of_groups({"train": 24, "val": 10, "test": 2}, shift=5)
    val, test = drift.drifts(rows, features, GIVEN, ChecksParams()).to_dict("records")
    assert val["p_value"] > 0.005
    assert test["compared"] == test["pictures"] == 16  # 12 groups of each class: 12 x 12 ways
    assert np.isnan(test["p_value"])
    assert not test["drifted"]
    table = pd.DataFrame([val, test])
    assert drift.too_few_groups(table).tolist() == [False, True]


def test_groups_of_several_classes_move_as_one():
    rows, features = of_groups({"train": 24, "val": 10, "test": 10})
    mixed = np.random.default_rng(3).integers(3, size=len(rows))
    found = drift.drifts(rows.assign(number=mixed), features, GIVEN, ChecksParams())
    assert found["p_value"].min() > 0.005
    rows, features = of_groups({"train": 24, "val": 10, "test": 10}, shift=2)
    found = drift.drifts(rows.assign(number=mixed), features, GIVEN, ChecksParams())
    assert found["drifted"].tolist() == [False, True]


def test_too_few_groups_are_said_by_the_stage(planted, capsys):
    manifest = pd.read_parquet(MANIFEST)
    manifest["group"] = manifest["split"] + "-" + manifest["label"]  # one of each class and split
    write_manifest(manifest, "image", MANIFEST, {"val": "given", "test": "given"})
    checks()
    said = capsys.readouterr().out
    assert "checks: drift of val and test is not tested: too few groups\n" in said
    assert "from the training split" not in said
    assert counts()["drifted_splits"] == 0


def test_a_label_that_a_person_confirmed_is_no_issue(planted, capsys):
    train = of_split("train")
    wrong = train[train["label"] == "moon"].head(2)
    relabel(list(wrong["path"]), "grass")
    checks()
    assert set(wrong["path"]) <= set(found("label_issues")["path"])
    before = counts()["label_issues"]
    first, second = wrong["digest"]
    confirmed.write(CONFIRMED, {(first, "grass"), (second, "moon")})
    capsys.readouterr()
    checks()
    assert counts()["label_issues"] == before - 1
    assert wrong["path"].iloc[0] not in set(found("label_issues")["path"])
    assert "checks: 1 more label issue is left out: corrections/ con" in capsys.readouterr().out
