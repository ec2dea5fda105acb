"""Takes the pictures of the pages anew: `python docs/pictures/make.py`, after `make repro`.

Needs chromium, the packages of `make test`, and finished runs: of this clone, and of `make example
KIND=text` and `KIND=audio`. Pictures of the dashboard are taken by tests/flows/test_dashboard.py.
"""

import shutil
import subprocess
import sys
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
    with serving():
        for name, size in (("serve_desktop", DESKTOP), ("serve_phone", PHONE)):
            page = browser.new_page(viewport=size)
            page.goto(f"http://127.0.0.1:{PORT}")
            page.locator("input[type=file]").set_input_files(picture)
            page.wait_for_selector("text=%")
            page.wait_for_timeout(3000)  # the heat map comes after the answer
            page.screenshot(path=HERE / f"{name}.png", full_page=True)
            page.close()


@contextmanager
def serving() -> Iterator[None]:
    """`headstart serve` with this clone's bundle."""
    command = [sys.executable, "-m", "headstart", "serve", "bundle", "--port", str(PORT)]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        for line in server.stdout or ():
            if str(PORT) in line:
                break
        yield
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
