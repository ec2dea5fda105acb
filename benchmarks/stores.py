"""Stores in a bucket: of features, beside one on a disk, and of examples, beside a folder."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness import (
    Cost,
    Project,
    cost,
    draw,
    seconds,
    table,
)
from pipeline.examples import files
from pipeline.store.shared import SharedStore
from pipeline.store.vectors import FeatureStore
from tests.helpers import seaweed

# shared

SOME = 1_000  # keys looked up at random
BATCH = 256  # vectors a put
IN_ORDER = 4_096  # vectors a get, in the order in which they were put: a shard of data/features


Entries = dict[bytes, np.ndarray]


def some_keys(first: int, count: int) -> list[bytes]:
    numbers = range(first, first + count)
    return [blake2b(i.to_bytes(8, "big"), digest_size=16).digest() for i in numbers]


def batches(keys: list[bytes], width: int, size: int) -> Iterator[Entries]:
    draw = np.random.default_rng(0)
    for start in range(0, len(keys), size):
        some = keys[start : start + size]
        values = draw.standard_normal((len(some), width), dtype=np.float32)
        yield dict(zip(some, values, strict=True))


def one(opened: Callable[[], Any], count: int, width: int, size: int) -> dict[str, Cost]:
    """What each work costs on a store that is empty at first; each opens it again."""
    keys = some_keys(0, count)
    others = some_keys(2 * count, count)
    at_random = [keys[i] for i in np.random.default_rng(1).choice(count, SOME, replace=False)]

    def put(new: list[bytes]) -> None:
        with opened() as store:
            for entries in batches(new, width, size):
                store.put(entries)

    def held(asked: list[bytes], there: int) -> None:
        with opened() as store:
            found = len(store.held(asked))
            assert found == there, (found, there)

    def get(parts: list[list[bytes]]) -> None:
        with opened() as store:
            for part in parts:
                assert len(store.get(part)) == len(part)

    def ten_added() -> None:
        ten = some_keys(count, 10)
        with opened() as store:
            assert len(store.held(keys + ten)) == count
            store.put(next(batches(ten, width, 10)))
            assert len(store.get(ten)) == 10

    parts = [keys[start : start + IN_ORDER] for start in range(0, count, IN_ORDER)]
    costs = {"put": cost(partial(put, keys))}
    costs["held: all"] = cost(partial(held, keys, count))
    costs["held: none"] = cost(partial(held, others, 0))
    costs["get: some, at random"] = cost(partial(get, [at_random]))
    costs["get: all, in order"] = cost(partial(get, parts))
    costs["ten added"] = cost(ten_added)
    for name, spent in costs.items():
        print(f"{name:<24}{spent.wall:8.2f} s {spent.cpu:8.2f} s", flush=True)
    return costs


def all_stores(scratch: Path, count: int, width: int, size: int) -> str:
    """A table of what each work costs on each store, of `count` vectors put `size` at once."""
    import botocore.session

    found: dict[str, dict[str, Cost]] = {}
    for name in SHARED_STORES:
        folder = scratch / f"{count}-{width}-{size}-{len(found)}"
        folder.mkdir()
        print(f"{count:,} x {width}, {size} at once: {name}", flush=True)
        if "bucket" not in name:
            place = str(folder / "store")
            found[name] = one(partial(SHARED_STORES[name], place), count, width, size)
        else:
            with seaweed.running(folder / "server") as server:
                os.environ.update(seaweed.environment(server), AWS_ALLOW_HTTP="true")
                botocore.session.get_session().create_client("s3").create_bucket(Bucket="lab")
                place = f"s3://lab/{folder.name}"
                found[name] = one(partial(SHARED_STORES[name], place), count, width, size)
        shutil.rmtree(folder)
    works = dict.fromkeys(work for costs in found.values() for work in costs)
    rows = [
        (work, *(costs[work].wall if work in costs else None for costs in found.values()))
        for work in works
    ]
    return table(" | ".join(["seconds", *(f"{name} {{:.2f}}" for name in SHARED_STORES)]), rows)


SHARED_STORES: dict[str, Callable[[str], Any]] = {
    "SQLite, a folder": lambda place: FeatureStore(Path(place), None),
    "shards, a bucket": lambda place: SharedStore(place, None),
}


def measure_shared(scratch: Path, vectors: int = 50_000, keys: int = 1_000_000) -> str:
    """The store that many machines share, shards in a bucket, beside SQLite in a folder.

    The server of S3 (SeaweedFS) runs on the same machine and takes its share of the cores.
    """
    wide = all_stores(scratch, vectors, 1280, BATCH)
    many = all_stores(scratch, keys, 8, 16 * BATCH)
    few = all_stores(scratch, vectors // 10, 1280, 32)
    return f"""# A feature store that many machines share, beside SQLite on a disk

