"""The user's own code, named in `params.yaml` as `python:module.function`.

The code is in the project's folder `plugins/`, or in an installed package that
`plugins/requirements.txt` pins. `dvc.yaml` declares the folder, so DVC notices every change. At run
time the folder is the package `plugins`: its files import each other as `from . import other`.

A plugin is code, and runs with the permissions of the user who runs the pipeline.
"""

import ast
import contextlib
import hashlib
import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from types import ModuleType
from typing import Any

from . import packages
from .errors import HeadstartError, ParamsError
from .paths import PARAMS

PREFIX = "python:"
PATTERN = r"python:[^\W\d]\w*(\.[^\W\d]\w*)+"
FOLDER = "plugins"
REQUIREMENTS = "requirements.txt"

# The modules of `pipeline/` that a plugin may import, even those that `headstart.plugins` does not
# export. Stages that run plugins declare those of them that can affect their outputs.
_OPEN_TO_PLUGINS = r"pipeline\.((core|examples)\b|kinds$)"
# Modules that older plugins import in a clone, and their new names.
_MOVED = {"pipeline.core.files": "pipeline.examples.files"}
_NOT_CODE = ("__pycache__", "README.md")  # `.dvcignore` lists them too


def is_plugin(name: str) -> bool:
    """Return whether `name`, the name of a backbone or a source, is that of a plugin."""
    return name.startswith(PREFIX)


def load(name: str, asked_by: str) -> Any:
    """Return the function, or another attribute, that `name` names as `python:module.function`.

    The module is imported again if a file of `plugins/` has changed.

    Args:
        asked_by: the beginning of messages, such as `ingest.source python:tables.rows`.

    Raises:
        MissingSetError: the module needs an extra that is not installed.
        ParamsError: there is no such module or function, its package is not pinned, or the module
            raises while it is imported.
    """
    check(name, asked_by)
    module, _, attribute = name.removeprefix(PREFIX).rpartition(".")
    own = _is_own(module)
    with blamed(asked_by):
        found = importlib.import_module(f"{_package().__name__}.{module}" if own else module)
    try:
        return getattr(found, attribute)
    except AttributeError:
        where = _file(module) if own else f"the module {module}"
        raise ParamsError(f"{asked_by}: {where} has no {attribute!r}") from None


def check(name: str, asked_by: str) -> None:
    """Check that the module is in `plugins/`, or in a pinned package; import nothing.

    Raises:
        ParamsError: the message says in one line what to write or to install.
    """
    module = name.removeprefix(PREFIX).rpartition(".")[0]
    if _is_own(module):
        if not (folder() / _file(module).relative_to(FOLDER)).exists():
            raise ParamsError(f"{asked_by}: {_file(module)} does not exist")
        return
    top = module.partition(".")[0]
    distributions = sorted(set(_distributions().get(top, [])))
    pins = _pins()
    if not distributions:
        known = f", which {FOLDER}/{REQUIREMENTS} names," if plain(top) in pins else ""
        raise ParamsError(
            f"{asked_by}: {FOLDER}/{top}.py does not exist, and no package that has a module"
            f" {top!r}{known} is installed: write the file, or install the package"
        )
    for distribution in distributions:  # several, if they share a namespace
        installed = version(distribution)
        pinned = pins.get(plain(distribution))
        if pinned is None:
            raise ParamsError(
                f"{asked_by}: {top} belongs to an installed package whose version is not pinned:"
                f" write the line {distribution}=={installed} into {FOLDER}/{REQUIREMENTS}"
            )
        if pinned != installed:
            raise ParamsError(
                f"{asked_by}: {FOLDER}/{REQUIREMENTS} pins {distribution}=={pinned}, but"
                f" {installed} is installed: run `pip install {distribution}=={pinned}`, or write"
                f" {distribution}=={installed} there"
            )


@contextlib.contextmanager
def blamed(asked_by: str) -> Iterator[None]:
    """Turn an error of a plugin's code that runs in this block into one line, with its place.

    A `HeadstartError` passes unchanged, so a plugin may raise one with its own message.

    Raises:
        MissingSetError: the plugin imports a package of a set that is not installed.
        ParamsError: the plugin raised any other exception.
    """
    try:
        yield
    except HeadstartError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError):
            for name, modules in packages.SETS.items():
                if error.name in modules:
                    packages.need(name, asked_by)
        raise ParamsError(f"{asked_by}: {in_words(error)}") from error


def in_words(error: BaseException) -> str:
    """Return the file and line of a plugin where `error` was raised, and the error's message."""
    reason = " ".join(str(error).split())[:300]
    line = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    if place := raised_in(error):
        line = f"{place}: {line}"
    if not isinstance(error, ModuleNotFoundError):
        return line
    if _is_own(str(error.name)):
        line += f"; files of {FOLDER}/ import each other as `from . import {error.name}`"
    elif packages.IN_WHEEL and str(error.name).partition(".")[0] == "pipeline":
        line += "; write `from headstart.plugins import …`, which has the names for plugins"
    return line


