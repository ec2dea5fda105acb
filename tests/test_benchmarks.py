"""What all benchmarks stand on, and that each runs: a smoke run at its smallest size."""

import multiprocessing
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import harness, small_loop
from benchmarks.harness import (
    MISSING,
    ROOT,
    Cost,
    draw,
    in_turns,
    ratios,
    run,
    spread,
    table,
)
from tests.conftest import begin_store

# For each benchmark: the arguments of its command, and what it measures less of than it does.
# PICTURES is a folder like that of ants and bees, BUNDLED a project with a bundle, EMPTY a folder.
FEW_DIGITS = (  # a set of `benchmarks/recipes_sets.py`: 300 digits, half of them without views
    "from benchmarks import recipes_sets as s; from sklearn.datasets import load_digits"
    "; data, target = load_digits(return_X_y=True); rows = np.arange(300)"
    "; seen = np.repeat(data[:300, None].astype(np.float32), 6, axis=1)"
    "; few = s.Set('image', [*'0123456789'], target[:300], rows.astype(str), rows % 2 > 0, seen,"
    " [slice(0, 40), slice(40, 64)]); s.SETS = {'digits': s.SETS['digits']}"
    "; s.made = lambda *_: few"
)
MADE_UP = (
    "from sklearn.datasets import load_digits; data, target = load_digits(return_X_y=True)"
    "; names = list(map(str, range(120)))"
    "; made_up = names, target[:120], data[:120].astype(np.float32), names"
    "; seen = lambda *_: of_rows(*made_up)"
)
# Minutes at any size: each first run installs an environment (tests/flows/test_own_project.py takes
# the same way).
TOO_LONG = {"own_project"}
# Projects with an eighth of the default pictures, and with some of the stages.
FEWER = """
import yaml
KEPT = globals().get("KEPT_STAGES")
class Small(BASE):
    def make(self):
        super().make()
        surfaces = self.folder / "data/raw/surfaces.csv"
        surfaces.write_text("".join(surfaces.read_text().splitlines(True)[:13]))
        if KEPT:
            file = self.folder / "dvc.yaml"
            stages = yaml.safe_load(file.read_text())["stages"]
            file.write_text(yaml.safe_dump({"stages": {name: stages[name] for name in KEPT}}))
BASE = Small
"""
FEWER_OF_LOOP = (
    "KEPT_STAGES = 'ingest', 'augment', 'extract'"
    + FEWER.replace("BASE", "Loop")
    + "FLOW, STAGES = ('true',), KEPT_STAGES"
    + "; Loop.branch, quick = (lambda _: None), (lambda self, *_: on_terminal(self, 'true'))"
    + "; Loop.head = Loop.back = Loop.nothing = quick"
)
SMALLEST = {
    "against_fastai": ("PICTURES", ""),
    "alarms pictures": (
        "PICTURES --cache EMPTY --seeds 1",
        "SETS = {'hymenoptera': patches}; CHOSEN = []; TOOLS = (); COPIES = 1"
        "; DUPLICATES = {'mirrored': ImageOps.mirror}; DRIFTS = {'darker, 0.4': light(0.4)}"
        "; RATES = {'10 %': 0.1}; default_run = lambda scratch: (1, {'none': 0})",
    ),
    "answers graph": (
        "PICTURES",
        "sets_of_pictures = lambda scratch, given: [('insects', Project(scratch / 'some', given))]",
    ),
    "audio accuracy": (
        "",
        "SETS = ('digits',); MOST = 60; BACKBONES = 'speech_embedding', 'mfcc'; SEEDS = range(1)"
        "; DECAYS, POWERS = (0.01,), (1.0,); VIEWS = 1; RESAMPLES = 10",
    ),
    "audio speed": ("", "SETS = ('digits',); SPEED_MOST = 8; ROUNDS = 1"),
    "extract cpu": (
        "PICTURES --rounds 1",
        "all_of = views_of; views_of = lambda files, n, *_: all_of(files[:2], min(n, 1), *_)",
    ),
    "backbones": ("", "FAMILIES = (('ResNet', 'timm:test_resnet', 'auto'),); VIEWS = 1"),
    "extract gpu": (
        "",
        "GPU_BATCH, SAMPLE, ROUNDS = 2, 4, 1; BACKBONES, PRECISIONS = BACKBONES[1:], PRECISIONS[1:]"
        "; torchvision.models.resnet50 = torchvision.models.resnet18",
    ),
    "heads default": (
        "--draws 1",
        f"{FEW_DIGITS}; SETS_OF_DEFAULT, SIZES_OF_DEFAULT = ['digits'], (10,)",
    ),
    "install": (
        "--rounds 1",
        "fresh = lambda *_: Fresh(1.0, 1.0, 1.0, 1.0, 1, []); smaller = lambda *_: 1.0",
    ),
    "text lora": (
        "--part 20",
        "TITLES, FEW, MOST = 90, (20,), 60; WAYS = {k: v | {'epochs': 1} for k, v in WAYS.items()}",
    ),
    "heads many": (
        "--classes 8",
        "import matplotlib; FONTS = Path(matplotlib.get_data_path()) / 'fonts' / 'ttf'; MANY = 50"
        "; names = ('DejaVuSans', 'DejaVuSerif', 'DejaVuSansMono', 'STIXGeneral')"
        "; TYPEFACES = {p: f'{n}.ttf' for p, n in zip(TYPEFACES, names, strict=True)}",
    ),
    "million pairs": ("--examples 400 --queries 40", ""),
    "million classes": ("--sizes 3x60", "STAGES, AGAIN = STAGES[:1], ()"),
    "million stages": (
        "--sizes 60",
        "IN_THOUSAND, CLASSES, STAGES, AGAIN = 5, 3, STAGES[:3], ()"
        "; nothing_changed = lambda _: 0.0",
    ),
    "million pictures": ("--examples 60", "IN_THOUSAND, SEEN, STAGES = 60, 1, STAGES[:3]"),
    "million bundles": ("BUNDLED", ""),
    "million bytes": ("--examples 60", "CLASSES, STAGES = 3, STAGES[:1]"),
    # A cluster of its head alone; tests/runners/test_on_ray.py has nodes.
    "extract ray": (
        "--pictures 60 --rounds 1",
        "from tests.helpers.ray_cluster import Cluster; Cluster.start_node = lambda _: None",
    ),
    "next proposals": (
        "PICTURES --draws 1",
        "ROUNDS, MOST, SWITCHES = 2, 200, (2,); sets = lambda *_: {'digits': vectors(load_digits)}",
    ),
    "next hour": (
        "PICTURES",
        "KINDS = {'image': KINDS['image']}; made = lambda *_: Path('BUNDLED/bundle')",
    ),
    "platforms": ("", "PYTHONS = ()"),
    "answers predict": (
        "PICTURES --rounds 1",
        "from pipeline.kinds.image import hiding; hiding.CELLS, hiding.PRIME = 2, 7",
    ),
    "recipes": (
        "EMPTY --draws 2",
        f"{FEW_DIGITS}; SIZES, FEW, SETS, made = (10,), (1,), s.SETS, s.made",
    ),
    "answers serve": ("BUNDLED PICTURES --seconds 0.5", "CLIENTS, FLOOD = (1, 2), 100"),
    "large_report": ("--examples 40 --rounds 1 --frames 5", ""),
    "small_loop peers": ("--pictures 60 --rounds 1", ""),
    "small_loop sizes": ("--sizes 60 --rounds 1", FEWER_OF_LOOP),
    # `small_loop sizes` has a terminal with DVC, tests/flows a server.
    "small_loop table": (
        "--pictures 60 --rounds 1",
        f"{FEWER_OF_LOOP}; from contextlib import nullcontext; STAGES = ('ingest',)"
        "; quick = on_terminal; on_terminal = lambda project, *_: quick(project, 'true')"
        "; server.running = lambda *_: nullcontext('')",
    ),
    "alarms flawed": (
        "EMPTY --most 50 --planted 2",
        "from benchmarks import recipes_sets as s; s.SETS = {'digits': s.SETS['digits']}",
    ),
    "alarms labels": ("EMPTY --seeds 1", FEW_DIGITS),
    "alarms tasks": ("--seeds 1", "tasks.SETS = {'regression': ['diabetes']}"),
    "tasks": ("--bootstrap 5 --rounds 1", "SETS = {'regression': ['diabetes']}"),
    "text accuracy": (
        "--seeds 2",
        "TITLES, SIZES = 90, (20, 40); OURS = {'MiniLM': OURS['MiniLM']}",
    ),
    "text languages": (
        "EMPTY --sets 2 --texts 60",
        "TITLES = 90; FORTUNES = {'German': ''}; fortunes = lambda *_: ['Das ist ein Satz.'] * 60",
    ),
    "text speed": ("--rounds 1 --some 4", ""),
    "unseen choose": (
        "EMPTY --draws 1",
        f"{MADE_UP}; OF_CHOOSE, OF_KIND = (5,), {{'image': ['digits']}}"
        "; BACKBONES = BACKBONES | {'image': ('a',)}",
    ),
    "unseen default": (
        "EMPTY --draws 2",
        f"{MADE_UP}; SIZES, TITLES, UNSEEN = (5,), 'digits', {{'digits': SETS['digits']}}",
    ),
    # tests/headstart/test_upgrade.py and test_own_project.py have a project's own upgrade.
    "upgrade": ("--examples 'regression diabetes'", "own = clone = lambda _: ''"),
}


