"""Stage 1, ingest: from a picture source to a manifest of checked pictures with splits."""

import itertools
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pandas as pd

from pipeline import command, params, pictures, sources, splits
from pipeline.errors import DataError
from pipeline.params import IngestParams
from pipeline.paths import MANIFEST, PICTURES, REFUSED
from pipeline.pictures import Inspection, RefusedError
from pipeline.progress import Progress
from pipeline.sources import Found, Refused


class Picture(NamedTuple):
    """A picture that passed: where it was found and what it holds."""

    found: Found
    inspection: Inspection


def ingest() -> None:
    """Read the source, refuse what cannot be used, split the rest, write the two tables."""
    settings = params.load().ingest
    shutil.rmtree(PICTURES, ignore_errors=True)
    PICTURES.mkdir(parents=True)

    listing = sources.listing(settings)
    passed, refused = check(listing.found)
    kept, repeated = drop_repeats(passed)
    refused = sorted([*listing.refused, *refused, *repeated])
    manifest = split(kept, settings)

    pd.DataFrame(
        [(path.as_posix(), reason) for path, reason in refused], columns=["path", "reason"]
    ).to_csv(REFUSED, index=False, errors="backslashreplace")
    files = len(listing.found) + len(listing.refused)
    report(manifest, refused, files)
    stop_if_unusable(manifest, len(refused), files, settings)
    manifest.to_parquet(MANIFEST, index=False)


def check(found: list[Found]) -> tuple[list[Picture], list[Refused]]:
    """Open and decode every file, some at a time; each is passed or refused."""
    passed: list[Picture] = []
    refused: list[Refused] = []
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool, Progress("ingest", len(found), "pictures") as bar:
        for chunk in _chunks(found, 16 * workers):
            for row, outcome in zip(chunk, pool.map(_inspect, chunk), strict=True):
                if isinstance(outcome, Inspection):
                    passed.append(Picture(row, outcome))
                else:
                    refused.append(Refused(row.path, outcome))
            bar.advance(len(chunk))
    return passed, refused


def drop_repeats(passed: list[Picture]) -> tuple[list[Picture], list[Refused]]:
    """Keep one of several identical files, so that none is both learnt from and tested on.

    Under one label, the one in the most held-out split stays (test, then val, then train). Under
    two labels none stays: at least one of the labels is wrong.
    """
    by_digest: dict[str, list[Picture]] = {}
    for picture in passed:
        by_digest.setdefault(picture.inspection.digest, []).append(picture)
    held_out_first = ("test", "val", "train", "")
    kept: list[Picture] = []
    refused: list[Refused] = []
    for copies in by_digest.values():
        labels = sorted({picture.found.label for picture in copies})
        if len(labels) > 1:
            reason = "the same picture has the labels " + " and ".join(labels)
            refused += [Refused(picture.found.path, reason) for picture in copies]
            continue
        copies.sort(key=lambda p: (held_out_first.index(p.found.split), p.found.path))
        kept.append(copies[0])
        refused += [
            Refused(picture.found.path, f"the same picture as {copies[0].found.path}")
            for picture in copies[1:]
        ]
    return kept, refused


def split(kept: list[Picture], settings: IngestParams) -> pd.DataFrame:
    """The manifest: a row a picture, its split given by the source or drawn from its content.

    Where the source gives two splits (train and val, or train and test), the second one is the
    test split and validation pictures are drawn from train.
    """
    given = {picture.found.split for picture in kept} - {""}
    shares = settings.shares.model_dump()
    last = next((name for name in ("test", "val") if name in given), None)
    two_given = "train" in given and len(given) == 2
    if two_given:
        print(f"ingest: the source's {last} pictures are the test split; validation is from train")
    rows = []
    for found, seen in kept:
        name = found.split
        key = found.group or seen.digest
        if two_given and name:
            rest = {"train": shares["train"], "val": shares["val"]}
            total = sum(rest.values())
            drawn = splits.draw(key, {k: v / total for k, v in rest.items()}, settings.seed)
            name = drawn if name == "train" else "test"
        elif not name or given == {"train"}:
            name = splits.draw(key, shares, settings.seed)
        rows.append(
            {
                "digest": seen.digest,
                "path": found.path.as_posix(),
                "label": found.label,
                "split": name,
                "width": seen.width,
                "height": seen.height,
                "format": seen.format,
                "group": found.group,
            }
        )
    columns = ["digest", "path", "label", "split", "width", "height", "format", "group"]
    return pd.DataFrame(rows, columns=columns).sort_values("path", ignore_index=True)


def report(manifest: pd.DataFrame, refused: list[Refused], files: int) -> None:
    """Say what was taken and what a person should look at."""
    counts = Counter(manifest["split"])
    shares = ", ".join(f"{counts[name]} {name}" for name in splits.SPLITS)
    labels = sorted(set(manifest["label"]))
    print(f"ingest: {len(manifest)} of {files} files taken: {len(labels)} classes, {shares}")
    if refused:
        print(f"ingest: {len(refused)} files refused, each with its reason in {REFUSED}")
    gaps = splits.missing(zip(manifest["label"], manifest["split"], strict=True))
    for name, missing in gaps.items():
        print(f"ingest: warning: no {name} pictures of {', '.join(missing)}")
    by_case: dict[str, list[str]] = {}
    for label in labels:
        by_case.setdefault(label.casefold(), []).append(label)
    for alike in by_case.values():
        if len(alike) > 1:
            print(f"ingest: warning: classes differ only in case: {', '.join(alike)}")
    crossing = manifest[manifest["group"] != ""].groupby("group")["split"].nunique()
    for group in crossing[crossing > 1].index:
        print(f"ingest: warning: the source itself divides group {group!r} between splits")


def stop_if_unusable(
    manifest: pd.DataFrame, refused: int, files: int, settings: IngestParams
) -> None:
    """Raise `DataError` where nothing could be learnt or too much was refused."""
    if files == 0:
        raise DataError(f"{settings.path} holds no files")
    if refused > settings.max_refused * files:
        raise DataError(
            f"{refused} of {files} files refused, more than ingest.max_refused"
            f" ({settings.max_refused:g}) allows; see {REFUSED}"
        )
    labels = sorted(set(manifest["label"]))
    if len(labels) < 2:
        raise DataError(
            f"{settings.path} holds pictures of {len(labels)} class"
            f" ({', '.join(labels) or 'none'}); a classifier needs two or more"
        )


def _inspect(row: Found) -> Inspection | str:
    try:
        return pictures.inspect(row.path.read_bytes())
    except RefusedError as refused:
        return str(refused)
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _chunks(rows: Iterable[Found], size: int) -> Iterator[list[Found]]:
    iterator = iter(rows)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


if __name__ == "__main__":
    command.run(ingest)
