"""Prefect's page in a real browser: what people see of a run.

`python tests/flows/test_dashboard.py http://127.0.0.1:4200 FLOW_RUN_ID docs/pictures` takes the
pictures of the docs in the same way.
"""

import sys
from pathlib import Path

import httpx
from playwright.sync_api import Page, sync_playwright
from toys import Toy

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
STAGES = ["ingest", "augment", "extract", "train", "evaluate", "bundle"]
MEASURE = """
import json, pathlib
from PIL import Image
pathlib.Path("metrics.json").write_text(json.dumps({"test": {"accuracy": 0.96875}}))
Image.new("RGB", (300, 200), "orange").save("confusion_matrix.png")
"""


def visit(page: str, run_id: str, into: Path) -> dict[str, str]:
    """The texts of a flow run's page and of its artifacts' pages, with pictures of them."""
    artifacts = httpx.post(
        f"{page}/api/artifacts/filter", json={"artifacts": {"flow_run_id": {"any_": [run_id]}}}
    ).json()
    texts: dict[str, str] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        outside: list[str] = []
        tab.on(
            "request",
            lambda r: None if r.url.startswith((page, "blob:", "data:")) else outside.append(r.url),
        )
        texts["run"] = _read(tab, f"{page}/runs/flow-run/{run_id}", "Task Runs", into / "run.png")
        tab.get_by_text("Task Runs", exact=True).click()
        tab.get_by_text("Newest to Oldest").wait_for()
        tab.wait_for_load_state("networkidle")
        texts["tasks"] = tab.inner_text("body")
        for artifact in artifacts:
            name = artifact["key"].rpartition("-")[2]
            address = f"{page}/artifacts/artifact/{artifact['id']}"
            texts[name] = _read(tab, address, "Show raw data", into / f"{name}.png")
            texts[f"{name} pictures"] = str(
                tab.evaluate("[...document.images].filter(i => i.naturalWidth > 100).length")
            )
        browser.close()
    texts["outside"] = " ".join(outside)
    return texts


def _read(tab: Page, address: str, awaited: str, picture: Path) -> str:
    tab.goto(address)
    seen = "awaited => document.body.innerText.includes(awaited)"
    tab.wait_for_function(seen, arg=awaited, timeout=60_000)
    tab.wait_for_load_state("networkidle")
    tab.wait_for_timeout(1500)  # the graph moves to its place
    tab.screenshot(path=picture)
    return tab.inner_text("body")


def test_the_page_shows_the_stages_the_metrics_and_the_pictures(toy: Toy, tmp_path: Path) -> None:
    stages = {name: {"needs": STAGES[:number][-1:]} for number, name in enumerate(STAGES)}
    toy.stages(**stages)
    (toy.root / "measure.py").write_text(MEASURE)
    graph = (toy.root / "dvc.yaml").read_text().replace(
        "cmd: python stage.py evaluate train.out",
        "cmd: [python stage.py evaluate train.out, python measure.py]\n"
        "    metrics: [metrics.json]\n    plots: [confusion_matrix.png]",
    )  # fmt: skip
    (toy.root / "dvc.yaml").write_text(graph)
    run = toy.flow()
    seen = visit(toy.api.removesuffix("/api"), run.id, tmp_path)
    assert "5 Task runs" in seen["run"]
    assert [name for name in STAGES if name not in seen["tasks"]] == []
    assert "test.accuracy" in seen["metrics"]
    assert "0.96875" in seen["metrics"]
    assert seen["pictures pictures"] == "1"  # the confusion matrix
    assert seen["outcome pictures"] == "1"  # the graph
    assert seen["outside"] == ""  # the page asks nobody but its own server


if __name__ == "__main__":
    visit(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
