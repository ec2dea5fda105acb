"""`headstart upgrade`: bring a project to the installed version of Headstart and its libraries.

The command changes only files that git can restore, and prints which stages will run again and why.
It does not commit.
"""

import argparse
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from flows.dvc.project import working_copy
from pipeline.core import lock, params, yaml_in_c
from pipeline.core.errors import LockError, ParamsError, RunError
from pipeline.core.lock import Lock
from pipeline.core.paths import CORRECTIONS, LOCK, MAP, PARAMS
from pipeline.tables.corrections import README

from . import graph, parameters, shipped
from .init import GRAPH, REQUIREMENTS, pins

DECLARING = ("cmd", "deps", "params", "outs", "metrics", "plots")  # by which DVC runs a stage
TEMPLATES = ".dvc/plots/*.json"  # which the plots of a stage name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no arguments: the project is the one that contains the current folder."""


def run() -> None:
    """Rewrite the lock, the pins and Headstart's stages, and rename old parameters.

    Raises:
        LockError: the project was made with a newer version than is installed.
        ParamsError: there is no project here, or a file of it cannot be read.
        RunError: a file that would be rewritten has changes that are not committed.
    """
    os.chdir(working_copy())
    if not LOCK.exists() and LOCK.name not in _read(GRAPH):
        raise ParamsError(
            f"{Path.cwd()} has no {LOCK}: `headstart init` makes a project; in a clone, run"
            " `git pull` instead of `headstart upgrade`"
        )
    here, kind = lock.installed(), parameters.kind_of(params.document_in(PARAMS))
    state = "damaged" if LOCK.exists() else "missing"
    try:
        made: Lock | None = Lock.read()
    except LockError:  # it is written again
        made = None
    if made and lock.is_newer(made, here):
        raise LockError(lock.differs(made, here, kind))
    before = {name: _read(name) for name in (PARAMS, GRAPH, REQUIREMENTS, LOCK)}
    ours = graph.generated(_read(shipped.folder() / GRAPH))
    now = {GRAPH: graph.merged(before[GRAPH], ours)}
    now[PARAMS], changes = parameters.renewed(before[PARAMS], params.asked(ours))
    now[REQUIREMENTS] = pinned(before[REQUIREMENTS], pins(here, kind))
    now[LOCK] = here.text()
    for folder in (CORRECTIONS, MAP):
        if not folder.exists():
            now[folder / README] = _read(shipped.folder() / folder / README)
    for file in sorted(shipped.folder().glob(TEMPLATES)):
        name = file.relative_to(shipped.folder())
        if not name.exists():
            now[name] = _read(file)
    changed = {name: text for name, text in now.items() if text != before.get(name)}
    if not changed:
        print(f"upgrade: this project is already at Headstart {here.headstart}")
        return
    _stop_if_changed(list(changed))
    _write(changed)
    print(f"upgrade: wrote {', '.join(sorted(map(str, changed)))} for Headstart {here.headstart}")
    for change in changes:
        print(f"upgrade: {PARAMS}: {change}")
    for stage in params.stages_in(before[GRAPH]).keys() - params.stages_in(now[GRAPH]).keys():
        print(
            f"upgrade: {GRAPH}: the stage {stage} is removed, because Headstart has"
            " no stage of this name"
        )
    if made is None:
        print(f"upgrade: {LOCK} was {state}; `headstart why` shows what will run again")
        return
    lines = again(made, here, kind, before, now)
    for line in lines:
        print(f"upgrade: will run again: {line}")
    print(
        "upgrade: a later stage runs if one of its inputs changes; commit, then run"
        " `headstart repro`"
        if lines
        else "upgrade: no stage will run again; commit the changes"
    )


