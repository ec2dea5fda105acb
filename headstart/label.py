"""`headstart label POOL`: label the most informative examples, with one key per label.

A page on loopback shows one example after the other (`loopback.py`). Each label is written at once,
as a row of a table (`label_tables.py`). After each batch the head is trained again, and the next
examples are proposed (`learner.py`).
"""

import argparse
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
from starlette.applications import Starlette

from pipeline import kinds
from pipeline.backbones.engines import open_encoder
from pipeline.core import params, yaml_in_c
from pipeline.core.errors import DataError, ParamsError, RefusedError
from pipeline.core.params import ExtractParams
from pipeline.core.paths import MANIFEST, PARAMS
from pipeline.examples.files import load
from pipeline.examples.rows import ENDINGS
from pipeline.kinds import Kind, Shown
from pipeline.pages.embed import embedded as in_html
from pipeline.tables.manifest import read_manifest
from pipeline.tables.power import raised
from pipeline.tasks import TASKS

from . import label_studio, loopback, parameters
from .label_tables import LABELS, Tables, alone, class_name
from .learner import TEST, TRAIN, VAL, Accuracy, Learner
from .pool import POWER, embedded, opened
from .proposing import RANDOM, Proposal

PORT = 8011
BATCH, OF_CLASS = 10, 2  # proposals of a batch, at least, and for each class
SIDE = 480  # pixels of a picture on the page
LONGEST = 20_000  # bytes of a text on the page
PAGE = Path(__file__).with_name("label.html")
SHOWABLE = ("image", "text", "audio")
EMPTY = pd.DataFrame({"digest": [], "path": [], "label": [], "split": []})  # no manifest
LABEL, NONE, SKIP, UNDO = "label", "none", "skip", "undo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run` to a parser."""
    parser.add_argument(
        "pool",
        type=Path,
        metavar="POOL",
        help="Folder with pictures or sounds, or table with texts.",
    )
    parser.add_argument(
        "--classes",
        default="",
        metavar="NAMES",
        help="Classes, separated by commas; you can add more on the page.",
    )
    parser.add_argument(
        "--kind",
        choices=SHOWABLE,
        help="Kind of the examples (default: the kind of the project). Without a project, the"
        " default is text for a table and image for a folder.",
    )
    parser.add_argument(
        "--from-label-studio",
        type=Path,
        metavar="EXPORT",
        help="Read the labels from this JSON export of Label Studio, instead of opening a page.",
    )
    parser.add_argument(
        "--port", type=int, default=PORT, help=f"Port of the page (default: {PORT})."
    )


def run(
    pool: Path,
    classes: str = "",
    kind: str | None = None,
    from_label_studio: Path | None = None,
    port: int = PORT,
) -> None:
    """Serve the page until interrupted, then print what to do next.

    Raises:
        DataError: the pool has nothing to label, or its table is damaged.
        ParamsError: there is no such pool, or an argument does not fit.
        BusyError: another session is open for the pool.
    """
    with alone(pool):
        if from_label_studio:
            take(from_label_studio, pool, kind)
            return
        desk, key = begun(pool, classes, kind), loopback.new_key()
        listening = loopback.listening(port)
        at = loopback.address(listening, key)
        print(f"label: open {at} ; labels go to {desk.tables.labels}", flush=True)
        loopback.serve(application(desk, key), listening)
        print(f"label: {desk.outcome()}")


def take(export: Path, pool: Path, asked: str | None) -> None:
    """Write the labels in an export of Label Studio, and print what to do next.

    Raises:
        DataError: the file is no such export, or the pool's table is damaged.
        ParamsError: there is no such pool, or the kind does not fit.
    """
    name, kind, _ = _settings(pool, asked)
    tables, answers = Tables(pool), label_studio.read(export)
    whole = opened(pool, kind, "label", besides={tables.labels, tables.none})
    for line in label_studio.add(answers, whole, tables):
        print(f"label: {line}")
    rows = [row for row in tables.read() if row.label]
    drawn = sum(row.split != TRAIN for row in rows)
    print(f"label: {in_words(tables, kind, name, len(rows), drawn)}")


def application(desk: "Desk", key: str) -> Starlette:
    """Return the web application; `key` is the secret part of its addresses."""
    data = PAGE.read_bytes()
    return loopback.application(
        "label", key, lambda: data, "answers", desk.answer, loopback.only_script_of(data)
    )


