"""Stage checks: find data problems that make metrics unreliable; write a table for each check."""

import json
from concurrent.futures import ThreadPoolExecutor

import pandas as pd

from . import kinds
from .core import command, params
from .core.errors import DataError
from .core.paths import (
    CHECKS,
    CHECKS_COUNTS,
    CHECKS_MAP,
    CONFIRMED,
    LANDMARKS,
    MANIFEST,
    MEASURES,
)
from .heads.head import one_thread
from .kinds import Kind
from .quality import doubtful, landmarks
from .quality.drift import drifts, too_few_groups
from .quality.duplicates import near_duplicates
from .quality.few_examples import few_examples
from .quality.flawed import flawed
from .quality.map import drawn
from .quality.originals import originals
from .tables import cells, confirmed, measures
from .tables.manifest import (
    DRAWN,
    GIVEN,
    PLACE,
    divided_groups,
    kind_in,
    origins_in,
    read_manifest,
    task_in,
)
from .tasks import TASKS

# Significant digits in tables; more would only show rounding errors of the machine.
DIGITS = 6
# Reasons why splits are not tested for drift, by their origin.
NOT_TESTED = {
    DRAWN: "ingest drew them at random",
    PLACE: "the source divides its splits by place, so they differ by design",
}
NOTES = "notes"  # the table of warnings, and of reasons why a check was not possible
UNCOUNTED = ("drift", NOTES)
# Examples or classes in a printed line; the table has all.
NAMED = 3


def checks() -> None:
    """Look for what makes metrics or examples unreliable, and write a table for each check."""
    every = params.load(kinds.schema)
    settings = every.checks
    manifest, kind = read_manifest(MANIFEST), kinds.named(kind_in(MANIFEST))
    task = TASKS[task_in(MANIFEST)]
    doubts = doubtful.of_task(task.name)
    if "group" not in manifest:
        raise DataError(f"{MANIFEST} has no column group; run the ingest stage again")
    doubts.require_memory(manifest)
    right = confirmed.paths(manifest, confirmed.read(CONFIRMED))
    flaws = flawed(measures.joined(MEASURES, kind.measures, manifest), kind)
    flaws = flaws[~flaws["path"].isin(right)]
    rows, features = originals(manifest)
    made_by = landmarks.made_by(every.extract, features.shape[1])
    layout, unused = landmarks.read(LANDMARKS, rows["digest"], made_by)
    with one_thread(), ThreadPoolExecutor(1) as beside:
        looked = beside.submit(doubts.find, rows, features, settings)
        pairs, compared, known = near_duplicates(rows, features, settings.duplicate_cosine, kind)
        drift = drifts(rows, features, origins_in(MANIFEST), settings)
        issues, why_not, answers = looked.result()
        known_right = issues["path"].isin(right)
        found = {
            "near_duplicates": pairs,
            "label_issues": issues[~known_right],
            "flawed": flaws,
            "few_examples": few_examples(manifest, task.name, settings.least_examples),
            "drift": drift,
        }
        named = {path for table in (pairs, issues, flaws) for path in table["path"]}
        named.update(pairs["other_path"])
        points = drawn(rows, features, answers, named, layout)
    unread = _unread(kind, manifest, every.extract.network.reads)
    divided = divided_groups(manifest)
    warnings = {"groups": divided, "languages": unread, "map": unused}
    notes = [note for note in {"label_issues": why_not, **warnings}.items() if note[1]]
    found[NOTES] = pd.DataFrame(notes, columns=["check", "note"])
    CHECKS.mkdir(parents=True, exist_ok=True)
    points.to_parquet(CHECKS_MAP, index=False)
    for name, table in found.items():
        file = CHECKS / f"{name}.csv"
        written = cells.to_open(table)
        written.to_csv(file, index=False, float_format=f"%.{DIGITS}g", lineterminator="\n")
    drifted = found["drift"][found["drift"]["drifted"]]
    counts = {name: len(table) for name, table in found.items() if name not in UNCOUNTED}
    counts["drifted_splits"] = len(drifted)
    CHECKS_COUNTS.write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")

    different = int((pairs["label"] != pairs["other_label"]).sum())
    also = f", {different} with different {task.truth}s" if different else ""
    _say(
        "near_duplicates",
        f"near-duplicate across splits{also}",
        f"near-duplicates across splits{also}",
        [f"{one} ~ {other}" for one, other in zip(pairs["path"], pairs["other_path"], strict=True)],
    )
    if why_not:
        print(f"checks: {task.truth}s not checked: {why_not}")
    else:
        doubted = found["label_issues"][["path", "label", "suggested"]].itertuples(index=False)
        _say(
            "label_issues",
            f"{task.truth} issue",
            f"{task.truth} issues",
            [f"{path} ({label}, or {suggested}?)" for path, label, suggested in doubted],
        )
    if known_right.any():
        count = int(known_right.sum())
        were = "issue is" if count == 1 else "issues are"
        print(f"checks: {count} more {task.truth} {were} left out: corrections/ confirms the label")
    if len(flaws):  # most sets have none, and a line would be one more to read
        _say(
            "flawed",
            f"{kind.noun} that is hardly usable",
            f"{kind.nouns} that are hardly usable",
            [
                f"{path} ({what})"
                for path, what in zip(flaws["path"], flaws["problem"], strict=True)
            ],
        )
    scarce = found["few_examples"][["class", "train"]].itertuples(index=False)
    scarcely = f"fewer than {settings.least_examples} training {kind.nouns}"
    _say(
        "few_examples",
        f"{task.noun} with {scarcely}",
        f"{task.nouns} with {scarcely}",
        [f"{name} ({count})" for name, count in scarce],
    )
    by_origin = found["drift"].groupby("origin")["split"].agg(" and ".join)
    for origin, why in NOT_TESTED.items():
        if origin in by_origin:
            print(f"checks: drift of {by_origin[origin]} is not tested: {why}")
    given = found["drift"][found["drift"]["origin"] == GIVEN]
    untested = given["split"][too_few_groups(given)]
    if len(untested):
        print(f"checks: drift of {' and '.join(untested)} is not tested: too few groups")
    if len(untested) < len(given):
        _say(
            "drift",
            "split that differs from the training split",
            "splits that differ from the training split",
            [f"{row.split} (p {row.p_value:g})" for row in drifted.itertuples()],
        )
    for warning in filter(None, warnings.values()):
        print(f"checks: warning: {warning}")
    similar = f"{compared} pairs of similar {kind.nouns}"
    print(f"checks: {similar} compared, {known} of them in earlier runs")


def _unread(kind: Kind, manifest: pd.DataFrame, reads: tuple[str, ...]) -> str:
    """Return a warning if the backbone does not read the examples' language; empty if it does."""
    if not reads or getattr(kind, "unread", None) is None:
        return ""
    return kind.unread(list(zip(manifest["path"], manifest["digest"], strict=True)), reads)


def _say(name: str, one: str, many: str, found: list[str]) -> None:
    if not found:
        print(f"checks: no {many}")
        return
    named = ", ".join(found[:NAMED]) + (", …" if len(found) > NAMED else "")
    what = one if len(found) == 1 else many
    print(f"checks: {len(found)} {what}: {named}; see {CHECKS / name}.csv")


if __name__ == "__main__":
    command.run(checks)
