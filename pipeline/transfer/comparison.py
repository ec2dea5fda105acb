"""Comparison of backbones, single or joined, on labelled examples by cross-validation.

Each candidate is a backbone with a linear probe, whose L2 penalty is tuned for the candidate. With
the same penalty for all, the ranking would depend more on the penalty than on the backbones
(Kornblith et al., CVPR 2019). A candidate is measured by its loss on examples that the probe has
not seen. The loss is the log loss in classification and multi-label tasks. In regression it is half
the squared error, in units of the targets' standard deviation. Candidates are compared on the same
examples, so the difference of two losses can be estimated more precisely than either loss. The
p-values are corrected for the number of comparisons.
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
from ..backbones.engines import Encoder, Engine, open_encoder
from ..backbones.families import FAMILIES
from ..core import packages
from ..core.backbone import Backbone
from ..core.errors import DataError
from ..core.params import ExtractParams, TrainParams
from ..evaluation.comparing import (
    Difference,
    Score,
    accuracy,
    difference,
    example_losses,
    scored,
)
from ..evaluation.slices import holm
from ..heads import choice, penalty
from ..heads.choice import Contender
from ..heads.head import one_thread
from ..heads.hyperparameters import Hyperparameters
from ..heads.scaling import GLOBAL
from ..heads.trained import Schedule
from ..kinds import Kind
from ..runners.threads import features_of, key_column
from ..runners.wanted import vectors
from ..store.vectors import open_store
from ..tables import joined, targets
from ..tables.features import Split
from ..tables.folds import folds as dealt
from ..tables.layers import LAST, Layers
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
TIMED = 16  # examples on which the cost per example is measured


@dataclass(frozen=True)
class Candidate:
    """A backbone, or several joined by `+`, on n examples.

    `losses` [n] are the out-of-fold losses, and `groups` [n] the groups of the examples. `score` is
    the metric of `comparing` for all out-of-fold predictions. `milliseconds` is the time to compute
    one example's features, `weight_decay` the penalty with the lowest loss, and `dimension` the
    number of features. `head` is the head that was chosen for the candidate; None for a linear
    probe.
    """

    name: str
    losses: Losses
    groups: Groups
    score: Score
    milliseconds: float
    weight_decay: float
    dimension: int
    head: Contender | None = None


@dataclass(frozen=True)
class Compared:
    """The candidates, the lowest loss first, their backbones, and the engines of their networks.

    The backbone of `extract.backbone` has the project's weights and pooling.
    """

    candidates: list[Candidate]
    backbones: dict[str, Backbone]  # by the names of the candidates
    engines: dict[Backbone, Engine]


def compare(
    extracting: ExtractParams,
    power: float,
    names: Sequence[str],
    manifest: Path,
    confidence: float,
    stage: str,
    training: TrainParams | None = None,
) -> Compared:
    """Compare backbones by 5-fold cross-validation on training and validation examples.

    With `training`, in classification, each backbone has the head and layers that `choice.choose`
    finds for it, on at most `choice.MOST` examples; else a linear probe on the last layer.
    Features that are in the feature store are not computed again.

    Args:
        extracting: the settings of `extract`; if their backbone is among the candidates, it has
            their weights and pooling, unless the weights are random.
        names: names of the candidates, as in `rank.backbones`.
        training: the project's heads, of which the first is kept if in doubt.

    Raises:
        DataError: there are too few examples, or tf_idf is joined with others.
        ParamsError: a network does not exist.
        MissingSetError: a network needs an extra that is not installed.
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
    task, classes = task_in(manifest), targets.names(rows)
    if not TASKS[task].exclusive:
        training = None
    if training:
        names_of = examples["digest"].to_numpy(dtype=str)
        every = _rows(np.zeros((len(examples), 0), np.float32), labels, labels >= 0)
        some = penalty.drawn(replace(every, digests=names_of), choice.MOST)
        examples, labels, groups = examples.iloc[some].reset_index(), labels[some], groups[some]
    has_blocks = training is not None and extracting.precision == "float32"
    blocks = {"blocks": "all" if has_blocks else "last"}
    features, costs, engines = {}, {}, {}
    with open_store() as store:  # it keeps what was used since it was opened
        for network in networks:
            asked = extracting.of(network).model_copy(update=blocks)
            engine = engines[network] = open_encoder(asked, kind).engines[0]
            encoder, size = Encoder((engine,)), extracting.batch_size
            table, found, computed = vectors(examples, encoder, size, store)
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
                f"{stage}: {counts[0]} cannot be combined with others: remove it from {name}"
            )
        cost = sum(costs[one] for one in backbone.each)
        if training:
            encoder = Encoder(tuple(engines[one] for one in backbone.each))
            pool = _pool(parts, encoder, examples, labels, power)
            of = pool, groups, encoder.layers, training, bool(counts), len(classes)
            candidates.append(headed(name, *of, cost, confidence))
            continue
        how = held_out, groups, power, bool(counts), cost, task
        candidates.append(probed(name, parts, labels, *how, confidence))
    candidates.sort(key=lambda one: float(one.losses.mean()))
    return Compared(candidates, backbones, engines)