def begun(pool: Path, classes: str, asked: str | None) -> "Desk":
    """Read and embed the pool, and continue from the answers in its tables."""
    names = [class_name(name) for name in classes.split(",")] if classes else []
    name, kind, settings = _settings(pool, asked)
    tables = Tables(pool)
    known = tables.read()
    whole = opened(pool, kind, "label", besides={tables.labels, tables.none})
    rows = [(row, whole.digests.get(row.path, "") if row.path else row.digest) for row in known]
    in_tables = {digest for _, digest in rows}
    others = read_manifest(MANIFEST) if MANIFEST.exists() else EMPTY
    others = others[~others["digest"].isin(in_tables)]
    whole.unlabelled(in_tables | {*others["digest"]}, "label")
    names += sorted(set(others["label"]))
    labelled = {*others["digest"]}
    examples = [one for one in whole.examples if one.digest not in labelled]
    place_of = {one.digest: place for place, one in enumerate(examples)}
    if strangers := sum(digest not in place_of for _, digest in rows):
        print(f"label: {strangers} rows of {tables.labels} have no {kind.noun} in {pool}")

    paths = [one.found.path for one in examples]
    elsewhere = [Path(path) for path in others["path"]]
    encoder = open_encoder(settings, kind)
    features = embedded([*paths, *elsewhere], encoder, settings.batch_size, "label")
    if encoder.layers:  # the last layer alone
        features = features[:, : encoder.layers[0].width]
    digests = [*place_of, *others["digest"]]
    power = 1 if encoder.counts else POWER
    learner = Learner(digests, raised(features, power), len(paths), encoder.counts)
    pairs = zip(others["label"], others["split"], strict=True)
    learner.labels.update(enumerate(pairs, len(paths)))
    for row, digest in rows:
        if digest in place_of and row.label:
            learner.labels[place_of[digest]] = row.label, row.split
            names.append(row.label)
        elif digest in place_of:
            learner.left_out.add(place_of[digest])
    return Desk(learner, tables, paths, kind, names, name)


def _settings(pool: Path, asked: str | None) -> tuple[str, Kind, ExtractParams]:
    """Return the kind's name, the kind and the backbone of the project, or of one that init makes.

    Raises:
        ParamsError: examples cannot be shown or labelled, or the pool is no folder and no table.
    """
    if not pool.exists():
        raise ParamsError(f"{pool} does not exist; give a folder or a table of texts")
    if PARAMS.exists():
        settings = params.load(kinds.schema)
        name, extract = settings.ingest.kind, settings.extract
        kind = kinds.named(kinds.declared(settings.ingest))
        if asked not in (None, name):
            raise ParamsError(f"--kind is {asked}, but ingest.kind of this project is {name}")
        if not TASKS[settings.ingest.task].exclusive or settings.ingest.targets:
            raise ParamsError(f"label is for classes, but ingest.task is {settings.ingest.task}")
    else:
        name = asked or ("text" if pool.is_file() else "image")
        kind = kinds.named(name)
        document = yaml_in_c.load(parameters.of_kind(name))
        extract = params.extract_section(document["extract"], "label")
    if name not in (*SHOWABLE, "plugin"):
        raise ParamsError(f"label shows examples on a page, but {kind.nouns} cannot be shown")
    if pool.is_file() and (kind.rows != "text" or pool.suffix not in ENDINGS):
        raise ParamsError(f"{pool} is a file; give a folder, or a table of texts (CSV or Parquet)")
    if pool.is_file() and pool.name == LABELS:
        raise ParamsError(f"{pool} has the name of the table that label writes; rename it")
    return name, kind, extract


