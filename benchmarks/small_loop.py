"""The small loop: what a person waits for after a small change.

    python -m benchmarks small_loop

makes the whole table, in about ten minutes on two idle cores. The part `sizes` has the first row at
other numbers of pictures. The part `peers` adds the same ten pictures in DataChain and in an
earlier version; it needs a Python with DataChain:

    python -m venv /tmp/datachain && /tmp/datachain/bin/pip install datachain
    python -m benchmarks small_loop peers --python /tmp/datachain/bin/python
"""

import os
import pty
import re
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import (
    ENVIRONMENT,
    METER,
    PHOTOGRAPHS,
    ROOT,
    Cost,
    Project,
    Repository,
    draw,
    in_turns,
    need,
    run,
    spread,
    table,
)
from flows import server

CLASSES = (*PHOTOGRAPHS, "camera", "coins", "brick", "gravel")
SIZE = (32, 32)
MISLABELED = 51  # one picture in so many
STAGES = ("ingest", "augment", "extract", "train", "evaluate", "checks", "bundle", "report")
FLOW = (sys.executable, "-m", "headstart", "flow")
PORT = 4298

# A command on a terminal


class Line(NamedTuple):
    """What a terminal showed, and how many seconds after the command's start."""

    seconds: float
    text: str
    below: float  # processor seconds of the processes that the command started, until then


TICKS = os.sysconf("SC_CLK_TCK")
END = re.compile(r"(\r?\n|\r(?=[^\n]))")  # of a line; \r alone: it is written again
COLOURS = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")


def on_terminal(project: Project, *command: str) -> Cost:
    """The cost of a command on a terminal; it gave the list of lines.

    A line that moves is kept once a second.
    """
    terminal, end = pty.openpty()
    start, text, shown, below = time.perf_counter(), "", -1.0, 0.0
    lines: list[Line] = []
    with subprocess.Popen(
        [sys.executable, "-SEc", METER, *command],
        stdin=end,
        stdout=end,
        stderr=end,
        cwd=project.folder,
        env=project.environment,
    ) as process:
        os.close(end)
        while read := read_terminal(terminal):
            *found, text = END.split(text + read)
            now = time.perf_counter() - start
            below = max(below, of_stages(process.pid))
            for line, how in zip(found[::2], found[1::2], strict=True):
                plain = COLOURS.sub("", line).rstrip()
                if plain and (how != "\r" or now - shown >= 1):
                    lines.append(Line(now, plain.replace(f"{project.folder}/", ""), below))
                    shown = now
    os.close(terminal)
    if process.returncode:
        sys.exit("\n".join(line.text for line in lines))
    *lines, wall, cpu, peak = lines
    print(project.folder.parent.name, *command[-2:], wall.text, cpu.text, flush=True)
    return Cost(float(wall.text), float(cpu.text), float(peak.text), lines)


def read_terminal(terminal: int) -> str:
    """What it shows next; nothing at its end, which Linux reports as an error."""
    try:
        return os.read(terminal, 100_000).decode(errors="replace")
    except OSError:
        return ""


def of_stages(meter: int) -> float:
    """Processor seconds of all processes below the command of METER, ended or not."""
    try:
        (command,) = children(meter)
        return sum(map(used, children(command))) + times(command)[1]
    except (OSError, ValueError):  # not yet, or no longer
        return 0.0


def used(process: int) -> float:
    """Processor seconds of a process and of all below it."""
    return sum(times(process)) + sum(map(used, children(process)))


