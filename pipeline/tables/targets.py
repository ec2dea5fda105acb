"""What is learned of each example: one label, several labels, or numbers.

The manifest has the label as a text for each task. For several labels, and for numbers, it has a
column `target:<name>` for each of them besides: 1, 0 or NaN (unknown), or the number itself.
"""

import math
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..core.errors import DataError
from .labels import ALL_AT_MOST, class_names, listed
from .manifest import SPLITS, TARGET
from .task_names import CLASSIFICATION, MULTILABEL, REGRESSION, SEPARATOR

# What a table has where a label is there, and where it is not.
YES = re.compile(r"1(\.0*)?|true", re.IGNORECASE)
NO = re.compile(r"0(\.0*)?|false", re.IGNORECASE)
CELLS = {"1": 1.0, "0": 0.0, "": math.nan}  # as most tables have them
COMMA = re.compile(r"[+-]?\d+,\d+")
LARGEST = float(np.finfo(np.float32).max)
# A number may lie so many standard deviations away from 0: a head is float32.
FARTHEST = 1e5
MANY_LABELS = 20  # so many classes of which most have one example are rather numbers


def names(manifest: pd.DataFrame) -> list[str]:
    """What the outputs of a head stand for, in their order.

    For one label they are the classes, sorted; else the labels or the numbers by their names.

    Raises:
        DataError: nothing can be learned from what the training examples have.
    """
    return target_names(manifest) or class_names(manifest)


def target_names(manifest: pd.DataFrame) -> list[str]:
    """The names of the manifest's targets; none where one label is learned."""
    columns = [name for name in manifest.columns if name.startswith(TARGET)]
    return [name.removeprefix(TARGET) for name in columns]


def of(rows: pd.DataFrame, names: Sequence[str]) -> npt.NDArray[np.int64] | npt.NDArray[np.float64]:
    """What is to be learned of rows of a manifest.

    Args:
        rows: n of them.
        names: as `names` gives them, of the whole manifest.

    Returns:
        for one label the position of each one's class, [n]; else [n, c]: for several labels 1, 0 or
        NaN where it is unknown, for numbers these.

    Raises:
        DataError: a label is not among the names, or the manifest has other targets.
    """
    have = target_names(rows)
    if not have:
        return _positions(rows["label"], names)
    if have != list(names):
        raise DataError(
            f"the manifest has the targets {listed(have)} and the head answers {listed(names)};"
            " run the train stage again"
        )
    values: npt.NDArray[np.float64] = rows[[TARGET + n for n in have]].to_numpy(dtype=np.float64)
    return values


