"""The text of a project's `params.yaml`, in which comments and the form of lines stay."""

import json
import re
from typing import Any

import yaml

from pipeline import kinds

from . import shipped

COLUMN = 32  # of the comments


def of_kind(kind: str, source: str = "folder", path: str = "data/raw/examples") -> str:
    """Return all parameters of a kind with their comments, from those of the repository.

    Args:
        kind: a kind that Headstart has, not a plugin's.
        source: where the examples come from, `ingest.source`.
        path: their folder or table, `ingest.path`.
    """
    folder = shipped.folder()
    text = (folder / "params.yaml").read_text(encoding="utf-8")
    own = folder / "examples" / kind / "params.yaml"
    if own.exists():
        text = _overlaid(text, own.read_text(encoding="utf-8"))
    for key in yaml.safe_load(text)["ingest"].keys() - kinds.schema(kind).ingest.model_fields:
        text = replace(text, "ingest", key, "")  # of another kind
    for key, value in {"kind": kind, "source": source, "path": path}.items():
        text = put(text, "ingest", key, value)
    return text


def section(text: str, name: str) -> str:
    """Return the lines of a section, from its name on; empty if the text has none."""
    found = re.search(rf"^{name}:.*\n(?:(?: .*)?\n)*", text, re.MULTILINE)
    return found[0] if found else ""


def lines_of(text: str, name: str, key: str) -> str:
    """Return the lines of a parameter in a section; empty if there are none."""
    found = re.search(rf"^  {key}:.*\n(?:   .*\n)*", section(text, name), re.MULTILINE)
    return found[0] if found else ""


def replace(text: str, name: str, key: str, lines: str) -> str:
    """Put `lines` in place of those of a parameter, or at the end of its section."""
    before, old = section(text, name), lines_of(text, name, key)
    body = before.rstrip("\n")
    after = before.replace(old, lines, 1) if old else f"{body}\n{lines}{before[len(body) + 1 :]}"
    return text.replace(before, after, 1)


def put(text: str, name: str, key: str, value: Any) -> str:
    """Set a parameter; the comment on its line stays."""
    comment = re.search(r"#.*", lines_of(text, name, key).partition("\n")[0])
    line = f"  {key}: {written(value)}"
    return replace(
        text, name, key, f"{line:{COLUMN - 1}} {comment[0]}\n" if comment else f"{line}\n"
    )


def written(value: Any) -> str:
    """Return a value as YAML on one line; a text in quotes only if it needs them."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w./-]*", value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _overlaid(text: str, own: str) -> str:
    """Return the parameters with the values and comments of a kind's example, `own`."""
    document = yaml.safe_load(text)
    for name, values in yaml.safe_load(own).items():
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