def children(process: int) -> list[int]:
    """The child processes that live."""
    files = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def times(process: int) -> tuple[float, float]:
    """Processor seconds of a process itself, and of those that it has waited for."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    user, system, waited_user, waited_system = map(int, fields[11:15])
    return (user + system) / TICKS, (waited_user + waited_system) / TICKS


def stages(cost: Cost) -> dict[str, tuple[float, float]]:
    """Seconds of each stage of a repro, and processor seconds; `DVC`: of the rest.

    A stage's seconds are those from its command to its last line. Its processor seconds are those
    of all processes that DVC started, until the next stage begins.
    """
    stage, began, last = "", 0.0, 0.0
    wall: dict[str, float] = {}
    cpu: dict[str, float] = {}
    for seconds, text, below in cost.gave:
        if stage:
            cpu[stage] = below - last
        if started := re.match(r"> python -m pipeline\.(\w+)$", text):
            stage, began, last = started[1], seconds, below
        elif stage and text.startswith(f"{stage}: "):
            wall[stage] = seconds - began
    rest = cost.wall - sum(wall.values()), cost.cpu - sum(cpu.values())
    return {name: (wall[name], cpu[name]) for name in wall} | {"DVC": rest}


def views(cost: Cost) -> tuple[str, str]:
    """How many views a repro computed and reused; both empty if `extract` did not run."""
    text = "\n".join(line.text for line in cost.gave)
    found = re.search(r"(\d+) reused, (\d+) computed", text)
    return (f"{int(found[2]):,}", f"{int(found[1]):,}") if found else ("", "")


# A project and its changes


class Loop(Repository):
    """A project, the small changes to it, and the command that brings it up to date."""

    repro: tuple[str, ...] = (sys.executable, "-m", "headstart", "repro")

    def __init__(self, folder: Path, pictures: int = 0, **changes: dict[str, Any]) -> None:
        """With that many pictures, or with the surfaces of the default set."""
        self.drawn, self.tries = 0, 0
        self.added: list[Cost] = []  # by `dvc add`, of ten pictures each
        super().__init__(folder, **changes)
        if pictures:
            self.set(ingest={"source": "folder", "path": "data/raw/pictures"})
            self.draw(pictures)

    def draw(self, count: int) -> Cost:
        """Add pictures, and let DVC track them: the cost of that.

        A few have the label of another class, so that there are mistakes to report.
        """
        numbers = range(self.drawn, self.drawn + count)
        draw(self.raw, numbers, SIZE, CLASSES)
        for number in (number for number in numbers if number % MISLABELED == 0):
            own, other = (self.raw / CLASSES[n % len(CLASSES)] for n in (number, number + 1))
            (own / f"{number:06d}.jpg").rename(other / f"{number:06d}.jpg")
        self.drawn += count
        return on_terminal(self, "dvc", "add", "data/raw/pictures")

    def nothing(self, *command: str) -> Cost:
        """Nothing changed."""
        return on_terminal(self, *(command or self.repro))

    def ten(self, *command: str) -> Cost:
        """Ten pictures were added."""
        self.added.append(self.draw(10))
        return on_terminal(self, *(command or self.repro))

    def profile(self) -> list[tuple[str, float, str]]:
        """After ten more pictures: each stage's processor seconds, and where most of them went."""
        self.draw(10)
        return [(stage, *self.profile_of(stage)) for stage in STAGES]

    def head(self) -> Cost:
        """A parameter of the head changed, to a value that it never had."""
        self.tries += 1
        self.set(train={"weight_decay": 0.003 + self.tries / 10_000})
        return on_terminal(self, *self.repro)

    def branch(self) -> None:
        """Run another split on another branch, so that all stages ran on both."""
        self.commit()
        self.run("git", "checkout", "-qb", "other")
        self.set(ingest={"seed": 1})
        on_terminal(self, *self.repro)
        self.commit()

    def back(self) -> Cost:
        """Back on the branch before."""
        self.run("git", "checkout", "-q", "-")
        return on_terminal(self, *self.repro)


# The table


class Row(NamedTuple):
    """A line of the table."""

    what: str
    goal: str
    reached: str
    met: bool | None
    beside: str = ""


