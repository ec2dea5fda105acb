"""`params.yaml` read and checked; the names that it had in older versions."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError, create_model

from ..errors import ParamsError
from ..paths import PARAMS
from .explained import explain
from .machine import ClusterParams, StoreParams
from .schema import Augmentation, ExtractParams
from .whole import Params

# What older files call a section or a parameter, and what it is called now.
RENAMED = {
    "few": "learning_curve",
    "thaw": "finetune",
    "scratch": "from_scratch",
    "checks.suspect_margin": "checks.label_issue_margin",
    "checks.least_pictures": "checks.least_examples",
    "evaluate.coverage": "train.coverage",
}

# Sections of stages that are gone; an older file may have them as long as it does not use them.
GONE = {
    "transfer_gain": "from_scratch, finetune and rank print and write how much transfer gained",
}

Schema = Callable[[str], type[Augmentation]]


def load(schema: Schema, path: Path = PARAMS) -> Params:
    """Read and check all of `params.yaml`.

    Args:
        schema: from the kind of the examples to its own schema of `augment`, which names what the
            kind adds to `ingest`.
        path: the file.

    Raises:
        ParamsError: the first thing that is wrong, with its key, its value and what is allowed.
    """
    document = document_in(path)
    if old := _outdated(document):
        renames = ", ".join(f"{name} to {RENAMED[name]}" for name in old)
        raise ParamsError(f"{path} is of an older version: rename {renames}")
    for name, instead in GONE.items():
        section = document.pop(name, None)
        if isinstance(section, dict) and section.get("run"):
            raise ParamsError(f"{path}: the stage {name} is gone, {instead}: delete the section")
    ingest = document.get("ingest")
    kind = ingest.get("kind", "image") if isinstance(ingest, dict) else "image"
    whole = _with_schema(schema(kind) if isinstance(kind, str) else Augmentation)
    try:
        return whole.model_validate(document)
    except ValidationError as error:
        raise ParamsError(f"{path}: {explain(error, document, whole)}") from None


def store_section(path: Path = PARAMS) -> StoreParams:
    """The section `store` by itself; its defaults outside of a project."""
    if not path.exists():
        return StoreParams()
    return _alone("store", path).store


def cluster_section(path: Path = PARAMS) -> ClusterParams:
    """The section `cluster` by itself; no stage declares it, since it changes no output."""
    return _alone("cluster", path).cluster


def _alone(section: str, path: Path) -> Params:
    """The parameters with one section of the file, and the defaults of the others."""
    document = {section: document_in(path).get(section, {})}
    try:
        return Params.model_validate(document)
    except ValidationError as error:
        raise ParamsError(f"{path}: {explain(error, document, Params)}") from None


def extract_section(values: dict[str, Any], who: str) -> ExtractParams:
    """The section `extract` from values that `who` was given in code.

    Raises:
        ParamsError: the first thing that is wrong, as `load`.
    """
    document = {"extract": values}
    try:
        return Params.model_validate(document).extract
    except ValidationError as error:
        reason = explain(error, document, Params).removeprefix("extract.")
        raise ParamsError(f"{who}: {reason}") from None


def document_in(path: Path) -> dict[str, Any]:
    """The file's content, whatever its values are.

    Raises:
        ParamsError: it is not there, or is no YAML with sections.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path} does not exist; run from the project's root") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ParamsError(f"{path} is not readable YAML: {reason}") from None
    if not isinstance(document, dict):
        raise ParamsError(f"{path} must hold the sections {', '.join(Params.model_fields)}")
    return document


def _outdated(document: dict[str, Any]) -> list[str]:
    """The old names of renamed sections and parameters that the file still has."""
    found = []
    for name in RENAMED:
        section, _, key = name.partition(".")
        inside = document.get(section)
        if inside is not None and (not key or (isinstance(inside, dict) and key in inside)):
            found.append(name)
    return found


@cache
def _with_schema(augment: type[Augmentation]) -> type[Params]:
    """`Params` with the kind's own section `augment`, and with what it adds to `ingest`."""
    fields: dict[str, Any] = {
        "ingest": (augment.ingest, augment.ingest()),
        "augment": (augment, augment()),
    }
    return create_model("Params", __base__=Params, **fields)
