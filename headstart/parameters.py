"""Edit the text of a project's `params.yaml`, and keep its comments and layout."""

import json
import re
from typing import Any

import yaml

from pipeline import kinds
from pipeline.core import params, yaml_in_c
from pipeline.core.errors import ParamsError

from . import shipped

COLUMN = 32  # of the comments


def of_kind(kind: str, source: str = "folder", path: str = "data/raw/examples") -> str:
    """Return all parameters of a kind with their comments, from the repository's `params.yaml`.

    Args:
        kind: a kind of Headstart, not one from a plugin.
        source: where the examples come from, `ingest.source`.
        path: their folder or table, `ingest.path`.
    """
    folder = shipped.folder()
    text = (folder / "params.yaml").read_text(encoding="utf-8")
    own = folder / "examples" / kind / "params.yaml"
    if own.exists():
        text = _overlaid(text, own.read_text(encoding="utf-8"))
    for key in yaml_in_c.load(text)["ingest"].keys() - kinds.schema(kind).ingest.model_fields:
        text = replace(text, "ingest", key, "")  # of another kind
    for key, value in {"kind": kind, "source": source, "path": path}.items():
        text = put(text, "ingest", key, value)
    return text


def kind_of(document: dict[str, Any]) -> str:
    """Return the kind of a project's examples.

    Raises:
        ParamsError: a top-level value of the file is not a section.
    """
    for name, inside in document.items():
        if not isinstance(inside, dict | None):
            raise ParamsError(f"params.yaml: {name} is {inside!r}; it should be a section")
    return str((document.get("ingest") or {}).get("kind", "image"))


def section(text: str, name: str) -> str:
    """Return the lines of a section, beginning with its name; empty if there is no such section.

    An unindented comment belongs to the section if more lines of the section follow.
    """
    inside = r"(?: .*)?\n|#.*\n(?=(?:#.*\n|\n)* )"
    found = re.search(rf"^{name}:.*\n(?:{inside})*", text, re.MULTILINE)
    return found[0] if found else ""


def lines_of(text: str, name: str, key: str) -> str:
    """Return the lines of a parameter in a section; empty if there are none."""
    found = re.search(rf"^  {key}:.*\n(?:   .*\n)*", section(text, name), re.MULTILINE)
    return found[0] if found else ""


def replace(text: str, name: str, key: str, lines: str) -> str:
    """Replace the lines of a parameter with `lines`; add them to its section if it has none."""
    before, old = section(text, name), lines_of(text, name, key)
    body = before.rstrip("\n")
    after = before.replace(old, lines, 1) if old else f"{body}\n{lines}{before[len(body) + 1 :]}"
    return text.replace(before, after, 1)


def put(text: str, name: str, key: str, value: Any) -> str:
    """Set a parameter, and keep the comment on its line."""
    comment = re.search(r"#.*", lines_of(text, name, key).partition("\n")[0])
    line = f"  {key}: {written(value)}"
    return replace(
        text, name, key, f"{line:{COLUMN - 1}} {comment[0]}\n" if comment else f"{line}\n"
    )


def written(value: Any) -> str:
    """Format a value as YAML on one line; quote a text only if necessary."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w./-]*", value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _overlaid(text: str, own: str) -> str:
    """Return the parameters with the values and comments of a kind's example, `own`."""
    document = yaml_in_c.load(text)
    for name, values in yaml_in_c.load(own).items():
        if name == "augment":  # each kind has its own
            text = text.replace(section(text, name), section(own, name), 1)
            continue
        header, of_own = (section(one, name).partition("\n")[0] for one in (text, own))
        if "#" in of_own:
            text = text.replace(f"\n{header}\n", f"\n{of_own}\n", 1)
        for key, value in values.items():
            lines = lines_of(own, name, key)
            if document[name].get(key) == value:
                continue
            if "#" in lines or isinstance(value, list):
                text = replace(text, name, key, lines)
            else:
                text = put(text, name, key, value)
    return text


def renewed(text: str, needed: list[str]) -> tuple[str, list[str]]:
    """Convert a project's `params.yaml` to this version; also return a line for each change.

    Old names are replaced with the new ones. Missing sections and parameters are added with their
    defaults, which the project has used so far.

    Args:
        text: the content of the file.
        needed: the sections and parameters that `dvc.yaml` names.

    Raises:
        ParamsError: the file has a layout that cannot be edited line by line.
    """
    document = yaml_in_c.load(text)
    kind = kind_of(document)
    changes, added = [], set()
    moves = {}
    for old, new in params.RENAMED.items():
        name, _, key = old.partition(".")
        if key and key in (document.get(name) or ()):
            moves[old] = new
        elif not key and name in document:
            text = re.sub(rf"(?m)^{name}:", f"{new}:", text)
            document = {new if one == name else one: inside for one, inside in document.items()}
            changes.append(f"{old} is {new} now")
    for asked in [*(new.partition(".")[0] for new in moves.values()), *needed]:
        name, _, key = asked.partition(".")
        if name in document and (not key or key in (document[name] or ())):
            continue
        default = kinds.schema(kind)() if name == "augment" else getattr(params.Params(), name)
        values = default.model_dump()
        if name not in document:
            text = f"{text.rstrip()}\n\n{section(of_kind(kind), name).rstrip()}\n"
            document[name] = values
            changes.append(f"{name} is added with its defaults")
        else:
            values = {key: values[key]}
            document[name] = (document[name] or {}) | values
            changes.append(f"{asked} is added with its default")
        for one, value in values.items():
            text = put(text, name, one, value)
        added |= {f"{name}.{one}" for one in values}
    for old, new in moves.items():
        text = _moved(text, document, old, new, new in added)
        changes.append(f"{old} is {new} now")
    if not _holds(text, document):
        raise ParamsError(
            "params.yaml does not have the layout that init writes; make these changes yourself:"
            f" {'; '.join(changes)}"
        )
    return text, changes


def _moved(text: str, document: dict[str, Any], old: str, new: str, counts: bool) -> str:
    """Rename a parameter in the text, which is returned, and in `document`, which is changed.

    If the file has both names, the value of the new one stays, unless the old one `counts`.
    """
    (before, was), (after, key) = old.split("."), new.split(".")
    lines, value = lines_of(text, before, was), document[before].pop(was)
    text = replace(text, before, was, "")
    if counts or key not in document[after]:
        document[after][key] = value
        text = replace(text, after, key, lines.replace(was, key, 1))
    if not document[before]:
        text = re.sub(rf"(?m)^{before}:", f"{before}: {{}}", text)
    return text


def _holds(text: str, document: dict[str, Any]) -> bool:
    try:
        return bool(yaml_in_c.load(text) == document)
    except yaml.YAMLError:
        return False
