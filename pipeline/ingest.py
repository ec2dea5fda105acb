"""Stage 1, ingest: check the examples of a source, and write a manifest with splits.

Unlabelled examples of another domain are written to a separate table.
"""

import csv
from collections import Counter
from pathlib import Path

import pandas as pd

from . import kinds
from .core import command, params
from .core.errors import DataError
from .core.params import Params
from .core.paths import CONFIRMED, CORRECTIONS, MANIFEST, MEASURES, REFUSED, TARGET
from .examples.rows import parted
from .kinds import Kind
from .sources.checked import check, drop_odd, drop_repeats
from .sources.corrected import corrected
from .sources.find import listing, stop_if_others_came, tables
from .sources.found import Refused
from .sources.splits import origins, split, unlabelled
from .sources.stamps import Stamps
from .tables import confirmed, corrections, measures, targets
from .tables.labels import (
    ALL_AT_MOST,
    listed,
    require,
    require_unlabelled,
)
from .tables.manifest import SPLITS, UNLABELLED, divided_groups, write_manifest
from .tasks import SEPARATOR, TASKS


def ingest() -> None:
    """Read the source, refuse unusable examples, split the others, and write the tables."""
    every = params.load(kinds.schema)
    settings = every.ingest
    name = kinds.declared(settings)
    kind = kinds.named(name)
    for old in (CONFIRMED, MANIFEST, MEASURES, REFUSED, TARGET):
        old.unlink(missing_ok=True)

    written, others = corrections.files_in(CORRECTIONS)
    stamps = Stamps([*tables(settings), CORRECTIONS, *written])
    wanted = corrections.read_all(written)
    found = listing(settings, kind)
    stamps.look(found.found)
    passed, refused = check(found.found, kind, stamps.of_examples)
    stamps.stop_if_changed()
    stop_if_others_came(settings, found)
    agreeing, odd = drop_odd(passed, kind)
    mended = corrected(agreeing, wanted, settings)
    kept, repeated = drop_repeats(mended.examples, kind)
    refused = sorted([*found.refused, *refused, *odd, *repeated])
    labelled, target = unlabelled(kept)
    manifest = split(labelled, settings, kind, found.columns)
    untaught: list[str] = []
    left_out: list[Refused] = []
    if settings.classes_without_training == "leave_out":
        manifest, untaught, gone = targets.of_task(settings.task).taught(manifest)
        left_out = [Refused(Path(path), reason) for path, reason in gone]

    write_refused(sorted([*refused, *left_out, *mended.excluded]))
    files = len(found.found) + len(found.refused)
    first = [row.path for row in found.found[:1]] + [row.path for row in found.refused[:1]]
    in_table = any(parted(path) for path in first)
    unit = "object" if settings.source == "s3" else "row" if in_table else "file"
    report(manifest, len(target), settings.task, len(refused), files, unit, kind)
    ignored = [f"warning: {file} is not a table of corrections and is ignored" for file in others]
    for remark in (*ignored, *mended.remarks):
        print(f"ingest: {remark}")
    if untaught:
        rows = f" with {len(left_out)} {unit}{'s' * (len(left_out) != 1)} that {REFUSED} lists"
        print(
            f"ingest: warning: {TASKS[settings.task].counted(len(untaught))} cannot be learned from"
            f" the training examples, and are left out{rows * bool(left_out)}:"
            f" {listed(untaught, ALL_AT_MOST)}"
        )
    stop_if_unusable(manifest, refused, files, unit, every)
    labelled_too = sum(bool(row.found.label) for row in kept if row.found.split == UNLABELLED)
    if labelled_too:
        print(
            f"ingest: {labelled_too} of the {len(target)} {UNLABELLED} {kind.nouns} have labels,"
            " which are ignored: to measure the head on them, put them into the split test"
        )
    if params.adapts(every):
        require_unlabelled(len(target))
    write_manifest(manifest, name, MANIFEST, origins(labelled, manifest, settings), settings.task)
    write_manifest(target, name, TARGET)
    confirmed.write(CONFIRMED, mended.confirmed)
    seen = {one.digest: one.seen[len(kind.columns) :] for one in labelled}
    measures.write(MEASURES, kind.measures, seen)


def write_refused(refused: list[Refused]) -> None:
    """Write the table of refused examples; bytes of names that are not UTF-8 are escaped."""
    with REFUSED.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Refused._fields)
        writer.writerows((path.as_posix(), reason) for path, reason in refused)


def report(
    manifest: pd.DataFrame,
    unlabelled: int,
    task: str,
    refused: int,
    files: int,
    unit: str,
    kind: Kind,
) -> None:
    """Print how many units (such as files or rows) were accepted, and warnings about the data."""
    counts = Counter(manifest["split"])
    sizes = ", ".join(f"{counts[name]} {name}" for name in SPLITS)
    sizes += f", {unlabelled} {UNLABELLED}" * bool(unlabelled)
    labels = targets.target_names(manifest) or sorted(set(manifest["label"]))
    learned = TASKS[task].counted(len(labels))
    print(f"ingest: {len(manifest) + unlabelled} of {files} {unit}s accepted: {learned}, {sizes}")
    if refused:
        units = f"{unit} refused, with its" if refused == 1 else f"{unit}s refused, each with its"
        print(f"ingest: {refused} {units} reason in {REFUSED}")
    for remark in kind.remarks(manifest):
        print(f"ingest: {remark}")
    for name, lacking in targets.lacking(task, manifest).items():
        if name != "train":  # for train, `require` ends the run
            print(f"ingest: warning: no {name} {kind.nouns} of {listed(lacking)}")
    joined = [label for label in labels if SEPARATOR in label]
    if joined:
        print(
            f"ingest: warning: labels contain {SEPARATOR}: {listed(joined)}; to learn several"
            " labels of an example, set ingest.task to multilabel"
        )
    by_case: dict[str, list[str]] = {}
    for label in labels:
        by_case.setdefault(label.casefold(), []).append(label)
    for alike in by_case.values():
        if len(alike) > 1:
            what = TASKS[task].nouns
            print(f"ingest: warning: {what} differ only in case: {', '.join(alike)}")
    if divided := divided_groups(manifest):
        print(f"ingest: warning: {divided}")


def stop_if_unusable(
    manifest: pd.DataFrame,
    refused: list[Refused],
    files: int,
    unit: str,
    every: Params,
) -> None:
    """Raise `DataError` if there is no unit, too many were refused, or a stage needs more."""
    settings = every.ingest
    if files == 0:
        raise DataError(f"{settings.path} has no {unit}s")
    if len(refused) > settings.max_refused * files:
        first = refused[0]
        raise DataError(
            f"{len(refused)} of {files} {unit}s were refused, more than ingest.max_refused"
            f" ({settings.max_refused:g}) allows; the first is {first.path}: {first.reason};"
            f" see {REFUSED}"
        )
    targets.of_task(settings.task).require(manifest, settings.path)
    for stage in ("evaluate", *params.stages_that_need_validation(every)):
        require(manifest, stage)


if __name__ == "__main__":
    command.run(ingest)