def test_a_table_has_its_figures_in_the_form_that_its_columns_ask_for() -> None:
    rows = [("first", 1234.5, None), ("second", 7, "none")]
    assert table("| seconds {:,.1f} | peak {:.0f} MB", rows).splitlines() == [
        "|  | seconds | peak |",
        "| --- | --- | --- |",
        "| first | 1,234.5 | – |",
        "| second | 7.0 | none |",
    ]


def test_a_page_tells_how_it_was_made_and_keeps_what_people_wrote(tmp_path: Path) -> None:
    def measure(scratch: Path, folder: Path, rounds: int = 3) -> str:
        assert list(scratch.iterdir()) == []
        return f"# Title\n\n{folder.name}, {rounds} rounds\n"

    module = ModuleType("benchmarks.toy")
    module.__file__ = str(tmp_path / "toy.py")
    module.measure = measure  # type: ignore[attr-defined]
    page = tmp_path / "toy.md"
    page.write_text(f"# Title\n\nof before\n\n{harness.BY_HAND}\nFor people.\n")
    harness.main(module, ["pictures", "--rounds", "2"])
    title, _, made, _, text, *rest = page.read_text().splitlines()
    assert (title, text) == ("# Title", "pictures, 2 rounds")
    assert made.startswith("Made by `python -m benchmarks toy pictures --rounds 2` at commit ")
    assert f"Python {sys.version.split()[0]}" in made
    assert rest == ["", harness.BY_HAND.strip(), "", "For people."]


