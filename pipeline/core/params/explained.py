"""Validation errors of pydantic in one line: the key, its value, the allowed values."""

import math
import re
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from .whole import Params


def explain(error: ValidationError, document: dict[str, Any], whole: type[Params]) -> str:
    """Return one line for all unknown keys, or for the first error: key, value, allowed values."""
    problems = error.errors()
    # A misspelt key is both unknown and missing; the unknown one is the one that the user wrote.
    unknown = [p["loc"] for p in problems if p["type"] == "extra_forbidden"]
    if unknown:
        return _strangers(unknown, document, whole)
    first = problems[0]
    # Pydantic adds the branches of a union to the location; only keys of the file are useful.
    where: list[str] = []
    value: Any = document
    for step in first["loc"]:
        inside = dict(enumerate(value)) if isinstance(value, list) else value
        if isinstance(inside, dict) and step in inside:
            value = inside[step]
        elif first["type"] != "missing":
            break
        where.append(str(step))
    key = ".".join(where)
    if first["type"] == "missing":
        return f"{key} is missing"
    same_place = [p for p in problems if p["loc"][: len(where)] == first["loc"][: len(where)]]
    texts = [p["input"] for p in same_place if p["type"] == "float_type" and _is_number(p["input"])]
    if texts:
        return (
            f"{key} is {value!r}; YAML reads {texts[0]!r} as text: write a number without quotes,"
            " such as 0.001 or 1.0e-3"
        )
    allowed = " or ".join(dict.fromkeys(_wanted(p["msg"]) for p in same_place))
    if not where:
        return allowed  # two sections contradict each other; the message names the parameters
    if len(where) == 1 and isinstance(value, dict):
        return f"{key}: {allowed}"  # parameters contradict each other; the message names them
    if isinstance(value, str) and "://" in value:
        return f"{key} {allowed}"  # an address may contain a secret
    return f"{key} is {value!r}; {allowed}"


def _strangers(
    unknown: list[tuple[int | str, ...]], document: dict[str, Any], whole: type[Params]
) -> str:
    """Return one line that names all unknown keys, section by section.

    The shipped file has parameters that are for pictures only. A user who changes the kind has to
    delete several of them, and one message is enough.
    """
    keys: dict[tuple[str, ...], list[str]] = {}
    for place in unknown:
        *home, key = map(str, place)
        keys.setdefault(tuple(home), []).append(".".join([*home, key]))
    kind = (document.get("ingest") or {}).get("kind", "image")
    lines = []
    for inside, names in keys.items():
        home = list(inside)
        one = len(names) == 1
        listed = names[0] if one else f"{', '.join(names[:-1])} and {names[-1]}"
        takes = f"{_home(home)} takes {', '.join(_section(home, whole))}"
        by_kind = f"if ingest.kind is {kind}, " * (home == ["augment"] and kind != "image")
        are = "is not a parameter" if one else "are not parameters"
        lines.append(f"{listed} {are}; {by_kind}{takes}")
    return "; ".join(lines)


def _is_number(value: Any) -> bool:
    """Return whether the value is a text that Python can parse as a number."""
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False


def _wanted(message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    message = re.sub(r"should be a valid dictionary.*", "should hold parameters", message)
    return message[0].lower() + message[1:]


def _home(where: list[str]) -> str:
    return ".".join(where) or "the file"


def _section(where: list[str], whole: type[Params]) -> list[str]:
    model: type[BaseModel] = whole
    for step in where:
        model = cast(type[BaseModel], model.model_fields[step].annotation)
    return list(model.model_fields)
