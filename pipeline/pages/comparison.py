"""What differs from git's last commit: parameters and metrics."""

import json
import subprocess
from collections.abc import Iterator, Mapping

import pandas as pd
import yaml

from ..core.paths import METRICS
from .embed import Row

Document = Mapping[str, object]  # figures or parameters, nested by name


def since_last_commit(metrics: Document, now: Document) -> Row:
    """Which parameters and metrics differ from those in git's last commit.

    Args:
        metrics: those of this run.
        now: the parameters of this run, by section.
    """
    last = _git("log", "-1", "--format=%h%n%s")
    if last is None:
        return {"known": False, "why_not": "There is no commit to compare with yet."}
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
    """The leaves of two nested documents that differ: name, before, now, change of a number."""

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
    """What git prints, or None if there is no git, no repository or no such thing."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    except FileNotFoundError:
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None
