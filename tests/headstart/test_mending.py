"""From the page to the next run: what a person corrects in a browser is all that runs again."""

import csv
import json
import re
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
import yaml

from headstart.review import Desk, application
from pipeline.core.paths import MANIFEST
from pipeline.tables.manifest import read_manifest
from tests.conftest import ROOT
from tests.helpers.repository import Repository
from tests.helpers.served import served

KEY = "a-secret-part"
BACKBONES = {"text": "characters", "audio": "mfcc"}
WRONG = (7, 18, 29)  # examples with the label of the other class


def texts(folder):
    """Write 60 texts about two subjects, three of them mislabelled; where they are."""
    words = ("sun warm blue bright", "rain wet grey storm")
    with (folder / "texts.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        for n in range(60):
            some = np.random.default_rng(n).permutation(words[n % 2].split())
            said = (n + (n in WRONG)) % 2
            rows.writerow([f"{' '.join(some)} {n}", ("dry", "rainy")[said]])
    return "data/raw/texts.csv"


def sounds(folder):
    """Write 60 tones of two pitches, three of them mislabelled; where they are."""
    for n in range(60):
        random = np.random.default_rng(n)
        pitch = (300, 1500)[n % 2] * random.uniform(0.9, 1.1)
        tone = np.sin(np.arange(8000) * 2 * np.pi * pitch / 16000)
        data = (9000 * tone + 400 * random.standard_normal(8000)).astype("<i2")
        place = folder / "tones" / ("low", "high")[(n + (n in WRONG)) % 2] / f"{n}.wav"
        place.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(place), "wb") as sound:
            sound.setparams((1, 2, 16000, 0, "NONE", ""))
            sound.writeframes(data.tobytes())
    return "data/raw/tones"


@pytest.fixture(params=["text", "audio"])
def labelled(request, tmp_path, dvc_template, monkeypatch):
    """A repository after its first run."""
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    made = Repository(tmp_path / "repository", dvc_template)
    monkeypatch.chdir(made.folder)
    kind = request.param
    shutil.copy(ROOT / "examples" / kind / "params.yaml", "params.yaml")
    place = (texts if kind == "text" else sounds)(made.folder / "data" / "raw")
    settings = yaml.safe_load(Path("params.yaml").read_text())
    settings["ingest"] |= {"path": place, "source": "csv" if kind == "text" else "folder"}
    settings["extract"] |= {"backbone": BACKBONES[kind], "blocks": "last"}
    settings["train"] |= {"layers": "last", "power": 1}
    settings["evaluate"] |= {"bootstrap": 50}
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    made.repro()
    return made


def opened(page, name):
    """The card of the example that the map finds by its name."""
    page.locator(".map [name=search]").fill(name)
    page.locator(".map canvas").press("ArrowRight")
    card = page.locator(".map .panel .card")
    assert name in card.inner_text()
    return card


@pytest.mark.slow
def test_three_labels_and_a_mark_run_what_they_change(labelled, browser):
    manifest = read_manifest(MANIFEST)
    labels = sorted(manifest["label"].unique())
    numbers = manifest["path"].str.extract(r"(\d+)(?:\.wav)?$")[0].astype(int)
    numbers -= 1 if "texts.csv" in manifest["path"][0] else 0  # rows begin with 1
    wrong = manifest[numbers.isin(WRONG)]
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    failed: list[str] = []
    page.on("pageerror", lambda error: failed.append(str(error)))
    desk = Desk("anna", set(manifest["digest"]), "classification")
    with served(application(desk, KEY), KEY) as address:
        page.goto(address)
        data = json.loads(page.locator("#points").text_content() or "")
        canvas, panel = page.locator(".map canvas"), page.locator(".map .panel")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box
        size = min(box["width"], box["height"]) * 0.94 / 10000
        i = max(range(len(data["x"])), key=lambda i: data["x"][i])
        from_middle = [data[a][i] - (max(data[a]) + min(data[a])) / 2 for a in "xy"]
        page.mouse.move(
            box["x"] + box["width"] / 2 + from_middle[0] * size,
            box["y"] + box["height"] / 2 - from_middle[1] * size,
        )
        page.locator(".map .tip", has_text=data["words"][data["label"][i]]).wait_for()
        page.locator(".map [name=label]").select_option(labels[0])
        box = canvas.bounding_box()  # the page may have scrolled
        assert box
        page.keyboard.down("Shift")
        left, top = box["x"] + 6, box["y"] + 6  # its corners are round
        right, bottom = left + box["width"] - 12, top + box["height"] - 12
        page.mouse.move(left, top)
        page.mouse.down()
        for corner in ((right, top), (right, bottom), (left, bottom)):
            page.mouse.move(*corner, steps=3)
        page.mouse.up()
        page.keyboard.up("Shift")
        of_first = int((manifest["label"] == labels[0]).sum())
        assert panel.locator(".count").inner_text().startswith(f"{of_first} selected")
        page.locator(".map [name=label]").select_option("*")
        cell = page.locator("[data-matrix] .cell").first
        cell.click()
        assert panel.locator(".count").inner_text().strip() == cell.get_attribute("aria-label")
        panel.locator(".tile").first.click()
        panel.locator(".card").wait_for()
        for row in wrong.itertuples():
            card = opened(page, row.path)
            (truth,) = set(labels) - {row.label}
            card.get_by_label("new label").fill(truth)
            card.get_by_text("Change").click()
        page.locator(".footer b", has_text="3 corrections in corrections/anna.csv").wait_for()
        shown = labelled.headstart("repro")
        assert "3 corrections apply: 3 labels changed" in shown
        assert " 0 computed" in shown
        assert "warning" not in shown
        assert "checks: no label issues" in shown
        now = read_manifest(MANIFEST).set_index("digest")["label"]
        assert (now != manifest.set_index("digest")["label"]).sum() == 3

        opened(page, manifest["path"][0]).get_by_text("Label is right").click()
        page.locator(".footer b", has_text="4 corrections").wait_for()
    page.close()
    assert failed == []
    again = re.findall(r"Running stage '(\w+)'", labelled.headstart("repro"))
    assert again == ["ingest", "checks", "report"]
