"""`dvc.yaml` says what the stages truly import, read and write."""

import ast
from pathlib import Path

import pytest
import yaml

from pipeline.core import paths
from pipeline.core.params import Params
from tests.conftest import ROOT

ENTRIES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# An optional stage is written once for each item of a list of its section.
OPTIONAL = {name: entry["foreach"] for name, entry in ENTRIES.items() if "foreach" in entry}
SWITCHED = {name: items for name, items in OPTIONAL.items() if items == f"${{{name}.run}}"}
STAGES = {name: entry.get("do", entry) for name, entry in ENTRIES.items()}

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


def own_modules(stage: str) -> set[str]:
    """Those whose files and parameters are the stage's own.

    The module of another stage lends functions: its section and its files are read in the one of
    its name, which is not called.
    """
    return modules_of(stage) - (set(STAGES) - {stage}) - {"params"}


@pytest.mark.parametrize("stage", STAGES)
def test_the_parameters_declared_are_the_sections_that_are_read(stage: str) -> None:
    sections = {
        node.attr
        for module in own_modules(stage)
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "params.load()"
    }
    declared = {name.partition(".")[0] for name in STAGES[stage]["params"]}
    # Where the features are kept changes none of them.
    assert sections - {"store"} == declared
    if stage in SWITCHED:
        assert stage in declared
    elif stage in Params.model_fields:  # else it is told what others were told
        assert declared == {stage}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_may_use_a_gpu_is_tagged(stage: str) -> None:
    knobs = yaml.safe_load((ROOT / "params.yaml").read_text())
    own = [f"{stage}.{knob}" for knob in knobs.get(stage, {})]
    tags = STAGES[stage].get("meta", {}).get("tags", [])
    named = any(name.endswith(".device") for name in [*own, *STAGES[stage]["params"]])
    assert tags == (["gpu"] if named else [])


def test_an_optional_stage_is_off_unless_its_parameters_ask_for_it() -> None:
    sections = yaml.safe_load((ROOT / "params.yaml").read_text())
    switched = {name: f"${{{name}.run}}" for name in sections if "run" in sections[name]}
    assert {"best": "${thaw.run}"} | switched == OPTIONAL
    assert switched == SWITCHED
    assert [name for name in switched if sections[name]["run"]] == []


@pytest.mark.parametrize("stage", SWITCHED)
def test_an_optional_stage_has_a_plot_that_is_drawn_only_with_it(stage: str) -> None:
    assert STAGES[stage]["plots"]


@pytest.mark.parametrize("stage", STAGES)
def test_the_files_declared_are_those_that_the_code_names(stage: str) -> None:
    places = {name: str(value) for name, value in vars(paths).items() if name.isupper()}
    used = {
        places[alias.name]
        for module in own_modules(stage)
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ImportFrom) and node.module == "pipeline.core.paths"
        for alias in node.names
        if alias.name != "PARAMS"  # told section by section
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
