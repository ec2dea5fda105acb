"""The house in figures, before and after, and the tests that take longest.

    python -m benchmarks house figures [--before COMMIT]
    python -m benchmarks house tests

The figures are counted in the code's syntax trees, of a commit and of the files as they are. A
branch on the task is a comparison, a `match` or a dictionary's key with a task's name or constant;
that it is outside means outside `tasks/`. Kinds and losses are counted likewise, with their rooms.
"""

import ast
import subprocess
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.harness import ROOT, need, table

FOLDERS = ("pipeline", "flows", "headstart", "federated", "examples", "benchmarks", "tests")
CONSTANTS = {
    "task": {"CLASSIFICATION", "MULTILABEL", "REGRESSION"},
    "kind": set[str](),
    "loss": {"OF_NUMBERS", "LOSSES", "OF_ORDER"},
}
WORDS = {
    "task": {"classification", "multilabel", "regression"},
    "kind": {"image", "text", "audio", "vector", "plugin"},
    "loss": {"softmax", "binary", "squared", "huber"},
}
ROOMS = {
    "task": ("pipeline/tasks/",),
    "kind": ("pipeline/kinds/",),
    "loss": ("pipeline/heads/losses.py", "pipeline/heads/linear_loss.py"),
}
LONGEST = 8
RECORD = ROOT / ".pytest_cache" / "tests.xml"  # see Makefile


def measure_figures(scratch: Path, before: str = "2cde96e") -> str:
    """Lines, branches, records and imports."""
    archive = subprocess.run(["git", "archive", before], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(scratch, filter="data")
    old, new = counted(scratch), counted(ROOT)
    rows = [(name, old.get(name, 0), new.get(name, 0)) for name in {**old, **new}]
    longest = zip(functions(scratch), functions(ROOT), strict=False)
    return (
        "# The house in figures\n\n"
        + table(f"what | at {before} | now", rows)
        + "\n\n## The longest functions\n\n"
        + table(f"at {before} | lines | now | lines", [(*a, *b) for a, b in longest])
    )


def trees(root: Path, *folders: str) -> Iterator[tuple[str, ast.Module]]:
    """The syntax tree of each file, by its path."""
    for folder in folders:
        for file in sorted((root / folder).rglob("*.py")):
            if not any(part.startswith(".") for part in file.relative_to(root).parts):
                yield file.relative_to(root).as_posix(), ast.parse(file.read_text())


def counted(root: Path) -> dict[str, int]:
    """Each figure by its name."""
    found: Counter[str] = Counter()
    for folder in FOLDERS:
        for name, _ in trees(root, folder):
            found[f"lines of Python in `{folder}/`"] += len((root / name).read_text().splitlines())
    found["lines of Python in all"] = sum(found.values())
    found["lines of `dvc.yaml`"] = len((root / "dvc.yaml").read_text().splitlines())
    arrows = set()
    for name, tree in trees(root, "pipeline", "flows", "headstart"):
        found["modules"] += 1
        for subject, rooms in ROOMS.items():
            if not name.startswith(rooms):
                found[f"branches on the {subject} outside its room"] += branches(tree, subject)
        found["signatures with `dict[str, Any]`"] += sum(
            "dict[str, Any]" in ast.unparse(annotation) for annotation in annotations(tree)
        )
        for node, is_deferred in imports(tree):
            if (target := own(name, node)) is None:
                continue
            found["imports of our modules"] += 1
            found["of these, in a function"] += is_deferred
            if name.startswith("pipeline/") and name.count("/") > 1 and room(name) != target:
                arrows.add((room(name), target))
    found["arrows between rooms of `pipeline/`"] = len(arrows)
    return dict(found)


def branches(tree: ast.Module, subject: str) -> int:
    """Lines that compare something with a name of the subject, or look up by it."""
    lines = set()
    for node in ast.walk(tree):
        sides: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.Dict):
            sides = [key for key in node.keys if key is not None]
        elif isinstance(node, ast.MatchValue):
            sides = [node.value]
        for side in sides:
            for leaf in ast.walk(side):
                word = isinstance(leaf, ast.Constant) and leaf.value in WORDS[subject]
                name = getattr(leaf, "id", getattr(leaf, "attr", ""))
                if word or name in CONSTANTS[subject]:
                    lines.add(side.lineno)
    return len(lines)


def annotations(tree: ast.Module) -> Iterator[ast.expr]:
    """Those of the arguments and results of public functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            every = [*node.args.args, *node.args.kwonlyargs]
            yield from (each.annotation for each in every if each.annotation)
            if node.returns:
                yield node.returns


def imports(tree: ast.Module) -> Iterator[tuple[ast.stmt, bool]]:
    """Each import, and whether it is inside a function."""
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, id(node) in inside


def own(name: str, node: ast.stmt) -> str | None:
    """The room of ours that is imported; None for a library."""
    if not isinstance(node, ast.ImportFrom):
        return None
    parts = (node.module or "").split(".") if node.module else []
    if node.level:
        parts = [*name.split("/")[: -node.level], *parts]
    if parts[:1] not in (["pipeline"], ["flows"], ["headstart"]):
        return None
    return parts[1] if len(parts) > 1 else node.names[0].name


def room(name: str) -> str:
    """The folder of `pipeline/` that a file lies in."""
    return name.split("/")[1]


def functions(root: Path) -> list[tuple[str, int]]:
    """The longest functions and their lines."""
    found = [
        (f"`{name}: {node.name}`", (node.end_lineno or node.lineno) - node.lineno + 1)
        for name, tree in trees(root, "pipeline", "flows", "headstart")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    ]
    return sorted(found, key=lambda each: -each[1])[:LONGEST]


def measure_tests() -> str:
    """The longest tests of the last `make test`, `make test-slow` or `make test-all`."""
    need(RECORD.exists(), "a run of the tests: make test-all")
    (suite,) = ElementTree.parse(RECORD).getroot()  # noqa: S314 (pytest wrote it)
    of_test, of_file = defaultdict[str, float](float), defaultdict[str, float](float)
    for case in suite.iter("testcase"):
        file, name, took = (case.attrib[key] for key in ("classname", "name", "time"))
        of_test[f"{file}: {name}"] += float(took)
        of_file[file] += float(took)

    def rows(found: dict[str, float]) -> list[tuple[str, float]]:
        longest = sorted(found.items(), key=lambda each: -each[1])[:10]
        return [(f"`{name}`", took) for name, took in longest]

    return f"""# The tests that take longest

{suite.attrib["tests"]} tests took {float(suite.attrib["time"]):,.0f} s. A test's seconds are those
of its worker, with the fixtures that it was the first to need.

{table("test | seconds {:.1f}", rows(of_test))}

{table("file | seconds of all its tests {:.0f}", rows(of_file))}
"""


PARTS = {
    "figures": measure_figures,
    "tests": measure_tests,
}
