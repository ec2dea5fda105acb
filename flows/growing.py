"""The flow over a growing folder: a bundle predicts each file once.

Each bundle predicts a file's content once: a renamed file or a copy gets the saved prediction.
All predictions are in one file of JSON lines, one line per file. The flow reads it at the start, so
a run that was killed continues where it stopped.
"""

import fcntl
import json
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from prefect import State, flow
from prefect.states import Completed, Failed

from pipeline.core.errors import HeadstartError, ParamsError, RefusedError
from pipeline.examples import files
from pipeline.serving.classifier import Classifier
from pipeline.serving.predict import inside, rows, spelt
from pipeline.serving.tables import columns_of


class Seen(NamedTuple):
    """The state of a file when it was read; it is read again if its size or time has changed."""

    path: str
    size: int
    changed_ns: int


@flow(name="predict", description="Predicts each file of a folder once.")
def predict(bundle: Path, folder: Path, answers: Path) -> State[None]:
    """Predict the files in `folder` that `answers` has no line for, and add their lines."""
    answers.parent.mkdir(parents=True, exist_ok=True)
    with answers.open("a+", encoding="utf-8") as lines:
        try:
            fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return Completed(name="Busy", message=f"another run is writing {answers}")
        try:
            asked, copies = answer_new(bundle, folder, lines)
        except HeadstartError as error:
            return Failed(message=str(error))
    if asked or copies:
        return Completed(message=f"{asked} files predicted, {copies} copies")
    return Completed(name="Cached", message="no new file")


def answer_new(bundle: Path, folder: Path, lines: TextIO) -> tuple[int, int]:
    """Add a line for each file of `folder` that has none; return counts of new files and copies.

    Raises:
        ParamsError: there is no such folder.
        DataError: the bundle cannot be opened.
    """
    if not folder.is_dir():
        raise ParamsError(f"{folder} is not a folder; name the folder that receives the files")
    classifier = Classifier(bundle)
    version = files.digest((bundle / "bundle.json").read_bytes())
    columns = [*columns_of(classifier), "error"]
    seen, known = _remembered(lines, version, columns)
    waiting: deque[tuple[Seen, str]] = deque()
    copies: list[tuple[Seen, str]] = []

    def new() -> Iterator[Path]:
        for path in inside(folder):
            if os.path.islink(path) and not os.path.isfile(path):  # noqa: PTH113, PTH114
                continue  # a linked folder would get a line whenever something in it changes
            try:
                status = path.stat()
            except FileNotFoundError:  # it was moved meanwhile
                continue
            now = Seen(spelt(path), status.st_size, status.st_mtime_ns)
            if now in seen:
                continue
            digest = _digest(path, classifier.kind.most_bytes)
            if digest in known or any(digest == other for _, other in waiting):
                copies.append((now, digest))
                continue
            waiting.append((now, digest))
            yield path

    def note(now: Seen, digest: str) -> None:
        line = {**now._asdict(), **known[digest], "digest": digest, "bundle": version}
        print(json.dumps(line, ensure_ascii=False), file=lines, flush=True)

    asked = 0
    for row in rows(classifier, new(), None, 0):
        now, digest = waiting.popleft()
        known[digest] = {name: row[name] for name in columns}
        note(now, digest)
        asked += 1
    for now, digest in copies:
        note(now, digest)
    return asked, len(copies)


def _digest(path: Path, most_bytes: int) -> str:
    try:
        return files.digest(files.load(path, most_bytes))
    except RefusedError as error:
        return f"{error}: {spelt(path)}"  # the line of the file has this error


def _remembered(
    lines: TextIO, version: str, columns: list[str]
) -> tuple[set[Seen], dict[str, dict[str, Any]]]:
    """Return the files that this bundle has predicted, and its prediction for each content."""
    lines.seek(0)
    data = lines.buffer.read()  # bytes, since the last line may end inside a character
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:  # a run was killed while it wrote the last line
        lines.truncate(len(whole))
    seen, known = set(), {}
    for line in whole.splitlines():  # of text, it would split at characters of names too
        row = json.loads(line)
        # Files whose predictions an older version saved with fewer columns are predicted again.
        if row["bundle"] == version and row.keys() >= set(columns):
            seen.add(Seen(*(row[name] for name in Seen._fields)))
            known[row["digest"]] = {name: row[name] for name in columns}
    return seen, known
