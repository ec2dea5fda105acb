"""Predict classes, labels or targets with a trained bundle: `headstart predict BUNDLE FILES…`.

A bundle of texts also takes texts as arguments, and the lines of standard input as `-`.

Each core handles whole examples, from decoding to answer. Answers are written as soon as they are
ready, in the order of the files, so memory does not grow with their number.
"""

import argparse
import contextlib
import glob
import os
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..core import command
from ..core.errors import DataError, ParamsError, RefusedError
from ..core.progress import Progress
from ..examples import rows as rows_of
from ..examples.files import digest, load
from .answering import Row
from .tables import columns_of, csv_table, json_lines, parquet_table, printer, values_of

if TYPE_CHECKING:  # the import is slow, and --help should be fast
    from ..kinds import Kind
    from .classifier import Classifier

Item = TypeVar("Item")
Result = TypeVar("Result")


class Typed(NamedTuple):
    """A text that was typed: an argument, or a line of standard input."""

    data: bytes

    @property
    def name(self) -> str:
        """Its first characters, for the column `path`."""
        text = " ".join(self.data.decode("utf-8", "replace").split())
        return text if len(text) <= 60 else f"{text[:59]}…"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command line."""
    parser.add_argument("bundle", type=Path, help="Folder that the bundle stage wrote.")
    parser.add_argument(
        "asked",
        metavar="FILES",
        nargs="+",
        help="Files, folders, or patterns such as 'a/*.jpg'. A text bundle also accepts a text"
        " of several words, or - to read lines from standard input.",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="Write a CSV table to this file.")
    parser.add_argument("--jsonl", type=Path, metavar="FILE", help="Write JSON lines to this file.")
    parser.add_argument(
        "--parquet", type=Path, metavar="FILE", help="Write a Parquet table to this file."
    )
    parser.add_argument(
        "--heat-maps",
        type=Path,
        metavar="FOLDER",
        help="Write a heat map for each file to this folder.",
    )
    parser.add_argument(
        "--neighbours",
        type=int,
        default=0,
        metavar="K",
        help="Show the K nearest training examples of each example (default: 0).",
    )


def run(
    bundle: Path,
    asked: Iterable[str],
    csv: Path | None = None,
    jsonl: Path | None = None,
    parquet: Path | None = None,
    heat_maps: Path | None = None,
    neighbours: int = 0,
) -> None:
    """Predict for every file; print a table, or write the requested tables.

    Raises:
        ParamsError: an argument matches no file, or has an impossible value.
        DataError: the bundle cannot be opened, or no file can be read.
    """
    from .classifier import Classifier

    if neighbours < 0:
        raise ParamsError(f"--neighbours is {neighbours}; it should be 0 or more")
    explains = bool(heat_maps or neighbours)
    classifier = Classifier(bundle, explains)
    paths: list[Path | Typed] = []
    inputs: set[Path] = set()  # that no table may replace
    asked = list(asked)
    folders = {Path(text) for text in asked if os.path.isdir(text)}  # noqa: PTH112
    for one in files(asked, classifier.kind.texts):
        if isinstance(one, Typed):
            paths.append(one)
            continue
        in_folder = not folders.isdisjoint(one.parents)
        examples = examples_in(one, classifier.kind, in_folder)
        paths += examples
        # A file of a folder without examples may be the table that an earlier call wrote.
        if not in_folder or examples != [one]:
            inputs.update(rows_of.files_of(one))
    if heat_maps and not classifier.explains:
        raise ParamsError(f"--heat-maps: {no_explanation(classifier)}")
    columns = ["path", *columns_of(classifier), "error", *["heat_map"] * bool(heat_maps)]
    columns += ["neighbours"] * (neighbours > 0)
    tables = [csv, jsonl, parquet]
    written = [file.resolve() for file in tables if file]
    if twice := {file for file in written if written.count(file) > 1}:
        raise ParamsError(f"two tables would be written to {twice.pop()}: name different files")
    _stop_if_over(written, inputs)
    failed, doubted, first = 0, 0, ""
    with ExitStack() as stack:
        writers = [
            stack.enter_context(table(file, columns))
            for table, file in zip((csv_table, json_lines, parquet_table), tables, strict=True)
            if file
        ]
        progress = None
        if writers:
            progress = stack.enter_context(Progress("predict", len(paths), classifier.kind.nouns))
        else:  # a printed table is its own progress
            writers = [printer(classifier)]
        for row in rows(classifier, paths, heat_maps, neighbours):
            for write in writers:
                write(row)
            failed += row["error"] is not None
            doubted += bool(row["doubt"])
            first = first or (row["doubt"] and f"{row['path']}: {row['doubt']}")
            if progress:
                progress.advance(1)
    if failed:
        words = f"{failed} of {len(paths)} inputs could not be read as {classifier.kind.nouns}"
        if failed == len(paths):
            raise DataError(words)
        print(f"predict: {words}", file=sys.stderr)
    if doubted:
        print(
            f"predict: warning: the predictions for {doubted} of {len(paths)}"
            f" {classifier.kind.nouns} are not reliable; the first is {first}",
            file=sys.stderr,
        )


def _stop_if_over(tables: Iterable[Path], inputs: Collection[Path]) -> None:
    """Stop if a table would be written over an input, which would then be lost.

    Raises:
        ParamsError: it would.
    """
    for table in tables:
        if table.exists() and any(one.exists() and table.samefile(one) for one in inputs):
            raise ParamsError(f"{table} is one of the inputs: write the table to another file")


def files(asked: Iterable[str], texts: bool = False) -> Iterator["Path | Typed"]:
    """Yield the files that the arguments name, with all files of each folder.

    With `texts`, an argument of several words that names no file is a text, and so is each line of
    standard input if an argument is `-`. A single word is never a text: it may be a misspelt file
    name.

    Raises:
        ParamsError: an argument names no file.
    """
    for text in asked:
        path = Path(text)
        found: list[Path | Typed]
        if texts and text == "-":
            lines = sys.stdin.buffer.read().splitlines()
            found = [Typed(line) for line in lines if line.strip()]
            if not found:
                raise ParamsError("standard input has no text")
        elif os.path.isdir(text):  # noqa: PTH112 (the methods of Path raise on a long text)
            found = [*inside(path)]
        elif os.path.exists(text) or rows_of.parted(path):  # noqa: PTH110
            found = [path]
        else:
            found = [Path(p) for p in sorted(glob.glob(text, recursive=True)) if Path(p).is_file()]  # noqa: PTH207
        if not found and texts and len(text.split()) > 1:
            found = [Typed(os.fsencode(text))]
        if not found:
            also = "; to classify a text of one word, pass it by standard input, as -" * texts
            raise ParamsError(f"{text or repr(text)} names no file{also}")
        yield from found


def examples_in(path: Path, kind: "Kind", in_folder: bool = False) -> list[Path]:
    """Return the examples in a table, if the kind's examples can be rows; else the file itself.

    A table without examples that lies `in_folder` is one example, like the files beside it.

    Raises:
        DataError: the table cannot be read, or has no examples.
    """
    # What is no file is the address of a row, or is refused when it is loaded.
    is_table = path.suffix in rows_of.ENDINGS and os.path.isfile(path)  # noqa: PTH113
    if not (kind.rows and is_table):
        return [path]
    return rows_of.examples(path, "" if in_folder else kind.rows) or [path]


def no_explanation(classifier: "Classifier") -> str:
    """Return the reason why this bundle cannot explain its answers."""
    if classifier.bundle.head.layers:
        return "a head of inner blocks has no feature maps; set train.layers to last"
    return f"the backbone {classifier.bundle.backbone.name} has no feature maps"


def inside(folder: Path) -> list[Path]:
    """Return the files in a folder and its subfolders, sorted, without hidden ones.

    A subfolder that cannot be read, and a link to a folder or to nothing, is in the list too, so
    that it is refused.
    """
    found = (
        path
        for path in folder.rglob("*")
        if os.path.isfile(path) or os.path.islink(path) or _is_closed(path)  # noqa: PTH113, PTH114
    )
    return sorted(
        p for p in found if not any(q.startswith(".") for q in p.relative_to(folder).parts)
    )


def _is_closed(path: Path) -> bool:
    return path.is_dir() and not os.access(path, os.R_OK | os.X_OK)


def spelt(path: Path) -> str:
    """Return the path as text for a table; bytes that are not UTF-8 are escaped."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode()


