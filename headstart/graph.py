"""A project's `dvc.yaml`, made from the one of Headstart's repository.

A project contains no Headstart code. A stage's command is therefore `headstart run STAGE`, and
instead of the code the stage declares the lines of `headstart.lock` about that code. Everything
else is the same.
"""

import re
import textwrap
from itertools import pairwise
from typing import Any

import yaml

from pipeline.core import params, yaml_in_c
from pipeline.core.errors import ParamsError
from pipeline.core.lock import DOOR
from pipeline.core.paths import LOCK

CODE = "pipeline/"
KINDS = f"{CODE}kinds/"
LISTS = re.compile(r"^( *)(params|deps): \[(.*?)\]\n", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^( *)cmd: python -m pipeline\.", re.MULTILINE)
RUN = "headstart run "
WIDTH = 100
HEADER = f"""\
# The one graph. The stages below are Headstart's: `headstart upgrade` writes them again, and leaves
# stages and plots of your own as they are. A stage declares the parameters that it reads, and in
# {LOCK} the lines on the code and libraries that decide its outputs. `plugins` is code of
# your own, `data/weights` holds networks and weights of your own.
"""


def generated(text: str) -> str:
    """Return the `dvc.yaml` of a project, from the text of the repository's."""
    stages = text[text.index("stages:\n") :]
    blocks = re.split(r"(?=^  \w+:\n)", stages, flags=re.MULTILINE)
    return HEADER + "".join(COMMAND.sub(rf"\1cmd: {RUN}", _declared(one)) for one in blocks)


def _declared(stage: str) -> str:
    """Return a stage's text, with lines of the lock in place of dependencies on code."""
    deps = [
        dep for _, name, items in LISTS.findall(stage) if name == "deps" for dep in _split(items)
    ]
    code = [dep.strip('"') for dep in deps if dep.strip('"').startswith(CODE)]
    lines = ", ".join(sorted(map(_line, code), key=lambda line: line.strip('"')))

    def rewritten(match: "re.Match[str]") -> str:
        indent, name, items = match.groups()
        if name == "params":
            kept = [*_split(items), f"{{{LOCK}: [{lines}]}}"]
        else:
            kept = [dep for dep in _split(items) if dep.strip('"') not in code]
        text = f"{indent}{name}: [{', '.join(kept)}]"
        wrapped = textwrap.wrap(
            text,
            WIDTH,
            subsequent_indent=f"{indent}  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        return "\n".join(wrapped) + "\n"

    return LISTS.sub(rewritten, stage)


def _split(items: str) -> list[str]:
    return re.split(r",\s+", items.strip())


def _line(dep: str) -> str:
    """Return the name that a dependency on code has in the lock."""
    if dep == f"{KINDS}__init__.py":
        return f"kinds.{DOOR}"
    if dep.startswith(KINDS):
        return f'"kinds.{dep.removeprefix(KINDS)}"'
    if dep.endswith(".py"):
        return f"stages.{dep.removeprefix(CODE).removesuffix('.py')}"
    return f"rooms.{dep.removeprefix(CODE)}"


def merged(theirs: str, ours: str) -> str:
    """Return a project's `dvc.yaml` with the stages of this version.

    Stages, plots and comments of the user stay. A comment inside one of Headstart's stages does
    not.

    Args:
        theirs: the content of the project's file.
        ours: what `generated` returns.

    Raises:
        ParamsError: the file does not have the layout that init writes, or a stage of the user has
            the name of a new one.
    """
    own = ours_in(theirs)
    head, before, tail = _blocks(theirs)
    _, now, _ = _blocks(ours)
    old, new = (yaml_in_c.load(text) for text in (theirs, ours))
    if taken := sorted((now.keys() & before.keys()) - own):
        raise ParamsError(
            f"your stage {taken[0]} in dvc.yaml has the same name as one of Headstart's"
            " stages: rename yours"
        )
    names = [name for name in before if name in now or name not in own]
    for previous, name in zip(["", *now], now, strict=False):
        if name not in names:
            names.insert(names.index(previous) + 1 if previous else 0, name)
    blocks = []
    for name in names:
        lead, body = before.get(name) or now[name]
        blocks.append(lead + (now[name][1] if name in now else body))
    text = head + "".join(f"{block.rstrip()}\n\n" for block in blocks) + tail
    kept = {name: entry for name, entry in old["stages"].items() if name not in own}
    if _read(text) != old | {"stages": kept | new["stages"]}:
        raise ParamsError(
            "dvc.yaml does not have the layout that init writes: change its stages yourself to"
            " those of a project that `headstart init` makes now"
        )
    return text


def ours_in(text: str) -> set[str]:
    """Return which stages of a project's `dvc.yaml` are Headstart's."""
    stages = params.stages_in(text)
    return {name for name, stage in stages.items() if stage.get("cmd") == f"{RUN}{name}"}


def _read(text: str) -> Any:
    try:
        return yaml_in_c.load(text)
    except yaml.YAMLError:
        return None


def _blocks(text: str) -> tuple[str, dict[str, tuple[str, str]], str]:
    """Return the text before the stages, the comments and lines of each stage, and the rest."""
    root: Any = yaml.compose(text, yaml_in_c.Loader)
    sections = {key.value: (key.start_mark.line, value) for key, value in root.value}
    entries = sections["stages"][1].value
    names = [key.value for key, _ in entries]
    lines = text.splitlines(keepends=True)
    starts = [key.start_mark.line for key, _ in entries]
    after = [line for line, _ in sections.values() if line > sections["stages"][0]]
    bounds = [_above(lines, line) for line in (*starts, min(after, default=len(lines)))]
    blocks = {
        name: ("".join(lines[first:start]), "".join(lines[start:last]))
        for name, start, (first, last) in zip(names, starts, pairwise(bounds), strict=True)
    }
    return "".join(lines[: bounds[0]]), blocks, "".join(lines[bounds[-1] :])


def _above(lines: list[str], line: int) -> int:
    """Return the first line of the comments directly above a line."""
    while line and lines[line - 1].lstrip().startswith("#"):
        line -= 1
    return line