def timed(what: str, costs: list[Cost], goal: float = 0, cpu: float = 0, beside: str = "") -> Row:
    """Seconds of the clock and of the processor, medians; `goal` and `cpu` are the most."""
    wall, used = (statistics.median(values) for values in list(zip(*costs, strict=True))[:2])
    seconds = [cost.wall for cost in costs]
    reached = f"{spread(seconds, '{:.1f}')} s, {used:.1f} CPU-s"
    wanted = f"≤ {goal:.1f} s" + (f", ≤ {cpu:.0f} CPU-s" if cpu else "") if goal else "–"
    met = wall <= goal and (not cpu or used <= cpu) if goal else None
    return Row(what, wanted, reached, met, beside)


def cell(page: str, row: str, column: str) -> float:
    """A figure of another benchmark's page, by how its row begins and by its column's name.

    Raises:
        LookupError: the page has no such figure.
    """
    place = None
    for line in (ROOT / "benchmarks" / page).read_text(encoding="utf-8").splitlines():
        cells = line.removeprefix("| ").removesuffix(" |").split(" | ")
        if column in cells:
            place = cells.index(column)
        elif place is not None and line.startswith(f"| {row}"):
            return float(cells[place].split()[0].replace(",", ""))
    raise LookupError(f"{page} has no row {row!r} with a column {column!r}")


def of_others() -> Iterator[Row]:
    """The rows whose figures are on other benchmarks' pages."""
    model = "`dvc repro evaluate`, the same"
    model16 = "the same with `extract.precision: bfloat16`"
    fastai, over = "fastai's 3 epochs over it", "over scikit-learn's fit"
    timm, titles = "Headstart over timm", "Headstart over batches of 32"
    engines = "onnxruntime 1", "OpenVINO"
    rays, used = ("threads", "Ray, two nodes", "Ray started and stopped"), "processor seconds"
    threads, nodes, started = (cell("extract.md", row, used) for row in rays)
    found: list[tuple[str, str, str, float, float]] = [  # goals are the least; below 0 the most
        ("time to a model, fastai's over it", "× all", "against_fastai.md", 5,
         cell("against_fastai.md", "`dvc repro`, cold store, backbone to be exported", fastai)),
        ("the same to the figures, float32", "×", "against_fastai.md", 8,
         cell("against_fastai.md", model, fastai)),
        ("the same to the figures, bfloat16", "×", "against_fastai.md", 10,
         cell("against_fastai.md", model16, fastai)),
        ("extraction over timm's `DataLoader`, float32", "×", "extract.md", 6.4,
         cell("extract.md", engines[0], timm)),
        ("the same, bfloat16", "×", "extract.md", 10, cell("extract.md", engines[1], timm)),
        ("texts over `sentence-transformers`, float32", "×", "text.md", 1.8,
         cell("text.md", "titles", titles)),
        ("1,200 classes: fit and refit, over one `LogisticRegression`", "×", "heads.md", -0.5,
         cell("heads.md", "fit, and again", over)),
        ("Ray over threads, without its start and stop: cost beyond 1", "", "extract.md", -0.05,
         (nodes - started) / threads - 1),
        ("installed size by pip", "MB", "install.md", -1100,
         cell("install.md", "pip", "megabytes after `make repro`")),
    ]  # fmt: skip
    for what, unit, page, goal, value in found:
        wanted = f"{'≤' if goal < 0 else '≥'} {abs(goal):,g} {unit}".rstrip()
        met = value <= -goal if goal < 0 else value >= goal
        reached = f"{value:,.{0 if value > 100 else 2}f} {unit}".rstrip()
        yield Row(what, wanted, reached, met, f"from [{page}]({page})")


