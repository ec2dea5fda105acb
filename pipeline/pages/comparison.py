"""Comparison of parameters and metrics with the last git commit."""

import json
import subprocess
from collections.abc import Iterator, Mapping

import pandas as pd
import yaml

from ..core.paths import METRICS
from .embed import Row

Document = Mapping[str, object]  # metrics or parameters, nested by name


def since_last_commit(metrics: Document, now: Document) -> Row:
    """Return the parameters and metrics that differ from the last git commit, or why not.

    Args:
        now: the parameters of this run, by section.
    """
    last = _git("log", "-1", "--format=%h%n%s")
    if last is None:
        return {"known": False, "why_not": "No git commit was found to compare with."}
    committed = _git("show", f"HEAD:./{METRICS}")
    if committed is None:
        words = f"{METRICS} is not in the last commit. Commit it to see here what changes."
        return {"known": False, "why_not": words}
    commit, _, subject = last.partition("\n")
    try:
        before = dict(json.loads(committed))
        params = dict(yaml.safe_load(_git("show", "HEAD:./params.yaml") or "{}"))
    except (ValueError, TypeError, yaml.YAMLError):
        words = f"{METRICS} or params.yaml of the last commit, {commit}, cannot be read."
        return {"known": False, "why_not": words}
    return {
        "known": True,
        "hash": commit,
        "subject": subject.strip(),
        "parameters": list(differences({name: params.get(name, {}) for name in now}, now)),
        "metrics": list(differences(before, metrics)),
    }


def differences(before: Document, now: Document) -> Iterator[Row]:
    """Yield the values that differ between two nested documents: name, before, now and change.

    The change is the difference of two numbers, else empty.
    """

    def shown(value: object) -> str:
        return f"{value:g}" if isinstance(value, float) else str(value)

    old, new = (pd.json_normalize(document).to_dict("records")[0] for document in (before, now))
    for name in [*new, *(name for name in old if name not in new)]:
        one, other = old.get(name, "–"), new.get(name, "–")
        if one != other:
            numbers = isinstance(one, int | float) and isinstance(other, int | float)
            change = f"{other - one:+.4g}" if numbers else ""
            yield {"name": name, "before": shown(one), "now": shown(other), "change": change}


def _git(*arguments: str) -> str | None:
    """Return the output of a git command; None if git is not installed or the command fails."""
    try:
        done = subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # as a commit message of another program may need
            check=False,
        )
    except FileNotFoundError:
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None
