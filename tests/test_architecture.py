"""The two rules that keep work and orchestration apart."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def libraries(folder: str) -> dict[str, set[str]]:
    """The top-level packages that each module of `folder` imports, anywhere in it."""
    found = {}
    for file in (ROOT / folder).rglob("*.py"):
        nodes = list(ast.walk(ast.parse(file.read_text())))
        roots = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
        roots |= {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}
        found[str(file.relative_to(ROOT))] = {root.partition(".")[0] for root in roots}
    return found


def test_pipeline_imports_neither_prefect_nor_dvc() -> None:
    found = libraries("pipeline")
    assert found
    guilty = {file for file, roots in found.items() if roots & {"prefect", "dvc", "flows"}}
    assert guilty == set()


def test_flows_imports_no_torch() -> None:
    found = libraries("flows")
    assert found
    guilty = {file for file, roots in found.items() if roots & {"torch", "torchvision", "timm"}}
    assert guilty == set()


@pytest.mark.parametrize("file", sorted((ROOT / "flows").glob("*.py")), ids=lambda f: f.stem)
def test_flows_brings_no_torch_in_by_a_back_door(file: Path) -> None:
    script = f"import sys, flows.{file.stem}; print('torch' in sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines()[-1] == "False"
