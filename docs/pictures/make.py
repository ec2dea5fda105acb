"""Takes the pictures of the pages anew: `python docs/pictures/make.py`, after `make repro`.

Needs chromium, the packages of `make test`, and finished runs: of this clone, and of `make example
KIND=text` and `KIND=audio`. Pictures of the dashboard are taken by tests/flows/test_dashboard.py.
"""

import csv
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, ViewportSize, sync_playwright

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DESKTOP = ViewportSize(width=1280, height=900)
PHONE = ViewportSize(width=400, height=860)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
PORT = 8765


def main() -> None:
    """Take every picture; end in one line if a run is missing."""
    projects = {
        "report": ROOT,
        "report-text": ROOT / "examples/text/project",
        "report-sound": ROOT / "examples/audio/project",
    }
    for project in projects.values():
        if not (project / "reports/report.html").exists():
            sys.exit(f"make: error: {project} has no report; run it first")
    shutil.copy(ROOT / "reports/contact_sheet.png", HERE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for name, project in projects.items():
            take_report(browser, project, name, "light", DESKTOP)
        take_report(browser, ROOT, "report-phone", "dark", PHONE)
        take_answers(browser)
        take_labels(browser)
        browser.close()


def take_report(
    browser: Browser, project: Path, name: str, theme: Literal["light", "dark"], size: ViewportSize
) -> None:
    """The top of a project's report."""
    page = browser.new_page(viewport=size, color_scheme=theme)
    page.goto((project / "reports/report.html").as_uri())
    page.wait_for_timeout(500)
    page.screenshot(path=HERE / f"{name}.png")
    page.close()


def take_answers(browser: Browser) -> None:
    """The page of `headstart serve`, after it was asked about a test picture."""
    picture = next(iter(sorted((ROOT / "data/pictures").rglob("*.png"))))
    with running("serve", "bundle", "--port", str(PORT)):
        for name, size in (("serve_desktop", DESKTOP), ("serve_phone", PHONE)):
            page = browser.new_page(viewport=size)
            page.goto(f"http://127.0.0.1:{PORT}")
            page.locator("input[type=file]").set_input_files(picture)
            page.wait_for_selector("text=%")
            page.wait_for_timeout(3000)  # the heat map comes after the answer
            page.screenshot(path=HERE / f"{name}.png", full_page=True)
            page.close()


def take_labels(browser: Browser) -> None:
    """The page of `headstart label`, after 60 test pictures of this clone got their labels."""
    with tempfile.TemporaryDirectory() as folder:
        pool = Path(folder) / "photos"
        labels = {}
        with (ROOT / "reports/predictions.csv").open(encoding="utf-8-sig", newline="") as table:
            for row in csv.DictReader(table):
                file = pool / f"{len(labels):03}.png"
                file.parent.mkdir(exist_ok=True)
                shutil.copy(ROOT / row["path"], file)
                labels[file.name] = row["label"]
        names = ",".join(sorted(set(labels.values())))
        asked = ("label", "photos", "--classes", names, "--port", str(PORT))
        with running(*asked, folder=Path(folder)) as said:
            page = browser.new_page(viewport={"width": 1280, "height": 760})
            page.goto(said.split()[2])
            for done in range(60):
                page.get_by_text(f"{done} labelled").wait_for()
                label = labels[Path(page.locator("#name").inner_text()).name]
                page.get_by_role("button", name=label).click()
            page.get_by_text("60 labelled").wait_for()
            page.mouse.move(0, 0)
            page.screenshot(path=HERE / "label.png")
            page.close()


@contextmanager
def running(*arguments: str, folder: Path = ROOT) -> Iterator[str]:
    """A command of `headstart` that serves a page; the line in which it names the port."""
    command = [sys.executable, "-m", "headstart", *arguments]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    line = ""
    try:
        for line in server.stdout or ():
            if str(PORT) in line:
                break
        yield line
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