class Desk:
    """Shows one example after the other, and writes the labels of a person."""

    def __init__(
        self,
        learner: Learner,
        tables: Tables,
        paths: list[Path],
        kind: Kind,
        classes: list[str],
        name: str,
    ) -> None:
        """Propose the first batch.

        Args:
            learner: has the labels so far, and proposes examples.
            classes: the names of the classes, in the order of their keys.
        """
        self.learner, self.tables = learner, tables
        self.classes = list(dict.fromkeys(classes))
        self.paths, self._kind, self._name = paths, kind, name
        self._done: list[tuple[Proposal, str]] = []
        self._next_batch()

    def answer(self, given: dict[str, Any] | None) -> dict[str, Any]:
        """Return the state for the page, after an answer, if one is given.

        Raises:
            DataError: it is no answer to the example that is shown, or a table has changed.
        """
        if given is not None:
            action = given.get("action")
            if action == UNDO:
                self._undo()
            elif action not in (LABEL, NONE, SKIP):
                raise DataError("action should be label, none, skip or undo")
            elif not self.queue or given.get("digest") != self._digest:
                raise DataError("this example has been answered already: reload the page")
            else:
                self._take(action, class_name(given.get("label")) if action == LABEL else "")
        return self._state()

    @property
    def _digest(self) -> str:
        return self.learner.digests[self.queue[0].place]

    def _take(self, action: str, label: str) -> None:
        proposal = self.queue[0]
        place, split = proposal.place, TRAIN
        if proposal.why == RANDOM:
            split = VAL if len(self.learner.drawn) % 2 else TEST
        if action != SKIP:
            self.tables.add(self.paths[place], label, split, proposal.why)
        if label:
            self.learner.labels[place] = label, split
            self.classes += [label] * (label not in self.classes)
        else:
            self.learner.left_out.add(place)
        self._done.append((self.queue.pop(0), action))
        if not self.queue:
            self._next_batch()

    def _undo(self) -> None:
        if not self._done:
            return
        proposal, action = self._done[-1]
        if action != SKIP:
            self.tables.undo()
        self.learner.labels.pop(proposal.place, None)
        self.learner.left_out.discard(proposal.place)
        self.queue.insert(0, proposal)
        self._done.pop()

    def _next_batch(self) -> None:
        self.queue = self.learner.batch(max(BATCH, OF_CLASS * len(self.classes)))
        self._batch = len(self.queue)
        self._figures = self._in_words(self.learner.accuracy())

    def _in_words(self, accuracy: Accuracy | None) -> tuple[str, str]:
        """Return the accuracy, and whether to stop."""
        nouns = self._kind.nouns
        if accuracy is None:
            return "Every fifth example is drawn at random to measure the accuracy on.", ""
        count, right, half = len(accuracy.right), accuracy.right.sum(), accuracy.by_half.sum()
        low, high = accuracy.interval
        figure = (
            f"Accuracy {100 * right / count:.0f} % on {count} random {nouns}"
            f" (95 % interval {100 * low:.0f} to {100 * high:.0f} %)"
        )
        if accuracy.enough:
            return figure, (
                f"You may stop: a head trained on half of the labels predicts {half} of these"
                f" {nouns} correctly, and a head trained on all labels {right}."
            )
        return figure, ""

    def _state(self) -> dict[str, Any]:
        shown = None
        if self.queue:
            path = self.paths[self.queue[0].place]
            shown = {"digest": self._digest, "html": self._html(path), "name": str(path)}
        done = self._batch - len(self.queue)
        return {
            "example": shown,
            "classes": self.classes,
            "labelled": len(self._own),
            "left": len(self.learner.rest),
            "batch": f"{min(max(done, 0) + 1, self._batch)} of {self._batch}",
            "undo": bool(self._done),
            "figures": self._figures,
            "nouns": self._kind.nouns,
            "file": str(self.tables.labels),
        }

    @property
    def _own(self) -> list[int]:
        return [place for place in self.learner.labels if place < self.learner.pool]

    def _html(self, path: Path) -> str:
        try:
            data = load(path, self._kind.most_bytes)
            if self._kind.texts:
                return str(in_html(Shown("text/plain", data[:LONGEST]), ""))
            return str(in_html(self._kind.show(data, SIDE), self._kind.noun))
        except RefusedError as error:  # it can be skipped
            return str(in_html(Shown("text/plain", str(error).encode()), ""))

    def outcome(self) -> str:
        """Return what was written, and what to do next."""
        drawn = len(self.learner.drawn)
        return in_words(self.tables, self._kind, self._name, len(self._own), drawn)


def in_words(tables: Tables, kind: Kind, name: str, labels: int, drawn: int) -> str:
    """Return what the tables have, and what to do next.

    Args:
        labels: how many there are.
        drawn: how many of them are of random examples.
    """
    if not labels:
        return "there are no labels so far"
    words = f"{labels} labels in {tables.labels}, {drawn} of them of random {kind.nouns}, which are"
    words += " val and test"
    if tables.none.exists():
        words += f"; those of no class are in {tables.none}"
    data = tables.folder if tables.column == "path" else tables.labels
    if not PARAMS.exists():
        option = f" --kind {name}" * (name != "image")
        return f"{words}; next: headstart init mine{option} --data {shlex.quote(str(data))}"
    ingest = params.load(kinds.schema).ingest
    read = Path(ingest.path)
    here = read.resolve() in (tables.folder.resolve(), tables.labels.resolve())
    if here and ingest.source == "csv":
        return f"{words}; next: headstart repro"
    if ingest.source == "folder":
        words += f"; this project reads {read}: copy each file to the folder of its label there"
    else:
        words += f"; this project reads {read}: copy the files and the rows there"
    return f"{words}, then headstart repro"
