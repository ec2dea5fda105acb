"""A project's `dvc.yaml`, made from the one of Headstart's repository.

A project holds no code of Headstart. A stage's command is `headstart run STAGE` there, and instead
of the code it declares the lines of `headstart.lock` on that code. Everything else is the same.
"""

import re
import textwrap

from pipeline.core.lock import DOOR
from pipeline.core.paths import LOCK

CODE = "pipeline/"
KINDS = f"{CODE}kinds/"
LISTS = re.compile(r"^( *)(params|deps): \[(.*?)\]\n", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^( *)cmd: python -m pipeline\.", re.MULTILINE)
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
    return HEADER + "".join(COMMAND.sub(r"\1cmd: headstart run ", _declared(one)) for one in blocks)


def _declared(stage: str) -> str:
    """Return a stage's text with lines of the lock in place of dependencies on code."""
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
    """Return the name in the lock of a dependency on code."""
    if dep == f"{KINDS}__init__.py":
        return f"kinds.{DOOR}"
    if dep.startswith(KINDS):
        return f'"kinds.{dep.removeprefix(KINDS)}"'
    if dep.endswith(".py"):
        return f"stages.{dep.removeprefix(CODE).removesuffix('.py')}"
    return f"rooms.{dep.removeprefix(CODE)}"
