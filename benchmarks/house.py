"""The size and the shape of the code at two commits: `python benchmarks/house.py e2d6aa9 HEAD`.

Writes the upper table of `benchmarks/house.md`. Modules and imports are those of `pipeline/`, by
grimp; a room is a folder, or a module that lies in none.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

COUNT = """
import grimp
graph = grimp.build_graph("pipeline", cache_dir=None)
modules = {m for m in graph.modules if m != "pipeline"}
def room(module):
    return ".".join(module.split(".")[:2])
rooms = {room(m) for m in modules}
pairs = {(room(a), room(b)) for a in modules for b in graph.find_modules_directly_imported_by(a)
         if b != "pipeline" and room(a) != room(b)}
imports = sum(len(graph.find_modules_directly_imported_by(m) - {"pipeline"}) for m in modules)
top = sum(m.count(".") == 1 and not graph.find_children(m) for m in modules)
print(top, len(rooms), len(modules), imports, len(pairs))
"""
ROWS = (
    "modules on the top floor of `pipeline/`",
    "rooms and modules there",
    "modules in `pipeline/`",
    "imports between modules",
    "imports between rooms",
)
FOLDERS = ("pipeline", "flows", "tests", "benchmarks")


def figures(commit: str) -> list[int]:
    """The counts of `ROWS`, the lines of `FOLDERS` in Python, and the lines of `dvc.yaml`."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", commit], capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        counted = subprocess.run(
            [sys.executable, "-c", COUNT], cwd=folder, capture_output=True, text=True, check=True
        )
        lines = [
            sum(len(file.read_text().splitlines()) for file in (Path(folder) / name).rglob("*.py"))
            for name in FOLDERS
        ]
        graph = len((Path(folder) / "dvc.yaml").read_text().splitlines())
    return [*map(int, counted.stdout.split()), *lines, graph]


def main() -> None:
    commits = sys.argv[1:] or ["e2d6aa9", "HEAD"]
    columns = [figures(commit) for commit in commits]
    names = [
        subprocess.run(
            ["git", "rev-parse", "--short", c], capture_output=True, text=True, check=True
        ).stdout.strip()
        for c in commits
    ]
    rows = [*ROWS, *(f"lines of `{name}/`" for name in FOLDERS), "lines of `dvc.yaml`"]
    print("| | " + " | ".join(names) + " |")
    print("| --- |" + " --- |" * len(names))
    for row, values in zip(rows, zip(*columns, strict=True), strict=True):
        print(f"| {row} | " + " | ".join(f"{value:,}" for value in values) + " |")


if __name__ == "__main__":
    main()
