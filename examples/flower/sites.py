"""Deal what `extract` computed in a project to sites, a file each, to try a federation.

    python ../../flower/sites.py

It runs with Headstart's packages in the project's folder, after `dvc repro`, and writes
`sites/site-1.npz` and so on, and `sites/test.npz` with the test examples. At a real site,
`--sites 1` writes all training examples into one file.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from flows.why import stop_if_stale
from pipeline import kinds
from pipeline.backbones import exports
from pipeline.core import command, params
from pipeline.core.errors import DataError
from pipeline.core.paths import FEATURES, MANIFEST
from pipeline.tables import targets
from pipeline.tables.features import are_counts, read_splits
from pipeline.tables.manifest import read_manifest, task_in
from pipeline.tasks import TASKS

SITES = Path("sites")
CONCENTRATION = 0.5  # how unevenly a class is divided among the sites; 100 is nearly even


def deal() -> None:
    """Write the files.

    The shares of each class are drawn from a Dirichlet distribution, so that sites miss classes.

    Raises:
        DataError: the features are no vectors of a classification, or a site gets no example.
    """
    parser = argparse.ArgumentParser(prog="sites.py", description=__doc__)
    parser.add_argument("--sites", type=int, default=3)
    count = parser.parse_args().sites
    stop_if_stale("extract")
    if "federated" in TASKS[task_in(MANIFEST)].lacks or are_counts(FEATURES):
        raise DataError("FedAvg here takes classes, and vectors of a network or of a table")
    settings, manifest = params.load(kinds.schema), read_manifest(MANIFEST)
    asked, power, classes = settings.extract, settings.train.power, targets.names(manifest)
    splits = read_splits(FEATURES, manifest, classes, ["train", "test"], power)
    prints = [exports.fingerprint(one) for one in exports.of_each(asked.network)]
    made_by = json.dumps([asked.backbone, prints, asked.precision, power])

    train, draw = splits["train"], np.random.default_rng(0)
    shares = draw.dirichlet(np.full(count, CONCENTRATION), len(classes))
    place = np.array([draw.choice(count, p=shares[label]) for label in train.labels])
    names = np.array(classes)
    SITES.mkdir(exist_ok=True)
    for number in range(count):
        own = place == number
        if not own.any():
            raise DataError(f"there are too few examples for {count} sites; ask for fewer")
        file, labels = SITES / f"site-{number + 1}.npz", names[train.labels[own]]
        np.savez(file, features=train.features[own], labels=labels, made_by=made_by)
        print(f"sites: {own.sum()} examples of {len(set(labels))} classes in {file}")
    test = splits["test"]
    np.savez(SITES / "test.npz", features=test.features, labels=names[test.labels])


if __name__ == "__main__":
    command.run(deal, takes_arguments=True)