def _pool(
    parts: Sequence[Floats],
    encoder: Encoder,
    examples: pd.DataFrame,
    labels: npt.NDArray[Any],
    power: float,
) -> Split:
    """Return the examples with the features of all layers of a backbone's networks."""
    of_each = zip(encoder.engines, parts, strict=True)
    by_layer = [engine.by_layer(features) for engine, features in of_each]
    together = raised(joined.with_blocks(*joined.parted(by_layer)), power)
    digests = examples["digest"].to_numpy(dtype=str)
    return Split(digests, digests, np.zeros(len(digests), np.int32), labels, together)


def headed(
    name: str,
    pool: Split,
    groups: Groups,
    layers: Layers,
    training: TrainParams,
    counts: bool,
    classes: int,
    milliseconds: float,
    confidence: float = 0.95,
) -> Candidate:
    """Cross-validate heads on a backbone, and choose one.

    The heads are linear discriminants and logistic regression with the project's weight decay; they
    are in the project's order.

    Args:
        pool: view 0 of n examples.
        groups: [n], as `tables.manifest.groups` returns them.
        layers: of the features; empty for the last one alone.
        counts: whether features are counts of terms.
    """
    schedule = Schedule(1, 1, 0, np.ones(classes, np.float32), counts, layers=layers)
    keys = [str(group) for group in groups]
    first, decay = training.optimizers()[0], training.weight_decay
    if isinstance(decay, str):  # auto
        options = [penalty.Candidate(GLOBAL, layers=layers)]
        decay = penalty.choose(pool, keys, "lbfgs", schedule, len(keys), options).weight_decay
    decays = decay if isinstance(decay, list) else [decay]
    heads = [Hyperparameters("lbfgs", weight_decay=one) for one in decays]
    heads.insert(0 if first == "lda" else len(heads), Hyperparameters("lda"))
    last_first = training.layers == LAST
    best, *_ = choice.choose(pool, keys, heads, layers, schedule, last_first=last_first)
    of_rows = np.unique(groups[best.rows], return_inverse=True)[1]
    return Candidate(
        name, best.losses, of_rows, accuracy(best.right, confidence, of_rows), milliseconds,
        best.hyperparameters.weight_decay, pool.features.shape[1], best,
    )  # fmt: skip


def spelled(network: Backbone) -> str:
    """Return the name that a network has as a candidate."""
    return f"random:{network}" if network.weights == "random" else str(network)


def _stop_if_unknown(network: Backbone, stage: str) -> None:
    if network.needs:
        packages.need(network.needs, f"{stage} of {spelled(network)}")
    FAMILIES[network.family].check(network)


def _milliseconds(examples: pd.DataFrame, engine: Engine, kind: Kind) -> float:
    """Return milliseconds per example on one core, from decoding to features, best of three."""
    original = dict(zip(kind.view_columns, kind.original, strict=True))
    keys = {key_column(layer): b"" for layer in engine.each_made_by}
    some = examples.head(TIMED).assign(view=0, **original, **keys)
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        features_of(some, engine, batch_size=1)
        seconds.append(time.monotonic() - start)
    return 1000 * min(seconds) / len(some)


def unions(networks: Sequence[str]) -> list[str]:
    """Return each network, and each combination of two or three networks."""
    return [
        "+".join(names)
        for count in range(1, min(MOST_JOINED, len(networks)) + 1)
        for names in itertools.combinations(networks, count)
    ]


