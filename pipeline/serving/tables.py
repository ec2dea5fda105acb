"""Tables of predictions, in files and on the terminal."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from csv import DictWriter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ParamsError
from ..core.terminal import printable
from ..tables.cells import as_text
from ..tasks import SEPARATOR
from . import answering
from .answering import Answer, Row

if TYPE_CHECKING:  # the import is slow, and --help should be fast
    from .classifier import Classifier

Write = Callable[[Row], None]

OF_NUMBERS = ("predicted(", "low(", "high(")
UNLIKE = "out of distribution: unlike anything in training"
ROWS_A_GROUP = 10_000  # rows of a Parquet row group, which is held in memory


def columns_of(classifier: "Classifier") -> list[str]:
    """Return the columns of a prediction, in order."""
    columns = answering.of_task(classifier.task).columns(classifier.outputs)
    return columns + ["distance", "unusual"] * classifier.detects_novelty


def values_of(classifier: "Classifier", answer: Answer) -> list[Any]:
    """Return the values of these columns."""
    values = answering.of_task(classifier.task).row(answer, classifier.outputs)
    return values + [answer.distance, answer.unusual] * classifier.detects_novelty


def _is_probability(column: str) -> bool:
    """Whether a column has probabilities or distances, not a regression target."""
    return column in ("probability", "distance") or column.startswith("p(")


@contextmanager
def csv_table(file: Path, columns: list[str]) -> Iterator[Write]:
    """Write CSV: labels are joined, neighbours are JSON, and no text can act as a formula."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = DictWriter(stream, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()

        def write(row: Row) -> None:
            shown = dict(row)
            for name, value in row.items():
                # More than six digits would only show rounding errors of the machine.
                if isinstance(value, float) and _is_probability(name):
                    shown[name] = f"{value:.6g}"
            for name in ("labels", "likely"):
                if row.get(name) is not None:
                    shown[name] = SEPARATOR.join(row[name])
            if row.get("neighbours"):
                shown["neighbours"] = json.dumps(row["neighbours"], ensure_ascii=False)
            writer.writerow({n: as_text(v) if isinstance(v, str) else v for n, v in shown.items()})

        yield write


@contextmanager
def json_lines(file: Path, columns: list[str]) -> Iterator[Write]:
    """Write one JSON object per line."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        yield lambda row: print(
            json.dumps({name: row.get(name) for name in columns}, ensure_ascii=False), file=stream
        )


@contextmanager
def parquet_table(file: Path, columns: list[str]) -> Iterator[Write]:
    """Write Parquet, one row group at a time.

    Raises:
        ParamsError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ParamsError("--parquet needs pyarrow: pip install pyarrow") from None
    neighbour = pa.struct({"path": pa.string(), "label": pa.string(), "cosine": pa.float32()})
    kinds = {"neighbours": pa.list_(neighbour), "labels": pa.list_(pa.string())}
    kinds |= {name: pa.float32() for name in columns if _is_probability(name)}
    kinds |= {name: pa.float64() for name in columns if name.startswith(OF_NUMBERS)}
    kinds |= {"likely": pa.list_(pa.string()), "unusual": pa.bool_()}
    schema = pa.schema({name: kinds.get(name, pa.string()) for name in columns})
    held: list[Row] = []
    with pq.ParquetWriter(file, schema) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(held, schema))
            held.clear()

        def write(row: Row) -> None:
            held.append(row)
            if len(held) >= ROWS_A_GROUP:
                flush()

        yield write
        flush()


def printer(classifier: "Classifier") -> Write:
    """Print a table: a line with the prediction and the path, then notes and neighbours."""
    cells = answering.of_task(classifier.task).cells(classifier.classes)
    head, nothing = cells(None), cells({})

    def say(line: str) -> None:
        print(printable(line), flush=True)

    say(f"{head}  path")

    def write(row: Row) -> None:
        if row["error"] is not None:
            say(f"{nothing}  {row['path']}: {row['error']}")
            return
        say(f"{cells(row)}  {row['path']}")
        for line in _notes(row, classifier.classes):
            say(f"{'':11}    {line}")
        for one in row.get("neighbours") or ():
            say(f"{one['cosine']:11.4f}    like {one['label'] or 'no label'}  {one['path']}")

    return write


def _notes(row: Row, names: list[str]) -> list[str]:
    """Return the lines below a prediction: doubts about it, and which other answers are likely."""
    if row.get("doubt"):
        return [row["doubt"]]
    if row.get("unusual"):
        return [UNLIKE]
    if row.get("most_probable", row.get("class")) != row.get("class"):
        return [f"{row['most_probable']} is more probable"]
    if len(row.get("likely") or ()) > 1:
        return [f"or {', or '.join(row['likely'][1:])}"]
    ends = [(name, row.get(f"low({name})"), row.get(f"high({name})")) for name in names]
    ranges = [f"{name} from {low:.6g} to {high:.6g}" for name, low, high in ends if low is not None]
    return [", ".join(ranges)] if ranges else []
