"""How long `headstart why` takes with 100,000 pictures, beside `dvc status` there.

The pictures are small JPEGs that differ by a comment. Their features are made up and put into the
store under their true keys, since computing them would take longer than all the rest.
"""

import sys
from pathlib import Path

from benchmarks.harness import Repository, draw, multiply, table

DRAWN, SIZE = 1_000, (64, 48)

FILL = """
import numpy as np, pandas as pd
from pathlib import Path
from pipeline import kinds
from pipeline.backbones.engines import open_engine
from pipeline.core import params
from pipeline.core.paths import MANIFEST, PLAN
from pipeline.runners.wanted import every_view
from pipeline.store.places import default_folder
from pipeline.store.vectors import FeatureStore
from pipeline.tables.manifest import read_manifest
engine = open_engine(params.load(kinds.schema).extract, kinds.named("image"))
table = every_view(read_manifest(MANIFEST), pd.read_parquet(PLAN), engine)
keys, random = table["key"].tolist(), np.random.default_rng(0)
with FeatureStore(default_folder(), None) as cache:
    for i in range(0, len(keys), 1000):
        part = keys[i : i + 1000]
        made_up = random.standard_normal((len(part), engine.dimension), dtype=np.float32)
        cache.put(dict(zip(part, made_up, strict=True)))
"""


def measure(scratch: Path, pictures: int = 100_000) -> str:
    draw(scratch / "drawn", range(DRAWN), SIZE)
    multiply(scratch / "drawn", pictures // DRAWN)
    repository = Repository(scratch, scratch / "drawn", augment={"views": 1})
    repository.run("dvc", "add", "-q", "data/raw/pictures")
    repository.run("dvc", "repro", "augment")
    repository.run(sys.executable, "-c", FILL)
    repository.run("dvc", "repro", "extract")
    changes = {
        "nothing": lambda: None,
        "`augment.rotate`": lambda: repository.set(augment={"rotate": 20}),
        "and ten pictures added": lambda: draw(repository.raw, range(DRAWN, DRAWN + 10), SIZE),
    }
    rows = []
    for title, change in changes.items():
        change()
        # DVC remembers files that it has hashed; who asks first pays for the new ones.
        answer = repository.run(sys.executable, "-m", "headstart", "why")
        status = repository.run("dvc", "status")
        rows.append((title, answer.wall, status.wall, answer.wall / status.wall))
        print(rows[-1], answer.gave, flush=True)
    return f"""# `headstart why` with {pictures:,} pictures, one augmented view each

Seconds. The goal is a few.

{table("what changed | `headstart why` {:.1f} | `dvc status` {:.1f} | ratio {:.2f}", rows)}
"""