def rows(
    classifier: "Classifier",
    paths: "Iterable[Path | Typed]",
    heat_maps: Path | None,
    neighbours: int,
) -> Iterator[Row]:
    """Yield one row per file, in order: `path`, `columns_of`, `error` and requested explanations.

    `doubt`, the result of `Kind.doubt`, is for the printed table and the warning after it. If a
    file cannot be read, `error` has the reason and the columns of the prediction are None.
    """
    cores = os.cpu_count() or 1
    if heat_maps:
        heat_maps.mkdir(parents=True, exist_ok=True)
    ask = partial(_row, classifier, heat_maps, neighbours)
    with ThreadPoolExecutor(cores) as pool:
        yield from in_order(pool, ask, paths, ahead=4 * cores)


def in_order(
    pool: ThreadPoolExecutor,
    do: Callable[[Item], Result],
    items: Iterable[Item],
    ahead: int,
) -> Iterator[Result]:
    """Map like `pool.map`, but at most `ahead` items ahead of the consumer."""
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(do, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _row(
    classifier: "Classifier", heat_maps: Path | None, neighbours: int, path: "Path | Typed"
) -> Row:
    columns = columns_of(classifier)
    row: Row = dict.fromkeys(["path", *columns, "error"])
    row["path"], row["doubt"] = spelt(path) if isinstance(path, Path) else path.name, ""
    try:
        with classifier.kind.alone(path) if isinstance(path, Path) else contextlib.nullcontext():
            most = classifier.kind.most_bytes
            data = load(path, most) if isinstance(path, Path) else path.data
            answer = classifier.answer(data, heat_maps is not None, neighbours)
            row["doubt"] = classifier.kind.doubt(data)
    except RefusedError as error:
        return row | {"error": str(error)}
    row |= zip(columns, values_of(classifier, answer), strict=True)
    if heat_maps is not None and answer.heat is not None:
        # The digest distinguishes files with the same name in different folders.
        stem = Path(row["path"]).stem.encode()[:200].decode(errors="ignore")  # a name has 255 bytes
        ending = answer.heat.media_type.rpartition("/")[2]
        whole = os.fsencode(path) if isinstance(path, Path) else path.data
        name = f"{stem}-{digest(whole)[:8]}.{ending}"
        (heat_maps / name).write_bytes(answer.heat.data)
        row["heat_map"] = spelt(heat_maps / name)
    if neighbours:
        row["neighbours"] = [
            {"path": one.path, "label": one.label, "cosine": one.cosine}
            for one in answer.neighbours
        ]
    return row


def main() -> None:
    """Run as `python -m pipeline.serving.predict`, which needs fewer packages than `headstart`."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.serving.predict",
        description=__doc__,
        parents=[command.debug_option()],
    )
    add_arguments(parser)
    asked = vars(parser.parse_args())
    asked.pop("debug", None)

    def predict() -> None:
        run(**asked)

    command.run(predict, takes_arguments=True)


if __name__ == "__main__":
    main()
