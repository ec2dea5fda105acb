"""The tables and cards of the report, from the outputs of earlier stages."""

import io
import re
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from ..core.errors import DataError
from ..core.paths import REFUSED, REPEATS, SETS, SLICES, SWEEP, TRAINING
from ..evaluation import SHARE, measure, spelt
from ..tables import cells
from ..tables.figures import Metrics, hardly_better
from ..tables.manifest import DRAWN, GIVEN, PLACE
from ..tasks import Task
from . import charts
from .embed import Row, Thumbnails

SHOWN = 12  # label issues and near-duplicate pairs on the page
MOST_DRAWN = 40  # classes; a larger matrix is not legible
DRAWN_OF_MANY = 24  # classes in the matrix, the most confused, if there are over `MOST_DRAWN`
MOST_ROWS = 20  # of the tables of confused classes, of heads and, if there are many, of classes
# Columns that are read as text: names of classes, of targets and of slices.
NAMES = re.compile(
    r"class|class_\d+|label|predicted|unknown|other_label|suggested|name|column|value"
)
FOUND = ("near_duplicates", "label_issues", "few_examples", "drift", "notes", "flawed")
# The columns that the page reads in the tables of every task, as regular expressions.
COLUMNS = {
    REFUSED.name: "path reason",
    SWEEP.name: "epochs status",
    REPEATS.name: "measure mean low high repeats given_split",
    SLICES.name: "column value examples low high p_value corrected_p_value other_.*",
    SETS.name: "class examples coverage size",
    TRAINING.name: "epoch train_loss val_loss",
    "near_duplicates.csv": "path split label other_path other_split other_label cosine",
    "label_issues.csv": "path split label suggested wrong|spreads",
    "few_examples.csv": "class train val test",
    "flawed.csv": "path split label problem",
    "notes.csv": "check note",
    "drift.csv": "split origin p_value drifted",
    "reliability.csv": "pictures confidence accuracy",
}

# Columns of cross-validation in the table of heads.
COMPARED = {
    "out_of_fold_loss": "loss in cross-validation",
    "behind_chosen": "behind the chosen head",
    "standard_error": "standard error of the difference",
}


def headline(metrics: Metrics, repeats: pd.DataFrame, first: str, classes: int) -> list[Row]:
    """Return name, value and interval of each metric on the test examples.

    The ends of an interval that is not known are None. Each row also has the mean over the repeats
    and its interval, if there are repeats.

    Args:
        first: the metric of the first row, which is the main metric of the task.
        classes: the number of classes; a top-k accuracy is always 1 if k is at least this number,
            and is then left out.
    """
    again = {
        row.measure: {
            "mean": _figure(row.measure, row.mean),
            "low": _figure(row.measure, row.low),
            "high": _figure(row.measure, row.high),
        }
        for row in repeats.itertuples()
    }
    test, ends = metrics.test, metrics.interval
    sizes = ("pictures", "groups")
    names = [name for name in test if name not in sizes and not _always_1(name, classes)]
    return [
        {
            "name": spelt(name),
            "value": _figure(name, test[name]),
            "low": _figure(name, ends[name]["low"]) if name in ends else None,
            "high": _figure(name, ends[name]["high"]) if name in ends else None,
            "again": again.get(name),
        }
        for name in sorted(names, key=lambda name: name != first)
    ]


def _always_1(name: str, classes: int) -> bool:
    top = re.fullmatch(r"top_(\d+)_accuracy", name)
    return top is not None and int(top[1]) >= classes


def _figure(name: str, value: float) -> str:
    if measure(name).has_unit:
        return f"{value:.4g}"
    return f"{100 * value:.1f} %" if measure(name) == SHARE else f"{value:.3f}"


def confused(predictions: pd.DataFrame, classes: int) -> list[Row]:
    """Return the first `MOST_ROWS` confused pairs of classes, in the order of `_pairs`."""
    return rows(_pairs(predictions, classes).head(MOST_ROWS))


