"""Makes the example reports and the pictures of the pages: `python docs/pictures/make.py [NAME]`.

NAME is `reports`, `serve`, `label` or `dashboard`; without it, all four. Needs chromium and the
packages of `make test`. Three projects are made in a folder that is deleted again: the pictures and
the texts of the tutorials, and spoken digits.
"""

import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
EXAMPLES = ROOT / "docs/examples"
DESKTOP = ViewportSize(width=1280, height=900)
PHONE = ViewportSize(width=400, height=860)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
PORT = 8765
DIGITS = ("zero", "one", "two", "three")
FILES = re.compile(r'^```python title="(\S+)"\n(.*?)^```$', re.M | re.S)
BAD_HEAD = {"optimizer: .*": "optimizer: lbfgs", "weight_decay: .*": "weight_decay: 1000"}


def main(asked: list[str]) -> None:
    """Make the projects that are needed, then the reports and pictures of `asked`."""
    asked = asked or ["reports", "serve", "label", "dashboard"]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        prepare(Path(folder))
        pictures = project(Path(folder), "patches", "image", from_tutorial("own_pictures", "tiles"))
        if "reports" in asked:
            texts = project(
                Path(folder), "requests", "text", from_tutorial("own_texts", "requests.csv")
            )
            sounds = project(Path(folder), "digits", "audio", spoken_digits())
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        if "reports" in asked:
            take_reports(browser, pictures, texts, sounds)
        if "serve" in asked:
            take_answers(browser, pictures)
        if "label" in asked:
            take_labels(browser)
        browser.close()
        if "dashboard" in asked:
            take_dashboard(pictures)
    for picture in HERE.glob("*.png"):
        of_points = picture.stem in ("map", "review", "report-sounds")  # whose colours matter
        if not of_points and (image := Image.open(picture)).mode != "P":
            few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
            few.save(picture, optimize=True)


def prepare(folder: Path) -> None:
    """Go to the folder, with this clone's code, and a server's database and names of its own."""
    os.chdir(folder)
    os.environ |= {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PREFECT_HOME": str(folder / "prefect"),
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    for who in ("AUTHOR", "COMMITTER"):
        os.environ |= {f"GIT_{who}_NAME": "anna", f"GIT_{who}_EMAIL": "anna@localhost"}


def run(*command: str | Path, at: Path = Path()) -> None:
    """Run a command that has to succeed."""
    subprocess.run([str(word) for word in command], cwd=at, check=True)


def from_tutorial(page: str, data: str) -> Path:
    """Run the program of a tutorial that makes its examples; return these."""
    text = (ROOT / f"docs/tutorials/{page}.md").read_text(encoding="utf-8")
    for name, code in FILES.findall(text):
        Path(name).write_text(code, encoding="utf-8")
        run(sys.executable, name)
    return Path(data).resolve()


def spoken_digits() -> Path:
    """Four digits, spoken by each voice in one way."""
    place = Path("voices")
    place.mkdir()
    run(sys.executable, ROOT / "examples/audio/data.py", at=place)
    folder = place / "data/raw/sounds"
    table = folder / "labels.csv"
    with table.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    kept = [row for row in rows if row[1] in DIGITS and "_0_" in row[0]]
    for path, *_ in rows:
        if path not in {name for name, *_ in kept}:
            (folder / path).unlink()
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *kept])
    return folder.resolve()


def project(folder: Path, name: str, kind: str, data: Path) -> Path:
    """A project with a finished run that is committed."""
    run("headstart", "init", name, "--kind", kind, "--data", data, "--yes")
    run("headstart", "repro", at=folder / name)
    run("git", "add", "--all", at=folder / name)
    run("git", "commit", "--quiet", "--message", "First run", at=folder / name)
    return folder / name