def folds(
    labels: npt.NDArray[Any], groups: Sequence[str] | Sequence[int], stage: str = "choose"
) -> npt.NDArray[np.int64]:
    """Return in which of `FOLDS` folds each example is held out, [n]; a group is in one fold.

    In classification, each class is spread over the folds; in other tasks they are drawn at random.

    Raises:
        DataError: a class has too few examples or groups to be both trained on and held out, or
            there are fewer groups than folds.
    """
    found = dealt([str(group) for group in groups], labels, FOLDS, numbers=labels.ndim == 2)
    if labels.ndim == 1 and (found < 0).any():
        raise DataError(
            f"{stage}: a class has too few examples, or has all of them in one group; each class"
            " needs some to train on and others to hold out"
        )
    if set(found.tolist()) != set(range(FOLDS)):
        raise DataError(f"{stage}: there are fewer examples or groups than {FOLDS} folds; add some")
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
    """Cross-validate a candidate, and choose the penalty with the lowest loss.

    Args:
        parts: features [n, d] of each of its networks.
        labels: as `tables.targets.of` returns them.
        held_out: [n], as `folds` returns it.
        groups: [n], as `tables.manifest.groups` returns them.
        counts: whether features are counts of terms.
    """
    features = raised(joined.beside(parts), power)
    dimension = features.shape[1]
    classes = int(labels.max()) + 1 if labels.ndim == 1 else labels.shape[1]
    units, decays = units_for(task, labels), decays_for(task, DECAYS)
    shorter = 1.0
    if dimension > len(features) and not counts:
        shorter = len(features) / dimension
        features = rotated(features)
    # `fit_heads` scales features by their mean square, which is larger in fewer dimensions.
    penalties = [decay * shorter for decay in decays]
    losses = np.full((len(decays), len(labels)), np.inf)
    # The score needs whether each prediction is right, or the logits.
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
    # Examples without a known label do not count in the comparison.
    known = ~np.isnan(losses).all(axis=0)
    losses, of_known = losses[:, known], np.unique(groups[known], return_inverse=True)[1]
    best = int(losses.mean(axis=1).argmin())
    if of_right:
        score = accuracy(kept[best, :, 0] == 1, confidence, groups)
    else:
        score = scored(task, kept[best], labels, confidence, groups)
    return Candidate(name, losses[best], of_known, score, milliseconds, decays[best], dimension)


def rotated(features: Floats) -> Floats:
    """Rotate features [n, d] into n dimensions, [n, n], for n below d.

    The inner products of the centred rows do not change, and heads with an L2 penalty depend only
    on these. The heads therefore predict the same, but are fitted in a fraction of the time.
    """
    wide = (features - features.mean(axis=0)).astype(np.float64)
    with one_thread():
        values, vectors = np.linalg.eigh(wide @ wide.T)
    turned: Floats = (vectors * np.sqrt(np.maximum(values, 0))).astype(np.float32)
    return turned


def apart(
    candidates: Sequence[Candidate], from_: Candidate, confidence: float
) -> dict[str, Difference]:
    """Return how much higher others' mean losses are than that of `from_`, with Holm's p-values."""
    others = [one for one in candidates if one is not from_]
    found = [difference(one.losses, from_.losses, confidence, from_.groups) for one in others]
    p_values = holm(np.array([each.p_value for each in found])).tolist()
    pairs = zip(others, found, p_values, strict=True)
    return {one.name: replace(each, p_value=p) for one, each, p in pairs}


def winner(
    candidates: Sequence[Candidate], budget: float | None, confidence: float = 0.95
) -> tuple[Candidate, Candidate]:
    """Return the candidate to use, and the candidate with the lowest loss.

    The candidate to use is the fastest whose loss is not significantly higher than the lowest loss.
    With a budget, the user has said what a prediction may cost, so the candidate to use is the one
    with the lowest loss within the budget.

    Args:
        budget: highest milliseconds per example; None for no limit.

    Raises:
        DataError: no candidate is within the budget.
    """
    within = [one for one in candidates if budget is None or one.milliseconds <= budget]
    if not within:
        least = min(candidates, key=lambda one: one.milliseconds)
        raise DataError(
            f"no backbone predicts within {budget:g} ms; the fastest, {least.name}, takes"
            f" {least.milliseconds:.1f} ms: raise --budget"
        )
    best = min(within, key=lambda one: (one.losses.mean(), one.milliseconds))
    if budget is not None:
        return best, best
    above = apart(within, best, confidence)
    alike = [one for one in within if one is best or above[one.name].p_value > 1 - confidence]
    return min(alike, key=lambda one: (one.milliseconds, one.losses.mean())), best


def _rows(features: Floats, labels: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> Split:
    numbers = np.flatnonzero(mask)
    names = numbers.astype(str)
    return Split(names, names, np.zeros(len(numbers), int), labels[mask], features[mask])