def _pairs(predictions: pd.DataFrame, classes: int) -> pd.DataFrame:
    """Return one row per confused pair of classes: `actual`, `predicted` and `pictures`.

    The most frequent pair comes first. But if there are over `MOST_DRAWN` classes, most pairs are
    equally frequent. In this case pairs with the most errors in both directions together come
    first, and ties are ordered by frequency and confidence.
    """
    wrong = predictions[~predictions["correct"]]
    grouped = wrong.groupby(["label", "predicted"])
    counts = grouped["probability"].agg(["size", "mean"]).reset_index()
    counts = counts.rename(columns={"label": "actual", "size": "pictures"})
    names = ["actual", "predicted"]
    if classes <= MOST_DRAWN:
        order, upwards = ["pictures", *names], [False, True, True]
    else:
        turned = counts.rename(columns={"actual": "predicted", "predicted": "actual"})
        back = counts.merge(turned[[*names, "pictures"]], on=names, how="left", suffixes=("", "_b"))
        counts["both"] = counts["pictures"] + back["pictures_b"].fillna(0).astype(int)
        order, upwards = ["both", "pictures", "mean", *names], [False, False, False, True, True]
    return counts.sort_values(order, ascending=upwards)[[*names, "pictures"]]


def in_matrix(predictions: pd.DataFrame, classes: list[str]) -> list[str]:
    """Return the classes of the confusion matrix; if there are many, only the most confused."""
    if len(classes) <= MOST_DRAWN:
        return classes
    pairs = _pairs(predictions, len(classes))[["actual", "predicted"]]
    return list(dict.fromkeys(pairs.to_numpy().ravel()))[:DRAWN_OF_MANY]


def confusion(predictions: pd.DataFrame, classes: list[str]) -> Markup | None:
    """Draw the confusion matrix of `classes`; None if there is no class."""
    if not classes:
        return None
    counted = pd.crosstab(predictions["label"], predictions["predicted"])
    counts = counted.reindex(index=classes, columns=classes, fill_value=0).to_numpy()
    return drawing(charts.confusion(counts, classes))


def curves(table: pd.DataFrame) -> list[Markup]:
    """Draw the curve of each metric by epoch; a head in closed form has no epochs and no curve."""
    if len(table) < 2:
        return []
    measures = [name.removeprefix("train_") for name in table if name.startswith("train_")]
    return [drawing(charts.curves(table, measure)) for measure in measures]


def drawing(svg: str) -> Markup:
    """Mark an SVG of `charts` as safe HTML; `charts` has escaped the names in it."""
    return Markup(svg)  # noqa: S704


def of_class(table: pd.DataFrame) -> list[Row]:
    """Return the table of classes, with metrics in per cent and a dash if one is not defined.

    If there are many classes, only those with the lowest F1 are returned. Among classes with the
    same F1 and recall, the ones with the most examples come first.
    """
    if len(table) > MOST_DRAWN:
        order = ["f1", "recall", "pictures", "class"]
        table = table.sort_values(order, ascending=[True, True, False, True]).head(MOST_ROWS)
    shown = table.astype(object)
    for name in table.columns.difference(["class", "pictures", "predicted"]):
        shown[name] = table[name].map(lambda value: f"{100 * value:.0f} %", na_action="ignore")
    return rows(shown.fillna("–"))


def of_slice(table: pd.DataFrame) -> list[Row]:
    """Return the first slices, the worst first; a dash replaces a value that is not defined."""
    by = slice_measure(table)
    shown = table.head(MOST_ROWS).astype(object)
    shown = shown.rename(columns={by: "value_of", f"other_{by}": "of_others"})
    for name in ("value_of", "low", "high", "of_others"):
        shown[name] = shown[name].map(lambda value: _figure(by, value), na_action="ignore")
    p_values = shown["corrected_p_value"]
    few = shown["of_others"].notna() & p_values.isna()
    texts = p_values.map(lambda p: f"{p:.2g}", na_action="ignore").astype(object)
    shown["corrected_p_value"] = texts.mask(few, "not tested: too few groups")
    return rows(shown.fillna("–"))


def slice_measure(table: pd.DataFrame) -> str:
    """Return the metric by which the slices are compared: the name of the fourth column."""
    return str(table.columns[3])


