"""`headstart next POOL`: propose which unlabelled examples of a folder or table to label next.

The examples are embedded once: their features are kept in the feature store. Nothing of the project
is changed.
"""

import argparse
import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline import kinds
from pipeline.backbones.engines import open_encoder
from pipeline.core import params
from pipeline.core.errors import DataError, ParamsError
from pipeline.core.paths import HEAD, HEAD_WEIGHTS, MANIFEST
from pipeline.heads.head import load_head, one_thread
from pipeline.runners.wanted import vectors
from pipeline.serving.predict import examples_in, inside
from pipeline.sources.checked import check, drop_repeats
from pipeline.sources.found import Found
from pipeline.tables.cells import as_text
from pipeline.tables.manifest import read_manifest
from pipeline.tables.power import raised
from pipeline.tasks import TASKS

from .proposing import ENOUGH, proposals

COLUMNS = ("path", "label", "why", "predicted", "probability", "digest")
BATCH = 50
POWER = 0.5  # of features without a head, as in `checks`


class Guess(NamedTuple):
    """What the project's head predicts for n examples: classes, probabilities and margins."""

    classes: list[str]
    probabilities: npt.NDArray[np.float64]
    margins: npt.NDArray[np.float64]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run` to a parser."""
    parser.add_argument("pool", type=Path, metavar="POOL", help="Folder or table of examples.")
    parser.add_argument("--n", type=int, default=BATCH, help=f"How many (default: {BATCH}).")
    parser.add_argument(
        "--into", type=Path, default=Path("next.csv"), help="Table to write (default: next.csv)."
    )


def run(pool: Path, n: int = BATCH, into: Path = Path("next.csv")) -> None:
    """Write a table of proposals; each fifth is drawn at random.

    Raises:
        DataError: the pool has no example that is not labelled yet.
        ParamsError: `n` is below 1, or there is no such pool.
    """
    if n < 1:
        raise ParamsError(f"--n is {n}; it should be 1 or more")
    if not pool.exists():
        raise ParamsError(f"{pool} does not exist; give a folder or a table of examples")
    settings = params.load(kinds.schema)
    kind = kinds.named(kinds.declared(settings.ingest))
    paths = inside(pool) if pool.is_dir() else examples_in(pool, kind)
    passed, refused = check([Found(path, "") for path in paths], kind, {})
    kept, _ = drop_repeats(passed, kind)
    labelled = read_manifest(MANIFEST) if MANIFEST.exists() else None
    known = set() if labelled is None else set(labelled["digest"])
    unlabelled = [one for one in kept if one.digest not in known]
    print(
        f"next: {len(unlabelled)} of {len(paths)} {kind.nouns} have no label yet;"
        f" {len(kept) - len(unlabelled)} have one, {len(refused)} are not accepted"
    )
    for one in refused[:3]:
        print(f"next: {one.path} is not accepted: {one.reason}")
    if not unlabelled:
        raise DataError(f"{pool} has no {kind.noun} without a label")
    table = pd.DataFrame({"digest": [one.digest for one in unlabelled]})
    table["path"] = [one.found.path.as_posix() for one in unlabelled]
    if "format" in kind.columns:
        table["format"] = [one.seen[kind.columns.index("format")] for one in unlabelled]
    encoder = open_encoder(settings.extract, kind)
    rows, features, computed = vectors(table, encoder, settings.extract.batch_size)
    print(f"next: {len(rows)} views: {len(rows) - computed} reused, {computed} computed")
    with one_thread():
        guess = guessed(features, labelled)
        count = 0 if labelled is None else len(labelled)
        found = proposals(
            rows["digest"].tolist(),
            raised(features, POWER),
            count,
            None if guess is None else guess.margins,
            n,
        )
    write(into, [(one.place, one.why) for one in found], rows, guess)
    print(f"next: {into} proposes {len(found)} {kind.nouns}: fill in the column label")


def guessed(features: npt.NDArray[np.float32], labelled: pd.DataFrame | None) -> Guess | None:
    """Return the predictions of the project's head; None if it has learned too little to choose."""
    if labelled is None or not HEAD.exists():
        return None
    head, about = load_head(HEAD_WEIGHTS, HEAD)
    train = int((labelled["split"] == "train").sum())
    if not TASKS[about.task].exclusive or head.dimension != features.shape[1]:
        print("next: the head is for other features or another task, and is not used")
        return None
    if train < ENOUGH * len(about.classes):
        return None
    temperature = about.calibration.temperature
    shares = head.answers(raised(features, about.power), temperature, about.task)
    two = np.sort(shares, axis=1)[:, -2:]
    best = shares.argmax(axis=1)
    return Guess([about.classes[one] for one in best], two[:, 1], two[:, 1] - two[:, 0])


def write(
    into: Path, chosen: list[tuple[int, str]], rows: pd.DataFrame, guess: Guess | None
) -> None:
    """Write the table, in the order in which to label; `label` is empty."""
    with into.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for place, why in chosen:
            path, digest = rows["path"].iloc[place], rows["digest"].iloc[place]
            predicted = guess.classes[place] if guess else ""
            probability = f"{guess.probabilities[place]:.3f}" if guess else ""
            writer.writerow([as_text(path), "", why, as_text(predicted), probability, digest])
