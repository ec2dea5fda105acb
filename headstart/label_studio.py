"""Label Studio: tasks of proposals for it, and the labels in its export.

Both files are in Label Studio's JSON format, a list of tasks. Each task has our fields in `data`.
The `result` of its `predictions` or `annotations` names the control of `config.xml` and the label.
"""

import json
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from pipeline.core.errors import DataError, ParamsError
from pipeline.core.params import IngestParams
from pipeline.examples.files import load
from pipeline.serving.predict import spelt
from pipeline.sources.checked import Checked
from pipeline.tasks import TASKS

from .label_tables import Tables, class_name
from .learner import TEST, TRAIN, VAL
from .pool import Pool
from .proposing import RANDOM, Guess, Proposal

TASKS_FILE, CONFIG = "tasks.json", "config.xml"
TAGS = {"image": "Image", "text": "Text", "audio": "Audio"}
SHOWN, CHOICE = "example", "label"  # names of tags in the configuration
MODEL = "headstart"
NAMED = 3  # tasks that a message names; the rest are counted


def check(into: Path, settings: IngestParams, classes: set[str]) -> None:
    """Check that Label Studio can show and label the examples of a project.

    Raises:
        ParamsError: it cannot, there are no classes, or `into` is a file.
    """
    if into.is_file():
        raise ParamsError(f"--label-studio is {into}, which is a file; give a folder")
    if settings.kind not in TAGS:
        raise ParamsError(
            f"Label Studio can show the kinds {', '.join(TAGS)}, but ingest.kind is {settings.kind}"
        )
    if not TASKS[settings.task].exclusive or settings.targets:
        raise ParamsError(f"--label-studio is for classes, but ingest.task is {settings.task}")
    if not classes:
        raise ParamsError("there are no labels so far: name the classes with --classes")


def write(
    into: Path,
    pool: Pool,
    kind: str,
    found: list[Proposal],
    examples: list[Checked],
    guess: Guess | None,
    classes: Iterable[str],
) -> None:
    """Write the tasks and the configuration, and print how to start Label Studio with them.

    A random example has no prediction: people tend to agree with one, and the measured accuracy
    would be too high.
    """
    into.mkdir(parents=True, exist_ok=True)
    place = pool.place.resolve()
    tasks = []
    for at, why in found:
        path = examples[at].found.path
        if pool.kind.texts:
            shown = load(path, pool.kind.most_bytes).decode("utf-8", "replace")
        else:  # relative to the document root
            inside = Path(place.name, path.relative_to(pool.place))
            shown = f"/data/local-files/?d={quote(os.fsencode(inside))}"
        data = {kind: shown, "digest": examples[at].digest, "why": why, "path": spelt(path)}
        task: dict[str, Any] = {"data": data}
        if guess and why != RANDOM:
            region = {"from_name": CHOICE, "to_name": SHOWN, "type": "choices"}
            result = [region | {"value": {"choices": [guess.classes[at]]}}]
            score = round(float(guess.probabilities[at]), 3)
            task["predictions"] = [{"model_version": MODEL, "score": score, "result": result}]
        tasks.append(task)
    (into / TASKS_FILE).write_text(json.dumps(tasks, indent=1) + "\n", encoding="utf-8")
    names = sorted({*classes, *(guess.classes if guess else ())})
    choices = "".join(f"    <Choice value={quoteattr(name)}/>\n" for name in names)
    (into / CONFIG).write_text(
        f'<View>\n  <{TAGS[kind]} name="{SHOWN}" value="${kind}"/>\n'
        f'  <Choices name="{CHOICE}" toName="{SHOWN}" choice="single" showInline="true">\n'
        f"{choices}  </Choices>\n</View>\n",
        encoding="utf-8",
    )
    print(
        f"next: {into / TASKS_FILE} has {len(tasks)} {pool.kind.nouns}, {into / CONFIG} the labels"
    )
    if not pool.kind.texts:
        print(f"next: Label Studio needs these variables, and {place} as local storage:")
        print("LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true")
        print(f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={shlex.quote(str(place.parent))}")
    given = shlex.quote(str(pool.place))
    print(f"next: export JSON, then run `headstart label {given} --from-label-studio FILE`")


class Answer(NamedTuple):
    """A task of an export: its name in messages, digest, reason for the proposal, and labels."""

    name: str
    digest: str
    why: str
    labels: list[str]


def add(answers: list[Answer], pool: Pool, tables: Tables) -> list[str]:
    """Append the labels in an export to the tables of a pool, each once.

    Returns:
        lines that say how many were added, and which tasks are left out and why.

    Raises:
        DataError: no task is of an example in the pool.
    """
    known = tables.known(pool.digests)
    drawn = sum(row.split != TRAIN for row in tables.read() if row.label)
    paths = {one.digest: one.found.path for one in pool.examples}
    foreign, left = f"not of {pool.place}", dict[str, list[str]]()
    added = same = 0
    for name, digest, why, labels in answers:
        if digest not in paths:
            left.setdefault(foreign, []).append(name)
        elif not labels:
            left.setdefault("without a label", []).append(name)
        elif len(labels) > 1:
            both = f"{name} ({' or '.join(labels)})"
            left.setdefault("labelled differently by several people", []).append(both)
        elif digest not in known:
            split = TRAIN
            if why == RANDOM:
                split = VAL if drawn % 2 else TEST
                drawn += 1
            tables.add(paths[digest], labels[0], split, why)
            known[digest] = labels[0]
            added += 1
        elif known[digest] != labels[0]:
            both = f"{name} ({labels[0]}, not {known[digest] or 'none'})"
            left.setdefault(f"labelled differently in {tables.labels}", []).append(both)
        else:
            same += 1
    if len(left.get(foreign, ())) == len(answers):
        raise DataError(f"no task of the export is of an example in {pool.place}")
    new = f"{added} labels added from {len(answers)} tasks"
    new += f"; {same} were in {tables.labels} before" * bool(same)
    return [new, *(_line(why, names) for why, names in left.items())]


def read(export: Path) -> list[Answer]:
    """Return the tasks of an export.

    Raises:
        DataError: it is not one, or a label cannot be the name of a class.
    """
    try:
        tasks = json.loads(export.read_bytes())
        found = []
        for number, task in enumerate(tasks, 1):
            labels = {
                class_name(label)
                for annotation in task["annotations"]
                if not annotation.get("was_cancelled")
                for region in annotation["result"]
                if region.get("from_name") == CHOICE
                for label in region["value"]["choices"]
            }
            data, name = task["data"], f"task {task.get('id', number)}"
            given = str(data.get("digest", "")), str(data.get("why", ""))
            found.append(Answer(name, *given, sorted(labels)))
    except OSError as error:
        raise DataError(f"{export} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise DataError(
            f"{export} is not a Label Studio export in the format JSON (JSON-MIN is another one)"
        ) from None
    return found


def _line(why: str, names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} left out, {why}: {', '.join(names[:NAMED])}{more}"