def raised_in(error: BaseException) -> str:
    """Return the last file and line of `plugins/` in the traceback; empty if there is none."""
    here, found = folder(), ""
    if isinstance(error, SyntaxError) and error.filename:
        places = [(error.filename, error.lineno)]
    else:
        places = []
        trace = error.__traceback__
        while trace:
            places.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
            trace = trace.tb_next
    for file, line in places:
        if Path(file).is_relative_to(here):
            found = f"{FOLDER}/{Path(file).relative_to(here).as_posix()}, line {line}"
    return found


def digest() -> str:
    """Return a hash of the files in `plugins/`, with the pinned versions, but without README.md."""
    sha = hashlib.sha256()
    for file in _files():
        data = file.read_bytes()
        sha.update(f"{file.relative_to(folder()).as_posix()} {len(data)} ".encode() + data)
    return sha.hexdigest()


def folder() -> Path:
    """Return the folder `plugins/` of the project that the current folder is in."""
    here = Path.cwd()
    root = next((one for one in (here, *here.parents) if (one / PARAMS).is_file()), here)
    return root / FOLDER


def plain(distribution: str) -> str:
    """Return a distribution's normalised name, for comparisons."""
    return re.sub("[._-]+", "-", distribution).lower()


def _is_own(module: str) -> bool:
    """Return whether `module` begins with a file or folder of `plugins/`."""
    top = folder() / module.partition(".")[0]
    return top.is_dir() or top.with_suffix(".py").is_file()


def _file(module: str) -> Path:
    """Return the file of a module of `plugins/`, relative to the project's root."""
    path = Path(FOLDER, *module.split("."))
    inside = path.relative_to(FOLDER) / "__init__.py"
    return path / "__init__.py" if (folder() / inside).exists() else path.with_suffix(".py")


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Return the distributions of each installed top-level module; this takes half a second."""
    return packages_distributions()


def _pins() -> dict[str, str]:
    """Return the lines `name==version` of `plugins/requirements.txt`.

    Raises:
        ParamsError: a line is not in this format.
    """
    file = folder() / REQUIREMENTS
    pins = {}
    for number, line in enumerate(file.read_text("utf-8").splitlines() if file.exists() else [], 1):
        wanted = line.partition("#")[0].strip()
        if not wanted:
            continue
        found = re.fullmatch(r"([A-Za-z0-9][\w.-]*)\s*==\s*([\w.!+-]+)", wanted)
        if found is None:
            raise ParamsError(
                f"{FOLDER}/{REQUIREMENTS}, line {number}: {wanted!r} should be name==version"
            )
        pins[plain(found[1])] = found[2]
    return pins


def _files() -> list[Path]:
    return [
        file
        for file in sorted(folder().rglob("*"))
        if file.is_file() and not set(_NOT_CODE) & set(file.relative_to(folder()).parts)
    ]


def _package() -> ModuleType:
    """Return the package `plugins`, imported again if the folder or one of its files changed."""
    status = [(str(file), file.stat()) for file in _files()]
    state = [str(folder()), *((name, one.st_mtime_ns, one.st_size) for name, one in status)]
    package = sys.modules.get(FOLDER)
    if package is None or getattr(package, "state", None) != state:
        for name in [name for name in sys.modules if name.partition(".")[0] == FOLDER]:
            del sys.modules[name]
        for file in _files():
            if file.suffix == ".py":
                _stop_if_undeclared(file)
        for old, new in ({} if packages.IN_WHEEL else _MOVED).items():
            sys.modules.setdefault(old, importlib.import_module(new))
        importlib.invalidate_caches()
        package = ModuleType(FOLDER, "The project's own code.")
        package.__path__ = [str(folder())]
        vars(package)["state"] = state
        sys.modules[FOLDER] = package
    return package


def _stop_if_undeclared(file: Path) -> None:
    """Check that a plugin imports no undeclared module, whose changes would run no stage again.

    Raises:
        ParamsError: the plugin imports such a module; the message has the file and line.
        SyntaxError: the file is not valid Python.
    """
    root = Path(__file__).parents[2]
    for node in ast.walk(ast.parse(file.read_bytes(), file)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inside = [f"{node.module}.{one.name}" for one in node.names]
            folders = [one for one in inside if (root / one.replace(".", "/")).is_dir()]
            names = [node.module, *folders]
        elif isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        else:
            continue
        for name in (name.removeprefix("headstart.") for name in names):  # of the wheel
            if name.startswith("pipeline.") and not re.match(_OPEN_TO_PLUGINS, name):
                place = f"{FOLDER}/{file.relative_to(folder()).as_posix()}, line {node.lineno}"
                raise ParamsError(
                    f"{place}: it imports {name}, but no stage would run again if that changed:"
                    " import from headstart.plugins, and copy other code that it needs"
                )
