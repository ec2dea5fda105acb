"""`dvc.yaml` says what the stages truly import, read and write."""

import ast
from pathlib import Path

import pytest
import yaml

from pipeline import paths
from tests.conftest import ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

# These cannot change a byte of any output: they check, name, report. A change in one of them
# would rerun everything for nothing, so no stage lists them.
PLUMBING = {"__init__", "command", "errors", "params", "paths", "progress"}


def tree(module: str) -> ast.Module:
    return ast.parse((ROOT / "pipeline" / f"{module}.py").read_text())


def imported(module: str) -> set[str]:
    """The modules of `pipeline` that `module` imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module == "pipeline":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipeline."):
            names.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("pipeline.")}
    return names


def modules_of(stage: str) -> set[str]:
    """Everything of `pipeline` that a run of the stage can execute."""
    reached, waiting = set(), {stage}
    while waiting:
        module = waiting.pop()
        reached.add(module)
        waiting |= imported(module) - reached
    return reached


def names(entries: list[str | dict[str, object]]) -> set[str]:
    return {name for entry in entries for name in ([entry] if isinstance(entry, str) else entry)}


def test_the_command_of_a_stage_is_the_module_of_its_name() -> None:
    assert {name: stage["cmd"] for name, stage in STAGES.items()} == {
        name: f"python -m pipeline.{name}" for name in STAGES
    }


@pytest.mark.parametrize("stage", STAGES)
def test_the_modules_declared_are_those_imported(stage: str) -> None:
    declared = {Path(d).stem for d in STAGES[stage]["deps"] if d.startswith("pipeline/")}
    assert declared == modules_of(stage) - PLUMBING


@pytest.mark.parametrize("stage", STAGES)
def test_the_parameters_declared_are_the_section_that_is_read(stage: str) -> None:
    sections = {
        node.attr
        for module in modules_of(stage) - {"params"}
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "params.load()"
    }
    assert sections == set(STAGES[stage]["params"]) == {stage}


@pytest.mark.parametrize("stage", STAGES)
def test_the_files_declared_are_those_that_the_code_names(stage: str) -> None:
    places = {name: str(value) for name, value in vars(paths).items() if name.isupper()}
    used = {
        places[alias.name]
        for module in modules_of(stage) - {"params"}
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ImportFrom) and node.module == "pipeline.paths"
        for alias in node.names
    }
    entry = STAGES[stage]
    kinds = ("deps", "outs", "metrics", "plots")
    declared = set().union(*(names(entry.get(kind, [])) for kind in kinds))
    declared = {d for d in declared if not d.startswith(("pipeline/", "${"))}
    assert {d for d in declared if not any(overlap(d, u) for u in used)} == set()
    assert {u for u in used if not any(overlap(u, d) for d in declared)} == set()


def overlap(one: str, other: str) -> bool:
    """Whether they are the same, or one is a folder that holds the other."""
    first, second = Path(one), Path(other)
    return first == second or first in second.parents or second in first.parents