def of_set(table: pd.DataFrame) -> list[Row]:
    """Return coverage and size of prediction sets or intervals, in at most `MOST_DRAWN` rows."""
    shown = table.head(MOST_DRAWN).astype(object)
    shown["coverage"] = shown["coverage"].map(lambda value: f"{100 * value:.1f} %", "ignore")
    shown["size"] = shown["size"].map("{:.4g}".format, "ignore")
    return rows(shown.fillna("–"))


def heads(table: pd.DataFrame) -> list[Row]:
    """Return the best of the heads that were tried, with the hyperparameters that they use.

    The first is the chosen one. Columns without any value are left out. If every head was solved
    for in one step, epochs and status are left out too.
    """
    if len(table) < 2:
        return []
    if not (table["epochs"] > 1).any():
        table = table.drop(columns=["epoch", "epochs", "status"], errors="ignore")
    shown = table.dropna(axis="columns", how="all").head(MOST_ROWS).rename(columns=_in_words)
    return [
        {
            name: "" if pd.isna(value) else f"{value:.4g}" if isinstance(value, float) else value
            for name, value in row.items()
        }
        for row in rows(shown)
    ]


def _in_words(column: str) -> str:
    return COMPARED.get(column, column.replace("_", " "))


def baselines(found: dict[str, Any], name: str, confidence: str) -> str:
    """Return sentences on what to compare the metrics with; empty if nothing is known.

    Args:
        found: as `Metrics.baselines`.
    """
    words = []
    if "chance" in found:
        chance, largest = (_figure(name, found[one]) for one in ("chance", "largest_class"))
        words.append(
            f"chance has {spelt(name)} {chance}; always answering the largest training class has"
            f" {largest}."
        )
    floor = found.get("floor", {})
    if figures := floor.get(name):
        shown = {key: _figure(name, value) for key, value in figures.items()}
        words.append(
            f"Two heads of one kind compare the features: {shown['backbone']} with those of the"
            f" backbone, {shown['floor']} with those of {floor['name']}, its floor, which is not"
            " pretrained."
        )
        if "high" in figures:
            words.append(
                f"The {confidence} interval of the difference is {shown['low']} to {shown['high']}."
            )
            if hardly_better(figures["backbone"], figures["floor"], figures["high"]):
                words.append("The backbone is hardly better than its floor: run headstart choose.")
    return " ".join(words)


def check_lines(found: dict[str, pd.DataFrame], task: Task) -> list[Row]:
    """Return one sentence with the result of each check in `reports/checks/`."""
    pairs, issues, few = (len(found[name]) for name in FOUND[:3])
    what, one, many = task.truth, task.noun, task.nouns
    notes = dict(found["notes"][["check", "note"]].itertuples(index=False))
    unchecked = notes.pop("label_issues", "")
    lines = [
        (
            pairs,
            "No example has a near-duplicate in another split.",
            f"Near-duplicates across splits: {pairs}.",
        ),
        (
            issues,
            f"{what.capitalize()}s were not checked: {unchecked}."
            if unchecked
            else f"No {what} looks wrong.",
            f"{what.capitalize()}s that look wrong: {issues}.",
        ),
    ]
    if many_flawed := len(found["flawed"]):
        lines.append((True, "", f"Examples that are hardly usable: {many_flawed}."))
    lines += [(True, "", f"{note[0].upper()}{note[1:]}.") for note in notes.values()]
    none = f"No {one} has few training examples."
    lines.append((few, none, f"{many.capitalize()} with few training examples: {few}."))
    drawn = found["drift"]["split"][found["drift"]["origin"] == DRAWN]
    if len(drawn):
        splits = " and ".join(drawn)
        were = "was" if len(drawn) == 1 else "were"
        lines.append((False, f"{splits} {were} drawn at random, so drift was not looked for.", ""))
    for row in found["drift"][found["drift"]["origin"] == GIVEN].itertuples():
        words = f"{row.split} and training examples"
        if pd.isna(row.p_value) and getattr(row, "compared", 0):
            lines.append((False, f"Drift between {words} was not tested: too few groups.", ""))
            continue
        if pd.isna(row.p_value):
            lines.append((False, f"No class has both {words}: drift was not looked for.", ""))
            continue
        words += f" (p = {row.p_value:.3g})"
        lines.append((row.drifted, f"No drift seen between {words}.", f"Drift between {words}."))
    return [{"found": bool(n), "words": some if n else none} for n, none, some in lines]


