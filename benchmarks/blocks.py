"""What inner blocks cost: `extract` and `train` with the last layer alone, and with blocks.

The pictures are the surfaces that a clone has. Each round extracts them from an empty store, once
with the last layer alone and once with inner blocks, in turns; then a head is trained on each.
"""

import shutil
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.harness import Cost, Project, in_turns, ratios, spread, table
from pipeline.tables.manifest import read_manifest


def once(made: Project, blocks: str) -> Cost:
    """The costs of `extract` from an empty store, and of `train`; width and bytes."""
    for file in made.store.glob("features-*"):
        file.unlink()
    shutil.rmtree(made.folder / "data" / "features", ignore_errors=True)
    made.set(extract={"blocks": blocks}, train={"layers": blocks})
    costs = made.stages("extract", "train")
    stored = sum(file.stat().st_size for file in made.store.glob("features-*"))
    shard = next((made.folder / "data" / "features").iterdir())
    lists = [field.type for field in pq.read_schema(shard) if field.name.startswith("feature")]
    width = sum(one.list_size for one in lists)
    return costs["extract"]._replace(gave=(costs["train"].cpu, width, stored))


def measure(
    scratch: Path, backbone: str = "efficientnet_lite0", views: int = 1, rounds: int = 3
) -> str:
    made = Project(scratch, extract={"backbone": backbone}, augment={"views": views})
    made.stages("ingest", "augment")
    for blocks in ("all", "last"):  # which exports the network
        once(made, blocks)
    costs = in_turns(rounds, {blocks: partial(once, made, blocks) for blocks in ("last", "all")})
    splits = read_manifest(made.folder / "data" / "manifest.parquet")["split"]
    number = len(splits) + views * int((splits == "train").sum())
    rows = []
    for blocks, of in costs.items():
        seconds = [one.cpu for one in of]
        train, width, stored = zip(*(one.gave for one in of), strict=True)
        last = [one.cpu for one in costs["last"]]
        rows.append(
            (blocks, width[0], spread((1000 * one / number for one in seconds), "{:.1f}"),
             spread(ratios(seconds, last)), spread(train, "{:.1f}"), stored[0] / number / 1000)
        )  # fmt: skip
    columns = (
        "extract.blocks, train.layers | features {:d} | processor milliseconds a view {}"
        " | over last {} | processor seconds of train {} | kB a view in the store {:.1f}"
    )
    return f"""# The cost of inner blocks

{number} views of {len(splits)} pictures, {backbone}. Processor time is of the whole process, its
start included; median of {rounds} rounds, taken in turns, with the least and the most.

{table(columns, rows)}
"""