def again(
    made: Lock, here: Lock, kind: str, before: dict[Path, str], now: dict[Path, str]
) -> list[str]:
    """Return which stages of Headstart will run again, and why: a line for each reason.

    Args:
        made: the old lock of the project.
        here: the new lock.
        before: the old texts of `params.yaml` and `dvc.yaml`.
        now: the new texts.
    """
    old, new = made.entries(kind), here.entries(kind)
    versions = f" ({made.headstart} → {here.headstart})" * (made.headstart != here.headstart)
    old_values, values = (yaml_in_c.load(texts[PARAMS]) for texts in (before, now))
    old_stages, stages = (yaml_in_c.load(texts[GRAPH])["stages"] for texts in (before, now))
    ours = graph.ours_in(now[GRAPH])
    found: dict[str, list[str]] = {}
    for name, whole in ((name, stages[name]) for name in stages if name in ours):
        switch = re.fullmatch(r"\$\{(\w+)\.run\}", str(whole.get("foreach", "")))
        if switch and not values[switch[1]]["run"]:
            continue  # the stage is not in the graph
        stage, past = (_declared(one, kind) for one in (whole, old_stages.get(name, {})))
        changes = [
            (f"{line}.{key}", was, value)
            for line in stage.get(LOCK.name, ())
            for key, was, value in _differences(old.get(line, {}), new[line])
        ]
        reasons = lock.in_words(changes, versions)
        reasons += [
            f"{one} changed"
            for one in stage.get("params", ())
            if _value(old_values, one) != _value(values, one)
        ]
        if not past:
            reasons = ["it is new"]
        elif past != stage:
            reasons.append("its entry in dvc.yaml changed")
        if reasons:
            found.setdefault("; ".join(reasons), []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in found.items()]


def pinned(text: str, lines: list[str]) -> str:
    """Return requirements.txt with the versions of `lines`; missing lines are appended."""
    for line in lines:
        name, _, version = line.partition("==")
        plain = "[-_.]+".join(name.partition("[")[0].split("-"))
        own = re.compile(rf"(?mi)^({plain}(?:\[[^\]]*\])?)\s*==\s*[^\s;#]+")
        if own.search(text):
            text = own.sub(rf"\g<1>=={version}", text)
        elif not re.search(rf"(?mi)^{plain}\b\s*(\[|@)", text):  # such as headstart @ https://…
            text += "\n" * (not text.endswith("\n") and bool(text)) + f"{line}\n"
    return text


def _declared(entry: dict[str, Any], kind: str) -> dict[str, list[str]]:
    """Return what DVC compares of a stage, sorted; the stage's lines of the lock are one entry."""
    entry = entry.get("do", entry)
    found = {
        key: sorted(map(str, value)) if isinstance(value, list) else [str(value)]
        for key, value in entry.items()
        if key in DECLARING
    }
    for other in entry.get("params", []):
        if isinstance(other, dict) and LOCK.name in other:
            found["params"].remove(str(other))
            found[LOCK.name] = sorted(
                name.replace("${ingest.kind}", kind) for name in other[LOCK.name]
            )
    return found


def _differences(old: lock.Entry, new: lock.Entry) -> list[tuple[str, str, str]]:
    keys = sorted(old.keys() | new.keys())
    pairs = [(key, old.get(key, "absent"), new.get(key, "absent")) for key in keys]
    return [(key, was, value) for key, was, value in pairs if was != value]


def _value(document: dict[str, Any], name: str) -> Any:
    section, _, key = name.partition(".")
    inside = document.get(section) or {}
    return inside.get(key) if key else inside


def _stop_if_changed(names: list[Path]) -> None:
    """Check that the files have no uncommitted changes, except for the lock.

    Raises:
        RunError: a file has such changes, or git fails or is not installed.
    """
    asked = ["git", "status", "--porcelain", "--", *map(str, names)]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=True)  # noqa: S603
    except FileNotFoundError:
        raise RunError("upgrade needs git, which is not installed") from None
    except subprocess.CalledProcessError as error:
        last = error.stderr.strip().rpartition("\n")[2]
        raise RunError(f"upgrade needs git: {last}") from None
    lines = [line for line in done.stdout.splitlines() if not line.endswith(LOCK.name)]
    if changed := [line[3:] for line in lines]:
        raise RunError(
            f"commit {', '.join(changed)} first, so that `git diff` shows what upgrade changes"
        )


def _read(file: Path) -> str:
    """Return a file's text; empty if there is no such file.

    Raises:
        ParamsError: the file is not in UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8") if file.exists() else ""
    except UnicodeDecodeError as error:
        raise ParamsError(f"{file} is not in UTF-8: {error.reason} at {error.start}") from None


def _write(texts: dict[Path, str]) -> None:
    """Replace the content of files. If an error occurs, no file is changed.

    A file keeps its mode and its line endings, and a link stays a link.
    """
    parts: dict[Path, Path] = {}
    try:
        for file, text in texts.items():
            place = file.resolve()
            place.parent.mkdir(parents=True, exist_ok=True)
            part = place.with_name(f".{place.name}.part")
            parts[part] = place
            ends = "\r\n" if place.exists() and b"\r\n" in place.read_bytes() else "\n"
            part.write_text(text, encoding="utf-8", newline=ends)
            if place.exists():
                shutil.copymode(place, part)
        for part, place in parts.items():
            part.replace(place)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