def by_place(drift: pd.DataFrame) -> str:
    """Return a note for readers of the metrics, if the source's splits are of different places."""
    places = drift["split"][drift["origin"] == PLACE]
    if places.empty:
        return ""
    return (
        f"The source divides its splits by place: examples of {' and '.join(places)} show"
        " different places from training examples, so the figures apply to new places."
    )


def duplicates(table: pd.DataFrame, shown: Thumbnails) -> list[Row]:
    """Return the first pairs of near-duplicates, with thumbnails."""
    return [
        row
        | {"shown": shown(row["path"]), "other_shown": shown(row["other_path"])}
        | {"marks": shown.marks(row["path"]), "other_marks": shown.marks(row["other_path"])}
        | {name: shown.name(row[name]) for name in ("path", "other_path")}
        for row in _labelled(table.head(SHOWN)).to_dict("records")
    ]


def label_issues(table: pd.DataFrame, shown: Thumbnails) -> list[Row]:
    """Return the first label issues, with thumbnails and probabilities, or errors in regression."""
    cards = []
    for row in table.head(SHOWN).to_dict("records"):
        card = row | {"shown": shown(row["path"]), "path": shown.name(row["path"])}
        card["marks"] = shown.marks(row["path"])
        if "spreads" in row:
            card |= {"given": f"{abs(row['spreads']):.1f} typical errors off"}
        else:
            card |= {"given": f"wrong with probability {row['wrong']:.2f}"}
        cards.append(card)
    return cards


def flawed(table: pd.DataFrame, shown: Thumbnails) -> list[Row]:
    """Return the first examples that are hardly usable, with thumbnails."""
    return [
        row
        | {"shown": shown(row["path"]), "path": shown.name(row["path"])}
        | {"marks": shown.marks(row["path"])}
        for row in _labelled(table.head(SHOWN)).to_dict("records")
    ]


def _labelled(table: pd.DataFrame) -> pd.DataFrame:
    """Replace an empty label, which an example of a multi-label task may have."""
    return table.fillna({"label": "no label", "other_label": "no label"})


def few(table: pd.DataFrame, classes: int) -> list[Row]:
    """Return the classes with few training examples; if there are many, those with the fewest."""
    if classes > MOST_DRAWN:
        table = table.sort_values(["train", "class"]).head(MOST_ROWS)
    return rows(table)


def counts(manifest: pd.DataFrame) -> dict[str, int]:
    """Return the number of examples in total and in each split."""
    counts = manifest["split"].value_counts()
    return {"total": len(manifest)} | {s: int(counts.get(s, 0)) for s in ("train", "val", "test")}


def rows(table: pd.DataFrame) -> list[Row]:
    """Return one dictionary per row."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def text(file: Path) -> str:
    """Read the text of a stage's output, which must end with a newline.

    Raises:
        DataError: the file does not exist, is damaged, or is cut off.
    """
    try:
        found = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{file} does not exist; run `headstart repro`") from None
    except ValueError as error:
        raise DataError(f"{file} is damaged ({error}); run `headstart repro`") from None
    if not found.endswith("\n"):
        raise DataError(f"{file} is cut off; run `headstart repro`")
    return found


def table(file: Path, columns: str = "") -> pd.DataFrame:
    """Read a stage's table, which must have its `COLUMNS` and the given ones.

    Raises:
        DataError: the file does not exist, is damaged or cut off, or lacks a column.
    """
    content = text(file)
    header = pd.read_csv(io.StringIO(content), nrows=0)
    # A class may be named 7, or NA.
    texts = {name: str for name in header if NAMES.fullmatch(name)}
    lines = io.StringIO(content)
    written = pd.read_csv(lines, dtype=texts, keep_default_na=False, na_values=[""])
    for name in f"{COLUMNS.get(file.name, '')} {columns}".split():
        if not any(re.fullmatch(name, column) for column in written):
            raise DataError(f"{file} has no column {name}; run `headstart repro`")
    return cells.as_written(written)
