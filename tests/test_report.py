"""The report: what it says is what the stages left, and a browser shows all of it by itself."""

import importlib
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup
from PIL import Image
from playwright.sync_api import Browser

from pipeline import kinds, report
from pipeline.core import params
from pipeline.core.errors import DataError
from pipeline.core.paths import (
    BUNDLE,
    CHECKS,
    MANIFEST,
    METRICS,
    PREDICTIONS,
    REPEATS,
    REPORT,
    SHEETS,
    SLICES,
)
from pipeline.evaluation import SHARE, measure
from pipeline.evaluation.slices import slice_table
from pipeline.kinds import Shown
from pipeline.pages import charts, points, tables
from pipeline.pages.comparison import differences, since_last_commit
from pipeline.pages.embed import Thumbnails, as_cell
from pipeline.pages.mistakes import NEAR, Mistake, Reasons, cards
from pipeline.pages.tables import FOUND, MOST_DRAWN, check_lines, confusion
from pipeline.tables.figures import Metrics
from pipeline.tables.manifest import write_manifest
from pipeline.tasks import TASKS
from pipeline.tasks.classification import page as page_of_classes
from tests.conftest import SMALL, Project, chromium


@pytest.fixture
def finished(bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a project in which all stages before the report ran."""
    folder = tmp_path / "finished"
    shutil.copytree(bundled, folder, ignore=shutil.ignore_patterns("cache"))
    monkeypatch.chdir(folder)
    return folder


def make() -> str:
    report.report()
    return REPORT.read_text(encoding="utf-8")


def mistake(*rows: int) -> pd.DataFrame:
    """Have the model be wrong, and sure, about some rows of its predictions."""
    table = pd.read_csv(PREDICTIONS)
    for place, row in enumerate(rows):
        table.loc[row, "label"] = {"disc": "square", "square": "disc"}[table.loc[row, "predicted"]]
        table.loc[row, "correct"] = False
        table.loc[row, "probability"] = 0.99 - place / 10
    table.to_csv(PREDICTIONS, index=False)
    return table.loc[list(rows)]


def test_the_figures_are_those_of_the_metrics(finished: Path) -> None:
    page = make()
    metrics = json.loads(METRICS.read_text())
    for name, value in metrics["test"].items():
        if name == "pictures":
            assert f"Measured on {value} test pictures, which were not used for training" in page
            assert "If a gate chooses between models on these" in page
        elif measure(name) != SHARE:
            assert f"<b>{value:.3f}</b>" in page
        else:
            assert f"<b>{100 * value:.1f} %</b>" in page
    low, high = metrics["interval"]["loss"].values()
    assert f"{low:.3f} to {high:.3f}" in page


def test_a_metric_without_an_interval_is_shown(finished: Path) -> None:
    metrics = json.loads(METRICS.read_text())
    metrics["interval"] = {}  # as in a regression whose test examples are of one group
    METRICS.write_text(json.dumps(metrics))
    page = make()
    accuracy = f"{100 * metrics['test']['accuracy']:.1f} %"
    assert f"<b>{accuracy}</b><small>no interval</small>" in page


@pytest.mark.parametrize(
    ("classes", "names"), [(4, ["accuracy", "top 3 accuracy"]), (3, ["accuracy"])]
)
def test_top_k_of_that_many_classes_is_left_out(classes: int, names: list[str]) -> None:
    figures = {"accuracy": 0.5, "top_3_accuracy": 1.0}
    metrics = Metrics(figures, {name: {"low": 0.1, "high": 1.0} for name in figures})
    repeats = pd.DataFrame(columns=["measure", "mean", "low", "high"])
    shown = tables.headline(metrics, repeats, "accuracy", classes)
    assert [one["name"] for one in shown] == names


def test_a_text_with_its_marks_stands_once_on_its_card() -> None:
    """A heat map of a picture stands beside the picture."""
    digest = "0" * 64
    manifest = pd.DataFrame([("a.txt", digest, "good")], columns=["path", "digest", "label"])
    shown = Thumbnails(manifest, kinds.named("text"))
    shown._made["a.txt"] = Markup("<pre>good</pre>")
    mistake = Mistake("a.txt", {}, "bad")
    for media_type, again in (("text/html", False), ("image/png", True)):
        reasons = Reasons("bad", Shown(media_type, b"<p>good</p>"), [])
        (card,) = cards([mistake], [reasons], shown)
        assert (card["shown"] is not None) == again


@pytest.mark.parametrize(
    ("value", "cell"),
    [(1.0, "1"), (-0.1, "-0.1"), (12.345678901234567, "12.345678901234567"), (np.nan, "")],
)
def test_a_target_on_the_page_is_the_number_of_the_source(value: float, cell: str) -> None:
    assert as_cell(np.float64(value)) == cell


def test_repeats_stand_beside_the_figures_and_overrule_a_given_split(finished: Path) -> None:
    assert "repeats" not in make().lower().split("</style>")[1]
    row = {"measure": "accuracy", "mean": 0.91, "low": 0.85, "high": 0.97, "repeats": 50}
    for given in (True, False):
        pd.DataFrame([row | {"given_split": given}]).to_csv(REPEATS, index=False)
        page = make()
        assert "<small>repeats: <strong>91.0 %</strong><br>85.0 % to 97.0 %</small>" in page
        assert "again on 50 other splits of the same pictures" in page
        assert ("The repeats overrule the split of the source." in page) == given


def test_the_worst_slice_is_named_above_all_slices(finished: Path) -> None:
    assert 'id="slices"' not in make()
    cameras = pd.DataFrame({"camera": ["<A>"] * 40 + ["07"] * 40})
    table = slice_table(cameras, np.array([True] * 60 + [False] * 20), 0.95)
    table.to_csv(SLICES, index=False)
    part = make().split('id="slices"')[1].split('id="training"')[0]
    assert "The worst slice is camera = 07: accuracy 0.5000 on 40 test examples" in part
    assert part.index("<td>07") < part.index("<td>&lt;A&gt;")
    assert "100.0 %" in part


def test_two_runs_give_the_same_bytes(finished: Path) -> None:
    mistake(0)
    assert make() == make()


def test_the_most_confident_errors_come_first_with_their_reasons(finished: Path) -> None:
    wrong = mistake(3, 1)
    page = make()
    cards = page.split('id="mistakes"')[1].split('id="confusion"')[0].split('class="card"')[1:]
    for path, probability in zip(wrong["path"], ("0.990", "0.890"), strict=True):
        card = next(card for card in cards if path in card)
        assert probability in card
        assert card.count("<img") == 2 + NEAR  # picture, heat map, nearest in training
    places = [next(i for i, card in enumerate(cards) if path in card) for path in wrong["path"]]
    assert places == sorted(places)
    nearest = re.findall(r'<figure title="([^"]+)"><img src="[^"]+" alt="\1">', cards[0])
    known = json.loads((BUNDLE / "neighbours.json").read_text())["paths"]
    assert len(nearest) == NEAR
    assert set(nearest) <= set(known)


def test_a_picture_that_changed_after_ingest_is_named(finished: Path) -> None:
    changed = mistake(0).iloc[0]["path"]
    Image.new("RGB", (60, 60), "red").save(changed)
    with pytest.raises(DataError, match=f"{changed} changed after it was ingested"):
        make()


def test_a_stage_that_has_not_run_is_one_line(finished: Path) -> None:
    METRICS.unlink()
    with pytest.raises(DataError, match=r"reports/metrics.json does not exist; run the evaluate"):
        make()


def test_each_check_has_its_line(finished: Path) -> None:
    clean = {name: pd.read_csv(CHECKS / f"{name}.csv") for name in FOUND}
    for name in ("near_duplicates", "label_issues", "few_examples"):
        clean[name] = clean[name].head(0)
    drift = {"split": ["val", "test"], "p_value": [np.nan, 0.001], "drifted": [False, True]}
    drift |= {"origin": ["given", "given"]}
    of_classes = TASKS["classification"]
    lines = check_lines(clean | {"drift": pd.DataFrame(drift)}, of_classes)
    assert [line["found"] for line in lines] == [False, False, False, False, True]
    assert "was not looked for" in lines[3]["words"]
    assert lines[4]["words"] == "Drift between test and training examples (p = 0.001)."
    few = pd.DataFrame(drift | {"compared": [20, 30]})
    words = check_lines(clean | {"drift": few}, of_classes)[3]["words"]
    assert words == "Drift between val and training examples was not tested: too few groups."


def test_how_many_groups_the_figures_rest_on_is_shown(finished: Path) -> None:
    metrics, manifest = json.loads(METRICS.read_text()), pd.read_parquet(MANIFEST)
    test = manifest["split"] == "test"
    manifest.loc[test, "group"] = [f"day {number // 2}" for number in range(test.sum())]
    write_manifest(manifest, "image", MANIFEST)
    groups = manifest.loc[test, "group"].nunique()
    metrics["test"]["groups"] = groups
    METRICS.write_text(json.dumps(metrics))
    figures = "column,value,examples,accuracy,low,high,other_accuracy,p_value,corrected_p_value"
    SLICES.write_text(f"{figures}\ncamera,A,8,0.5,0,1,0.9,,\n")
    page = make()
    assert f"test pictures of {groups} groups" in page
    assert "bootstrap resamples of the test groups" in page
    assert f"the intervals are computed from only {groups} groups" in page
    assert "not tested: too few groups" in page


def test_splits_drawn_or_by_place_are_told_once_and_are_no_alarm(finished: Path) -> None:
    drift = pd.read_csv(CHECKS / "drift.csv")
    drift["drifted"], drift["p_value"] = False, np.nan
    drift["origin"] = "drawn"
    drift.to_csv(CHECKS / "drift.csv", index=False)
    page = make()
    assert "val and test were drawn at random, so drift was not looked for." in page
    assert "by place" not in page
    drift["origin"] = "place"
    drift.to_csv(CHECKS / "drift.csv", index=False)
    page = make()
    figures, checked = page.split('id="checks"')
    assert figures.count("The source divides its splits by place") == 1
    assert "rift" not in checked.split('id="mistakes"')[0]


def test_what_the_checks_found_is_shown_with_its_pictures(finished: Path) -> None:
    first, second = pd.read_csv(PREDICTIONS)["path"].head(2)
    pair = {"path": first, "split": "test", "label": "disc", "other_path": second}
    pair |= {"other_split": "train", "other_label": "square", "cosine": 0.98765}
    pd.DataFrame([pair]).to_csv(CHECKS / "near_duplicates.csv", index=False)
    suspect = {"path": second, "split": "val", "label": "disc", "suggested": "square"}
    suspect |= {"probability": 0.91, "given_probability": 0.02, "wrong": 0.64}
    pd.DataFrame([suspect]).to_csv(CHECKS / "label_issues.csv", index=False)
    pd.DataFrame([{"class": "disc", "train": 3, "val": 2, "test": 1}]).to_csv(
        CHECKS / "few_examples.csv", index=False
    )
    assert "hardly usable" not in make().split("<script>")[0]
    useless = {"path": second, "split": "val", "label": "disc", "problem": "blurred", "beyond": 1}
    pd.DataFrame([useless]).to_csv(CHECKS / "flawed.csv", index=False)
    part = make().split('id="checks"')[1].split('id="mistakes"')[0]
    assert "Examples that are hardly usable: 1." in part
    assert part.count("<b>blurred</b>") == 1
    assert part.count('"blurred"') == 1  # on the map
    assert "Near-duplicates across splits: 1." in part
    assert "Labels that look wrong: 1." in part
    assert "Classes with few training examples: 1." in part
    assert part.count('<img src="data:image/jpeg;base64,') == 4
    assert f"{first} ~ {second}, cosine 0.9877" in part
    assert "wrong with probability 0.64" in part
    assert "rather <b>square</b>" in part
    assert "0.910" not in part  # a surer number, of another question


def test_an_example_without_labels_has_none_on_its_card(finished: Path) -> None:
    first, second = pd.read_csv(PREDICTIONS)["path"].head(2)
    pair = {"path": first, "split": "test", "label": "", "other_path": second, "cosine": 0.9}
    pair |= {"other_split": "train", "other_label": "disc"}
    pd.DataFrame([pair]).to_csv(CHECKS / "near_duplicates.csv", index=False)
    useless = {"path": second, "split": "val", "label": "", "problem": "blurred", "beyond": 1}
    pd.DataFrame([useless]).to_csv(CHECKS / "flawed.csv", index=False)
    page = make()
    assert "<figcaption>test: no label</figcaption>" in page
    assert "<b>blurred</b><br>no label<br>" in page


# Since the last commit


def commit(*files: Path) -> None:
    name = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    subprocess.run(["git", "add", "--force", *files], check=True)
    subprocess.run(["git", *name, "commit", "-qm", "<i>before</i>"], check=True)


def since_commit(metrics: dict[str, object]) -> dict[str, Any]:
    return since_last_commit(metrics, report.parameters(params.load(kinds.schema)))


def test_what_has_changed_since_the_last_commit(finished: Path) -> None:
    metrics = json.loads(METRICS.read_text())
    assert "No git commit was found" in since_commit(metrics)["why_not"]
    subprocess.run(["git", "init", "-q"], check=True)
    commit(Path("params.yaml"))
    assert "is not in the last commit" in since_commit(metrics)["why_not"]
    commit(METRICS)
    same = since_commit(metrics)
    assert (same["parameters"], same["metrics"]) == ([], [])

    metrics["test"]["loss"] += 0.25
    METRICS.write_text(json.dumps(metrics))
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("vflip: 0.0", "vflip: 0.5"))
    changed = since_commit(metrics)
    assert [(p["name"], p["before"], p["now"]) for p in changed["parameters"]] == [
        ("augment.vflip", "0", "0.5")
    ]
    assert [(m["name"], m["change"]) for m in changed["metrics"]] == [("test.loss", "+0.25")]
    page = make()
    assert "<td>augment.vflip<td>0<td>0.5" in page
    assert "&lt;i&gt;before&lt;/i&gt;" in page


def test_a_damaged_file_in_the_last_commit_is_said(finished: Path) -> None:
    metrics = json.loads(METRICS.read_text())
    subprocess.run(["git", "init", "-q"], check=True)
    METRICS.write_text("{half")
    commit(METRICS)
    assert "cannot be read" in since_commit(metrics)["why_not"]


def test_a_commit_message_in_another_encoding_is_no_error(finished: Path) -> None:
    """Other programs than git write such commits; git itself converts the message."""
    subprocess.run(["git", "init", "-q"], check=True)
    commit(METRICS, Path("params.yaml"))
    git = partial(subprocess.run, capture_output=True, check=True)
    written = git(["git", "cat-file", "commit", "HEAD"]).stdout
    written = written.replace(b"<i>before</i>", "Käfer".encode("latin-1"))
    made = git(["git", "hash-object", "-t", "commit", "-w", "--stdin"], input=written).stdout
    git(["git", "update-ref", "HEAD", made.strip()])
    assert since_commit(json.loads(METRICS.read_text()))["subject"] == "K\ufffdfer"


def test_differences_name_what_came_and_what_went() -> None:
    before, now = {"a": {"b": 1, "gone": 2}}, {"a": {"b": 1, "new": [1, 2]}}
    assert list(differences(before, now)) == [
        {"name": "a.new", "before": "–", "now": "[1, 2]", "change": ""},
        {"name": "a.gone", "before": "2", "now": "–", "change": ""},
    ]


# What data could do to a page


def test_names_from_data_are_letters_and_nothing_else(
    project: Project,
    small_backbone: Path,
    draw_picture: Callable[..., Image.Image],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page_of_classes, "SHOWN", 2)  # mistakes, whose heat maps take a while
    project.set(**SMALL)
    names = ("<script>$x^$", '"><img src=x onerror=alert(1)>', "7", "NA")
    project.set(**{"ingest.source": "folder", "ingest.path": "data/raw/named"})
    project.set(**{"augment.views": 0, "evaluate.bootstrap": 10})
    for i in range(80):
        path = Path("data/raw/named") / names[i % 4] / f"<i>{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_picture(i, square=bool(i % 2)).save(path)
    for stage in ("ingest", "augment", "extract", "train", "evaluate", "checks", "bundle"):
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()
    page = make()
    assert "<script>$x" not in page
    assert page.count("<script") == 2  # its own, and the data of the map
    assert "<img src=x" not in page
    assert "<i>" not in page
    assert "&lt;script&gt;$x^$" in page  # as it is written, not as mathematics
    assert all(page.count(f">{name}</text>") >= 2 for name in ("7", "NA"))  # both axes


def test_every_name_stands_in_the_matrix_and_no_colour_is_fixed() -> None:
    classes = [f"class {number}" for number in range(MOST_DRAWN)]
    drawing = charts.confusion(np.eye(len(classes), dtype=np.int64) * 7, classes)
    assert all(drawing.count(f">{name}</text>") == 2 for name in classes)
    assert drawing.count(">7</text>") == len(classes)
    colours = set(re.findall(r"(?:fill|stroke): ?(#\w+|[a-z]+)", drawing))
    assert colours <= {"none", "var"}


def test_the_matrix_has_the_actual_class_in_rows_and_absent_classes_too() -> None:
    classes = ["0", "7", "NA"]
    table = pd.DataFrame({"label": ["NA", "NA", "NA", "7"], "predicted": ["7", "7", "NA", "7"]})
    wanted = np.array([[0, 0, 0], [0, 1, 0], [0, 2, 1]])
    assert confusion(table, classes) == tables.drawing(charts.confusion(wanted, classes))


def test_of_many_classes_the_worst_are_shown(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MOST_DRAWN", 1)
    monkeypatch.setattr(tables, "MOST_ROWS", 1)
    monkeypatch.setattr(tables, "DRAWN_OF_MANY", 1)
    scarce = {"class": ["disc", "square"], "train": [3, 2], "val": [1, 1], "test": [1, 1]}
    pd.DataFrame(scarce).to_csv(CHECKS / "few_examples.csv", index=False)
    mistake(0)
    page = make()
    assert "The 1 classes with the fewest. All 2 are in reports/checks/few_examples.csv" in page
    assert "The 1 classes of the lowest F1. All 2 are in reports/classes.csv" in page
    assert page.index("The most confused pairs") < page.index("The 1 most confused of 2 classes")
    table = pd.read_csv(PREDICTIONS)
    right = table.assign(predicted=table["label"], correct=True)
    right.to_csv(PREDICTIONS, index=False)
    assert "No class was mistaken for another." in make()


def test_pairs_in_both_directions_come_first_where_classes_are_many() -> None:
    pairs = [("a", "b", 0.9), ("c", "d", 0.3), ("d", "c", 0.2), ("e", "f", 0.8), ("e", "f", 0.1)]
    table = pd.DataFrame(pairs, columns=["label", "predicted", "probability"])
    table["correct"] = False
    shown = [(row["actual"], row["predicted"]) for row in tables.confused(table, MOST_DRAWN + 1)]
    assert shown == [("e", "f"), ("c", "d"), ("d", "c"), ("a", "b")]
    names = [f"{number}" for number in range(MOST_DRAWN)] + ["a", "b", "c"]
    assert tables.in_matrix(table, names)[:2] == ["e", "f"]
    assert tables.in_matrix(table, names[:3]) == names[:3]


def test_a_name_of_digits_stays_a_name(tmp_path: Path) -> None:
    file = tmp_path / "residuals.csv"
    file.write_text("path,name,class_1,predicted,target,residual\na.png,010,0412,1,1,0\n")
    (row,) = tables.table(file).to_dict("records")
    assert (row["name"], row["class_1"], row["target"]) == ("010", "0412", 1)


def test_a_head_that_descends_has_curves(finished: Path) -> None:
    curve = {"epoch": [1, 2, 3], "train_loss": [1.0, 0.5, 0.4], "train_accuracy": [0.5, 0.8, 0.9]}
    table = pd.DataFrame(curve | {"val_loss": [1.1, 0.7, 0.6], "val_accuracy": [0.5, 0.7, 0.8]})
    assert "it has no training curves" in make()
    table.to_csv("reports/training.csv", index=False)
    page = make()
    assert "it has no training curves" not in page
    assert page.count(">epoch</text>") == 2


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from chromium()


# The size of the letters in the charts on the screen, in pixels.
LETTERS = """[...document.querySelectorAll('svg text')].map(letters => {
    const {a, b} = letters.getScreenCTM();
    return parseFloat(getComputedStyle(letters).fontSize) * Math.hypot(a, b);
})"""
SIZES = {"desktop": (1200, 900, "light"), "phone": (390, 844, "dark")}


def test_a_browser_shows_it_whole_and_asks_nobody(finished: Path, browser: Browser) -> None:
    mistake(0, 1, 2)
    make()
    asked: list[str] = []
    for name, (width, height, scheme) in SIZES.items():
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(REPORT.resolve().as_uri())
        headings = page.locator("h2").all_inner_texts()
        assert "The most confident errors" in headings
        assert "Since the last commit" in headings
        assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
        assert page.locator("img").count() >= 3 * (2 + NEAR) + 1
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(f"Math.min(...{LETTERS})") >= 9
        ink = page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
        assert ink == page.evaluate("getComputedStyle(document.body).color")
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 24, 28)"
        assert dark == (scheme == "dark")
        if folder := os.environ.get("HEADSTART_SCREENSHOTS"):
            page.screenshot(path=str(Path(folder) / f"report_{name}.png"), full_page=True)
        page.close()


def test_the_map_shows_opens_selects_and_counts(
    finished: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_of_classes, "SHOWN", 0)  # mistakes, whose heat maps take a while
    table = pd.read_csv(PREDICTIONS)
    row = table.loc[0].copy()
    row["predicted"] = {"disc": "square", "square": "disc"}[row["label"]]
    table.loc[0, ["predicted", "correct"]] = row["predicted"], False
    table.to_csv(PREDICTIONS, index=False)
    make()
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(REPORT.resolve().as_uri())
    data = json.loads(page.locator("#points").text_content() or "")
    manifest = pd.read_parquet(MANIFEST).set_index("path")
    for name in ("label", "answer"):
        data[name] = [data["words"][place] for place in data[name]]
    data["name"] = [data["start"] + name for name in data["name"]]
    assert sorted(data["name"]) == sorted(manifest.index)
    assert list(SHEETS.glob("*.svg")) == []
    assert all(one.startswith("data:image/webp") for one in data["shown"])
    test = pd.read_csv(PREDICTIONS).set_index("path")
    for path, answer, right, unseen in zip(
        *(data[name] for name in ("name", "answer", "right", "unseen")), strict=True
    ):
        assert unseen == (path in test.index)
        if unseen:
            assert (answer, right) == (test.loc[path, "predicted"], test.loc[path, "correct"])

    canvas, panel = page.locator(".map canvas"), page.locator(".map .panel")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box
    size = min(box["width"], box["height"]) * 0.94 / 10000
    middle = [(max(data[axis]) + min(data[axis])) / 2 for axis in "xy"]

    def place(i: int) -> tuple[float, float]:
        across = box["x"] + box["width"] / 2 + (data["x"][i] - middle[0]) * size
        return across, box["y"] + box["height"] / 2 - (data["y"][i] - middle[1]) * size

    outermost = max(range(len(data["x"])), key=lambda i: data["x"][i])
    page.mouse.move(*place(outermost))
    page.locator(".map .tip img").wait_for()
    page.mouse.click(*place(outermost))
    card = panel.locator(".card")
    assert data["name"][outermost] in card.inner_text()
    assert panel.locator(".tile").count() == 5  # the most similar
    page.mouse.move(*place(outermost))
    page.locator(".map .tip img").wait_for()
    card.get_by_text("Exclude", exact=True).click()
    assert page.locator(".footer b").inner_text() == "1 correction"

    canvas.press("ArrowLeft")
    assert data["name"][outermost] not in card.inner_text()
    page.keyboard.down("Shift")
    left, top, right, bottom = box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]
    page.mouse.move(left + 2, top + 2)
    page.mouse.down()
    for corner in ((right - 2, top + 2), (right - 2, bottom - 2), (left + 2, bottom - 2)):
        page.mouse.move(*corner, steps=3)
    page.mouse.up()
    page.keyboard.up("Shift")
    assert panel.locator(".count").inner_text().startswith(f"{len(data['x'])} selected")
    page.locator(".map [name=split]").select_option("2")
    page.locator(".map [name=colour]").select_option("right")
    page.mouse.move(left, top)
    for cell in page.locator("[data-matrix] .cell").all():
        cell.click()
        words = cell.get_attribute("aria-label") or ""
        assert panel.locator(".count").inner_text().strip() == words
        assert panel.locator(".tile").count() == int(words.split()[0])
    wrong_ones = (table["label"] == row["label"]) & (table["predicted"] == row["predicted"])
    counted = f"{wrong_ones.sum()} in test: {row['label']}, taken for {row['predicted']}"
    assert page.get_by_label(counted).count() == 1
    assert wrong == []
    page.close()


def test_thumbnails_of_many_examples_are_beside_the_page(
    finished: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_of_classes, "SHOWN", 0)
    monkeypatch.setattr(points, "INLINE", 10)
    SHEETS.mkdir()
    (SHEETS / "old.svg").touch()
    make()
    digests = pd.read_parquet(MANIFEST)["digest"]
    assert {file.name for file in SHEETS.glob("*.svg")} == {f"{one[:2]}.svg" for one in digests}
    assert sum(file.read_text().count("<image") for file in SHEETS.glob("*.svg")) == len(digests)
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(REPORT.resolve().as_uri())
    data = json.loads(page.locator("#points").text_content() or "")
    last = max(range(len(digests)), key=lambda i: data["shown"][i])
    page.locator(".map [name=search]").fill(data["start"] + data["name"][last])
    page.locator(".map canvas").press("ArrowRight")
    picture = page.locator(".map .card img")
    assert picture.evaluate("one => one.decode().then(() => one.naturalWidth)") > 0
    beside = [url.partition("#")[0] for url in asked if url.startswith("file:")]
    assert f"{REPORT.resolve().parent.as_uri()}/report/{data['digest'][last][:2]}.svg" in beside
    # What is shown is the thumbnail, and no other part of the sheet.
    shown = Image.open(io.BytesIO(picture.screenshot())).convert("RGB").resize((16, 16))
    path = data["start"] + data["name"][last]
    own = kinds.named("image").show(Path(path).read_bytes(), 64).data
    apart = np.asarray(shown, float) - np.asarray(Image.open(io.BytesIO(own)).resize((16, 16)))
    assert np.abs(apart[6:10, 6:10]).mean() < 12
    page.close()
