"""Examples in a bucket beside the same pictures in a folder: listing, and ingest.

The server of S3 (SeaweedFS) runs on the same machine and takes its share of the cores. The way to
it is short: with a server far away each request also waits for the network.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.harness import Cost, Project, draw, seconds, table
from pipeline.core import files
from tests import seaweed

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


def measure(scratch: Path, pictures: int = 10_000) -> str:
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