def test_the_cost_of_a_command_is_its_own() -> None:
    held = bytearray(300_000_000)  # counts for a process started right out of this one
    script = "import sys; x = bytearray(100_000_000); print('out'); print('err', file=sys.stderr)"
    took = run(sys.executable, "-c", script)
    assert len(held) == 300_000_000
    assert 95 < took.peak < 200
    assert took.cpu > 0
    assert took.gave.splitlines() == ["out", "err"]
    with pytest.raises(SystemExit, match="failed"):
        run(sys.executable, "-c", "raise SystemExit(3)")


def test_works_take_turns_and_a_command_tells_its_own_cost() -> None:
    order: list[str] = []

    def command() -> Cost:
        order.append("b")
        return Cost(1.5, 1.0, 10.0, "")

    costs = in_turns(2, {"a": lambda: order.append("a"), "b": command})
    assert order == ["a", "b", "a", "b"]
    assert [cost.wall for cost in costs["b"]] == [1.5, 1.5]
    assert spread([3.0, 1.0, 2.0]) == "2.00 (1.00–3.00)"
    assert spread(ratios([2.0, 9.0], [1.0, 3.0]), "{:.1f}") == "2.5 (2.0–3.0)"


def benchmarks_here() -> list[Path]:
    parts = ("__main__.py", "harness.py", "fonts.py", "recipes_sets.py")  # of others
    return [f for f in (ROOT / "benchmarks").glob("*.py") if f.name not in parts]


