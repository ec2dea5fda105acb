"""Feature vectors of examples that a user passes, each computed only once.

`extract` uses the same feature store and keys, so each of the two finds the features that the other
computed. Embedding needs neither pandas nor the packages for augmentation.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..backbones.engines import Encoder, Engine, open_encoder
from ..core.errors import DataError, RefusedError
from ..core.params import ExtractParams
from ..examples.files import digest
from ..kinds import named
from ..runners.keys import view_keys
from ..store.interface import Store
from ..store.vectors import open_store
from ..tables import joined

Floats = NDArray[np.float32]
Example = tuple[str, Callable[[], bytes]]  # its name in messages, and a function that reads it


class Embedded(NamedTuple):
    """Features [examples, dimension] in order, and how many each network computed, added up."""

    features: Floats
    computed: int


_one_opens = threading.Lock()  # without it, several threads would each export the backbone


def opened(settings: ExtractParams, kind: str) -> Encoder:
    """Return the backbone from `open_encoder`; the last one is cached."""
    with _one_opens:
        return _opened(settings, kind)


@lru_cache(maxsize=1)  # opening a backbone takes as long as about ten pictures
def _opened(settings: ExtractParams, kind: str) -> Encoder:
    return open_encoder(settings, named(kind))


def embed(examples: Sequence[Example], encoder: Encoder, batch_size: int) -> Embedded:
    """Look up every example in the feature store, and compute and store the missing features.

    Each core takes a batch of examples. No file is kept in memory while features are looked up.

    Args:
        examples: each network reads each example once, and again if its features are missing.

    Raises:
        RefusedError: an example is not accepted; the message has its name and the reason.
        DataError: an example changed while it was read.
        StoreError: the store cannot be read or written.
    """
    cores = os.cpu_count() or 1
    size = max(1, min(batch_size, -(-len(examples) // cores)))
    batches = [examples[start : start + size] for start in range(0, len(examples), size)]
    parts: list[list[Floats]] = [[] for _ in encoder.engines]
    computed = 0
    with open_store() as cache, ThreadPoolExecutor(cores) as pool:
        for engine, found in zip(encoder.engines, parts, strict=True):
            for part in pool.map(lambda batch, by=engine: _batch(batch, by, cache), batches):
                found.append(part.features)
                computed += part.computed
    if not examples:
        widths = [layer.width for layer in encoder.layers] or [e.dimension for e in encoder.engines]
        return Embedded(np.empty((0, sum(widths)), np.float32), 0)
    of_each = zip(encoder.engines, map(np.concatenate, parts), strict=True)
    layers = joined.parted([engine.by_layer(features) for engine, features in of_each])
    return Embedded(joined.with_blocks(*layers), computed)


def _batch(batch: Sequence[Example], engine: Engine, cache: Store) -> Embedded:
    kind, digests, wanted = engine.kind, [], []
    for example in batch:
        data = _read(example)
        digests.append(digest(data))
        wanted.append((digests[-1], kind.original, kind.form(data)))
    made_by = engine.each_made_by.values()
    keys = list(zip(*view_keys(wanted, kind, *made_by), strict=True))
    found = cache.get([key for of_view in keys for key in of_view])
    missing = {
        of_view: (example, digest)
        for of_view, example, digest in zip(keys, batch, digests, strict=True)
        if any(key not in found for key in of_view)
    }
    if missing:
        of_each = engine.by_layer(_features(list(missing.values()), engine))
        new = {
            key: vector
            for of_view, *vectors in zip(missing, *of_each, strict=True)
            for key, vector in zip(of_view, vectors, strict=True)
            if key not in found
        }
        cache.put(new)
        found |= new
    rows = [np.concatenate([found[key] for key in of_view]) for of_view in keys]
    return Embedded(np.stack(rows), len(missing))


def _features(missing: Sequence[tuple[Example, str]], engine: Engine) -> Floats:
    def asked() -> Iterator[tuple[bytes, list[tuple[object, ...]]]]:
        for example, expected in missing:
            data = _read(example)
            if digest(data) != expected:
                raise DataError(f"{example[0]} changed while it was read; try again")
            yield data, [engine.kind.original]

    try:
        return engine.features(engine.make_views(asked()), len(missing))
    except RefusedError:
        for example, _ in missing:  # find the refused example
            data = _read(example)
            try:
                engine.make_views([(data, [engine.kind.original])])
            except RefusedError as error:
                raise RefusedError(f"{example[0]}: {error}") from None
        raise


def _read(example: Example) -> bytes:
    name, read = example
    try:
        return read()
    except RefusedError as error:
        raise RefusedError(f"{name}: {error}") from None
