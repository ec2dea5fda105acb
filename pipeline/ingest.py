"""Stage 1, ingest: from a picture source to a manifest of checked pictures with splits."""

import contextlib
import csv
import itertools
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import PIL

from .core import command, params
from .core.errors import DataError, StoreError
from .core.params import IngestParams
from .core.paths import MANIFEST, REFUSED
from .core.progress import Progress
from .kinds.image import decode
from .kinds.image.decode import Inspection, RefusedError
from .sources import find, splits
from .sources.find import Found, Refused
from .store import local
from .store.local import FeatureStore

INSPECTION_CODE = 1  # raise when pictures.py comes to take or refuse other files
NAMED_AT_MOST = 10  # classes in a warning


Stamp = tuple[int, int, int]  # inode, size, time of the last change in nanoseconds


class Picture(NamedTuple):
    """A picture that passed: where it was found, its bytes' SHA-256, and what they hold."""

    found: Found
    digest: str
    seen: Inspection


def ingest() -> None:
    """Read the source, refuse what cannot be used, split the rest, write the two tables."""
    settings = params.load().ingest
    for old in (MANIFEST, REFUSED):
        old.unlink(missing_ok=True)

    listing = find.listing(settings)
    before = [_stamp(row.path) for row in listing.found]
    passed, refused = check(listing.found)
    stop_if_changed(listing.found, before)
    kept, repeated = drop_repeats(passed)
    refused = sorted([*listing.refused, *refused, *repeated])
    manifest = split(kept, settings)

    write_refused(refused)
    files = len(listing.found) + len(listing.refused)
    report(manifest, len(refused), files)
    stop_if_unusable(manifest, len(refused), files, settings)
    manifest.to_parquet(MANIFEST, index=False)


class Memory:
    """What was seen in pictures of earlier runs, so that these are hashed but not decoded again.

    It is kept in the feature store, an entry a picture: width, height and the format's place in
    `pictures.FORMATS`. Where the store cannot be used, that is said and pictures are decoded.
    Threads may share it.
    """

    def __init__(self) -> None:
        """Open the feature store."""
        self._store: FeatureStore | None = None
        self._new: dict[bytes, Inspection] = {}
        self._giving_up = threading.Lock()
        try:
            self._store = FeatureStore(local.default_folder(), local.default_limit())
        except StoreError as error:
            _warn(error)

    def inspect(self, data: bytes, digest: str) -> Inspection:
        """`pictures.inspect`, or what it found in the same bytes before; only pictures are kept."""
        key = _key(digest)
        opened = self._store  # read once, for another thread may give it up meanwhile
        try:
            kept = opened.get([key]) if opened else {}
        except StoreError as error:
            self._do_without(error)
            kept = {}
        if key in kept:
            width, height, form = (int(number) for number in kept[key])
            return Inspection(width, height, decode.FORMATS[form])
        seen = self._new[key] = decode.inspect(data)
        return seen

    def keep(self) -> None:
        """Write down what is new."""
        entries = {
            key: np.array([width, height, decode.FORMATS.index(form)], dtype=np.float32)
            for key, (width, height, form) in self._new.items()
        }
        self._new.clear()
        try:
            if self._store and entries:
                self._store.put(entries)
        except StoreError as error:
            self._do_without(error)

    def close(self) -> None:
        """Close the store."""
        try:
            if self._store:
                self._store.close()
        except StoreError as error:
            self._do_without(error)

    def _do_without(self, error: StoreError) -> None:
        """Give the store up; of several threads that it fails, the first says so."""
        with self._giving_up:
            opened, self._store = self._store, None
        if opened:
            _warn(error)
            with contextlib.suppress(StoreError):
                opened.close()


def _warn(error: StoreError) -> None:
    print(f"ingest: warning: pictures seen before are decoded again: {error}")


def _key(digest: str) -> bytes:
    what = f"inspection {INSPECTION_CODE}, Pillow {PIL.__version__}, {digest}"
    return blake2b(what.encode(), digest_size=16).digest()


def check(found: list[Found]) -> tuple[list[Picture], list[Refused]]:
    """Open and decode every file, some at a time; each is passed or refused."""

    def outcome(row: Found) -> Picture | Refused:
        try:
            with decode.large(row.path):
                data = decode.load(row.path)
                digest = decode.digest(data)
                return Picture(row, digest, memory.inspect(data, digest))
        except RefusedError as error:
            return Refused(row.path, str(error))

    passed: list[Picture] = []
    refused: list[Refused] = []
    workers = os.cpu_count() or 1
    with (
        contextlib.closing(Memory()) as memory,
        ThreadPoolExecutor(workers) as pool,
        Progress("ingest", len(found), "pictures") as progress,
    ):
        for chunk in _chunks(found, 64 * workers):
            for result in pool.map(outcome, chunk):
                if isinstance(result, Picture):
                    passed.append(result)
                else:
                    refused.append(result)
            memory.keep()
            progress.advance(len(chunk))
    return passed, refused


