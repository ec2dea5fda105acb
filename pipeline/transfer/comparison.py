"""Which backbone suits some labelled examples, alone or joined with others: by cross-validation.

Each candidate is a backbone with a linear probe, whose L2 penalty is tuned for it: with one penalty
for all, the order says more about the penalty than about the backbones (Kornblith et al., CVPR
2019). It is measured by the loss on examples that the probe has not seen: the log loss of one label
or several, half the squared error of targets in units of their standard deviation. Candidates
are compared on the same examples, so that their difference is known better than either figure, and
the p-values are corrected for the number of comparisons.
"""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from .. import kinds
from ..backbones.engines import Encoder, Engine, open_engine
from ..backbones.families import FAMILIES
from ..core import packages
from ..core.backbone import Backbone
from ..core.errors import DataError
from ..core.params import ExtractParams
from ..evaluation.comparing import (
    Difference,
    Score,
    accuracy,
    difference,
    example_losses,
    holm,
    scored,
)
from ..heads.head import one_thread
from ..kinds import Kind
from ..runners.threads import features_of
from ..runners.wanted import vectors
from ..tables import joined, targets
from ..tables.features import Split
from ..tables.folds import folds as dealt
from ..tables.manifest import groups as groups_of
from ..tables.manifest import kind_in, read_manifest, task_in
from ..tables.power import raised
from ..tasks import TASKS, UNNAMED
from .quick_head import DECAYS, decays_for, quick_heads, units_for

Floats = npt.NDArray[np.float32]
Losses = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]

FOLDS = 5
MOST_JOINED = 3
TIMED = 16  # examples by which the cost of one is measured


@dataclass(frozen=True)
class Candidate:
    """A backbone, or several joined by `+`, on n examples.

    `losses` [n] and `groups` [n] are those of examples when they were held out, and `score` is the
    measure of `comparing` of all their answers. `milliseconds` is what an example costs when
    predicting, `weight_decay` the penalty of the lowest loss, `dimension` that of the features.
    """

    name: str
    losses: Losses
    groups: Groups
    score: Score
    milliseconds: float
    weight_decay: float
    dimension: int


@dataclass(frozen=True)
class Compared:
    """The candidates, that of the lowest loss first; the engines of their networks."""

    candidates: list[Candidate]
    engines: dict[Backbone, Engine]


def compare(
    extracting: ExtractParams,
    power: float,
    names: Sequence[str],
    manifest: Path,
    confidence: float,
    stage: str,
) -> Compared:
    """Compare backbones by 5-fold cross-validation on training and validation examples.

    Features come from the feature store as far as it has them.

    Args:
        extracting: its backbone is taken with its weights and pooling.
        power: that features are raised to.
        names: of the candidates, as in `rank.backbones`.
        manifest: of the examples.
        confidence: of the intervals.
        stage: that asks, for its lines.

    Raises:
        DataError: there are too few examples, or tf_idf is joined with others.
        ParamsError: there is no such network.
        MissingSetError: a network needs PyTorch.
    """
    backbones = {name: Backbone.candidate(name) for name in names}
    used = extracting.network
    if used.weights != "random" and str(used) in backbones:
        backbones[str(used)] = used
    networks = list(dict.fromkeys(one for each in backbones.values() for one in each.each))
    for network in networks:
        _stop_if_unknown(network, stage)
    kind, rows = kinds.named(kind_in(manifest)), read_manifest(manifest)
    examples = rows[rows["split"].isin(["train", "val"])].sort_values("digest", ignore_index=True)
    labels, groups = targets.of(examples, targets.names(rows)), groups_of(examples)
    held_out = folds(labels, groups.tolist(), stage)
    features, costs, engines = {}, {}, {}
    for network in networks:
        engine = engines[network] = open_engine(extracting.of(network), kind)
        table, found, computed = vectors(examples, Encoder((engine,)), extracting.batch_size)
        features[network] = found[pd.Index(table["digest"]).get_indexer(examples["digest"])]
        costs[network] = _milliseconds(examples, engine, kind)
        reused = len(examples) - computed
        print(f"{stage}: {spelled(network)}: {reused} views reused, {computed} computed")
    candidates = []
    for name, backbone in backbones.items():
        parts = [features[one] for one in backbone.each]
        counts = [one for one in backbone.each if engines[one].takes == "terms"]
        if counts and backbone.is_joined:
            raise DataError(
                f"{stage}: {counts[0]} cannot be joined with others: take it from {name}"
            )
        cost = sum(costs[one] for one in backbone.each)
        how = held_out, groups, power, bool(counts), cost, task_in(manifest)
        candidates.append(probed(name, parts, labels, *how, confidence))
    candidates.sort(key=lambda one: float(one.losses.mean()))
    return Compared(candidates, engines)


