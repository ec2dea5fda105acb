"""How far the backbone is above its floor: the metrics of two heads on the same test examples."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..core.params import EvaluateParams
from ..core.paths import FLOOR_HEADS
from ..heads.description import HeadDescription
from ..heads.floor import Pair
from ..heads.head import Floats, activated
from ..tables import floor
from ..tables.features import Split
from ..tables.figures import hardly_better
from ..tasks import TASKS
from . import figure, measuring, spelt
from .intervals import Groups, difference_interval, expanded
from .metrics import interval, resample, whole


@dataclass(frozen=True)
class Lead:
    """The `measure` of heads on the floor and on the backbone, on `examples` test examples.

    `low` and `high` are the ends of the interval of their difference; NaN if they are not known.
    """

    name: str
    measure: str
    floor: float
    backbone: float
    low: float
    high: float
    examples: int

    def lines(self, confidence: float) -> list[str]:
        """Return what `evaluate` prints."""
        lead = self.backbone - self.floor
        where = "above" if lead >= 0 else "below"
        floor, backbone = (figure(self.measure, one) for one in (self.floor, self.backbone))
        ends = f", {100 * confidence:g} % interval {self.low:+.4f} to {self.high:+.4f}"
        line = (
            f"the backbone is {abs(lead):.4f} {where} its floor {self.name} in"
            f" {spelt(self.measure)} ({backbone} and {floor} on {self.examples} test"
            " examples, with equal heads)"
        )
        found = [line if np.isnan(self.low) else line + ends]
        if hardly_better(self.backbone, self.floor, self.high):
            found.append("the backbone is hardly better than its floor: run `headstart choose`")
        return found


def lead(
    manifest: pd.DataFrame,
    test: Split,
    about: HeadDescription,
    settings: EvaluateParams,
    groups: Groups | None,
) -> Lead | None:
    """Return how far the backbone is above its floor; None without a floor or a defined metric.

    Args:
        test: the backbone's features of all test examples.
        groups: [n], the group of each test example; None if each is its own group.
    """
    if not (name := floor.name()) or not FLOOR_HEADS.exists():
        return None
    heads = Pair.read(FLOOR_HEADS)
    asked = floor.read(manifest, about.classes, ["test"], about.power)
    rows = np.searchsorted(test.digests, asked.digests)
    of_floor = heads.floor.logits(asked.features)
    of_backbone = heads.backbone.logits(test.features[rows])
    together = None if groups is None else groups[rows]
    found = compared(name, about.task, asked.labels, of_floor, of_backbone, settings, together)
    return None if np.isnan([found.floor, found.backbone]).any() else found


def compared(
    name: str,
    task: str,
    labels: npt.NDArray[Any],
    of_floor: Floats,
    of_backbone: Floats,
    settings: EvaluateParams,
    groups: Groups | None,
) -> Lead:
    """Compare both heads; in classification by accuracy, else by the task's metric.

    Metrics that are not defined for these examples are NaN.

    Args:
        labels: [n], or [n, c], as in `Split.labels`.
        of_floor: logits [n, c] of the head on the floor.
        of_backbone: logits [n, c] of the head on the backbone.
        groups: [n], the group of each example; None if each is its own group.
    """
    measure = TASKS[task].measure
    if TASKS[task].exclusive:
        hits = [logits.argmax(axis=1) == labels for logits in (of_floor, of_backbone)]
        numbers = None if groups is None else np.unique(groups, return_inverse=True)[1]
        ends = difference_interval(hits[1].astype(float) - hits[0], settings.confidence, numbers)
        was, now = (float(right.mean()) for right in hits)
        return Lead(name, measure, was, now, *ends, len(labels))
    values, resampled = [], []
    for logits in (of_floor, of_backbone):
        examples, outputs = logits.shape
        answers = activated(task, logits, 1.0)
        weigh = measuring(task).weigh(labels, answers, [0.5] * outputs, settings)
        drawn = resample(weigh, examples, outputs, settings.bootstrap, settings.seed, groups)
        values.append(float(whole(weigh, len(labels)).overall[measure][0]))
        resampled.append(drawn.overall[measure])
    low, high = map(
        float, interval(resampled[1] - resampled[0], expanded(settings.confidence, groups))
    )
    if groups is not None and len(np.unique(groups)) == 1:
        low = high = np.nan  # one group does not show how groups differ
    was, now = values
    return Lead(name, measure, was, now, low, high, len(labels))


def baselines(
    task: str, manifest: pd.DataFrame, names: list[str], lead: Lead | None
) -> dict[str, Any]:
    """Return what the metrics are to be compared with, for `Metrics.baselines`.

    In classification that is chance, which is 1 / the number of classes, and the fraction of test
    examples in the largest class of the training examples. With `lead`, both heads' metrics are
    added.
    """
    found: dict[str, Any] = {}
    if TASKS[task].exclusive:
        labels = {split: rows["label"] for split, rows in manifest.groupby("split")}
        largest = labels["train"].value_counts().sort_index().idxmax()
        found["chance"] = round(1 / len(names), 6)
        found["largest_class"] = round(float((labels["test"] == largest).mean()), 6)
    if lead:
        figures = {"floor": lead.floor, "backbone": lead.backbone, "low": lead.low}
        figures |= {"high": lead.high}
        rounded = {name: round(one, 6) for name, one in figures.items() if np.isfinite(one)}
        found["floor"] = {"name": lead.name, "examples": lead.examples, lead.measure: rounded}
    return found
