"""At a site, with Headstart's packages: what `extract` computed, in a file for the Flower app.

`python -m federated.prepare` runs in the project's folder, after `dvc repro`.
"""

import json

from flows.why import stop_if_stale
from pipeline import kinds
from pipeline.backbones import exports
from pipeline.core import command, params
from pipeline.core.errors import DataError
from pipeline.core.paths import FEATURES, MANIFEST, PARAMS
from pipeline.tables import targets
from pipeline.tables.features import are_counts, read_splits
from pipeline.tables.manifest import read_manifest, task_in
from pipeline.tables.task_names import CLASSIFICATION

from .examples import FILE, Examples, write


def prepare() -> None:
    """Write what `extract` computed, where that is up to date."""
    stop_if_stale("extract")
    write_features()


def write_features() -> None:
    """Write the features of training and validation examples, their labels and their origin."""
    settings = params.load(kinds.schema)
    manifest, task = read_manifest(MANIFEST), task_in(MANIFEST)
    if task != CLASSIFICATION:
        raise DataError(f"{MANIFEST} is of {task}; a head across sites is for classification")
    if are_counts(FEATURES):
        raise DataError(
            f"{FEATURES} holds counts of terms, which a head weighs by all examples; "
            "set extract.backbone to a network, such as minilm_l6_v2"
        )
    classes = targets.names(manifest)
    power, asked = settings.train.power, settings.extract
    splits = read_splits(FEATURES, manifest, classes, ["train", "val"], power)
    train, val = splits["train"], splits["val"]
    made_by = {
        "backbone": asked.backbone,
        "fingerprint": " ".join(map(exports.fingerprint, exports.of_each(asked))),
        "precision": asked.precision,
        "power": json.dumps(power),
        "dimension": str(train.features.shape[1]),
    }
    found = Examples(train.features, train.labels, val.features, val.labels, classes, made_by)
    write(found, PARAMS.parent)
    print(
        f"prepare: {len(train.labels)} training rows and {len(val.labels)} validation examples of "
        f"{len(classes)} classes in {FILE}, which stays here"
    )


if __name__ == "__main__":
    command.run(prepare)