def spelled(network: Backbone) -> str:
    """The name of a network as a candidate."""
    return f"random:{network}" if network.weights == "random" else str(network)


def _stop_if_unknown(network: Backbone, stage: str) -> None:
    if network.has_graph:
        return
    packages.need("torch", stage)
    FAMILIES[network.family].check(network)


def _milliseconds(examples: pd.DataFrame, engine: Engine, kind: Kind) -> float:
    """Milliseconds an example on one core, from decoding to features: the best of three goes."""
    original = dict(zip(kind.view_columns, kind.original, strict=True))
    some = examples.head(TIMED).assign(view=0, **original, key=b"")
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        features_of(some, engine, batch_size=1)
        seconds.append(time.monotonic() - start)
    return 1000 * min(seconds) / len(some)


def unions(networks: Sequence[str]) -> list[str]:
    """Each network, and each join of two or three."""
    return [
        "+".join(names)
        for count in range(1, min(MOST_JOINED, len(networks)) + 1)
        for names in itertools.combinations(networks, count)
    ]


def folds(
    labels: npt.NDArray[Any], groups: Sequence[str] | Sequence[int], stage: str = "choose"
) -> npt.NDArray[np.int64]:
    """Which of `FOLDS` folds each example is held out in, [n]; a group is in one fold.

    With one label folds have examples of each class, else they are drawn at random.

    Raises:
        DataError: a class has too few examples or groups to be both trained on and held out, or
            there are fewer groups than folds.
    """
    found = dealt([str(group) for group in groups], labels, FOLDS, numbers=labels.ndim == 2)
    if labels.ndim == 1 and (found < 0).any():
        raise DataError(
            f"{stage}: a class has too few examples, or lies in one group; it needs some that"
            " are trained on and others that are held out"
        )
    if set(found.tolist()) != set(range(FOLDS)):
        raise DataError(f"{stage}: there are fewer examples or groups than {FOLDS} folds")
    return found


