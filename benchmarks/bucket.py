"""Examples in a bucket beside the same pictures in a folder: listing, and ingest.

The server of S3 (SeaweedFS) runs on the same machine and takes its share of the cores. The way to
it is short: with a server far away each request also waits for the network.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.harness import Cost, Project, draw, table
from tests import seaweed

FOLDER = "data/raw/bucket"
AT_ONCE = 16


def upload(client: Any, folder: Path, files: list[Path]) -> None:
    def one(file: Path) -> None:
        key = f"pictures/{file.relative_to(folder)}"
        client.put_object(Bucket="examples", Key=key, Body=file.read_bytes())

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, files))


def measure(scratch: Path, pictures: int = 10_000) -> str:
    import botocore.session

    size = (100, 75)
    drawn = scratch / "drawn"
    draw(drawn, range(pictures), size)
    files = sorted(drawn.rglob("*.jpg"))
    with seaweed.running(scratch / "server") as address:
        os.environ.update(seaweed.environment(address))
        client: Any = botocore.session.get_session().create_client("s3")
        client.create_bucket(Bucket="examples")
        upload(client, drawn, files)
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
        upload(client, drawn, sorted(set(drawn.rglob("*.jpg")) - set(files)))
        runs["ten added"] = (of_bucket(*listing), of_bucket(*ingest), folder.run(*ingest))
    idle = bucket.run(sys.executable, "-c", "import pipeline.ingest")
    columns = "run | `headstart list` {:.2f} | `ingest` of the bucket {:.2f} | its processor time"
    columns += " {:.2f} | `ingest` of the folder {:.2f} | its processor time {:.2f}"
    rows = [
        (name, listed.wall, ours.wall, ours.cpu, theirs.wall, theirs.cpu)
        for name, (listed, ours, theirs) in runs.items()
    ]
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    listing_bytes = (bucket.folder / FOLDER / "listing.s3.parquet").stat().st_size
    return f"""# {pictures:,} small pictures in a bucket, and in a folder

{megabytes:.0f} MB of JPEGs of {size[0]} x {size[1]} pixels. Seconds of whole commands,
{idle.wall:.2f} of them for imports. The processor time is the command's own: the server of S3, on
the same cores, comes on top. The listing is a file of {listing_bytes / 1e3:,.0f} kB.

{table(columns, rows)}
"""
