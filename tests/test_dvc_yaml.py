"""`dvc.yaml` says what the stages truly import, read and write."""

import ast
from functools import cache
from pathlib import Path

import grimp
import pytest
import yaml

from headstart.graph import generated
from pipeline.core import lock, paths, plugins
from pipeline.core.params import Params
from pipeline.kinds import KINDS
from pipeline.tasks import TASKS
from tests.conftest import ROOT
from tests.store.test_cache import SHOWN

ENTRIES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# An optional stage is written once for each item of a list of its section.
OPTIONAL = {name: entry["foreach"] for name, entry in ENTRIES.items() if "foreach" in entry}
SWITCHED = {name: items for name, items in OPTIONAL.items() if items == f"${{{name}.run}}"}
STAGES = {name: entry.get("do", entry) for name, entry in ENTRIES.items()}
KIND = "pipeline/kinds/${ingest.kind}"
DOOR = "pipeline/kinds/__init__.py"
# Rooms that no stage lists, since they change no byte of an output: `core/` checks, names, reports,
# or hands over bytes as they are, and its defaults stay as they are (`tests/core/test_params.py`).
# The store is a cache.
UNLISTED = ("core", "store")
COMPUTING = {"PIL", "cv2", "numpy", "onnx", "pandas", "pyarrow", "scipy", "sklearn"}
OUTPUTS = ("outs", "metrics", "plots")


@cache
def imports() -> grimp.ImportGraph:
    """Who imports whom, but for what `core/` asks of tasks to check and name."""
    graph = grimp.build_graph("pipeline", cache_dir=None)
    for module in graph.find_descendants("pipeline.core"):
        graph.remove_import(importer=module, imported="pipeline.tasks")
    return graph


@cache
def modules_of(stage: str) -> frozenset[str]:
    """Everything of `pipeline` that a run of the stage can execute, but for the kind's folder."""
    found: set[str] = set()
    new = {f"pipeline.{stage}"}
    while new - found:  # what a task brings is opened by its name, and may open more
        found |= new.union(*map(imports().find_upstream_modules, new))
        new = set().union(*map(parts_opened_by, found))
    return frozenset(found)


@cache
def parts_opened_by(module: str) -> frozenset[str]:
    """The modules in folders of tasks that it opens, one of each task."""
    calls = [node for node in ast.walk(tree(module)) if isinstance(node, ast.Call)]
    asked = [node.args[1] for node in calls if ast.unparse(node.func) == "part" and node.args[1:]]
    names = [one.value for one in asked if isinstance(one, ast.Constant)]
    return frozenset(f"pipeline.tasks.{task}.{name}" for task in TASKS for name in names)


@cache
def modules_of_kinds() -> frozenset[str]:
    """What the folders of kinds import, each opened by its name, and not the folders themselves."""
    folders = imports().find_descendants("pipeline.kinds")
    found = {name for folder in folders for name in imports().find_upstream_modules(folder)}
    return frozenset(found - folders)


@cache
def tree(module: str) -> ast.Module:
    file = ROOT / Path(*module.split("."))
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    return ast.parse(file.read_text())


def opens_a_kind(module: str) -> bool:
    """Whether it asks for a kind by the name that it read, and then for what the kind does."""
    return any(
        isinstance(node, ast.Call) and ast.unparse(node.func) in ("kinds.named", "named")
        for node in ast.walk(tree(module))
    )


