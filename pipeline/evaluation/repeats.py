"""Repeats of the chosen head on many random splits of the same examples: one split may be lucky.

Each repeat draws train, val and test again from the examples' content, as `ingest` draws them if
the source has no split. Groups are never divided. The head is trained on the training examples of
the draw (and on its validation examples, if the chosen head was refitted on both), and measured on
its test examples.
"""

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..core.errors import DataError
from ..core.params import EvaluateParams, IngestParams, TrainParams
from ..heads.description import Calibration, HeadDescription
from ..heads.fit import class_weights
from ..heads.head import activated
from ..heads.losses import loss_for
from ..heads.subsets import Mask, on_subsets
from ..heads.trained import Schedule
from ..tables.draw import draw
from ..tables.features import Split
from ..tables.manifest import group_keys
from ..tasks import TASKS, Measure
from . import SHARE, Measuring, measure, measuring
from .metrics import whole
from .tables import OF_REPEATS

MOST_DRAWS = 20  # for each requested repeat
OF_TEMPERATURE = ("loss", "calibration_error")  # metrics that need a temperature


def repeated(
    manifest: pd.DataFrame,
    pool: Split,
    about: HeadDescription,
    settings: EvaluateParams,
    drawing: IngestParams,
    training: TrainParams,
    counts: bool = False,
) -> pd.DataFrame:
    """Return one row per measure: its mean over the repeats, and the interval of that mean.

    Loss and calibration error are left out because they depend on a temperature, and repeats do not
    fit one. So is the top-k accuracy of a head that was trained with class weights: it depends on
    the priors. In multi-label tasks the head's thresholds are used. A metric that is defined in
    fewer than two repeats has no row. `given_split` says whether the split of the manifest differs
    from the split that `ingest` would draw.

    Args:
        pool: view 0 of all examples.
        about: the head's description, as in `models/head.json`.
        settings: the number of repeats, and the settings of the metrics.
        counts: whether the features are counts of terms.

    Raises:
        DataError: fewer than two draws have a test example and the training examples that the task
            needs (`Measuring.learnable`).
    """
    keys = group_keys(manifest)
    sizes = drawing.shares.model_dump()
    now = [draw(key, sizes, drawing.seed) for key in keys]
    of_digest = dict(zip(manifest["digest"], keys, strict=True))
    keys_of_pool = [of_digest[digest] for digest in pool.digests.tolist()]
    learned = about.task
    task = measuring(learned)
    learnt, asked = _drawn(pool, keys_of_pool, sizes, settings, task, refit=about.refit)

    outputs = len(about.classes)
    weights = class_weights(training.class_weights, pool.labels, outputs)
    loss = loss_for(learned, training.loss)
    head, epochs = about.trained_with()
    how = counts, loss, training.row_weights, about.layers
    schedule = Schedule(epochs, training.batch_size, 0, weights, *how)
    answers = on_subsets(pool, learnt, asked, head, schedule, training.class_weights)
    # Only the order of the classes' scores is meaningful; the highest is predicted.
    calibration = Calibration() if TASKS[learned].exclusive else about.calibration
    added = np.array(calibration.prior_shift or [0.0], np.float32)
    found = []
    for rows, logits in zip(asked, answers, strict=True):
        calibrated = activated(learned, logits + added, calibration.temperature)
        weigh = task.weigh(pool.labels[rows], calibrated, calibration.thresholds, settings)
        found.append(whole(weigh, len(calibrated)).overall)
    ratio = float(np.sum(asked) / np.sum(learnt))
    table = []
    for name in [name for name in found[0] if not _is_of_probabilities(name, about)]:
        values = np.array([one[name][0] for one in found])
        values = values[~np.isnan(values)]
        if len(values) > 1:
            ends = interval(values, ratio, settings.confidence, measure(name))
            table.append((name, *ends, len(values)))
    moved = manifest["split"] != now
    if drawing.val_of_each_class and TASKS[learned].exclusive:
        moved &= ~_lent(manifest, now)
    return pd.DataFrame(table, columns=OF_REPEATS[:-1]).assign(given_split=moved.any())


def _is_of_probabilities(name: str, about: HeadDescription) -> bool:
    """Return whether a metric depends on a temperature or on priors, which repeats do not fit."""
    has_priors = TASKS[about.task].exclusive and bool(about.calibration.prior_shift)
    return name in OF_TEMPERATURE or (has_priors and name.startswith("top_"))


def _lent(manifest: pd.DataFrame, drawn: list[str]) -> "pd.Series[bool]":
    """Return which examples may have been drawn for train and lent to val (`val_of_each_class`).

    They are the only validation examples of their classes.
    """
    of_val = manifest["split"] == "val"
    is_only = of_val.groupby(manifest["label"]).transform("sum") == 1
    return of_val & is_only & (np.array(drawn) == "train")


def _drawn(
    pool: Split,
    keys: list[str],
    sizes: dict[str, float],
    settings: EvaluateParams,
    task: Measuring,
    refit: bool,
) -> tuple[list[Mask], list[Mask]]:
    """Return masks [n] of the training examples and of the test examples of each repeat."""
    names = sorted(set(keys))
    learnt, asked = [], []
    most = MOST_DRAWS * settings.repeats
    for number in range(most):
        of_key = {name: draw(f"{number}:{name}", sizes, settings.seed) for name in names}
        split = np.array([of_key[key] for key in keys])
        # A split that `ingest` would refuse is drawn again.
        learnable = task.learnable(pool.labels[split == "train"], pool.labels)
        if learnable and (split == "test").any():
            learnt.append(split != "test" if refit else split == "train")
            asked.append(split == "test")
        if len(learnt) == settings.repeats:
            break
    if len(learnt) < 2:
        raise DataError(
            f"evaluate.repeats is {settings.repeats}, but only {len(learnt)} of {most} random"
            f" splits had a test example and {task.needs}; add examples or set it to 0"
        )
    return learnt, asked


def interval(
    values: npt.NDArray[np.float64],
    ratio: float,
    confidence: float,
    means: Measure = SHARE,
) -> tuple[float, float, float]:
    """Return the mean of a metric over repeats, and the ends of its interval.

    The repeats share examples, so their variance alone is too small. Nadeau and Bengio (2003,
    "Inference for the generalization error") add the ratio of test to training examples to the
    variance of the mean.

    Args:
        values: [R], the metric in each repeat.
        ratio: test examples per training example.
        means: the meaning of the metric; the interval is clipped to its range.
    """
    from scipy import stats  # takes a second to import, and is rarely needed

    mean, repeats = float(values.mean()), len(values)
    error = math.sqrt((1 / repeats + ratio) * float(values.var(ddof=1)))
    reach = error * float(stats.t.ppf((1 + confidence) / 2, repeats - 1))
    return mean, max(means.least, mean - reach), min(means.most, mean + reach)
