"""Nothing is imported by chance. `make check` compares the imports of subpackages."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest

from tests.conftest import ROOT

OF_KINDS = ("text", "audio", "transformers", "instruments", "s3", "ray", "federated")


def libraries(folder: str) -> dict[str, set[str]]:
    """The top-level packages that each module of `folder` imports, anywhere in it."""
    found = {}
    for file in (ROOT / folder).rglob("*.py"):
        nodes = list(ast.walk(ast.parse(file.read_text())))
        roots = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
        roots |= {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom) and not n.level}
        found[str(file.relative_to(ROOT))] = {root.partition(".")[0] for root in roots}
    return found


def modules(folder: str) -> list[str]:
    """The dotted names of all modules of `folder`, in whatever folder below it."""
    files = sorted((ROOT / folder).rglob("*.py"))
    return [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]


@pytest.mark.slow
def test_flows_brings_no_torch_in_by_a_back_door() -> None:
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, f'{name} brings it'\n"
        "print('none')"
    )
    names = modules("flows")
    shown = subprocess.run(
        [sys.executable, "-c", script, *names], cwd=ROOT, capture_output=True, text=True
    )
    assert len(names) > 10
    assert shown.stdout.splitlines()[-1:] == ["none"], shown.stderr


@pytest.mark.parametrize(
    ("folder", "sets"),
    [
        ("pipeline", ["pipeline", "torch", "openvino", *OF_KINDS]),
        ("flows", ["pipeline"]),
        ("headstart", ["pipeline", "torch"]),  # where they are; tests/headstart does without
        ("tests", ["pipeline", "torch", "openvino", *OF_KINDS, "dev"]),
    ],
)
def test_what_is_imported_is_asked_for_in_pyproject(folder: str, sets: list[str]) -> None:
    """Not only brought by something else, which may stop bringing it."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = [*document["project"]["dependencies"], *document["build-system"]["requires"]]
    for name in sets:
        lines += document["project"]["optional-dependencies"][name]
    asked = {plain(re.split("[^A-Za-z0-9._-]", line)[0]) for line in lines}
    ours = {"pipeline", "flows", "headstart", "tests", "benchmarks", "toys"}
    brings = packages_distributions()
    for file, roots in libraries(folder).items():
        for root in roots - ours - sys.stdlib_module_names:
            assert {plain(name) for name in brings[root]} & asked, f"{file} imports {root}"


def plain(name: str) -> str:
    return re.sub("[._-]+", "-", name).lower()