def broken_down(named: dict[str, list[Cost]]) -> str:
    """A table of the seconds of stages, and of their processor seconds: medians."""
    each = {what: [stages(cost) for cost in costs] for what, costs in named.items()}
    names = list(dict.fromkeys(name for runs in each.values() for run in runs for name in run))
    names.append(names.pop(names.index("DVC")))

    def median(runs: list[dict[str, tuple[float, float]]], name: str) -> str | None:
        values = [run[name] for run in runs if name in run]
        if not values:
            return None
        wall, cpu = map(statistics.median, zip(*values, strict=True))
        return f"{wall:.1f} ({cpu:.1f})"

    rows = [(what, *(median(runs, name) for name in names)) for what, runs in each.items()]
    return table(" | ".join(["what", *names]), rows)


def transcript(*runs: tuple[str, Cost]) -> str:
    """What a terminal showed of commands, each line behind its second."""
    lines = []
    for command, cost in runs:
        lines.append(f"$ {command}")
        lines += [f"{seconds:5.1f} s  {text}" for seconds, text, _ in cost.gave]
        lines.append(f"{cost.wall:5.1f} s  $")
    return "\n".join(lines)


def without_server(scratch: Path) -> None:
    """Let no command find a Prefect server, or keep one's files, but of this benchmark."""
    for environment in (os.environ, ENVIRONMENT):
        environment.pop("PREFECT_API_URL", None)
        environment["PREFECT_HOME"] = str(scratch / "home")


