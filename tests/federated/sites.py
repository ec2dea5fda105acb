"""Projects of sites whose examples are vectors, without running a stage."""

import contextlib

import numpy as np
import pandas as pd
import yaml

from pipeline.core.paths import FEATURES, MANIFEST
from pipeline.tables.features import read_splits, write_shards
from pipeline.tables.manifest import read_manifest, write_manifest

DIMENSION = 6
PARAMS = {
    "ingest": {"kind": "vector"},
    "augment": {"views": 0},
    "extract": {"backbone": "identity"},
    "train": {"optimizer": "ridge", "weight_decay": 0.01, "power": 1.0},
}


class Site:
    """A project folder with a manifest and features, views of training examples among them."""

    def __init__(self, folder, seed, counts, views=1):
        self.folder = folder
        (folder / "data").mkdir(parents=True)
        self.set()
        random, rows, examples = np.random.default_rng(seed), [], []
        for label, count in counts.items():
            centre = np.random.default_rng(sum(map(ord, label))).standard_normal(DIMENSION)
            for number in range(count):
                digest = f"{random.integers(2**62):064x}"
                split = ("train", "train", "val", "train", "test")[number % 5]
                path = f"data/raw/{label}/{number:03}"
                examples.append({"digest": digest, "path": path, "label": label, "split": split})
                for view in range(views + 1 if split == "train" else 1):
                    rows.append((digest, view, centre + random.standard_normal(DIMENSION)))
        self.examples = pd.DataFrame(examples).sort_values("path", ignore_index=True)
        self.rows = sorted(rows, key=lambda row: row[:2])
        self.write()

    def set(self, **sections):
        document = {name: PARAMS[name] | sections.get(name, {}) for name in PARAMS}
        (self.folder / "params.yaml").write_text(yaml.safe_dump(document))

    def write(self):
        """Write manifest and features of `examples` and `rows`."""
        with self.inside():
            write_manifest(self.examples, "vector", MANIFEST)
            held = set(self.examples["digest"])
            digests, views, features = zip(*(r for r in self.rows if r[0] in held), strict=True)
            write_shards(FEATURES, [(digests, views, np.stack(features).astype(np.float32))])

    def relabel(self, number, label):
        self.examples.loc[number, "label"] = label
        self.write()

    @contextlib.contextmanager
    def inside(self):
        with contextlib.chdir(self.folder):
            yield

    def splits(self, classes):
        with self.inside():
            manifest = read_manifest(MANIFEST)
            return read_splits(FEATURES, manifest, classes, ["train", "val", "test"], 1.0)
