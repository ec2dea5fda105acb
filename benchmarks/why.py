"""How long `headstart why` takes with 100,000 pictures, beside `dvc status` there.

    python benchmarks/why.py

The pictures are small JPEGs that differ by a comment. Their features are made up and put into the
store under their true keys, since computing them would take longer than all the rest. Writes
`benchmarks/why.md`.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from memory import multiply
from PIL import Image
from ten_in_ten_thousand import Repository, draw

ROOT = Path(__file__).parent.parent
PICTURES, DRAWN = 100_000, 1_000

FILL = """
import numpy as np, pandas as pd
from pathlib import Path
from pipeline import engines, extract, features, params, store
from pipeline.paths import MANIFEST, PLAN
engine = engines.open_engine(params.load().extract)
table = extract.every_view(features.read_manifest(MANIFEST), pd.read_parquet(PLAN), engine)
keys, random = table["key"].tolist(), np.random.default_rng(0)
with store.FeatureStore(store.default_folder(), None) as cache:
    for i in range(0, len(keys), 1000):
        part = keys[i : i + 1000]
        made_up = random.standard_normal((len(part), engine.dimension), dtype=np.float32)
        cache.put(dict(zip(part, made_up, strict=True)))
"""


def small(folder: Path) -> None:
    for file in folder.rglob("*.jpg"):
        Image.open(file).resize((64, 48)).save(file, quality=85)


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        repository = Repository(Path(name), views=1)
        draw(repository.raw, range(DRAWN))
        small(repository.raw)
        multiply(repository.raw, PICTURES // DRAWN)
        repository.run("dvc", "add", "-q", "data/raw/photographs")
        repository.run("dvc", "repro", "augment")
        repository.run(sys.executable, "-c", FILL)
        repository.run("dvc", "repro", "extract")

        def rotate() -> None:
            file = repository.folder / "params.yaml"
            file.write_text(file.read_text().replace("rotate: 15", "rotate: 20"))

        def add_ten() -> None:
            draw(repository.raw, range(DRAWN, DRAWN + 10))

        changes: list[tuple[str, Callable[[], object]]] = [
            ("nothing", lambda: None),
            ("`augment.rotate`", rotate),
            ("and ten pictures added", add_ten),
        ]
        for title, change in changes:
            change()
            # DVC remembers files that it has hashed; who asks first pays for the new ones.
            answer, _, output = repository.run(sys.executable, "-m", "flows.cli", "why")
            status, _, _ = repository.run("dvc", "status")
            rows.append(f"| {title} | {answer:.1f} | {status:.1f} | {answer / status:.2f} |")
            print(rows[-1], output, flush=True)
    lines = [
        f"# `headstart why` with {PICTURES:,} pictures, one augmented view each",
        "",
        f"Made by `python benchmarks/why.py` on {os.cpu_count()} CPU cores, load"
        f" {os.getloadavg()[0]:.1f}; seconds. The goal is a few.",
        "",
        "| what changed | `headstart why` | `dvc status` | ratio |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
        "DVC hashes new files, and the folder's list anew, for whoever asks first: in the last line"
        " that is `headstart why`, and `dvc status` finds it done.",
        "",
    ]
    (ROOT / "benchmarks" / "why.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
