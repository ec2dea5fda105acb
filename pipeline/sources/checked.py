"""Open and inspect every example of a source once; results of earlier runs are cached."""

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import ChangedError, RefusedError
from ..core.progress import Progress
from ..examples import files, objects
from ..kinds import Kind
from ..tables.manifest import UNLABELLED
from .found import Found, Refused
from .remembered import Inspected, Memory, Result

PART = 100_000  # examples whose results by stamp are one entry of the store
BATCH, BATCH_BYTES = 16, 4_000_000  # examples that a thread reads before it asks the store


class Checked(NamedTuple):
    """An accepted example: where it was found, the SHA-256 of its bytes, and what is known of them.

    `seen` has a value for each of the kind's `columns` and `measures`.
    """

    found: Found
    digest: str
    seen: tuple[Any, ...]


def check(
    found: list[Found], kind: Kind, stamps: dict[Path, str], name: str = "ingest"
) -> tuple[list[Checked], list[Refused]]:
    """Open and decode every example that is not remembered; each one is accepted or refused.

    Args:
        stamps: the trusted stamps of the examples (`Stamps.of_examples`).

    Raises:
        DataError: a bucket cannot be read, or objects have changed since they were listed. The
            results up to there are cached all the same.
    """
    passed: list[Checked] = []
    refused: list[Refused] = []
    changed: list[ChangedError] = []
    workers = os.cpu_count() or 1
    if any(row.identity for row in found[:1]):
        workers = max(workers, objects.READERS)
    with (
        contextlib.closing(Memory(kind, stamps)) as memory,
        ThreadPoolExecutor(workers) as pool,  # starts threads when a task is submitted
        Progress(name, len(found), kind.nouns) as progress,
    ):
        for part, rows in enumerate(_chunks(found, PART)):
            results: dict[Path, Result | ChangedError] = {**memory.known(part, rows)}
            unknown = [row for row in rows if row.path not in results]
            progress.advance(len(rows) - len(unknown))
            for some in _chunks(unknown, 64 * workers):
                results |= _read(some, kind, memory, pool)
                progress.advance(len(some))
            memory.keep_stamps(part)
            for row in rows:
                result = results[row.path]
                if isinstance(result, Inspected):
                    passed.append(Checked(row, *result))
                elif isinstance(result, str):
                    refused.append(Refused(row.path, result))
                else:
                    changed.append(result)
    if changed:
        more = f"; other changed or deleted objects: {len(changed) - 1:,}" * (len(changed) > 1)
        raise ChangedError(f"{changed[0]}{more}")
    return passed, refused


def _read(
    rows: list[Found], kind: Kind, memory: Memory, pool: ThreadPoolExecutor
) -> dict[Path, Result | ChangedError]:
    """Read and inspect examples in parallel, and cache the results."""

    def together(batch: list[Found]) -> dict[Path, Result | ChangedError]:
        results: dict[Path, Result | ChangedError] = {}
        loaded: list[tuple[Found, bytes, str]] = []
        for row in batch:
            try:
                data = files.load(row.path, kind.most_bytes)
                loaded.append((row, data, files.digest(data)))
            except RefusedError as error:  # not cached: denied access may be granted
                results[row.path] = str(error)
            except ChangedError as error:
                results[row.path] = error
        inspected = memory.inspect([(data, digest) for _, data, digest in loaded])
        for (row, _, digest), seen in zip(loaded, inspected, strict=True):
            result = seen if isinstance(seen, str) else Inspected(digest, seen)
            results[row.path] = result
            memory.note(row, result, digest)
        return results

    def alone(row: Found) -> dict[Path, Result | ChangedError]:
        try:
            with kind.alone(row.path):
                return together([row])
        except RefusedError as error:
            return {row.path: str(error)}

    asked = [
        pool.submit(together, batch) if len(batch) > 1 else pool.submit(alone, *batch)
        for batch in _batches(rows)
    ]
    results: dict[Path, Result | ChangedError] = {}
    try:
        for one in asked:
            results |= one.result()
    finally:
        for one in asked:  # after an error, cancel those that have not started
            one.cancel()
        wait(asked)  # threads that still read have results to cache too
        memory.keep()
    return results


def _batches(rows: list[Found]) -> Iterator[list[Found]]:
    """Yield batches of examples for a thread each: an object, a large file, or some smaller files.

    The store is queried once per batch, and all bytes of a batch are in memory together.
    """
    batch: list[Found] = []
    held = 0
    for row in rows:
        size = 0 if row.identity else files.size(row.path)
        if batch and (row.identity or len(batch) == BATCH or held + size > BATCH_BYTES):
            yield batch
            batch, held = [], 0
        batch.append(row)
        held += size
    yield batch


def drop_odd(passed: list[Checked], kind: Kind) -> tuple[list[Checked], list[Refused]]:
    """Keep the examples with the most frequent value in the column `kind.same`.

    If vectors have two lengths, for example, those with the more frequent length stay.
    """
    if not kind.same or not passed:
        return passed, []
    place = kind.columns.index(kind.same)
    counts = Counter(example.seen[place] for example in passed)
    # If two values are equally frequent, the larger one is kept, whatever the order.
    commonest = max(counts, key=lambda value: (counts[value], value))
    kept = [example for example in passed if example.seen[place] == commonest]
    refused = [
        Refused(
            example.found.path,
            f"{kind.same} {example.seen[place]}, where {counts[commonest]:,} {kind.nouns} have"
            f" {commonest}",
        )
        for example in passed
        if example.seen[place] != commonest
    ]
    return kept, refused


def drop_repeats(passed: list[Checked], kind: Kind) -> tuple[list[Checked], list[Refused]]:
    """Keep one of several identical files, so that no content is both trained and tested on.

    If the labels agree, one file stays: one in test if there is any, else one in val, else one in
    train. If the labels or targets differ, no file stays, because at least one is wrong. A file of
    another domain, which has no label, stays only if no labelled file has the same bytes.
    """
    by_digest: dict[str, list[Checked]] = {}
    for example in passed:
        by_digest.setdefault(example.digest, []).append(example)
    held_out_first = ("test", "val", "train", "", UNLABELLED)
    kept: list[Checked] = []
    refused: list[Refused] = []
    for copies in by_digest.values():
        copies.sort(key=lambda example: (held_out_first.index(example.found.split), example.found))
        first = copies[0].found
        labelled = [example.found for example in copies if example.found.split != UNLABELLED]
        labels = sorted({found.label for found in labelled})
        if len({(found.label, str(found.targets)) for found in labelled}) > 1:
            reason = f"the same {kind.noun} has the labels " + " and ".join(labels)
            refused += [Refused(example.found.path, reason) for example in copies]
            continue
        kept.append(copies[0])
        for example in copies[1:]:
            path = example.found.path
            again = path == first.path
            reason = "named twice" if again else f"the same {kind.noun} as {first.path}"
            refused.append(Refused(path, reason))
    return kept, refused


def _chunks(rows: Iterable[Found], size: int) -> Iterator[list[Found]]:
    iterator = iter(rows)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
