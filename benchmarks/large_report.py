"""The report on many examples: its size, and how fast a browser shows and moves it.

    python -m benchmarks large_report

The features are made up, so that no network has to see the pictures.
"""

import shutil
import time
from pathlib import Path
from statistics import median

import numpy as np
from playwright.sync_api import sync_playwright

from benchmarks.harness import Project, draw, table
from benchmarks.small_loop import CLASSES, SIZE
from pipeline.core.paths import FEATURES, MANIFEST, REPORT, SHEETS
from pipeline.tables import floor
from pipeline.tables.features import write_shards
from pipeline.tables.manifest import read_manifest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
PAN = """(frames) => new Promise((done) => {
  const canvas = document.querySelector(".map canvas"), times = [];
  const box = canvas.getBoundingClientRect();
  const send = (name, x) => canvas.dispatchEvent(
    new PointerEvent(name, {clientX: box.left + x, clientY: box.top + 99, pointerId: 1}));
  canvas.setPointerCapture = () => {};
  send("pointerdown", 300);
  const step = (now) => {
    times.push(now);
    send("pointermove", 300 + 40 * Math.sin(times.length / 8));
    if (times.length <= frames) return requestAnimationFrame(step);
    send("pointerup", 300);
    done(1000 * frames / (times.at(-1) - times[0]));
  };
  requestAnimationFrame(step);
})"""


def features() -> None:
    """What `extract` would write: a cloud for each class, apart enough that no answer is wrong."""
    manifest, random = read_manifest(MANIFEST), np.random.default_rng(0)
    middles = 3 * random.standard_normal((len(CLASSES), 1280))
    labels = manifest["label"].map(CLASSES.index).to_numpy()
    made = (middles[labels] + random.standard_normal((len(labels), 1280))).astype(np.float32)
    write_shards(FEATURES, [(list(manifest["digest"]), [0] * len(labels), made)])
    floor.write("", [], made[:0])


def in_browser(file: Path, rounds: int, frames: int) -> tuple[list[float], list[float]]:
    """Milliseconds to the first paint, and frames a second while the map is dragged."""
    paints, rates = [], []
    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        for _ in range(rounds):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(file.resolve().as_uri())
            page.locator(".map canvas").scroll_into_view_if_needed()
            page.wait_for_timeout(500)
            paints.append(float(page.evaluate(PAINT)))
            rates.append(float(page.evaluate(PAN, frames)))
            page.close()
        browser.close()
    return paints, rates


def measure(scratch: Path, examples: int = 20_000, rounds: int = 5, frames: int = 120) -> str:
    """Make a project of drawn pictures and its report, and measure the report."""
    project = Project(scratch / "many")
    project.raw.mkdir()
    draw(project.raw, range(examples), SIZE, CLASSES)
    project.set(
        ingest={"source": "folder", "path": "data/raw/pictures"},
        augment={"views": 0},
        extract={"blocks": "last"},
        train={"optimizer": "lda", "layers": "last"},
    )
    costs: dict[str, float] = {}
    with project.inside():
        project.work("ingest", "augment")
        features()
        project.work("train", "evaluate")
        for name in ("checks", "bundle", "report", "report again"):
            before = time.process_time()
            project.work(name.split()[0])
            costs[name] = time.process_time() - before
        page = REPORT.stat().st_size / 1e6
        beside = sum(file.stat().st_size for file in SHEETS.iterdir()) / examples / 1e3
        paints, rates = in_browser(REPORT, rounds, frames)
    rows = [
        ("page, MB", "at most 5", f"{page:.1f}"),
        ("files beside it, kB an example", "at most 3", f"{beside:.2f}"),
        ("first paint, ms", "at most 1500", f"{median(paints):.0f}"),
        ("frames a second while the map is dragged", "at least 30", f"{median(rates):.0f}"),
        ("processor seconds of `checks`", None, f"{costs['checks']:.1f}"),
        ("of `report`, all thumbnails new", None, f"{costs['report']:.1f}"),
        ("of `report`, none new", None, f"{costs['report again']:.1f}"),
    ]
    return f"""# The report on many examples

{examples:,} drawn pictures with made features; all are on the map. Chromium without a GPU, a window
of 1280 × 900 pixels: medians of {rounds} rounds. Chromium draws at most 60 frames a second.

{table("what | goal | reached", rows)}
"""