def measure_table(scratch: Path, pictures: int = 10_000, rounds: int = 3) -> str:
    """What a person waits for after each small change: the table with its goals."""
    without_server(scratch)
    others, count = list(of_others()), f"{pictures:,}"
    default = Loop(scratch / "default")
    first_default = default.nothing()
    of_default = in_turns(
        rounds,
        {
            "head": default.head,
            "nothing": default.nothing,
            "flow": partial(default.nothing, *FLOW),
        },
    )
    default.branch()
    of_default |= in_turns(rounds, {"back": default.back})

    varied = Loop(scratch / "views", pictures, augment={"views": 4})
    first_varied = varied.nothing()
    ten_varied = in_turns(rounds, {"ten": varied.ten})["ten"]

    plain = Loop(scratch / "plain", pictures, augment={"views": 0})
    first = plain.nothing()
    of_plain = in_turns(
        rounds, {"ten": plain.ten, "head": plain.head, "nothing": plain.nothing}
    ) | in_turns(rounds, {"extract": partial(plain.ten, *plain.repro, "extract")})
    plain.nothing()
    profiled = plain.profile()
    plain.nothing()
    plain.branch()
    of_plain |= in_turns(rounds, {"back": plain.back})
    with server.running(scratch, "127.0.0.1", PORT) as api:
        plain.environment |= {"PREFECT_API_URL": api} | {
            name: value for name, value in os.environ.items() if name.startswith("PREFECT_")
        }
        of_plain |= in_turns(
            rounds,
            {"flow": partial(plain.ten, *FLOW), "no flow": partial(plain.nothing, *FLOW)},
        )
    ten, flows = of_plain["ten"], sorted(of_plain["flow"])
    rows = [
        timed(f"ten added to {count}, without views", ten, 8, 10,
              f"first run {first.wall:.1f} s, {first.cpu:.1f} CPU-s"),
        timed(f"ten added to {count}, four views", ten_varied, 8, 10,
              f"first run {first_varied.wall:.1f} s, {first_varied.cpu:.1f} CPU-s"),
        timed("`dvc add` of the ten, before each of them", plain.added),
        timed("ten added, `headstart repro extract`", of_plain["extract"], 5, 0,
              "DataChain: [see below](#ten-pictures-added-beside-others)"),
        timed("ten added, `headstart flow`, server up", of_plain["flow"], 6),
        timed(f"`train.weight_decay` changed, {count}", of_plain["head"], 5),
        timed("`train.weight_decay` changed, default set", of_default["head"], 3),
        timed(f"back to a branch that ran before, {count}", of_plain["back"], 5),
        timed("back to a branch that ran before, default set", of_default["back"], 2),
        timed(f"nothing changed, {count}", of_plain["nothing"]),
        timed("nothing changed, default set", of_default["nothing"], 0.7),
        timed(f"nothing changed, `headstart flow`, server up, {count}", of_plain["no flow"]),
        timed("nothing changed, `headstart flow`, no server, default set", of_default["flow"], 4),
        timed("first run of the default set", [first_default], 25),
        *others,
    ]  # fmt: skip
    middle = sorted(ten)[len(ten) // 2]
    added = plain.added[ten.index(middle)]
    computed, reused = views(middle)
    named = {
        "first run, without views": [first],
        "ten added, without views": ten,
        "first run, four views": [first_varied],
        "ten added, four views": ten_varied,
        "`train.weight_decay` changed": of_plain["head"],
        "back to a branch": of_plain["back"],
        "first run of the default set": [first_default],
    }
    said = {True: "yes", False: "**no**", None: "–"}
    cells = [(*row[:3], said[row.met], row.beside or "–") for row in rows]
    return f"""# What a small change costs

After ten pictures were added to {count}, `headstart repro` took {middle.wall:.1f} s
({middle.cpu:.1f} s of processor time). It computed {computed} views and reused {reused}.
The first run took {first.wall:.1f} s. The first run of the default set took
{first_default.wall:.1f} s.

{table("what | goal | reached | goal met | beside", cells)}

The pictures have {SIZE[0]} × {SIZE[1]} pixels and ten classes; one in {MISLABELED} has a wrong
label. If a row names no other command, it is `headstart repro`. Figures are medians of {rounds}
runs, with the least and the most. A first run is one run, with an empty feature store and the
backbone to be exported. CPU-s are the processor time of the command and of all processes that it
starts, on all cores, but not of a server. The rows of branches do not include `git checkout`.

## Seconds of each stage

A stage's time is from its command to its last line, and in brackets its processor time. `DVC` is
the rest: DVC's start, what it hashes and what it writes, and the import of stages' code meanwhile.

{broken_down(named)}

## Where the processor seconds go

Ten pictures were added, without views. Each stage ran once more in a process that had imported its
code; the functions are those of other modules that it calls itself. `checks` looks for label issues
in another thread, and this time counts with `near_duplicates`.

{table("stage | CPU-s {:.2f} | of these", profiled)}

## What the terminal shows

One of the runs after ten pictures were added, without views. Each line has the second in which it
was complete. A line that moves is kept once a second.

```
{transcript(("dvc add data/raw/pictures", added), ("headstart repro", middle))}
```

The same change by `headstart flow`, with the server up:

```
{transcript(("headstart flow", flows[len(flows) // 2]))}
```
"""


# Other numbers of pictures


def measure_sizes(scratch: Path, sizes: str = "1000,10000,100000", rounds: int = 3) -> str:
    """The first row at other numbers of pictures, and `headstart why` beside `dvc status`."""
    without_server(scratch)
    rows, named = [], {}
    for count in map(int, sizes.split(",")):
        loop = Loop(scratch / str(count), count, augment={"views": 0})
        first = loop.nothing()
        loop.added.append(loop.draw(10))
        why = loop.run(sys.executable, "-m", "headstart", "why").wall
        status = loop.run("dvc", "status").wall
        loop.nothing()
        ten = in_turns(rounds, {"ten": loop.ten})["ten"]
        named[f"{count:,}"] = ten
        used = statistics.median(cost.cpu for cost in ten)
        seconds = (spread((cost.wall for cost in costs), "{:.1f}") for costs in (loop.added, ten))
        rows.append((f"{count:,}", first.wall, *seconds, used, why, status))
    columns = "pictures | first run {:.1f} | `dvc add` of ten | ten added | CPU-s {:.1f}"
    columns += " | `headstart why`, ten added {:.1f} | `dvc status` {:.1f}"
    return f"""# Ten pictures added to few and to many

Seconds, without augmented views; medians of {rounds} runs with the least and the most.

{table(columns, rows)}

{broken_down(named)}
"""


# Beside others

EARLIER = "7855c4a"  # whose README said 22 s

# Run by DataChain's Python, with our code for a feature; its processes have no arguments.
PEER = """
import os, sys
import datachain
from datachain import C

ENGINE = None

def feature(file: datachain.File) -> list[float]:
    global ENGINE
    sys.path[:0] = [] if ENGINE else os.environ["OURS"].split(os.pathsep)
    from pipeline import kinds
    from pipeline.backbones.engines import open_engine
    from pipeline.core import params
    kind = kinds.named("image")
    ENGINE = ENGINE or open_engine(params.load(kinds.schema).extract, kind)
    views = ENGINE.make_views([(file.read(), [kind.original])])
    return ENGINE.features(views, 1)[0].tolist()

if __name__ == "__main__":
    pictures = datachain.read_storage(
        "file://" + os.environ["PICTURES"], update=True, delta=True, delta_on="file.path"
    )
    pictures = pictures.filter(C("file.path").glob("*.jpg")).settings(parallel=os.cpu_count())
    print(pictures.map(feature=feature).save("features").count())
"""


class Earlier(Loop):
    """The project of `EARLIER`, with today's packages."""

    repro = ("dvc", "repro")

    def make(self) -> None:
        """A clone at that commit."""
        run("git", "clone", "--quiet", ROOT, self.folder)
        self.run("git", "checkout", "--quiet", EARLIER)


def measure_peers(scratch: Path, python: str = "", pictures: int = 10_000, rounds: int = 3) -> str:
    """Ten pictures added: this version, the earlier one, and DataChain with the same network."""
    need(python, "a Python with DataChain: --python, see `python -m benchmarks small_loop --help`")
    version = run(python, "-c", "import datachain as d; print(d.__version__)").gave.strip()
    without_server(scratch)
    (scratch / "peer.py").write_text(PEER)
    loop = Loop(scratch / "now", pictures, augment={"views": 0})
    earlier = Earlier(scratch / "earlier", pictures, augment={"views": 0})

    def datachain() -> Cost:
        return loop.run(
            python,
            scratch / "peer.py",
            PICTURES=str(loop.raw),
            OURS=os.pathsep.join([str(ROOT), sysconfig.get_paths()["purelib"]]),
            DATACHAIN_ROOT_DIR=str(scratch / "datachain"),
            DATACHAIN_NO_ANALYTICS="1",
        )

    works: dict[str, Callable[[], Cost]] = {
        "`headstart repro extract`": partial(loop.ten, *loop.repro, "extract"),
        "DataChain": datachain,  # which finds the same ten
        "`headstart repro`": loop.ten,
        f"`dvc repro` at {EARLIER}": earlier.ten,
    }
    extract, peer = loop.nothing("dvc", "repro", "extract").wall, datachain().wall
    first = [extract, peer, extract + loop.nothing().wall, earlier.nothing().wall]
    costs = in_turns(rounds, works)
    rows = [
        (
            what,
            before,
            spread((cost.wall for cost in costs[what]), "{:.1f}"),
            spread((cost.cpu for cost in costs[what]), "{:.1f}"),
        )
        for what, before in zip(works, first, strict=True)
    ]
    return f"""# Ten pictures added, beside others

{pictures:,} pictures without augmented views; medians of {rounds} runs in turns, with the least and
the most. DataChain {version} with `delta=True` computes one feature for each picture, in as many
processes as there are cores, with the code and the session of ONNX Runtime that `extract` has. It
compares the names, sizes and times of files. {EARLIER} is an earlier version with today's packages:
its `dvc repro` has the same eight stages, but no floor, no inner layers and fewer checks.

{table("what | first run, s {:.1f} | ten added, s | CPU-s", rows)}
"""


PARTS = {
    "table": measure_table,
    "peers": measure_peers,
    "sizes": measure_sizes,
}