def test_every_benchmark_has_a_page_beside_it_and_can_be_asked_for() -> None:
    files = benchmarks_here()
    drivers = (ROOT / "tests" / "faults").glob("*.py")
    files += [file for file in drivers if not file.name.startswith("test_")]
    assert files
    for file in files:
        assert file.with_suffix(".md").exists(), file
        assert re.search(r"^def measure\(|^PARTS", file.read_text(), re.M), file


def test_pages_of_several_parts_have_one_section_written(tmp_path: Path) -> None:
    def cats(scratch: Path, rounds: int = 1) -> str:
        return f"# Cats\n\n{rounds}\n"

    def dogs(scratch: Path) -> str:
        return "# Dogs\n\nbarked\n"

    module = ModuleType("benchmarks.toy")
    module.__file__ = str(tmp_path / "toy.py")
    module.PARTS = {"cats": cats, "dogs": dogs}  # type: ignore[attr-defined]
    harness.main(module, ["dogs"])
    harness.main(module, ["cats"])
    page = tmp_path / "toy.md"
    page.write_text(page.read_text() + f"\n{harness.BY_HAND}\nGood dogs.\n")
    harness.main(module, ["cats", "--rounds", "2"])
    text = page.read_text()
    assert text.index("# Cats") < text.index("# Dogs")
    assert "Made by `python -m benchmarks toy cats --rounds 2` at commit " in text
    assert "\n2\n" in text
    assert "\n1\n" not in text
    assert text.endswith(f"barked\n\n{harness.BY_HAND}\nGood dogs.\n")
    harness.main(module, ["dogs"])
    assert page.read_text().endswith(f"barked\n\n{harness.BY_HAND}\nGood dogs.\n")
    settled = f"{harness.PART.format('owls')}# Owls\n"  # whose script was removed
    page.write_text(f"{settled}\n{page.read_text()}")
    harness.main(module, ["dogs"])
    assert page.read_text().endswith(f"Good dogs.\n\n{settled}")


def test_a_folder_below_the_home_is_not_one_called_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(cache: Path = Path("~/cache")) -> str:
        return f"# Title\n\n{cache}\n"

    module = ModuleType("benchmarks.toy")
    module.__file__ = str(tmp_path / "toy.py")
    module.measure = measure  # type: ignore[attr-defined]
    monkeypatch.setenv("HOME", str(tmp_path))
    harness.main(module, [])
    assert f"\n{tmp_path}/cache\n" in (tmp_path / "toy.md").read_text()


def test_a_benchmark_ends_in_one_line_if_what_it_takes_is_not_here() -> None:
    harness.need(True, "nothing")
    with pytest.raises(SystemExit, match=f"^{harness.MISSING}uv: pip install uv$"):
        harness.need(False, "uv: pip install uv")


# A figure in a page is a number with a decimal point, or one with a unit.
UNIT = "%|times|s|seconds|minutes|hours|MB|GB|kB|ms|milliseconds|microseconds|points"
FIGURE = re.compile(
    r"(?<![\w.,/:])(\d[\d,]*\.\d+(?:e-\d+)?(?!\.?\d)"
    rf"|\d[\d,]*(?= ?%| (?:{UNIT})\b))(?: ?({UNIT}))?"
)
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?")
SOURCE = re.compile(r"(?:git show (\w+):)?benchmarks/(\w+)\.md")
OTHER_UNIT = {"%": 100, "points": 100, "GB": 1 / 1000, "minutes": 1 / 60}  # of fractions, MB, s