def _positions(labels: pd.Series, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    positions: npt.NDArray[np.int64] = pd.Index(classes).get_indexer(pd.Index(labels))
    if (positions < 0).any():
        stranger = labels.iloc[int(np.argmin(positions))]
        raise DataError(
            f"the label {stranger!r} is not among the classes {', '.join(classes)}; "
            "run the train stage again"
        )
    return positions.astype(np.int64)


def labels_in(text: str) -> list[str]:
    """The labels of an example, sorted, of a text in which they are separated.

    Raises:
        ValueError: why it is no list of labels.
    """
    labels = [" ".join(label.split()) for label in text.split(SEPARATOR)]
    if not any(labels):
        raise ValueError(
            "an empty list of labels; to say that an example has none, give each label a column"
            " (ingest.targets)"
        )
    if not all(labels):
        raise ValueError(f"an empty label beside a {SEPARATOR} in {text!r:.80}")
    return sorted(set(labels))


def presence(name: str, text: str) -> float:
    """Whether a label is there (1 or 0), of its cell in a table; NaN of an empty one.

    Raises:
        ValueError: it is neither.
    """
    if text in CELLS:
        return CELLS[text]
    text = text.strip()
    if not text or text.casefold() == "nan":
        return math.nan
    if YES.fullmatch(text) or NO.fullmatch(text):
        return float(YES.fullmatch(text) is not None)
    raise ValueError(f"the label {name} is {text!r:.40}, where 1, 0 or nothing is expected")


def number(name: str, text: str) -> float:
    """The number that a cell of a table holds.

    Raises:
        ValueError: it holds none, or one that nothing can be learned from.
    """
    text = text.strip()
    what = f"the target {name}" if name else "the target"
    if not text:
        raise ValueError(f"{what} is empty")
    try:
        value = float(text.replace("_", "no digit"))  # Python itself reads 1_000
    except ValueError:
        hint = ""
        if COMMA.fullmatch(text):
            hint = f": write {text.replace(',', '.')}, with a point"
        raise ValueError(f"{what} is {text!r:.40}, which is no number{hint}") from None
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise ValueError(f"{what} is {text!r:.40}, which is no finite number of 32 bits")
    return value


def shown(names: Sequence[str], values: Sequence[float], task: str) -> str:
    """Targets as the text that the manifest has as the label."""
    if task == MULTILABEL:
        return SEPARATOR.join(
            sorted(n for n, value in zip(names, values, strict=True) if value == 1)
        )
    if len(values) == 1:
        return f"{values[0]:.6g}"
    return ", ".join(f"{name}={value:.6g}" for name, value in zip(names, values, strict=True))


def require(manifest: pd.DataFrame, task: str, source: str) -> None:
    """See that the training examples tell what is to be learned.

    Args:
        manifest: all examples.
        task: what that is.
        source: what messages call the place where the examples are from.

    Raises:
        DataError: a class, a label or a number cannot be learned from them.
    """
    if task == CLASSIFICATION:
        _stop_at_numbers(sorted(set(manifest["label"])), len(manifest))
        labels = sorted(set(manifest["label"]))
        if len(labels) < 2:
            raise DataError(
                f"{source} holds examples of {len(labels)} class"
                f" ({', '.join(labels) or 'none'}); a classifier needs two or more"
            )
        class_names(manifest)
        return
    train = manifest[manifest["split"] == "train"]
    if not len(train):
        raise DataError("there is no training example; check ingest.shares or the folders")
    known = names(manifest)
    values = of(train, known)
    if task == REGRESSION:
        for name, column in zip(known, values.T, strict=True):
            what = f"the target {name}" if len(known) > 1 else "the target"
            if (column == column[0]).all():
                raise DataError(
                    f"{what} is {column[0]:g} in all {len(column)} training examples, so nothing"
                    " can be learned of it"
                )
            if abs(column.mean()) > FARTHEST * column.std():
                raise DataError(
                    f"{what} varies by {column.std():.3g} around {column.mean():.10g},"
                    " and a head's numbers keep seven digits; subtract a constant from the column"
                )
        return
    _stop_at_numbers(known, int((of(manifest, known) == 1).sum()))
    for words, absent in _absent(manifest).items():
        noun, it = ("label", "it") if len(absent) == 1 else (f"{len(absent)} labels", "them")
        raise DataError(
            f"no training example {words} the {noun} {listed(absent, ALL_AT_MOST)}, so nothing can"
            f" be learned of {it}; add such examples, try another ingest.seed, or leave {it} out"
            " (ingest.classes_without_training)"
        )


def _absent(manifest: pd.DataFrame) -> dict[str, list[str]]:
    """The labels that no training example has, and those that none lacks, as far as there are."""
    known, train = target_names(manifest), manifest[manifest["split"] == "train"]
    values = of(train, known)
    found = {
        words: [n for n, col in zip(known, values.T, strict=True) if not (col == value).any()]
        for value, words in ((1, "has"), (0, "lacks"))
    }
    return {words: absent for words, absent in found.items() if absent}


def taught(
    manifest: pd.DataFrame, task: str
) -> tuple[pd.DataFrame, list[str], list[tuple[str, str]]]:
    """The manifest without the classes, or labels, of which no training example tells anything.

    An example of such a class is left out. Of several labels it keeps the others, and is left out
    if none of these is known of it. Where nothing would remain, nothing is left out: `require` says
    what is wrong.

    Args:
        manifest: all examples.
        task: classification or multilabel.

    Returns:
        the manifest, the classes or labels that are left out, and of each example that is left out
        its path and why.
    """
    train = manifest[manifest["split"] == "train"]
    if task == CLASSIFICATION:
        rest = sorted(set(train["label"]))
        out = sorted(set(manifest["label"]) - set(rest))
        stays = manifest["label"].isin(rest)
        why = "no training example is labelled " + manifest["label"]
    else:
        out = sorted({name for absent in _absent(manifest).values() for name in absent})
        rest = [name for name in target_names(manifest) if name not in out]
        stays = manifest[[TARGET + name for name in rest]].notna().any(axis=1)
        why = pd.Series("of no label that can be learned is it known", index=manifest.index)
    if not out or not rest or not len(train):
        return manifest, [], []
    gone = list(zip(manifest["path"][~stays], why[~stays], strict=True))
    kept = manifest[stays].reset_index(drop=True)
    if task == MULTILABEL:
        kept = kept.drop(columns=[TARGET + name for name in out])
        kept["label"] = [shown(rest, values, MULTILABEL) for values in of(kept, rest).tolist()]
    return kept, out, gone


def _stop_at_numbers(labels: list[str], given: int) -> None:
    """Stop where the labels are measured values and not names.

    Numbers may well be names (digits, house numbers), so long as they come again: `given` is how
    often examples have one.
    """
    if len(labels) <= MANY_LABELS or 2 * len(labels) <= given:
        return
    try:
        values = [float(label) for label in labels]
    except ValueError:
        return
    first = ", ".join(f"{label}" for label, _ in zip(labels, range(3), strict=False))
    raise DataError(
        f"the labels are {len(values)} different numbers ({first}, …) where classes are expected;"
        " to learn numbers, set ingest.task to regression"
    )


def lacking(manifest: pd.DataFrame) -> dict[str, list[str]]:
    """For each split, the labels that none of its examples has; splits that lack none are left out.

    Args:
        manifest: of several labels.
    """
    found = {}
    for split in SPLITS:
        rows = manifest[manifest["split"] == split]
        absent = [name for name in target_names(manifest) if not (rows[TARGET + name] == 1).any()]
        if absent:
            found[split] = absent
    return found
