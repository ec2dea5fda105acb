"""The features table between `extract` and the stages that read it: shards of Parquet.

A row is a view: `digest` of the example, `view` number, `feature` (fixed-size list of float32). The
features of an inner block have a column of their own, such as `feature:blocks.4.2`. With
`extract.features: keys` a row has `key` and `checksum` instead of `feature`, `key_2` and so on for
joined networks, and `key:blocks.4.2` for a block; the vectors are read from the feature store
(`by_key.py`).

Shard `<two hex digits>.parquet` holds the rows whose digest begins with those digits, sorted by
digest and view.
"""

import contextlib
import json
import os
from collections.abc import Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..core.errors import DataError
from . import by_key, targets
from .large import Chosen, Stack, chunks, mapped, taken, together
from .layers import Layer, Layers, by_layer
from .power import raised

COUNTS = b"headstart.counts"  # in the metadata of a shard of term counts
SHARDS_AT_ONCE = 16  # read by several threads
LAYERS = b"headstart.layers"  # in the metadata of a shard with inner blocks: names and widths

Features = npt.NDArray[np.float32] | by_key.Kept


def write_shards(
    folder: Path,
    parts: Iterable[tuple[Sequence[str], npt.ArrayLike, Features]],
    counts: bool = False,
    layers: Layers = (),
    digits: int = 2,
    kept: Container[str] = (),
) -> None:
    """Write exactly these rows to `folder`, but replace only shards whose bytes differ.

    Args:
        folder: created if it does not exist; other files in it are removed.
        parts: rows in any order, but all rows of a shard in the same part, so that only one part is
            in memory. A part has digests (SHA-256 of each row's example, 64 hex digits, length n),
            view numbers (length n) and features [n, d], or instead of features the keys and
            checksums from `by_key.kept` [n, networks]; the last columns are those of inner blocks.
        counts: whether the features are term counts, which each shard's metadata records.
        layers: the layers, which the metadata records too; empty for the last layer alone.
        digits: hex digits of a digest by which shards are divided, and after which they are named.
        kept: the names of shards that are already as they should be. It is read last.

    Raises:
        DataError: the lengths differ, or a pair of digest and view occurs twice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: set[str] = set()
    for digests, views, features in parts:
        names = np.asarray(digests, dtype=str)
        numbers = np.asarray(views, dtype=np.int32)
        if features.ndim != 2 or not len(names) == len(numbers) == len(features):
            raise DataError(
                f"{folder}: {len(names)} digests, {len(numbers)} views and features of shape "
                f"{features.shape} do not belong together"
            )
        order = np.lexsort((numbers, names))
        names, numbers = names[order], numbers[order]
        twice = (names[1:] == names[:-1]) & (numbers[1:] == numbers[:-1])
        if twice.any():
            first = int(np.argmax(twice))
            raise DataError(f"{folder}: view {numbers[first]} of {names[first]} is given twice")

        prefixes, starts = np.unique(names.astype(f"U{digits}"), return_index=True)
        for prefix, start, end in zip(prefixes, starts, [*starts[1:], len(names)], strict=True):
            some = order[start:end]
            rows = names[start:end], numbers[start:end], features[some]
            content = _parquet(*rows, counts, layers)
            _replace_if_different(folder / f"{prefix}.parquet", content)
            written.add(f"{prefix}.parquet")
    for file in folder.iterdir():
        if file.name not in written and file.name not in kept:
            file.unlink()


def _parquet(
    digests: npt.NDArray[np.str_],
    views: npt.NDArray[np.int32],
    features: Features,
    counts: bool,
    layers: Layers,
) -> pa.Buffer:
    """Return a shard as bytes, uncompressed because float32 features hardly compress."""
    columns = {"digest": pa.array(digests.tolist(), type=pa.string()), "view": pa.array(views)}
    if features.dtype == by_key.KEPT:
        columns |= by_key.columns(features, [block.name for block in layers[1:]])
    else:
        names = ["feature", *_columns(layers[1:])]
        for name, part in zip(names, by_layer(features, layers), strict=True):
            values = pa.array(np.ascontiguousarray(part, dtype=np.float32).reshape(-1))
            columns[name] = pa.FixedSizeListArray.from_arrays(values, part.shape[1])
    table = pa.table(columns)
    notes = {COUNTS: b"yes"} if counts else {}
    if layers:
        notes[LAYERS] = json.dumps(layers).encode()
    if notes:
        table = table.replace_schema_metadata(notes)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="none", use_dictionary=False, write_statistics=False)
    return sink.getvalue()


def are_counts(folder: Path) -> bool:
    """Return whether the features in `folder` are term counts, which a head weights by TF-IDF.

    A shard that cannot be read is skipped; `read_splits` raises the error.
    """
    for shard in sorted(folder.glob("*.parquet")):
        with contextlib.suppress(pa.ArrowException, OSError):
            return COUNTS in (pq.read_schema(shard).metadata or {})
    return False


def layers_in(folder: Path) -> Layers:
    """Return the layers whose features are in `folder`; empty for the last layer alone.

    The features are not read. A shard that cannot be read is skipped; `read_splits` raises the
    error.
    """
    for shard in sorted(folder.glob("*.parquet")):
        with contextlib.suppress(pa.ArrowException, OSError):
            notes = pq.read_schema(shard).metadata or {}
            return tuple(Layer(*one) for one in json.loads(notes.get(LAYERS, b"[]")))
    return ()


def _columns(blocks: Sequence[Layer]) -> list[str]:
    return [f"feature:{block.name}" for block in blocks]


def _replace_if_different(file: Path, content: pa.Buffer) -> None:
    """Write a file unless its content is the same, so that DVC need not hash it again."""
    if file.exists() and pa.py_buffer(file.read_bytes()).equals(content):
        return
    # Readers never see half a shard, and a link into DVC's cache is replaced, not written to.
    temporary = file.with_suffix(".partial")
    temporary.write_bytes(content)
    temporary.replace(file)


# For some views: row in the manifest, view number, and the feature or its key and checksum.
_Rows = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], Features]


@dataclass(frozen=True)
class Split:
    """The rows of one split, sorted by digest and view.

    `digests` and `paths` are strings of length n, `views` int32 [n], `features` float32 [n, d].
    `labels` are as returned by `targets.of`: int64 [n], positions in the list of classes; or
    float64 [n, c], in multi-label tasks 1, 0 or NaN (unknown), in regression the targets.
    """

    digests: npt.NDArray[np.str_]
    paths: npt.NDArray[np.str_]
    views: npt.NDArray[np.int32]
    labels: npt.NDArray[Any]
    features: npt.NDArray[np.float32]

    def take(self, rows: Chosen) -> Self:
        """Select rows by a mask [n], by positions (in their order) or by a slice."""
        *others, features = vars(self).values()
        columns = [*(column[rows] for column in others), taken(features, rows)]
        return type(self)(*columns)

    @classmethod
    def concat(cls, splits: Iterable[Self]) -> Self:
        """Concatenate the rows of one or more splits."""
        *others, features = zip(*(vars(split).values() for split in splits), strict=True)
        columns = [*(np.concatenate(parts) for parts in others), together(features)]
        return cls(*columns)


def read_splits(
    folder: Path,
    manifest: pd.DataFrame,
    classes: Sequence[str],
    splits: Sequence[str],
    power: float = 1.0,
    layers: Layers = (),
) -> dict[str, Split]:
    """Join the features in `folder` with the manifest, for the rows of `splits` only.

    The training split has every view, the others view 0 only. A split without examples has n = 0.
    The features of the last layer come first, then those of the inner blocks in `layers`.

    Args:
        folder: as written by `write_shards`.
        manifest: as returned by `read_manifest`.
        classes: the label at each position, or the names of the targets, as in `targets.names`.
        splits: any of train, val and test.
        layers: the layers of the head; if empty, only the last layer is read.

    Raises:
        DataError: a shard is damaged, a row is missing or surplus, a feature is not finite, a label
            of `splits` is not among the classes, the targets differ, or the feature store lacks a
            vector whose key is in the table.
        StoreError: the table has keys, and the feature store cannot be read.
    """
    shards = sorted(folder.glob("*.parquet"))
    if not shards:
        raise DataError(f"{folder} has no features; run the extract stage first")
    row_of = {digest: row for row, digest in enumerate(manifest["digest"].tolist())}
    split_of_row = manifest["split"].to_numpy()
    blocks = layers[1:]

    def read(shard: Path) -> tuple[by_key.Kept | None, dict[str, _Rows]]:
        digests, views, parts = read_shard(shard, blocks)
        rows = np.array([row_of.get(digest, -1) for digest in digests], dtype=np.int64)
        if (rows < 0).any():
            raise DataError(
                f"{shard} has features of {digests[int(np.argmin(rows))]}, an example that is not "
                "in the manifest; run the extract stage again"
            )
        chosen = {split: split_of_row[rows] == split for split in splits}
        kept = parts[0] if parts[0].dtype == by_key.KEPT else None
        of_splits = {}
        for split, mask in chosen.items():
            some = [part[mask] for part in parts]
            features = some[0] if len(some) == 1 else np.concatenate(some, axis=1)
            if kept is None:
                features = raised(features, power)
            of_splits[split] = rows[mask], views[mask], features
        return kept, of_splits

    every: list[by_key.Kept] = []
    found = {split: (Stack(), Stack(), Stack()) for split in splits}
    lengths: set[int] = set()
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # more would wait for each other
        for start in range(0, len(shards), SHARDS_AT_ONCE):
            for kept, parts in threads.map(read, shards[start : start + SHARDS_AT_ONCE]):
                every += [] if kept is None else [kept]
                for split, columns in parts.items():
                    lengths.add(columns[2].shape[1])
                    for stack, column in zip(found[split], columns, strict=True):
                        stack.add(column)
    if every and len(every) < len(shards):
        raise DataError(
            f"{folder} mixes keys and vectors; delete it and run the extract stage again"
        )
    if len(lengths) > 1:
        raise DataError(
            f"{folder} mixes features of {' and '.join(map(str, sorted(lengths)))} "
            f"{'networks' if every else 'numbers'}; delete it and run the extract stage again"
        )
    whole = {split: tuple(stack.whole() for stack in found.pop(split)) for split in splits}
    if every:
        wanted = {split: kept for split, (_, _, kept) in whole.items()}
        vectors = by_key.vectors(wanted, np.concatenate(every), folder, len(blocks))
        whole = {
            split: (*of[:2], mapped(vectors.pop(split), partial(raised, power=power)))
            for split, of in whole.items()
        }
    joined = {}
    for split in splits:
        rows, views, features = whole.pop(split)
        _check_complete(folder, split, manifest, rows, views)
        finite = np.empty(len(features), bool)
        for some in chunks(*features.shape):
            finite[some] = np.isfinite(features[some]).all(axis=1)
        if not finite.all():
            bad = int(np.argmin(finite))
            raise DataError(
                f"{folder}: the features of {manifest['path'].iloc[rows[bad]]}, view {views[bad]}, "
                "are not finite numbers; the backbone or its precision is at fault"
            )
        examples = manifest.iloc[rows]
        joined[split] = Split(
            digests=examples["digest"].to_numpy(dtype=str),
            paths=examples["path"].to_numpy(dtype=str),
            views=views,
            labels=targets.of(examples, classes),
            features=features,
        )
    return joined


def view_0(splits: dict[str, Split]) -> Split:
    """Return view 0 of the examples of all splits, sorted by digest."""
    joined = Split.concat(splits.values())
    first = np.flatnonzero(joined.views == 0)
    return joined.take(first[np.argsort(joined.digests[first])])


def read_shard(
    shard: Path, blocks: Sequence[Layer]
) -> tuple[list[str], npt.NDArray[np.int32], list[Features]]:
    """Return the digests, the view numbers and the features of a shard.

    The list of features has those of the last layer first, then those of each block in `blocks`.
    If the shard has keys instead of vectors, the only item has keys and checksums.

    Raises:
        DataError: the shard is damaged.
    """
    names = [block.name for block in blocks]
    try:
        # Each shard is read in its own thread; `pq.read_table` takes twice as long.
        file = pq.ParquetFile(shard)
        columns = [
            column
            for column in file.schema_arrow.names
            if ":" not in column or column.partition(":")[2] in names
        ]
        table = file.read(columns, use_threads=False)
        digests = table["digest"].to_pylist()
        views = table["view"].to_numpy()
        if by_key.is_of_keys(table):
            return digests, views, [by_key.from_columns(table, names)]
        parts: list[Features] = []
        for name in ("feature", *_columns(blocks)):
            column = table[name].combine_chunks()
            parts.append(column.flatten().to_numpy().reshape(len(column), column.type.list_size))
    except (pa.ArrowException, KeyError, AttributeError, OSError, TypeError, ValueError) as error:
        raise DataError(
            f"{shard} is damaged ({' '.join(str(error).split())}); "
            "delete it and run the extract stage again"
        ) from None
    return digests, views, parts


def _check_complete(
    folder: Path,
    split: str,
    manifest: pd.DataFrame,
    rows: npt.NDArray[np.int64],
    views: npt.NDArray[np.int32],
) -> None:
    """Check that every example has views 0 to V exactly once, with V = 0 outside of train."""
    last = int(views.max(initial=0)) if split == "train" else 0
    wanted = np.flatnonzero(manifest["split"] == split)
    present = np.zeros((len(manifest), last + 1), dtype=np.int64)
    if (views < 0).any() or (views > last).any():
        surplus = int(np.argmax((views < 0) | (views > last)))
        raise DataError(
            f"{folder} has view {views[surplus]} of {manifest['path'].iloc[rows[surplus]]}, "
            f"a {split} example; only training examples have views besides 0"
        )
    np.add.at(present, (rows, views), 1)
    wrong = np.argwhere(present[wanted] != 1)
    if len(wrong):
        row, view = wanted[wrong[0, 0]], wrong[0, 1]
        found = "is missing from" if present[row, view] == 0 else "occurs more than once in"
        raise DataError(
            f"view {view} of {manifest['path'].iloc[row]} {found} {folder} "
            f"({len(wrong)} such views); run the extract stage again"
        )
