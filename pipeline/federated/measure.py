"""`headstart measure`: measure a joined head, and the site's own, on the site's test examples."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from .. import kinds
from ..backbones import exports
from ..core import params
from ..core.backbone import Backbone
from ..core.errors import DataError
from ..core.params import EvaluateParams
from ..core.paths import FEATURES, HEAD, HEAD_WEIGHTS, MANIFEST, SITE
from ..core.terminal import printable
from ..evaluation import Array, Asked, figure, measure, measuring, spelt, tables
from ..evaluation.comparing import Score
from ..evaluation.intervals import Groups, difference_interval, doubts, grouped, mean_interval
from ..evaluation.metrics import Scores, resample, whole
from ..heads.description import HeadDescription
from ..heads.head import Head, against_thresholds, load_head
from ..serving.description import FILE, Bundle
from ..store.places import replacing
from ..tables.features import Split, read_splits
from ..tables.figures import Metrics
from ..tables.labels import listed, require
from ..tables.manifest import groups_at, read_manifest, task_in
from ..tables.power import raised
from ..tasks import TASKS, UNNAMED

MEASURED = SITE / "measured.json"


def run(bundle: Path) -> None:
    """Measure both heads, and write the metrics to `site/measured.json`.

    Raises:
        HeadstartError: the bundle is damaged, or its backbone or task is not this project's.
    """
    settings, manifest = params.load(kinds.schema), read_manifest(MANIFEST)
    require(manifest, "evaluate")
    given = Bundle.read(bundle)
    _require_alike(bundle, given, settings.extract.network, task_in(MANIFEST))
    of_joined = load_head(bundle / "head.safetensors", bundle / FILE, lambda _: given.head)
    of_own = load_head(HEAD_WEIGHTS, HEAD)
    classes, known = given.head.classes, of_own[1].classes
    names = sorted({*classes, *known})
    test, seen_by_own = (
        read_splits(FEATURES, manifest, names, ["test"], layers=about.layers)["test"]
        for _, about in (of_joined, of_own)
    )
    if (takes := of_joined[0].dimension) != (has := test.features.shape[1]):
        raise DataError(f"{bundle} takes {takes} features, but {FEATURES} has {has}")
    groups = grouped(groups_at(manifest, test.digests))
    joined, own = (
        _answered(*one, rows, names, settings.evaluate, groups)
        for one, rows in ((of_joined, test), (of_own, seen_by_own))
    )
    labels, predicted = (np.array(names)[one] for one in (test.labels, _predicted(joined)))
    missing, foreign = ~np.isin(labels, classes), ~np.isin(predicted, known)
    figures = {"joined": _figures(joined, bool(missing.any())), "own": _figures(own)}
    differences = {
        name: _difference(name, joined, own)
        for name in measuring(given.head.task).shown
        if all(name in one.interval for one in figures.values())
    }
    document = {
        "bundle": given.data.manifest,
        "confidence": settings.evaluate.confidence,
        **{name: one.as_written() for name, one in figures.items()},
        "difference": {name: apart._asdict() for name, apart in differences.items()},
        "of_missing_classes": int(missing.sum()),
        "predicted_as_foreign_classes": int(foreign.sum()),
    }
    with replacing(MEASURED) as unfinished:
        unfinished.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

    if missing.any():
        lacks = listed(sorted(set(labels[missing].tolist())))
        print(
            f"measure: warning: the joined head does not have the classes {printable(lacks)}, so it"
            f" cannot be right about their {missing.sum()} test examples"
        )
    if none := sorted({*known} - {*labels.tolist()}):
        print(f"measure: warning: no test examples of {printable(listed(none))}")
    for words in doubts(groups):
        print(f"measure: warning: {words}")
    of_groups = "" if groups is None else f" of {figures['own'].test['groups']} groups"
    print(
        f"measure: {bundle} and this site's own head on {len(labels)} test examples{of_groups},"
        f" with {100 * settings.evaluate.confidence:g} % intervals:"
    )
    for name, apart in differences.items():
        print(f"measure: {_in_words(name, figures['joined'], figures['own'], apart)}")
    if foreign.any():
        print(
            f"measure: {foreign.sum()} predictions of the joined head are classes that only other"
            " sites have"
        )
    print(f"measure: {MEASURED} has these metrics, but no names of classes or examples")


def _require_alike(folder: Path, bundle: Bundle, backbone: Backbone, task: str) -> None:
    """Check that a bundle has this project's backbone and task.

    Raises:
        HeadstartError: its backbone or task differs, or the backbone is not available.
    """
    if bundle.head.task != task or "federated" in TASKS[task].lacks:
        raise DataError(
            f"{folder} is for {bundle.head.task}, and {MANIFEST} for {task}; both have to be for"
            " classification"
        )
    here, there = " ".join(map(exports.fingerprint, exports.of_each(backbone))), bundle.backbone
    if there.fingerprint != here:
        raise DataError(
            f"the backbone of {folder} is {printable(there.name):.60} ({there.fingerprint[:8]}),"
            f" but this project has {backbone} ({here[:8]}); use the bundle of a server that has"
            " the same backbone in params.yaml"
        )


def _answered(
    head: Head,
    about: HeadDescription,
    test: Split,
    names: list[str],
    settings: EvaluateParams,
    groups: Groups | None,
) -> Asked:
    """Return a head's predictions; a class of `names` that it lacks has a probability of 0."""
    calibration, places = about.calibration, [names.index(name) for name in about.classes]
    answers, thresholds = np.zeros((len(test.labels), len(names))), np.ones(len(names))
    features = raised(test.features, about.power)
    answers[:, places] = head.answers(features, calibration.temperature, about.task)
    if calibration.thresholds:
        thresholds[places] = calibration.thresholds
    else:
        thresholds = thresholds[:0]
    return Asked(test, names, answers, thresholds.tolist(), pd.DataFrame(), settings, (), groups)