@cache
def table_lines(commit: str, name: str) -> list[tuple[str, list[float]]]:
    """The lines of a benchmark's page with their numbers; none if the commit is not here."""
    place = f"benchmarks/{name}.md"
    if commit:
        shown = subprocess.run(["git", "show", f"{commit}:{place}"], cwd=ROOT, capture_output=True)
        text = shown.stdout.decode()
    else:
        text = (ROOT / place).read_text(encoding="utf-8")
    lines = text.lower().splitlines()
    return [(line, [float(n.replace(",", "")) for n in NUMBER.findall(line)]) for line in lines]


def has(numbers: list[float], figure: str, unit: str) -> bool:
    """Whether one of the numbers is the figure, after rounding."""
    wanted = float(figure.replace(",", ""))
    digits = 16 if "e" in figure else len(figure.partition(".")[2])
    near = 0.5 * 10**-digits * (1 + 1e-6)
    return any(abs(n * by - wanted) <= near for n in numbers for by in (1, OTHER_UNIT.get(unit, 1)))


def passages(text: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each paragraph, item and row of a page, and the (commit, benchmark) pages that it rests on.

    A row rests on those that the paragraph before or after its table links, an item on those of the
    paragraph before its list, if they link none themselves.
    """
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for section in re.split(r"^(?=#)", text, flags=re.M):
        blocks = [block for block in re.split(r"\n\s*\n", section) if block.strip()]
        for at, block in enumerate(blocks):
            beside = blocks[max(at - 1, 0) : at]
            beside += blocks[at + 1 : at + 2] if block.startswith("|") else []
            near = SOURCE.findall(" ".join(b for b in beside if not b.startswith("|")))
            for part in re.split(r"\n(?=- |\d+\. |\| )", block):
                yield part, SOURCE.findall(part) or (near if part[0] in "|-123456789" else [])


@pytest.mark.parametrize(
    "page", ["README.md", *(f.relative_to(ROOT).as_posix() for f in (ROOT / "docs").rglob("*.md"))]
)
def test_each_figure_of_a_page_is_in_the_table_that_it_links(page: str) -> None:
    for part, sources in passages((ROOT / page).read_text(encoding="utf-8")):
        lines = [line for source in set(sources) for line in table_lines(*source)]
        if not lines:
            continue
        words = re.sub(r"\]\([^)]*\)|`[^`]*`", " ", part)
        figures = FIGURE.findall(words)
        numbers = [number for _, found in lines for number in found]
        for figure, unit in figures:
            assert has(numbers, figure, unit), f"{figure} {unit} is not in {sources}: {part}"
        cells = [cell.strip(" *") for cell in part.split("|")]
        if len([cell for cell in cells if NUMBER.fullmatch(cell)]) < 2:
            continue
        # A row of a quoted table is one line there, or its figures are on lines with its label.
        if any(all(has(found, *figure) for figure in figures) for _, found in lines):
            continue
        label = re.findall(r"[\w-]{3,}", cells[1].lower())
        for figure in figures:
            assert any(
                has(found, *figure) for line, found in lines if any(word in line for word in label)
            ), f"{page}: {figure[0]} is not in a row of {label} in {sources}"


def test_each_table_names_the_commit_that_made_it() -> None:
    for page in (ROOT / "benchmarks").glob("*.md"):
        made = re.findall(r"^(?:Made|Written) (?:.+\n)+", page.read_text(encoding="utf-8"), re.M)
        assert made, page
        for how in made:
            assert re.search(r"commits? [0-9a-f]{7}", how), f"{page.name}: {how}"


def test_the_figures_of_the_readme_are_those_of_the_tables() -> None:
    small_loops, readme = (
        " ".join((ROOT / name).read_text(encoding="utf-8").split())
        for name in ("benchmarks/small_loop.md", "README.md")
    )
    (found,) = re.findall(
        r"ten pictures were added to (\S+), `headstart repro` took (\S+) s .*? It computed (\S+)"
        r" views and reused (\S+)\. The first run took (\S+) s\. The first run of the default set"
        r" took (\S+) s\.",
        small_loops,
    )
    count, ten, computed, _, first, default = found
    ten, first, default = (f"{float(seconds):.0f}" for seconds in (ten, first, default))
    column, scikit = "mean over sets", "scikit-learn's logistic regression"
    pictures = small_loop.cell("recipes.md", "blocks, 4 views weighed, LDA", column)
    theirs = small_loop.cell("recipes.md", "their logistic regression, blocks", column)
    heads = (ROOT / "benchmarks/heads.md").read_text(encoding="utf-8")
    texts, svm = map(float, heads.partition("| **mean of the sets** |")[2].split("|")[2:4])
    seconds, accuracy = "seconds", "accuracy on the set's `val`"
    ours, three, more = "`dvc repro`, cold store", "fastai, frozen body", "fastai, the same for 10"
    of = {
        row: (
            round(small_loop.cell("against_fastai.md", row, accuracy), 3),
            round(small_loop.cell("against_fastai.md", row, seconds)),
        )
        for row in (ours, three, more)
    }
    for words in (
        f"The first run on {count} pictures took {first} seconds on [two CPU ",
        f"After ten pictures were added, the next run took {ten} seconds. It computed features for"
        f" {computed} pictures and reused all others.",
        f"first run takes {default} seconds on two ",
        f"| ten pictures added to {count} | **features of {computed} pictures computed, [{ten} s](",
        f"| **{pictures:+.3f}** | {scikit} on all layers: {theirs:+.3f} |",
        f"| **{texts:.3f}** | scikit-learn's SVM on MiniLM's last layer: {svm:.3f} |",
        "| **{:.3f} in {} s, with checks and report** |".format(*of[ours]),
        "| fastai: {:.3f} in {} s, {:.3f} in {} s |".format(*of[three], *of[more]),
    ):
        assert words in readme, f"README.md does not have {words!r}"


def test_what_a_terminal_shows_has_its_seconds_and_a_stage_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
import subprocess, sys, time
from pathlib import Path
def show(text):
    print(text)
    while f"{text}\\r\\n" not in Path(sys.argv[1]).read_bytes().decode():
        time.sleep(0.01)
show("> python -m pipeline.ingest")
subprocess.run([sys.executable, "-c", "sum(range(20_000_000))"])
for count in range(3):
    print(f"\\r\\x1b[Kingest: {count}/3", end="")
print("\\r\\x1b[K\\x1b[32mingest: done\\x1b[0m")
print("> python -m pipeline.augment")
show("augment: done")
"""
    measured = tmp_path / "measured"  # what was shown before the last measurement
    measured.write_text("")
    read, of_stages, shown = small_loop.read_terminal, small_loop.of_stages, [""]

    def keep(terminal: int) -> str:
        shown.append(read(terminal))
        return shown[-1]

    def measure(meter: int) -> float:
        found = of_stages(meter)
        measured.write_bytes("".join(shown).encode())
        return found

    monkeypatch.setattr(small_loop, "read_terminal", keep)
    monkeypatch.setattr(small_loop, "of_stages", measure)
    cost = small_loop.on_terminal(
        harness.Project(tmp_path), sys.executable, "-c", script, str(measured)
    )
    texts = [line.text for line in cost.gave]
    assert [texts[0], *texts[-3:]] == [
        "> python -m pipeline.ingest", "ingest: done", "> python -m pipeline.augment",
        "augment: done",
    ]  # fmt: skip
    assert len(texts) < 6  # a line that moves is kept once a second
    assert [line.seconds for line in cost.gave] == sorted(line.seconds for line in cost.gave)
    found = small_loop.stages(cost)
    assert list(found) == ["ingest", "augment", "DVC"]
    assert sum(wall for wall, _ in found.values()) == pytest.approx(cost.wall)
    assert found["ingest"][1] > found["augment"][1] == 0
    with pytest.raises(SystemExit, match="no such stage"):
        small_loop.on_terminal(
            harness.Project(tmp_path / "other"), "sh", "-c", "echo no such stage; exit 3"
        )


def test_the_small_loop_finds_the_figures_of_other_pages() -> None:
    assert len({row.what for row in small_loop.of_others()}) == 9  # LookupError without one
    with pytest.raises(
        LookupError, match=r"text\.md has no row 'sounds' with a column 'tokens, me"
    ):
        small_loop.cell("text.md", "sounds", "tokens, mean")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few small pictures in folders like those of ants and bees."""
    folder, drawn = tmp_path_factory.mktemp("insects"), tmp_path_factory.mktemp("drawn")
    draw(drawn, range(42), (96, 72))
    for name, crop in (("ants", "astronaut"), ("bees", "coffee")):
        for number, file in enumerate(sorted((drawn / crop).glob("*.jpg"))):
            place = folder / ("train" if number < 5 else "val") / name
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
    return folder


# A smoke run is a fork of a process that has imported these: that takes longer than most runs.
IMPORTED = ("benchmarks.harness", "onnxruntime", "pandas", "pipeline.heads.fit", "scipy.stats",
            "skimage.data", "sklearn.datasets", "sklearn.linear_model", "torch")  # fmt: skip


@pytest.fixture(scope="module")
def forks() -> ForkServerContext:
    """What starts processes that have imported IMPORTED."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*IMPORTED])
    return context


def smallest(name: str, pictures: Path, bundled: Path, folder: Path, store: Path) -> str:
    """The code of a benchmark's smoke run; what it prints goes to `out` and `err` in the folder."""
    arguments, less = SMALLEST[name]
    module, *part = name.split()
    places = {"PICTURES": pictures, "BUNDLED": bundled, "EMPTY": folder / "empty"}
    words = [str(places.get(word, word)) for word in shlex.split(arguments)]
    less = less.replace("EMPTY", str(folder / "empty")).replace("BUNDLED", str(bundled))
    return f"""
import multiprocessing, os
from importlib import import_module
from benchmarks import harness
from tests.helpers import forked_run
for number, name in ((1, "out"), (2, "err")):
    os.dup2(os.open(f"{folder}/{{name}}", os.O_WRONLY | os.O_CREAT), number)
os.chdir({str(ROOT)!r})
os.environ |= harness.ENVIRONMENT | {{"HEADSTART_STORE": {str(store)!r}}}
harness.ENVIRONMENT |= os.environ
multiprocessing.set_start_method("fork", force=True)  # as it is for who runs a benchmark
harness.run = forked_run.run
harness.Project.__init__.__defaults__ = None, harness.Path({str(store / "backbones")!r})
module = import_module("benchmarks.{module}")
exec({less!r}, vars(module))
harness.main(module, {[*part, *words, "--page", str(folder / "page.md")]!r})
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_a_benchmark_runs_to_its_end_at_its_smallest_size(
    name: str,
    forks: ForkServerContext,
    pictures: Path,
    bundled: Path,
    exported: Path,
    tmp_path: Path,
) -> None:
    code = smallest(name, pictures, bundled, tmp_path, begin_store(tmp_path, exported))
    process = forks.Process(target=exec, args=(code, {}))
    process.start()
    process.join()
    told = (tmp_path / "err").read_text().strip()
    if process.exitcode and told.startswith(MISSING) and "\n" not in told:
        pytest.skip(told)
    assert process.exitcode == 0, (tmp_path / "out").read_text() + told
    assert f"Made by `python -m benchmarks {name}" in (tmp_path / "page.md").read_text()


def test_each_benchmark_has_a_smoke_run() -> None:
    here = set()
    for file in benchmarks_here():
        parts = re.findall(r'^    "(\w+)": measure_', file.read_text(), re.M)
        here |= {f"{file.stem} {part}" for part in parts} or {file.stem}
    assert here == set(SMALLEST) | TOO_LONG