def uses_the_door(module: str) -> bool:
    """Whether it takes more from the door of `kinds/` than the schema of a section."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[-1] == "kinds":
            return True
        if (
            isinstance(node, ast.Attribute)
            and ast.unparse(node.value) == "kinds"
            and node.attr != "schema"
        ):
            return True
    return False


def runs_plugins(module: str) -> bool:
    """Whether it runs code of `plugins/`: loads it, or asks for a kind, which may be there."""
    return opens_a_kind(module) or any(
        isinstance(node, ast.Call) and ast.unparse(node.func) == "plugins.load"
        for node in ast.walk(tree(module))
    )


def rooms_of(stage: str) -> set[str]:
    """What the stage's outputs depend on: its file, subpackages as folders, and the user's code."""
    found = {f"pipeline/{stage}.py"}
    modules = {module for module in modules_of(stage) if not module.startswith("pipeline.kinds")}
    if any(map(opens_a_kind, modules)):
        found |= {KIND, DOOR}
        modules |= {one for one in modules_of_kinds() if not one.startswith("pipeline.kinds")}
    for module in modules:
        room = module.removeprefix("pipeline").removeprefix(".").partition(".")[0]
        if room not in ("", stage, *UNLISTED):
            found.add(f"pipeline/{room}")
        if uses_the_door(module):
            found.add(DOOR)
        if runs_plugins(module):
            found.add("plugins")
    return found


def names(entries: list[str | dict[str, object]]) -> set[str]:
    return {name for entry in entries for name in ([entry] if isinstance(entry, str) else entry)}


def test_the_command_of_a_stage_is_the_module_of_its_name() -> None:
    assert {name: stage["cmd"] for name, stage in STAGES.items()} == {
        name: f"python -m pipeline.{name}" for name in STAGES
    }


@pytest.mark.parametrize("stage", STAGES)
def test_the_subpackages_declared_are_those_imported(stage: str) -> None:
    code = ("pipeline/", "plugins")
    declared = {dep for dep in STAGES[stage]["deps"] if dep.startswith(code)}
    assert declared == rooms_of(stage)


def line_of(dep: str) -> str:
    """The line of headstart.lock that stands in a project for a dependency on code."""
    if dep.endswith(".py"):
        return "kinds.door" if dep == DOOR else f"stages.{Path(dep).stem}"
    return ".".join(Path(dep).parts[1:]) if dep.startswith("pipeline/kinds") else f"rooms.{dep[9:]}"


PROJECTS = yaml.safe_load(generated((ROOT / "dvc.yaml").read_text()))
LOCKED = lock.installed()


@pytest.mark.parametrize("stage", STAGES)
def test_a_projects_stage_declares_the_lines_of_the_lock_in_place_of_the_code(stage: str) -> None:
    entry = PROJECTS["stages"][stage]
    found = dict(entry.get("do", entry))
    code = [dep for dep in STAGES[stage]["deps"] if dep.startswith("pipeline/")]
    *parameters, of_lock = found["params"]
    assert list(of_lock) == [paths.LOCK.name]
    assert of_lock[paths.LOCK.name] == sorted(map(line_of, code))
    restored = {"cmd": f"python -m pipeline.{stage}", "params": parameters}
    restored["deps"] = sorted([*found["deps"], *code])
    assert found["cmd"] == f"headstart run {stage}"
    assert found | restored == STAGES[stage] | {"deps": sorted(STAGES[stage]["deps"])}
    assert entry.get("foreach") == OPTIONAL.get(stage)


def test_all_but_the_stages_is_the_same_in_a_project() -> None:
    document = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    assert document == PROJECTS | {"stages": ENTRIES}
    assert list(PROJECTS["stages"]) == list(ENTRIES)


def test_the_lock_has_what_stages_declare_and_nothing_else() -> None:
    rooms = {dep for stage in STAGES.values() for dep in stage["deps"] if dep[:9] == "pipeline/"}
    rooms = {dep[9:] for dep in rooms if "." not in dep}
    assert set(LOCKED.rooms) == rooms
    assert set(LOCKED.stages) == set(STAGES)
    assert set(LOCKED.kinds) == {*KINDS, "door"}


@pytest.mark.parametrize("stage", STAGES)
def test_the_lock_has_the_libraries_that_a_stage_imports(stage: str) -> None:
    """What `core/` and the store import counts too: their code is declared nowhere."""
    declared = {line_of(dep) for dep in STAGES[stage]["deps"] if dep.startswith("pipeline/")}
    entries = LOCKED.entries("image")
    versions = set().union(*(entries[line] for line in declared if "$" not in line))
    modules = {one for one in modules_of(stage) if not one.startswith("pipeline.kinds")}
    imported = set().union(*map(libraries, modules)) & lock.COUNTED.keys()
    assert {lock.COUNTED[library] for library in imported} <= versions


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_uses_the_store_is_shown_to_write_the_same_bytes_whatever_is_in_it(
    stage: str,
) -> None:
    assert stage in SHOWN or not any(".store." in module for module in modules_of(stage))


@cache
def libraries(module: str) -> frozenset[str]:
    nodes = list(ast.walk(tree(module)))
    roots = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    roots |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return frozenset(root.partition(".")[0] for root in roots)


@pytest.mark.parametrize("module", sorted(imports().find_descendants("pipeline.core")))
def test_what_no_stage_declares_computes_nothing(module: str) -> None:
    assert not libraries(module) & COMPUTING


def test_the_folder_of_plugins_is_there_in_every_clone() -> None:
    assert (ROOT / plugins.FOLDER / plugins.REQUIREMENTS).is_file()
    ignored = (ROOT / ".dvcignore").read_text().splitlines()
    assert {"__pycache__", f"/{plugins.FOLDER}/README.md"} <= set(ignored)


def test_the_folder_of_weights_is_there_in_every_clone_and_git_keeps_out_of_it() -> None:
    weights = ROOT / paths.WEIGHTS
    kept = {line for line in (weights / ".gitignore").read_text().splitlines() if line[0] != "#"}
    assert kept == {"*", "!.gitignore", "!*/", "!*.dvc", "!*.yaml"}
    assert f"/{paths.WEIGHTS.as_posix()}/**/.gitignore" in (ROOT / ".dvcignore").read_text()


def sections_read(module: ast.Module) -> set[str]:
    """What a stage takes of the settings: of a call of `params.load`, or of a name bound to one.

    The settings may be handed whole to a check of `params`, which changes no output, and to a
    function of the stage, of which what it takes counts.
    """
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef)]
    takers = {function.name for function in functions}
    sections = set()
    for function in functions:
        nodes = list(ast.walk(function))
        parents = {id(child): node for node in nodes for child in ast.iter_child_nodes(node)}
        loads = [
            node
            for node in nodes
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "params.load"
        ]
        bound = {bound_to(load, parents) for load in loads}
        bound |= {
            node.arg
            for node in nodes
            if isinstance(node, ast.arg) and node.annotation and spelt(node.annotation) == "Params"
        }
        used = [
            node
            for node in nodes
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in bound
        ]
        for node in [*loads, *used]:
            parent = parents[id(node)]
            if isinstance(parent, ast.Attribute):
                sections.add(parent.attr)
            elif isinstance(parent, ast.Call):
                called = ast.unparse(parent.func)
                assert called in takers or called.startswith("params."), called
            else:
                assert node in loads
                assert bound_to(node, parents), ast.unparse(parent)
    return sections


def bound_to(value: ast.expr, parents: dict[int, ast.AST]) -> str:
    """The name that stands for a value from here on, alone or as one of several; empty for none."""
    parent = parents[id(value)]
    if isinstance(parent, ast.Assign):
        return ast.unparse(parent.targets[0])
    outer = parents[id(parent)]
    if isinstance(parent, ast.Tuple) and isinstance(outer, ast.Assign):
        target = outer.targets[0]
        assert isinstance(target, ast.Tuple)
        return ast.unparse(target.elts[parent.elts.index(value)])
    return ""


def spelt(annotation: ast.expr) -> str:
    return ast.unparse(annotation).removeprefix("params.")


LOADED = "params.load(kinds.schema)"


@pytest.mark.parametrize(
    ("body", "sections"),
    [
        (f"return {LOADED}.train", {"train"}),
        (f"settings = {LOADED}\n    return settings.train, settings.rank.run", {"train", "rank"}),
        (f"every, cluster = {LOADED}, 1\n    return params.adapts(every)", set()),
        (f"settings = {LOADED}\n    return other(settings, settings.train)", {"train"}),
    ],
)
def test_the_sections_read_are_followed_through_names(body: str, sections: set[str]) -> None:
    other = "def other(given: Params, own: TrainParams):\n    return given.extract, own.refit"
    found = sections_read(ast.parse(f"def stage():\n    {body}\n\n\n{other}"))
    assert found == sections | {"extract"}


@pytest.mark.parametrize(
    "body", [f"elsewhere({LOADED})", f"a = {LOADED}\n    return getattr(a, b)"]
)
def test_a_stage_cannot_hand_all_settings_to_a_room(body: str) -> None:
    with pytest.raises(AssertionError):
        sections_read(ast.parse(f"def stage():\n    {body}"))


@pytest.mark.parametrize("stage", STAGES)
def test_the_parameters_declared_are_the_sections_that_are_read(stage: str) -> None:
    sections = sections_read(tree(f"pipeline.{stage}"))
    for module in modules_of(stage) - {f"pipeline.{stage}"}:  # only stages read parameters
        assert "params.load(" not in ast.unparse(tree(module)) or module.startswith(
            "pipeline.core.params"
        )
    declared = {name.partition(".")[0] for name in STAGES[stage]["params"]}
    assert sections == declared
    if stage in SWITCHED:
        assert stage in declared
    elif stage == "evaluate":  # its repeats draw splits as ingest does, and train as train does
        assert declared == {"evaluate", "ingest", "train"}
    elif stage == "checks":  # the backbone reads some languages
        assert declared == {"checks", "extract"}
    elif stage in Params.model_fields:  # else it reads the sections of others
        assert declared == {stage} or stage in ("bundle", "report")


def test_dvc_can_give_every_stage_back_but_extract() -> None:
    # `dvc/stage/cache.py` and `Stage.run` of DVC: what keeps a stage out of the run cache.
    def kept_out(stage: dict[str, list[str | dict[str, dict[str, bool]]]]) -> bool:
        of = {kind: [e for e in stage.get(kind, []) if isinstance(e, dict)] for kind in OUTPUTS}
        options = [(kind, given) for kind in of for entry in of[kind] for given in entry.values()]
        uncached = any(kind == "outs" and not given.get("cache", True) for kind, given in options)
        return uncached or any(given.get("persist", False) for _, given in options)

    assert [name for name, stage in STAGES.items() if kept_out(stage)] == ["extract"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_may_use_a_gpu_is_tagged(stage: str) -> None:
    parameters = yaml.safe_load((ROOT / "params.yaml").read_text())
    own = [f"{stage}.{name}" for name in parameters.get(stage, {})]
    tags = STAGES[stage].get("meta", {}).get("tags", [])
    named = any(name.endswith(".device") for name in [*own, *STAGES[stage]["params"]])
    code = ast.unparse(tree(f"pipeline.{stage}"))
    named = named or "open_encoder" in code or "compare(" in code  # which opens them
    assert tags == (["gpu"] if named else [])


@pytest.mark.parametrize(
    "file",
    sorted((ROOT / "examples").glob("*/*.yaml")),
    ids=lambda file: f"{file.parent.name}/{file.name}",
)
def test_the_parameters_of_an_example_have_each_optional_stage(file: Path) -> None:
    lacking = [
        name for name in SWITCHED if "run" not in yaml.safe_load(file.read_text()).get(name, {})
    ]
    assert lacking == []


def test_an_optional_stage_is_off_unless_its_parameters_ask_for_it() -> None:
    sections = yaml.safe_load((ROOT / "params.yaml").read_text())
    switched = {name: f"${{{name}.run}}" for name in sections if "run" in sections[name]}
    assert {"best": "${finetune.run}"} | switched == OPTIONAL
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
        for module in modules_of(stage)
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("paths")
        for alias in node.names
        if alias.name in places and alias.name != "PARAMS"  # declared section by section
    }
    entry = STAGES[stage]
    kinds = ("deps", "outs", "metrics", "plots")
    declared = set().union(*(names(entry.get(kind, [])) for kind in kinds))
    declared = {d for d in declared if not d.startswith(("pipeline/", "plugins", "${"))}
    assert {d for d in declared if not any(overlap(d, u) for u in used)} == set()
    assert {u for u in used if not any(overlap(u, d) for d in declared)} == set()


def overlap(one: str, other: str) -> bool:
    """Whether they are the same, or one is a folder that holds the other."""
    first, second = Path(one), Path(other)
    return first == second or first in second.parents or second in first.parents