def _figures(asked: Asked, lacks: bool = False) -> Metrics:
    """Return the metrics with their intervals, as `evaluate` writes them.

    If a head `lacks` the class of a test example, its loss and its top-k accuracy are not defined.
    """
    task, settings, examples = measuring(UNNAMED), asked.settings, len(asked.answers)
    weigh = task.weigh(asked.test.labels, asked.answers, asked.thresholds, settings)
    drawing = settings.bootstrap, settings.seed, asked.groups
    resampled = resample(weigh, examples, len(asked.names), *drawing).overall
    defined = {
        name: values
        for name, values in resampled.items()
        if not (lacks and name.startswith(("loss", "top_")))
    }
    how = settings.confidence, examples, task.proportions(asked), asked.groups
    return tables.metrics(whole(weigh, examples), Scores(defined, {}), *how)


def _difference(name: str, joined: Asked, own: Asked) -> Score:
    """Return how much higher the accuracy or the loss of the joined head is, with its interval."""
    how = joined.settings.confidence, joined.groups
    if name == "accuracy":
        right, was = (_predicted(one) == one.test.labels for one in (joined, own))
        apart = right.astype(np.float64) - was
        low, high = difference_interval(apart, *how)
    else:
        apart = _losses(joined) - _losses(own)
        low, high = mean_interval(apart, *how)
    return Score(*(round(float(end), tables.DIGITS) for end in (apart.mean(), low, high)))


def _predicted(asked: Asked) -> npt.NDArray[np.int64]:
    strengths = against_thresholds(asked.answers, asked.thresholds)
    predicted: npt.NDArray[np.int64] = strengths.argmax(axis=1)
    return predicted


def _losses(asked: Asked) -> Array:
    labels = asked.test.labels
    losses: Array = -np.log(np.maximum(asked.answers[np.arange(len(labels)), labels], 1e-300))
    return losses


def _in_words(name: str, joined: Metrics, own: Metrics, apart: Score) -> str:
    """Return a metric of both heads in words, with the difference and the conclusion from it."""
    scores = []
    for one in (joined, own):
        low, high = (figure(name, end) for end in one.interval[name].values())
        scores.append(f"{figure(name, one.test[name])} ({low} to {high})")
    shown = "may be chance"
    if apart.low > 0 or apart.high < 0:
        better = (apart.low > 0) != measure(name).lower_is_better
        shown = f"the {'joined' if better else 'own'} head is better"
    return (
        f"{spelt(name)} {scores[0]}, own {scores[1]}; difference {apart.value:+.4f}"
        f" ({apart.low:+.4f} to {apart.high:+.4f}): {shown}"
    )
