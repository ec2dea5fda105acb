"""The flow over a folder that keeps growing: asks a bundle about each picture once.

Each bundle predicts a picture's content once: a renamed file or a copy gets the answer that was
saved. All answers are in one file of JSON lines, one line per file. The flow reads it as it
starts, so a run that was killed continues where it stopped.
"""

import fcntl
import json
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
    """A file as it was when it was read: another size or time, and it is read again."""

    path: str
    size: int
    changed_ns: int


@flow(name="predict", description="Asks about each picture of a folder once.")
def predict(bundle: Path, folder: Path, answers: Path) -> State[None]:
    """Ask about the pictures in `folder` that `answers` has no line of, and add their lines."""
    answers.parent.mkdir(parents=True, exist_ok=True)
    with answers.open("a+", encoding="utf-8") as lines:
        try:
            fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return Completed(name="Busy", message=f"another run is at work on {answers}")
        try:
            asked, copies = answer_new(bundle, folder, lines)
        except HeadstartError as error:
            return Failed(message=str(error))
    if asked or copies:
        return Completed(message=f"{asked} files predicted, {copies} copies")
    return Completed(name="Cached", message="no new file")


def answer_new(bundle: Path, folder: Path, lines: TextIO) -> tuple[int, int]:
    """Add a line for each file of `folder` that has none; how many were asked about, and copies.

    Raises:
        ParamsError: there is no such folder.
        DataError: the bundle cannot be opened.
    """
    if not folder.is_dir():
        raise ParamsError(f"{folder} is not a folder; name the one that the files come into")
    classifier = Classifier(bundle)
    version = files.digest((bundle / "bundle.json").read_bytes())
    columns = [*columns_of(classifier), "error"]
    seen, known = _remembered(lines, version, columns)
    waiting: deque[tuple[Seen, str]] = deque()
    copies: list[tuple[Seen, str]] = []

    def new() -> Iterator[Path]:
        for path in inside(folder):
            try:
                status = path.stat()
            except FileNotFoundError:  # it was put elsewhere meanwhile
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
        return f"{error}: {spelt(path)}"  # its row will say so


def _remembered(
    lines: TextIO, version: str, columns: list[str]
) -> tuple[set[Seen], dict[str, dict[str, Any]]]:
    """The files that this bundle has predicted, and its answer to each content."""
    lines.seek(0)
    text = lines.read()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:  # a run was killed while it wrote the last line
        lines.truncate(len(whole.encode()))
    seen, known = set(), {}
    for line in whole.split("\n")[:-1]:  # a name may hold what else `splitlines` takes for an end
        row = json.loads(line)
        # Files whose answers an older version noted with fewer columns are predicted again.
        if row["bundle"] == version and row.keys() >= set(columns):
            seen.add(Seen(*(row[name] for name in Seen._fields)))
            known[row["digest"]] = {name: row[name] for name in columns}
    return seen, known