def take_reports(browser: Browser, pictures: Path, texts: Path, sounds: Path) -> None:
    """The example reports, and pictures of them."""
    EXAMPLES.mkdir(exist_ok=True)
    for name, of in (("pictures", pictures), ("texts", texts), ("sounds", sounds)):
        shutil.copy(of / "reports/report.html", EXAMPLES / f"{name}.html")
    sheet = Image.open(pictures / "reports/contact_sheet.png")
    sheet.crop((0, 0, sheet.width, sheet.height // 2)).save(HERE / "contact_sheet.png")
    with opened(browser, "pictures", size=ViewportSize(width=1280, height=1200)) as page:
        page.screenshot(path=HERE / "report.png")
        issues = page.locator(".cards:has(.card[data-suggested])").first
        issues.screenshot(path=HERE / "label-issues.png")
        take_map(page, HERE / "map.png")
    with opened(browser, "pictures", "dark", PHONE) as page:
        page.screenshot(path=HERE / "report-phone.png")
    with opened(browser, "sounds") as page:
        take_map(page, HERE / "report-sounds.png")
    with opened(browser, "texts") as page:
        page.evaluate("document.querySelector('#checks').scrollIntoView()")
        page.screenshot(path=HERE / "report-texts.png")
    with serving(pictures, "review", "--name", "anna", "--port", str(PORT)) as said:
        page = browser.new_page(viewport=ViewportSize(width=1280, height=720))
        page.goto(re.search(r"open (\S+) ", said)[1])  # type: ignore[index]
        page.evaluate("document.querySelector('#checks').scrollIntoView()")
        page.locator(".card[data-suggested] button").first.click()
        page.wait_for_timeout(1000)
        page.screenshot(path=HERE / "review.png")
        page.close()


def take_map(page: Page, picture: Path) -> None:
    """The report's map, with an example that is open."""
    page.evaluate("document.querySelector('#map').scrollIntoView()")
    page.locator(".map canvas").focus()
    for _ in range(40):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(500)
    page.screenshot(path=picture)


@contextmanager
def opened(
    browser: Browser,
    name: str,
    theme: Literal["light", "dark"] = "light",
    size: ViewportSize = DESKTOP,
) -> Iterator[Page]:
    """An example report in a browser."""
    page = browser.new_page(viewport=size, color_scheme=theme)
    page.goto((EXAMPLES / f"{name}.html").as_uri())
    page.wait_for_timeout(500)
    yield page
    page.close()


def take_answers(browser: Browser, pictures: Path) -> None:
    """The page of `headstart serve`: a test picture it is least sure of, and something unknown."""
    with (pictures / "reports/predictions.csv").open(newline="", encoding="utf-8-sig") as file:
        doubtful = min(csv.DictReader(file), key=lambda row: float(row["probability"]))
    unknown = Path("unknown.png")
    Image.effect_mandelbrot((200, 200), (-2, -1.5, 1, 1.5), 100).convert("RGB").save(unknown)
    with serving(pictures, "serve", "bundle", "--port", str(PORT)):
        for name, picture in (("serve", pictures / doubtful["path"]), ("serve-unknown", unknown)):
            page = browser.new_page(viewport=ViewportSize(width=1280, height=780))
            page.goto(f"http://127.0.0.1:{PORT}")
            page.locator("input[type=file]").set_input_files(picture)
            page.wait_for_selector("text=%")
            page.wait_for_timeout(3000)  # the heat map comes after the answer
            page.screenshot(path=HERE / f"{name}.png")
            page.close()


def take_labels(browser: Browser) -> None:
    """The page of `headstart label`, after 60 tiles got their labels."""
    Path("photos").mkdir()
    labels = {}
    for tile in sorted(Path("tiles").rglob("*.png")):
        name = f"{len(labels):03}.png"
        labels[name] = tile.name.partition("-")[0]
        shutil.copy(tile, Path("photos") / name)
    classes = ",".join(sorted(set(labels.values())))
    with serving(Path(), "label", "photos", "--classes", classes, "--port", str(PORT)) as said:
        page = browser.new_page(viewport=ViewportSize(width=1280, height=760))
        page.goto(said.split()[2])
        for done in range(60):
            page.get_by_text(f"{done} labelled").wait_for()
            label = labels[Path(page.locator("#name").inner_text()).name]
            page.get_by_role("button", name=label).click()
        page.get_by_text("60 labelled").wait_for()
        page.mouse.move(0, 0)
        page.screenshot(path=HERE / "label.png")
        page.close()


def take_dashboard(project: Path) -> None:
    """Prefect's page of a whole run, and of one whose model the gate refuses."""
    page = f"http://127.0.0.1:{PORT}"
    with serving(project, "dashboard", "--port", str(PORT)):
        taken = Path("dashboard")
        run("headstart", "flow", "--force", at=project)
        take_run(page, taken)
        shutil.copy(taken / "run.png", HERE / "dashboard-run.png")
        params = project / "params.yaml"
        text = params.read_text(encoding="utf-8")
        for old, new in BAD_HEAD.items():
            text = re.sub(f"^  {old}", f"  {new}", text, count=1, flags=re.M)
        params.write_text(text, encoding="utf-8")
        run("headstart", "flow", "--gate", '{"when_worse": "keep"}', at=project)
        take_run(page, taken)
        decided = Image.open(taken / "gate.png")
        decided.crop((0, 0, decided.width, 480)).save(HERE / "dashboard-gate.png")


def take_run(page: str, into: Path) -> None:
    """Pictures of the last flow run and of its artifacts."""
    from flows import access

    user, _, word = (access.bring(f"{page}/api") or "").partition(":")
    newest = {"sort": "START_TIME_DESC", "limit": 1}
    found = httpx.post(f"{page}/api/flow_runs/filter", json=newest, auth=(user, word)).json()
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    run(sys.executable, ROOT / "tests/flows/test_dashboard.py", page, found[0]["id"], into)


@contextmanager
def serving(project: Path, *command: str) -> Iterator[str]:
    """A server of Headstart in a project, and the line with its address."""
    server = subprocess.Popen(
        [sys.executable, "-m", "headstart", *command],
        cwd=project,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    line = ""
    try:
        for line in server.stdout or ():
            if f":{PORT}" in line and "starting" not in line:
                break
        yield line
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
