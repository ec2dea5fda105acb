"""What the benchmarks share: a command line, costs, projects to run in, a page, and pictures.

A benchmark is a module with a function `measure` that returns its page, in Markdown.
`python -m benchmarks NAME`, run from the repository's root, writes it beside the module;
`--page FILE` has it written elsewhere, to try something out.
"""

import argparse
import contextlib
import inspect
import json
import os
import platform
import re
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
CORES = os.cpu_count() or 1
# DVC, and the Python of stages that it runs, are those that run this.
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYTHONPATH": str(ROOT),
    "PYTHONDONTWRITEBYTECODE": "",  # set, each stage would compile its code again
}
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "retina")

# Their versions stand in the page of a benchmark that imported them.
PACKAGES = ("onnxruntime", "openvino", "prefect", "sklearn", "timm", "torch")
# How the line begins that a benchmark ends with where something that it takes is not here.
MISSING = "benchmarks: not here: "
# What people write below this line in a page is kept when it is written again.
BY_HAND = "<!-- by hand -->\n"
# Above each section of a page of several parts.
PART = "<!-- part: {} -->\n"

# The command line and the page


def main(module: ModuleType, arguments: list[str]) -> None:
    """Run a module's `measure` as the command line asks; write the page, and how it was made.

    Parameters without a default are folders that must be given, the others are options. Two are
    given by none: `scratch`, an empty folder that is deleted afterwards, and `page`, the file.
    A module with `PARTS` measures several things of one subject: the command names one of them,
    and only that section of the page is written. If it names none, it is the first.
    """
    name = module.__name__.removeprefix("benchmarks.")
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts: dict[str, Callable[..., str]] = getattr(module, "PARTS", {})
    if parts:
        if not arguments or (arguments[0].startswith("--") and arguments[0] != "--help"):
            arguments = [next(iter(parts)), *arguments]
        under = parser.add_subparsers(dest="section")
        for part, measure in parts.items():
            add_options(under.add_parser(part, description=measure.__doc__), module, measure)
    else:
        add_options(parser, module, module.measure)
    asked = vars(parser.parse_args(arguments))
    part = asked.pop("section", "")
    measure = parts[part] if parts else module.measure
    asked |= {
        name: value.expanduser().resolve()
        for name, value in asked.items()
        if isinstance(value, Path)
    }
    measured = commit()  # before the hours in which another may come
    with tempfile.TemporaryDirectory() as scratch:
        given = asked | {"scratch": Path(scratch)}
        text = measure(**{name: given[name] for name in inspect.signature(measure).parameters})
    title, rest = text.split("\n", 1)
    command = re.sub(r" --page \S+", "", f"{parser.prog} {shlex.join(arguments)}").strip()
    made = f"Made by `{command}` at commit {measured}; {machine()}."
    page: Path = asked["page"]
    sections = read_sections(page)
    _, mark, by_hand = sections.get(part, "").partition(BY_HAND)
    text = f"{title}\n\n{made}\n{rest}" + ("\n" + mark + by_hand if mark else "")
    sections[part] = text.rstrip("\n") + "\n"
    # Parts whose scripts were removed stay, below the others.
    order = [*parts, *(one for one in sections if one and one not in parts)] if parts else [""]
    written = [PART.format(one) + sections[one] if one else sections[one]
               for one in order if one in sections]  # fmt: skip
    page.write_text("\n".join(written))
    print(sections[part])


def add_options(
    parser: argparse.ArgumentParser, module: ModuleType, measure: Callable[..., str]
) -> None:
    """What a function `measure` asks of the command line, and where its page is written."""
    own = Path(str(module.__file__)).with_suffix(".md")
    parser.add_argument("--page", type=Path, default=own)
    parameters = inspect.signature(measure).parameters
    for name in [name for name in parameters if name not in ("scratch", "page")]:
        default = parameters[name].default
        if default is inspect.Parameter.empty:
            parser.add_argument(name, type=Path)
        else:
            parser.add_argument(f"--{name}", type=type(default), default=default)


