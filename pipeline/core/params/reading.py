"""Reading and validation of `params.yaml`, with the names of older versions."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError, create_model

from ..errors import ParamsError
from ..paths import PARAMS
from ..yaml_in_c import Loader
from .explained import explain
from .machine import ClusterParams, StoreParams
from .schema import Augmentation, ExtractParams
from .whole import Params

# Old names of sections and parameters, and their new names.
RENAMED = {
    "few": "learning_curve",
    "thaw": "finetune",
    "scratch": "from_scratch",
    "checks.suspect_margin": "checks.label_issue_margin",
    "checks.least_pictures": "checks.least_examples",
    "evaluate.coverage": "train.coverage",
}

# Sections of removed stages; an older file may keep them if it does not use them.
GONE = {
    "transfer_gain": "from_scratch, finetune and rank now report how much transfer gained",
}


class _TwiceError(ValueError):
    """A key occurs twice; the message has the lines."""


class _EachOnce(Loader):  # type: ignore[misc, valid-type]
    """Refuses a key that occurs twice, as DVC does; PyYAML would take the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if key.value in lines:
                raise _TwiceError(
                    f"{key.value} occurs twice, in line {lines[key.value]} and in line {line};"
                    " delete one of them"
                )
            lines[key.value] = line
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


Schema = Callable[[str], type[Augmentation]]


def load(schema: Schema, path: Path = PARAMS) -> Params:
    """Read and check all of `params.yaml`.

    Args:
        schema: maps the kind of the examples to its schema of `augment`, which also has the
            parameters that the kind adds to `ingest`.

    Raises:
        ParamsError: the message has the first error: its key, its value and the allowed values.
    """
    document = document_in(path)
    if old := _outdated(document):
        renames = ", ".join(f"{name} to {RENAMED[name]}" for name in old)
        raise ParamsError(f"{path} was written for an older version: rename {renames}")
    for name, instead in GONE.items():
        section = document.pop(name, None)
        if isinstance(section, dict) and section.get("run"):
            raise ParamsError(
                f"{path}: the stage {name} was removed, {instead}: delete the section"
            )
    ingest = document.get("ingest")
    kind = ingest.get("kind", "image") if isinstance(ingest, dict) else "image"
    whole = _with_schema(schema(kind) if isinstance(kind, str) else Augmentation)
    try:
        return whole.model_validate(document)
    except ValidationError as error:
        raise ParamsError(f"{path}: {explain(error, document, whole)}") from None


def store_section(path: Path = PARAMS) -> StoreParams:
    """Return the section `store` by itself; outside a project, return its defaults."""
    if not path.exists():
        return StoreParams()
    return _alone("store", path).store


def cluster_section(path: Path = PARAMS) -> ClusterParams:
    """Return the section `cluster` by itself; no stage declares it, as it affects no output."""
    return _alone("cluster", path).cluster


def _alone(section: str, path: Path) -> Params:
    """Return the parameters with one section from the file, and defaults for the others."""
    document = {section: document_in(path).get(section, {})}
    try:
        return Params.model_validate(document)
    except ValidationError as error:
        raise ParamsError(f"{path}: {explain(error, document, Params)}") from None


def extract_section(values: dict[str, Any], who: str) -> ExtractParams:
    """Return the section `extract` from `values` passed in code; messages begin with `who`.

    Raises:
        ParamsError: the message has the first error, as in `load`.
    """
    document = {"extract": values}
    try:
        return Params.model_validate(document).extract
    except ValidationError as error:
        reason = explain(error, document, Params).removeprefix("extract.")
        raise ParamsError(f"{who}: {reason}") from None


def document_in(path: Path) -> dict[str, Any]:
    """Return the file's content, without checking its values.

    Raises:
        ParamsError: the file does not exist, is not YAML with sections, or contains a key twice.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _EachOnce)  # noqa: S506 (it is safe)
    except FileNotFoundError:
        raise ParamsError(f"{path} does not exist; run from the project's root") from None
    except _TwiceError as error:
        raise ParamsError(f"{path}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split()).replace('in "<unicode string>", ', "at ")
        raise ParamsError(f"{path} is not readable YAML: {reason}") from None
    if not isinstance(document, dict):
        raise ParamsError(f"{path} must hold the sections {', '.join(Params.model_fields)}")
    return document


def _outdated(document: dict[str, Any]) -> list[str]:
    """Return the old names of renamed sections and parameters that the file still has."""
    found = []
    for name in RENAMED:
        section, _, key = name.partition(".")
        inside = document.get(section)
        if inside is not None and (not key or (isinstance(inside, dict) and key in inside)):
            found.append(name)
    return found


@cache
def _with_schema(augment: type[Augmentation]) -> type[Params]:
    """Return `Params` with the kind's section `augment`, and its additions to `ingest`."""
    fields: dict[str, Any] = {
        "ingest": (augment.ingest, augment.ingest()),
        "augment": (augment, augment()),
    }
    return create_model("Params", __base__=Params, **fields)
