"""Writes docs/parameters.md from the schema of params.yaml: `make docs`."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from pipeline import kinds
from pipeline.core.params import Params

HEAD = """# Parameters

You set parameters in `params.yaml`. If this file contains a mistake, a command ends with an error
message before it does any work. The file must contain the parameters that `dvc.yaml` names. If one
of them is missing, `headstart repro` prints the line to add. Every other parameter has its default
value if it is not in the file.

Defaults never change, so older projects keep their results. In clones of the repository and in new
projects, `params.yaml` sets some parameters to other values. The tables list these values as "New
projects: …", or as "New picture projects: …" if only picture projects and clones set them. `make
docs` generates this page from the code."""
NEW = {"ingest.val_of_each_class": True}  # what `headstart init` sets in projects of all kinds
SHIPPED = yaml.safe_load((Path(__file__).parent.parent / "params.yaml").read_text(encoding="utf-8"))


def page() -> str:
    """The page, a table for each section."""
    parts = [HEAD]
    for name, field in Params.model_fields.items():
        model = type(field.default)
        if name == "augment":
            for kind in kinds.KINDS:
                if kind == "plugin":  # whose schema is in the user's own file
                    continue
                parts += section(f"augment`, for `ingest.kind: {kind}", kinds.schema(kind), name)
        elif name == "ingest":  # with what pictures add to it
            parts += section(name, kinds.schema("image").ingest, name)
        else:
            parts += section(name, model, name)
    return "\n".join(parts)


def section(title: str, model: type[BaseModel], name: str) -> list[str]:
    """The heading, the purpose of the section, and its table."""
    words = (model.__doc__ or "").strip().splitlines()[0]
    rows = [
        f"\n## `{title}`\n\n{words}\n",
        "| parameter | default | what it does |",
        "| --- | --- | --- |",
    ]
    for key, field in model.model_fields.items():
        text = (field.description or "").replace("|", "\\|")
        text = re.sub(r"docs/(\w+\.md)(#[\w-]+)?", r"[\1](\1\2)", text)
        default = shown(field.default)
        here = shown(SHIPPED[name].get(key, field.default))
        if f"{name}.{key}" in NEW:
            text += f". New projects: {shown(NEW[f'{name}.{key}'])}"
        elif here != default and (name != "augment" or "image" in title):
            text += f". New picture projects: {here}"
        rows.append(f"| `{name}.{key}` | {default} | {text} |")
    return rows


def shown(default: Any) -> str:
    """A default as in `params.yaml`."""
    value = default.model_dump() if isinstance(default, BaseModel) else default
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
    return f"`{text}`"


if __name__ == "__main__":
    Path(__file__).with_name("parameters.md").write_text(page() + "\n", encoding="utf-8")
