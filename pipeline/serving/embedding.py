"""Feature vectors of examples that a user passes, each computed only once.

The feature store and its keys are shared with `extract`, so each finds the features that the other
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
    """Features [examples, dimension] in order, and how many of them were not in the store."""

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

    Each core takes a batch of examples, and keeps no file in memory while it looks up features.

    Args:
        examples: each is read once, and a second time if its features are missing.
        encoder: the backbone.
        batch_size: the most examples in one batch.

    Raises:
        RefusedError: an example is not accepted; the message has its name and the reason.
        DataError: an example changed while it was read.
        StoreError: the store cannot be read or written.
    """
    cores = os.cpu_count() or 1
    size = max(1, min(batch_size, -(-len(examples) // cores)))
    batches = [examples[start : start + size] for start in range(0, len(examples), size)]
    vectors: list[list[Floats]] = [[] for _ in encoder.engines]
    computed = 0
    with open_store() as cache, ThreadPoolExecutor(cores) as pool:
        for engine, found in zip(encoder.engines, vectors, strict=True):
            for part in pool.map(lambda batch, by=engine: _batch(batch, by, cache), batches):
                found.append(part.features)
                computed += part.computed
    if not examples:
        return Embedded(np.empty((0, sum(one.dimension for one in encoder.engines)), np.float32), 0)
    return Embedded(joined.beside([np.concatenate(found) for found in vectors]), computed)


def _batch(batch: Sequence[Example], engine: Engine, cache: Store) -> Embedded:
    kind, digests, wanted = engine.kind, [], []
    for example in batch:
        data = _read(example)
        digests.append(digest(data))
        wanted.append((digests[-1], kind.original, kind.form(data)))
    keys = view_keys(wanted, kind, engine.made_by)
    found = cache.get(keys)
    missing = {
        key: (example, digest)
        for key, example, digest in zip(keys, batch, digests, strict=True)
        if key not in found
    }
    if missing:
        new = dict(zip(missing, _features(list(missing.values()), engine), strict=True))
        cache.put(new)
        found |= new
    return Embedded(np.stack([found[key] for key in keys]), len(missing))


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
