"""The size and the shape of the code before the rooms were made and after.

Modules and imports are those of `pipeline/`, by grimp; a room is a folder, or a module in none.
"""

import subprocess
import sys
from pathlib import Path

from benchmarks.harness import ROOT, table

COUNT = """
import grimp
graph = grimp.build_graph("pipeline", cache_dir=None)
modules = {m for m in graph.modules if m != "pipeline"}
def room(module):
    return ".".join(module.split(".")[:2])
of = {m: graph.find_modules_directly_imported_by(m) - {"pipeline"} for m in modules}
pairs = {(room(a), room(b)) for a in modules for b in of[a] if room(a) != room(b)}
top = sum(m.count(".") == 1 and not graph.find_children(m) for m in modules)
circles = sum((b, a) in pairs for a, b in pairs) // 2
stages = [m for m in modules if m.count(".") == 1 and not graph.find_children(m)]
stages = [m for m in stages if "command.run(" in open(m.replace(".", "/") + ".py").read()]
between = sum((a, b) in pairs for a in stages for b in stages)
rooms, imports = len({room(m) for m in modules}), sum(map(len, of.values()))
print(top, rooms, imports, len(pairs), circles, between)
"""
ROWS = (
    "modules on the top floor",
    "rooms, and modules in none",
    "imports between modules",
    "imports between rooms",
    "pairs of rooms that import each other",
    "imports of a stage by a stage",
)
FOLDERS = ("pipeline", "flows", "headstart", "tests", "benchmarks")


def figures(commit: str, folder: Path) -> list[int]:
    """The counts of `ROWS`, the lines of Python in `FOLDERS`, and the lines of `dvc.yaml`."""
    folder.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    counted = subprocess.run(
        [sys.executable, "-c", COUNT], cwd=folder, capture_output=True, text=True, check=True
    )
    lines = [
        sum(len(file.read_text().splitlines()) for file in (folder / name).rglob("*.py"))
        for name in FOLDERS
    ]
    graph = len((folder / "dvc.yaml").read_text().splitlines())
    return [*map(int, counted.stdout.split()), *lines, graph]


def measure(scratch: Path, before: str = "e2d6aa9", after: str = "HEAD") -> str:
    columns = figures(before, scratch / "before"), figures(after, scratch / "after")
    names = [*ROWS, *(f"lines of `{name}/`" for name in FOLDERS), "lines of `dvc.yaml`"]
    rows = zip(names, *columns, strict=True)
    return f"""# The house before and after

`{before}` is the last commit in which `pipeline/` was a flat floor. Lines are of Python. The
drivers of kills, fuzzing and mutation have moved from `benchmarks/` to `tests/`.

{table("of `pipeline/` | before {:,} | after {:,}", list(rows))}
"""