def stop_if_changed(found: list[Found], before: list[Stamp | None]) -> None:
    """Raise `DataError` where a file is not what it was when it was listed.

    DVC notes the pictures' state after the stage: it would take them for what was ingested.
    """
    changed = [
        row.path for row, stamp in zip(found, before, strict=True) if _stamp(row.path) != stamp
    ]
    if changed:
        raise DataError(
            f"{len(changed)} files changed while ingest read them, the first {changed[0]};"
            " run it again when nothing writes there any more"
        )


def _stamp(path: Path) -> Stamp | None:
    """What changes with a file's content; None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def drop_repeats(passed: list[Picture]) -> tuple[list[Picture], list[Refused]]:
    """Keep one of several identical files, so that none is both learnt from and tested on.

    Under one label, the one in the most held-out split stays (test, then val, then train). Under
    two labels none stays: at least one of the labels is wrong.
    """
    by_digest: dict[str, list[Picture]] = {}
    for picture in passed:
        by_digest.setdefault(picture.digest, []).append(picture)
    held_out_first = ("test", "val", "train", "")
    kept: list[Picture] = []
    refused: list[Refused] = []
    for copies in by_digest.values():
        labels = sorted({picture.found.label for picture in copies})
        if len(labels) > 1:
            reason = "the same picture has the labels " + " and ".join(labels)
            refused += [Refused(picture.found.path, reason) for picture in copies]
            continue
        copies.sort(key=lambda picture: (held_out_first.index(picture.found.split), picture.found))
        first = copies[0].found.path
        kept.append(copies[0])
        for picture in copies[1:]:
            path = picture.found.path
            reason = "named twice" if path == first else f"the same picture as {first}"
            refused.append(Refused(path, reason))
    return kept, refused


def split(kept: list[Picture], settings: IngestParams) -> pd.DataFrame:
    """The manifest: a row a picture, its split given by the source or drawn from its content."""
    given = {found.split for found, _, _ in kept} - {""}
    fates = fate_of_splits(given, settings.shares.model_dump())
    # Where the source places some of a group, the rest of it follows.
    places = {found.group: found.split for found, _, _ in kept if found.group and found.split}
    rows = []
    for found, digest, seen in kept:
        fate = fates[found.split or places.get(found.group, "")]
        drawn = (
            fate
            if isinstance(fate, str)
            else splits.draw(found.group or digest, fate, settings.seed)
        )
        rows.append(
            {
                "digest": digest,
                "path": found.path.as_posix(),
                "label": found.label,
                "split": drawn,
                **seen._asdict(),
                "group": found.group,
            }
        )
    columns = ["digest", "path", "label", "split", *Inspection._fields, "group"]
    return pd.DataFrame(rows, columns=columns).sort_values("path", ignore_index=True)


def fate_of_splits(given: set[str], shares: dict[str, float]) -> dict[str, str | dict[str, float]]:
    """What becomes of each split that the source gives: a split, or shares to draw one from.

    Of three splits each stays. Of train and one other (val or test), that one is the test split,
    and validation pictures are drawn from train. Of train alone all three are drawn. Pictures
    without a split (the key "") are drawn in any case.
    """
    fates: dict[str, str | dict[str, float]] = {"": shares, **{name: name for name in given}}
    if given == {"train"}:
        fates["train"] = shares
    elif len(given) == 2 and "train" in given:
        (held_out,) = given - {"train"}
        print(f"ingest: {held_out} of the source is the test split; val is drawn from its train")
        rest = shares["train"] + shares["val"]
        fates[held_out] = "test"
        fates["train"] = {name: shares[name] / rest for name in ("train", "val")}
    return fates


def write_refused(refused: list[Refused]) -> None:
    """Write the table of refusals; of a name that is no UTF-8 the odd bytes are spelt out."""
    with REFUSED.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Refused._fields)
        writer.writerows((path.as_posix(), reason) for path, reason in refused)


def report(manifest: pd.DataFrame, refused: int, files: int) -> None:
    """Say what was taken and what a person should look at."""
    counts = Counter(manifest["split"])
    shares = ", ".join(f"{counts[name]} {name}" for name in splits.SPLITS)
    labels = sorted(set(manifest["label"]))
    print(f"ingest: {len(manifest)} of {files} files taken: {len(labels)} classes, {shares}")
    if refused:
        print(f"ingest: {refused} files refused, each with its reason in {REFUSED}")
    gaps = splits.missing(zip(manifest["label"], manifest["split"], strict=True))
    for name, missing in gaps.items():
        more = f" and {len(missing) - NAMED_AT_MOST} more" if len(missing) > NAMED_AT_MOST else ""
        named = ", ".join(missing[:NAMED_AT_MOST])
        print(f"ingest: warning: no {name} pictures of {named}{more}")
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
    if "train" not in set(manifest["split"]):
        raise DataError(f"{settings.path} gives no picture to the train split")


def _chunks(rows: Iterable[Found], size: int) -> Iterator[list[Found]]:
    iterator = iter(rows)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


if __name__ == "__main__":
    command.run(ingest)
