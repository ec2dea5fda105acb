"""What a stage imports, because a start is a large part of a stage that has little to do."""

import ast
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Each takes a twentieth of a second or more to import. All stages import pandas and PyArrow.
HEAVY = (
    *("PIL", "albumentations", "cv2", "jinja2", "matplotlib", "onnx", "onnxruntime", "scipy"),
    *("scipy.optimize", "scipy.stats", "skimage", "sklearn", "tokenizers", "torch"),
)
# The heavy modules that a stage imports before it begins, and those at its end with views
# and default parameters. A stage that needs another one says in its commit why.
FIRST = {
    "train": {"scipy", "scipy.optimize"},
    "bundle": {"onnx"},
    "report": {"PIL", "jinja2", "onnxruntime"},
}
LAST = {
    "ingest": {"PIL"},
    # Albumentations, which imports SciPy, for the contact sheet and for views that are made.
    "augment": {"PIL", "albumentations", "cv2", "scipy"},
    "extract": {"PIL", "albumentations", "cv2", "onnxruntime", "scipy"},
    "train": {"scipy", "scipy.optimize"},
    "evaluate": {"PIL", "scipy"},  # the interval of the lead over the floor
    "checks": {"PIL", "cv2", "scipy"},
    "bundle": {"PIL", "onnx"},
    "report": {"PIL", "jinja2", "onnxruntime"},
}


@functools.cache
def imported(module: str) -> frozenset[str]:
    """The modules that a module of `pipeline` imports when it is imported itself, by name."""
    file = ROOT / f"{module.replace('.', '/')}.py"
    file = file if file.exists() else ROOT / module.replace(".", "/") / "__init__.py"
    if not file.exists():
        return frozenset()
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    found: set[str] = set()
    nodes: list[ast.AST] = list(ast.parse(file.read_bytes()).body)
    for node in nodes:
        if isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            nodes += node.body
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def at_first(stage: str) -> set[str]:
    """The heavy modules that a stage imports before it begins."""
    seen, waiting = set[str](), [f"pipeline.{stage}"]
    while waiting:
        module = waiting.pop()
        parts = module.split(".")
        parents = {".".join(parts[:end]) for end in range(1, len(parts) + 1)} - seen
        seen |= parents
        for one in parents:
            if one.startswith("pipeline"):
                waiting += imported(one) - seen
    return seen & set(HEAVY)


@pytest.mark.parametrize("stage", LAST)
def test_a_stage_starts_without_what_it_may_not_need(stage: str) -> None:
    assert at_first(stage) == FIRST.get(stage, set())


@pytest.mark.slow
def test_a_default_run_imports_only_what_it_needs(bundled: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(bundled, folder, symlinks=True)
    settings = (folder / "params.yaml").read_text()
    assert "  views: 0" in settings
    (folder / "params.yaml").write_text(settings.replace("  views: 0", "  views: 1"))
    # Each stage is a fork of a process that has imported what all import, and none of HEAVY.
    script = (
        "import importlib, json, os, sys, pandas, pyarrow.parquet, pipeline.core.params\n"
        "(stages, heavy), sys.argv[1:] = map(str.split, sys.argv[1:]), []\n"
        "there = lambda: [name for name in heavy if name in sys.modules]\n"
        "assert there() == []\n"
        "for stage in stages:\n"
        "    if process := os.fork():\n"
        "        assert os.waitpid(process, 0)[1] == 0, stage\n"
        "        continue\n"
        "    getattr(importlib.import_module(f'pipeline.{stage}'), stage)()\n"
        "    print(json.dumps([stage, there()]))\n"
        "    break\n"
    )
    store = str(folder / "cache" / "features")
    environment = {"PYTHONPATH": str(ROOT), "HEADSTART_STORE": store}
    done = subprocess.run(
        [sys.executable, "-uc", script, " ".join(LAST), " ".join(HEAVY)],
        capture_output=True, text=True, cwd=folder,
        env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    assert {stage: set(heavy) for stage, heavy in lines} == LAST
