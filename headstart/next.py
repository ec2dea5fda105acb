"""`headstart next POOL`: propose which unlabelled examples of a folder or table to label next.

The examples are embedded once: their features are kept in the feature store. Nothing of the project
is changed.
"""

import argparse
import csv
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline import kinds
from pipeline.backbones.engines import Encoder, open_encoder
from pipeline.core import params
from pipeline.core.errors import DataError, ParamsError, RunError
from pipeline.core.params import ExtractParams
from pipeline.core.paths import HEAD, HEAD_WEIGHTS, MANIFEST
from pipeline.examples import rows
from pipeline.heads.head import Floats, load_head, one_thread
from pipeline.sources.checked import Checked
from pipeline.tables.cells import as_text
from pipeline.tables.manifest import read_manifest
from pipeline.tables.power import raised
from pipeline.tasks import TASKS

from . import label_studio as studio
from .label_tables import Tables, class_name
from .map import stop_before_extract
from .pool import POWER, embedded, opened
from .proposing import ENOUGH, Guess, Proposal, proposals

COLUMNS = ("path", "label", "why", "predicted", "probability", "digest")
BATCH = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run` to a parser."""
    parser.add_argument(
        "pool", type=Path, metavar="POOL", help="Folder or table of unlabelled examples."
    )
    parser.add_argument(
        "--n", type=int, default=BATCH, help=f"Number of examples to propose (default: {BATCH})."
    )
    parser.add_argument(
        "--into", type=Path, default=None, help="Table to write (default: next.csv)."
    )
    parser.add_argument(
        "--label-studio",
        type=Path,
        metavar="FOLDER",
        help="Write Label Studio tasks and a configuration to this folder, instead of the table.",
    )
    parser.add_argument(
        "--classes",
        default="",
        metavar="NAMES",
        help="Additional classes for Label Studio, separated by commas.",
    )


def run(
    pool: Path,
    n: int = BATCH,
    into: Path | None = None,
    label_studio: Path | None = None,
    classes: str = "",
) -> None:
    """Write proposals; each fifth is drawn at random.

    Raises:
        DataError: the pool has no example that is not labelled yet, or the table that would be
            overwritten cannot be read.
        ParamsError: `n` is below 1, an option is for another output, there is no such pool, Label
            Studio cannot show it, or labels in the table would be lost.
    """
    if n < 1:
        raise ParamsError(f"--n is {n}; it should be 1 or more")
    if label_studio and into:
        raise ParamsError(
            "--into is for a table, and --label-studio writes none: give only one of them"
        )
    if classes and not label_studio:
        raise ParamsError("--classes is for Label Studio: give --label-studio FOLDER too")
    settings = params.load(kinds.schema)
    labelled = read_manifest(MANIFEST) if MANIFEST.exists() else None
    choices = {class_name(name) for name in classes.split(",")} if classes else set()
    if label_studio:
        choices |= set() if labelled is None else {*labelled["label"]}
        studio.check(label_studio, settings.ingest, choices)
    tables = Tables(pool)
    kind = kinds.named(kinds.declared(settings.ingest))
    whole = opened(pool, kind, "next", besides={tables.labels, tables.none})
    known = set() if labelled is None else set(labelled["digest"])
    try:  # what `headstart label` wrote, which `ingest` may not have read yet
        known |= tables.known(whole.digests).keys()
    except DataError as error:
        print(f"next: warning: {error}; its examples may be proposed")
    into = into or Path("next.csv")
    if not label_studio:
        _stop_if_labels_would_be_lost(into, known - {""})  # "" if the pool lacks the example
    unlabelled = whole.unlabelled(known, "next")
    encoder = open_encoder(settings.extract, whole.kind)
    others = [one for one in whole.examples if one.digest in known]
    paths = [one.found.path for one in (*unlabelled, *others)]
    features = embedded(paths, encoder, settings.extract.batch_size, "next")
    digests = [one.digest for one in (*unlabelled, *others)]
    with one_thread():
        guess = guessed(features[: len(unlabelled)], encoder, labelled, settings.extract)
        found = proposals(
            digests,
            raised(features, POWER),
            len(others),
            None if guess is None else guess.margins,
            n,
        )
    if label_studio:
        studio.write(label_studio, whole, settings.ingest.kind, found, unlabelled, guess, choices)
        return
    write(into, found, unlabelled, guess)
    nouns = whole.kind.noun if len(found) == 1 else whole.kind.nouns
    print(f"next: {into} proposes {len(found)} {nouns}: fill in the column label")


def _stop_if_labels_would_be_lost(into: Path, known: Collection[str]) -> None:
    """Stop if a person wrote labels into the table of an earlier call, and into no other one yet.

    Args:
        known: digests of the examples that have a label elsewhere.

    Raises:
        DataError: the table cannot be read.
        ParamsError: it has such labels.
    """
    if not into.is_file():
        return
    try:
        table = rows.read(into, holds=False, dialect=rows.guessed(into))  # that of the spreadsheet
    except DataError as error:
        raise DataError(f"{error}; rename the table, or give --into") from None
    labelled = (row for row in table.rows if (row.get("label") or "").strip())
    if any(row.get("digest") not in known for row in labelled):
        raise ParamsError(
            f"{into} has labels that are not in the data yet, and would be lost: copy them to the"
            " data and run `headstart repro`, rename the table, or give --into"
        )


def guessed(
    features: Floats, encoder: Encoder, labelled: pd.DataFrame | None, extract: ExtractParams
) -> Guess | None:
    """Return the predictions of the project's head; None if it has learned too little to choose.

    A head for features of another backbone than that of `extract` is not used either.
    """
    if labelled is None or not HEAD.exists():
        return None
    try:  # another backbone may have as many features
        stop_before_extract(extract)
    except RunError as error:
        print(f"next: warning: the head is not used: {error}")
        return None
    head, about = load_head(HEAD_WEIGHTS, HEAD)
    train = int((labelled["split"] == "train").sum())
    if encoder.layers and not about.layers:  # the head takes the last layer alone
        features = features[:, : encoder.layers[0].width]
    if not TASKS[about.task].exclusive or head.dimension != features.shape[1]:
        print("next: the head is for different features or another task, and is not used")
        return None
    if train < ENOUGH * len(about.classes):
        return None
    temperature = about.calibration.temperature
    probabilities = head.answers(raised(features, about.power), temperature, about.task)
    two = np.sort(probabilities, axis=1)[:, -2:]
    best = probabilities.argmax(axis=1)
    return Guess([about.classes[one] for one in best], two[:, 1], two[:, 1] - two[:, 0])


def write(into: Path, found: list[Proposal], examples: list[Checked], guess: Guess | None) -> None:
    """Write the table, in the order in which to label; `label` is empty."""
    with into.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for place, why in found:
            one = examples[place]
            predicted = guess.classes[place] if guess else ""
            probability = f"{guess.probabilities[place]:.3f}" if guess else ""
            path = as_text(one.found.path.as_posix())
            writer.writerow([path, "", why, as_text(predicted), probability, one.digest])