def probed(
    name: str,
    parts: Sequence[Floats],
    labels: npt.NDArray[Any],
    held_out: npt.NDArray[np.int64],
    groups: Groups,
    power: float,
    counts: bool,
    milliseconds: float,
    task: str = UNNAMED,
    confidence: float = 0.95,
) -> Candidate:
    """A candidate by cross-validation, with the penalty of its lowest loss.

    Args:
        name: of the candidate.
        parts: [n, d] of each of its networks.
        labels: as `tables.targets.of` gives them.
        held_out: [n], as `folds` gives it.
        groups: [n], as `tables.manifest.groups` gives them.
        power: that features are raised to.
        counts: whether features are counts of terms.
        milliseconds: that an example costs.
        task: of the labels.
        confidence: of the score's interval.
    """
    features = raised(joined.beside(parts), power)
    dimension = features.shape[1]
    classes = int(labels.max()) + 1 if labels.ndim == 1 else labels.shape[1]
    units, decays = units_for(task, labels), decays_for(task, DECAYS)
    shorter = 1.0
    if dimension > len(features) and not counts:
        shorter = len(features) / dimension
        features = rotated(features)
    # `fit_heads` scales features by their mean square: if there are fewer, each is larger.
    penalties = [decay * shorter for decay in decays]
    losses = np.full((len(decays), len(labels)), np.inf)
    # What the score is made of: whether an answer is right, or the answer.
    of_right = TASKS[task].measure == "accuracy"
    kept = np.zeros((len(decays), len(labels), 1 if of_right else classes))
    for fold in range(FOLDS):
        asked = held_out == fold
        learnt, none = _rows(features, labels, ~asked), _rows(features, labels, asked & ~asked)
        heads = quick_heads(learnt, none, task, classes, penalties, counts)
        for number, trained in enumerate(heads):
            if trained.head is None:
                continue
            logits = trained.head.logits(features[asked])
            losses[number, asked] = example_losses(task, logits, labels[asked], units)
            if of_right:
                logits = (logits.argmax(axis=1) == labels[asked])[:, None]
            kept[number, asked] = logits
    # An example without a known label cannot compare candidates.
    known = ~np.isnan(losses).all(axis=0)
    losses, of_known = losses[:, known], np.unique(groups[known], return_inverse=True)[1]
    best = int(losses.mean(axis=1).argmin())
    if of_right:
        score = accuracy(kept[best, :, 0] == 1, confidence, groups)
    else:
        score = scored(task, kept[best], labels, confidence, groups)
    return Candidate(name, losses[best], of_known, score, milliseconds, decays[best], dimension)


def rotated(features: Floats) -> Floats:
    """Features [n, d] in as many dimensions as there are rows, [n, n], for n below d.

    All products of rows are as before, and heads with an L2 penalty depend on nothing else: they
    answer the same, in a fraction of the time.
    """
    wide = (features - features.mean(axis=0)).astype(np.float64)
    with one_thread():
        values, vectors = np.linalg.eigh(wide @ wide.T)
    turned: Floats = (vectors * np.sqrt(np.maximum(values, 0))).astype(np.float32)
    return turned


def apart(
    candidates: Sequence[Candidate], from_: Candidate, confidence: float
) -> dict[str, Difference]:
    """By how much each other candidate's mean loss is above that of one; p-values are Holm's."""
    others = [one for one in candidates if one is not from_]
    found = [difference(one.losses, from_.losses, confidence, from_.groups) for one in others]
    p_values = holm([each.p_value for each in found])
    pairs = zip(others, found, p_values, strict=True)
    return {one.name: replace(each, p_value=p) for one, each, p in pairs}


def winner(
    candidates: Sequence[Candidate], budget: float | None, confidence: float = 0.95
) -> tuple[Candidate, Candidate]:
    """The candidate to take, and the one of the lowest loss.

    The cheapest is taken of those whose loss is not significantly higher than the lowest.

    Args:
        candidates: one or more.
        budget: milliseconds that an example may cost; None for any.
        confidence: at which a difference is significant.

    Raises:
        DataError: none is within the budget.
    """
    within = [one for one in candidates if budget is None or one.milliseconds <= budget]
    if not within:
        least = min(candidates, key=lambda one: one.milliseconds)
        raise DataError(
            f"choose: no backbone answers within {budget:g} ms; the fastest, {least.name}, takes"
            f" {least.milliseconds:.1f} ms"
        )
    best = min(within, key=lambda one: (one.losses.mean(), one.milliseconds))
    above = apart(within, best, confidence)
    alike = [one for one in within if one is best or above[one.name].p_value > 1 - confidence]
    return min(alike, key=lambda one: (one.milliseconds, one.losses.mean())), best


def _rows(features: Floats, labels: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> Split:
    numbers = np.flatnonzero(mask)
    names = numbers.astype(str)
    return Split(names, names, np.zeros(len(numbers), int), labels[mask], features[mask])
