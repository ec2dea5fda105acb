"""A validation error of pydantic in one line: the key, its value, the allowed values."""

import math
import re
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from .whole import Params


def explain(error: ValidationError, document: dict[str, Any], whole: type[Params]) -> str:
    """Return one line for the first error: key, value, allowed values."""
    # A misspelt key is both unknown and missing; the unknown one is the one that the user wrote.
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
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
    if first["type"] == "extra_forbidden":
        section = _section(where[:-1], whole)
        return f"{key} is not a parameter; {_home(where[:-1])} takes {', '.join(section)}"
    if first["type"] == "missing":
        return f"{key} is missing"
    same_place = [p for p in problems if p["loc"][: len(where)] == first["loc"][: len(where)]]
    texts = [p["input"] for p in same_place if p["type"] == "float_type" and _is_number(p["input"])]
    if texts:
        return (
            f"{key} is {value!r}; YAML takes {texts[0]!r} for text: write a number without quotes,"
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