def read_sections(page: Path) -> dict[str, str]:
    """The text of each part of a page, by its name; "" is that of a page without parts."""
    first, *found = re.split(PART.format(r"(\w+)"), page.read_text() if page.exists() else "")
    sections = {"": first} if first.strip() else {}
    return sections | dict(
        zip(found[::2], (one.rstrip("\n") + "\n" for one in found[1::2]), strict=True)
    )


def table(columns: str, rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table, as `table("what | seconds {:.1f}", rows)`.

    A column is its name and how its figures are written. None is a dash, a text stays as it is.
    """
    found = (re.fullmatch(r"(.*?)\s*(\{.*)?", column.strip()) for column in columns.split("|"))
    parts = [part for part in found if part]  # it matches anything

    def cell(form: str | None, value: Any) -> str:
        if value is None:
            return "–"
        return str(value) if isinstance(value, str) or not form else form.format(value)

    forms = [part[2] for part in parts]
    lines = [[part[1] for part in parts], ["---"] * len(parts)]
    lines += [list(map(cell, forms, row)) for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def need(there: object, what: str) -> None:
    """End in one line before anything is measured, unless what it takes is there.

    Args:
        there: whether it is.
        what: its name, and how to get it.
    """
    if not there:
        sys.exit(MISSING + what)


def optional(package: str) -> Any:
    """A package of Python that no set of requirements/ has, or None: see `need`."""
    try:
        return import_module(package)
    except ModuleNotFoundError:
        return None


def machine() -> str:
    """The processor, the versions of Python and of packages, and how busy the machine is."""
    named = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    versions = {name: sys.modules[name].__version__ for name in PACKAGES if name in sys.modules}
    versions = {"Python": platform.python_version()} | versions
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    processor = named[1] if named else platform.machine()
    return f"{CORES} cores ({processor}), {packages}, load {os.getloadavg()[1]:.1f}"


def commit() -> str:
    """The commit that is measured, and whether its code was changed since."""
    changed = run("git", "status", "--porcelain", "--", "pipeline", "flows", "headstart").gave
    short = run("git", "rev-parse", "--short", "HEAD").gave.strip()
    return f"{short} and changes" if changed else str(short)


# Costs


class Cost(NamedTuple):
    """What a command or a call took."""

    wall: float  # seconds
    cpu: float  # seconds, user's and system's, of all cores
    peak: float  # megabytes, of the largest process
    gave: Any  # what a command wrote (standard output, then errors), or a call returned


# A process starts out with the peak of the one that started it, and ours is large: so a small one
# stands in between.
METER = """
import os, sys, time
start = time.perf_counter()
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(child, 0)
wall = time.perf_counter() - start
print("", wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, sep="\\n", file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def run(*command: str | Path, folder: Path = ROOT, **environment: str) -> Cost:
    """The cost of a command that has to succeed, the processes that it waits for included."""
    done = subprocess.run(
        [sys.executable, "-SEc", METER, *command],
        cwd=folder,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{shlex.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    *errors, wall, cpu, peak = done.stderr.splitlines()
    return Cost(float(wall), float(cpu), float(peak), done.stdout + "\n".join(errors))


def cost(work: Callable[[], Any]) -> Cost:
    """The cost of a call in this process, whose peak is that of all it did before, too."""
    wall, cpu = time.perf_counter(), time.process_time()
    gave = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Cost(wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, gave)


def seconds(work: Callable[[], Any], rounds: int = 1) -> float:
    """Seconds of wall clock that a call takes, the least of some rounds."""
    return min(cost(work).wall for _ in range(rounds))


Name = TypeVar("Name")


def in_turns(rounds: int, works: Mapping[Name, Callable[[], Any]]) -> dict[Name, list[Cost]]:
    """The cost of each work in each round, taken in turns: A B, A B. A command reports its own."""
    costs: dict[Name, list[Cost]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            took = cost(work)
            costs[name].append(took.gave if isinstance(took.gave, Cost) else took)
    return costs


def spread(values: Iterable[float], form: str = "{:.2f}") -> str:
    """The median, with the least and the most where there are several."""
    found = list(values)
    middle, least, most = (form.format(of(found)) for of in (statistics.median, min, max))
    return middle if len(found) == 1 else f"{middle} ({least}–{most})"


def ratios(some: Iterable[float], over: Iterable[float]) -> list[float]:
    """Each figure over the other's of the same round."""
    return [one / other for one, other in zip(some, over, strict=True)]


# Projects


def copy_tree(folder: Path, *but: str) -> None:
    """This repository's files as they are, committed or not, except folders named in `but`."""
    listed = ["git", "ls-files", "-co", "--exclude-standard", "--", ".", *(f":!{b}" for b in but)]
    for name in run(*listed).gave.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


# Prints the processor seconds of a stage, and of the functions of pipeline/ that it calls.
PROFILE = """
import importlib, json, sys, time, types
stage = importlib.import_module("pipeline." + sys.argv[1])
spent, inside = {}, []
def timed(name, call):
    def around(*given, **named):
        if inside:
            return call(*given, **named)
        inside.append(name)
        began = time.process_time()
        try:
            return call(*given, **named)
        finally:
            inside.clear()
            spent[name] = spent.get(name, 0) + time.process_time() - began
    return around
def wrap(owner, before=""):
    for name, value in list(vars(owner).items()):
        if isinstance(value, types.FunctionType) and value.__module__ != stage.__name__:
            if value.__module__.startswith("pipeline."):
                setattr(owner, name, timed(before + name, value))
        elif isinstance(value, types.ModuleType) and not before:
            if value.__name__.startswith("pipeline."):
                wrap(value, name + ".")
wrap(stage)
began = time.process_time()
getattr(stage, sys.argv[1])()
spent["all"] = time.process_time() - began
print(json.dumps(spent))
"""
LISTED = 3  # functions of a stage


class Project:
    """A folder to run stages in, with this repository's parameters and a store of its own."""

    def __init__(
        self,
        folder: Path,
        pictures: Path | None = None,
        exported: Path | None = None,
        /,
        **changes: dict[str, Any],
    ) -> None:
        """With a folder of pictures to read, one of exported backbones, and other parameters."""
        self.folder, self.store = folder / "project", folder / "store"
        self.raw = self.folder / "data" / "raw" / "pictures"
        self.environment = ENVIRONMENT | {"HEADSTART_STORE": str(self.store)}
        self.make()
        if exported:
            for made in (exported, self.store):
                made.mkdir(exist_ok=True)
            (self.store / "backbones").symlink_to(exported)
        if pictures:
            self.give(pictures)
            self.set(ingest={"source": "folder", "path": "data/raw/pictures"})
        self.set(**changes)

    def make(self) -> None:
        """What stages need."""
        (self.folder / "reports").mkdir(parents=True)
        (self.folder / "data" / "raw").mkdir(parents=True)
        for name in ("params.yaml", "data/raw/surfaces.csv"):
            shutil.copy(ROOT / name, self.folder / name)

    def give(self, pictures: Path) -> None:
        """Lay pictures where `ingest` reads them."""
        self.raw.symlink_to(pictures)

    def set(self, **sections: dict[str, Any]) -> None:
        """Change parameters: `set(augment={"views": 2})`."""
        file = self.folder / "params.yaml"
        document = yaml.safe_load(file.read_text())
        for section, values in sections.items():
            document[section] = document.get(section, {}) | values
        file.write_text(yaml.safe_dump(document, sort_keys=False))

    def run(self, *command: str | Path, **environment: str) -> Cost:
        """The cost of a command in this project."""
        return run(*command, folder=self.folder, **(self.environment | environment))

    def start(self, *command: str, **options: Any) -> "subprocess.Popen[str]":
        """A command under way, its output and errors in one pipe, line by line."""
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        environment = self.environment | {"PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(command, cwd=self.folder, env=environment, **(pipe | options))

    def stages(self, *names: str) -> dict[str, Cost]:
        """The cost of each of these stages, run one after the other."""
        return {name: self.run(sys.executable, "-m", f"pipeline.{name}") for name in names}

    def work(self, *names: str) -> None:
        """Run these stages one after the other in this process."""
        with self.inside():
            for name in names:
                getattr(import_module(f"pipeline.{name}"), name)()

    def profile_of(self, stage: str) -> tuple[float, str]:
        """Run a stage; return its processor seconds, and where most of them went."""
        done = self.run(sys.executable, "-c", PROFILE, stage)
        spent = json.loads(re.findall(r"^{.*}$", done.gave, re.M)[-1])
        every = spent.pop("all")
        most = sorted(spent, key=spent.__getitem__, reverse=True)[:LISTED]
        parts = (f"`{name}` {spent[name]:.2f}" for name in most if spent[name] >= every / 20)
        return every, ", ".join(parts)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Have this process be in the project."""
        os.environ["HEADSTART_STORE"] = str(self.store)
        with contextlib.chdir(self.folder):
            yield

    def report(self, name: str) -> dict[str, Any]:
        """What `reports/NAME.json` holds."""
        found: dict[str, Any] = json.loads((self.folder / "reports" / f"{name}.json").read_text())
        return found


class Repository(Project):
    """A copy of this repository with git and DVC of its own, where `dvc repro` runs."""

    def make(self) -> None:
        """The code as it is here, in a first commit."""
        copy_tree(self.folder, "benchmarks", "tests", "docs")
        (self.folder / ".dvc" / "tmp").mkdir()
        self.run("git", "init", "--quiet")
        self.commit()

    def give(self, pictures: Path) -> None:
        """A copy, for DVC to track."""
        shutil.copytree(pictures, self.raw)

    def commit(self) -> None:
        """Commit all there is."""
        self.run("git", "add", "--all")
        who = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost")
        self.run("git", *who, "commit", "--quiet", "--message=benchmark")


# Pictures


def draw(
    folder: Path,
    numbers: Iterable[int],
    size: tuple[int, int] = (500, 375),
    classes: Sequence[str] = PHOTOGRAPHS,
) -> None:
    """One JPEG a number: a crop of a photograph, scaled, with a little noise; a class each."""
    import skimage

    originals = (Image.fromarray(getattr(skimage.data, name)()) for name in classes)
    photographs = [original.convert("RGB") for original in originals]
    for number in numbers:
        random = np.random.default_rng(number)
        kind = number % len(photographs)
        photograph = photographs[kind]
        width = int(random.integers(200, min(photograph.width, photograph.height * 4 // 3)))
        left = int(random.integers(0, photograph.width - width + 1))
        top = int(random.integers(0, photograph.height - width * 3 // 4 + 1))
        crop = photograph.crop((left, top, left + width, top + width * 3 // 4)).resize(size)
        noisy = np.asarray(crop) + random.normal(0, 6, (size[1], size[0], 3))
        path = folder / classes[kind] / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=85)


def digits(folder: Path, classes: int = 10, each: int = 60) -> Path:
    """scikit-learn's handwritten digits as pictures of 64 x 64 pixels; the folder."""
    from sklearn.datasets import load_digits

    found = load_digits()
    for digit in range(classes):
        (folder / str(digit)).mkdir(parents=True)
        for number in np.flatnonzero(found.target == digit)[:each]:
            grey = np.rint(found.images[number] * 255 / 16).astype(np.uint8)
            picture = Image.fromarray(grey).resize((64, 64), Image.Resampling.BICUBIC)
            picture.save(folder / str(digit) / f"{number:04}.png")
    return folder