Seconds of one round; each work opens the store again. `held` asks for as many keys as there are,
`get: some` for {SOME:,} of them, `get: all` for {IN_ORDER:,} at once in the order of writing, as
`extract` does. `ten added` asks for all keys and ten more, and puts and gets these ten. The bucket
is on SeaweedFS on the same two cores, which share the seconds.

## {vectors:,} vectors of 1,280 numbers, {BATCH} a put

{wide}

## {keys:,} keys with 8 numbers each, {16 * BATCH:,} a put

{many}

## {vectors // 10:,} vectors of 1,280 numbers, 32 a put

{few}
"""


# bucket

FOLDER = "data/raw/bucket"
AT_ONCE = 16
FEW, ON_THE_WAY = 500, 0.02  # objects; seconds that each request takes on the way


def upload(client: Any, folder: Path, pictures: list[Path]) -> None:
    def one(file: Path) -> None:
        key = f"pictures/{file.relative_to(folder)}"
        client.put_object(Bucket="examples", Key=key, Body=file.read_bytes())

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, pictures))


def far(bucket: Project, server: str) -> tuple[float, float]:
    """Seconds to read `FEW` objects one after the other, and ahead, through a slow way."""
    way = seaweed.Between(server)
    way.takes = ON_THE_WAY
    with bucket.inside():
        os.environ["AWS_ENDPOINT_URL"] = way.address
        rows = pd.read_parquet("data/manifest.parquet")[:FEW].itertuples()
        examples = [(Path(row.path), row.digest) for row in rows]
        alone = seconds(lambda: [files.read(*example) for example in examples])
        ahead = seconds(lambda: list(files.read_each(examples)))
    way.close()
    return alone, ahead


def measure_bucket(scratch: Path, pictures: int = 10_000) -> str:
    """Examples in a bucket beside the same pictures in a folder: listing, and ingest.

    The server of S3 (SeaweedFS) runs on the same machine and takes its share of the cores. The way
    to it is short: with a server far away each request also waits for the network.
    """
    import botocore.session

    size = (100, 75)
    drawn = scratch / "drawn"
    draw(drawn, range(pictures), size)
    first = sorted(drawn.rglob("*.jpg"))
    with seaweed.running(scratch / "server") as address:
        os.environ.update(seaweed.environment(address))
        client: Any = botocore.session.get_session().create_client("s3")
        client.create_bucket(Bucket="examples")
        upload(client, drawn, first)
        ingest = (sys.executable, "-m", "pipeline.ingest")
        listing = (sys.executable, "-m", "headstart", "list")
        for name in ("bucket", "folder"):
            (scratch / name).mkdir()
        bucket = Project(scratch / "bucket", ingest={"source": "s3", "path": FOLDER})
        folder = Project(scratch / "folder", drawn)
        credentials = seaweed.environment(address)

        def of_bucket(*command: str) -> Cost:
            return bucket.run(*command, **credentials)

        runs: dict[str, tuple[Cost, Cost, Cost]] = {}
        listed = of_bucket(*listing, "s3://examples/pictures")
        runs["first"] = (listed, of_bucket(*ingest), folder.run(*ingest))
        runs["nothing new"] = (of_bucket(*listing), of_bucket(*ingest), folder.run(*ingest))
        draw(drawn, range(pictures, pictures + 10), size)
        upload(client, drawn, sorted(set(drawn.rglob("*.jpg")) - set(first)))
        runs["ten added"] = (of_bucket(*listing), of_bucket(*ingest), folder.run(*ingest))
        alone, ahead = far(bucket, address)
    columns = "run | `headstart list` {:.2f} | `ingest` of the bucket {:.2f} | its processor time"
    columns += " {:.2f} | `ingest` of the folder {:.2f} | its processor time {:.2f}"
    rows = [
        (name, listed.wall, ours.wall, ours.cpu, theirs.wall, theirs.cpu)
        for name, (listed, ours, theirs) in runs.items()
    ]
    megabytes = sum(file.stat().st_size for file in first) / 1e6
    listing_bytes = (bucket.folder / FOLDER / "listing.s3.parquet").stat().st_size
    return f"""# {pictures:,} small pictures in a bucket, and in a folder

{megabytes:.0f} MB of JPEGs of {size[0]} x {size[1]} pixels. Seconds of whole commands,
imports included. The processor time is the command's own: the server of S3, on the same cores,
comes on top. The listing is a file of {listing_bytes / 1e3:,.0f} kB.

{table(columns, rows)}

With {ON_THE_WAY * 1e3:.0f} ms added to each request, {FEW} objects are read one after the other in
{alone:.1f} s, and ahead, as a core of `extract` reads them, in {ahead:.1f} s.
"""


PARTS = {
    "shared": measure_shared,
    "bucket": measure_bucket,
}
