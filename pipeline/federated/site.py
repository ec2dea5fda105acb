"""`headstart site`: write the sums of this project's features for a federated head."""

import hashlib
import json
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from .. import kinds
from ..backbones import exports
from ..core import packages, params
from ..core.errors import DataError, ParamsError
from ..core.params import Params
from ..core.paths import FEATURES, MANIFEST, SITE
from ..store.places import replacing
from ..tables.features import Split, are_counts, read_splits
from ..tables.manifest import kind_in, read_manifest, task_in
from ..tasks import TASKS
from . import privacy, submission, sums
from .ledger import Entry, Ledger, counted
from .page import differing, page
from .privacy import Noise

LEDGER = SITE / "ledger.jsonl"
PAGE = SITE / "site.md"
LEAST = 5  # examples of a class
LEAST_TOTAL = 20  # examples of all classes
DELTA = 1e-5


def run(
    name: str,
    least: int = LEAST,
    epsilon: float | None = None,
    delta: float | None = None,
    clip: float | None = None,
) -> None:
    """Write a submission into `site/NAME`, and its description into `site/site.md`.

    Args:
        least: the minimum number of examples per class.
        epsilon: the ε of differential privacy; None for sums without noise.
        delta: the δ of differential privacy; None for `DELTA`.
        clip: the largest length of a feature vector, if there is noise.

    Raises:
        HeadstartError: the name or the noise is not valid, the sums could reveal an example, or
            the project has no features to sum.
    """
    if not re.fullmatch(submission.NAME, name):
        raise ParamsError(
            f"{name!r:.60} is not a name for a site: use up to 40 of a-z, A-Z, 0-9, - and _, and"
            " begin with a letter or digit, such as clinic_a"
        )
    noise = _noise(epsilon, delta, clip)
    settings = params.load(kinds.schema)
    if settings.train.layers == "all":
        raise ParamsError(
            "train.layers is all, but sites are joined by sums of the last layer's features: set"
            " train.layers to last"
        )
    rows, labels, classes = _rows(settings)
    counts = Counter(labels.values())
    _require_many(counts, least)

    about = wanted(settings, kind_in(MANIFEST), rows.features.shape[1])
    ledger, examples = Ledger(LEDGER), counted(labels, Counter(rows.digests.tolist()))
    identity = ledger.identity(name)
    exact = sums.of(rows.features, rows.labels, classes)
    of_classes = np.array([float(counts[label]) for label in classes])
    numbers = submission.tensors(exact, of_classes)
    of = _digest([about, classes, _sha256(numbers), noise and vars(noise)])
    folder, last = SITE / name, ledger.last
    if last is not None and last.of == of and _is_there(folder, last):
        print(f"site: nothing changed since submission {last.number}, which is in {folder}")
        return
    decides = _digest(about)
    near = [one for one in ledger.differing(examples, decides) if 0 < one[2] < least]

    found, rho = exact, None
    if noise:
        most = int(np.unique(rows.digests, return_counts=True)[1].max())
        shortened = privacy.clipped(rows.features, noise.clip)
        clipped = sums.of(shortened, rows.labels, classes)
        found, rho = privacy.noisy(clipped, noise, most)
        numbers = submission.tensors(found, None)
    digest = _sha256(numbers)
    if last is None or last.of != of or noise:  # else only the folder is missing
        fields: dict[str, Any] = {"site": name, "id": identity, "of": of, "settings": decides}
        fields |= {"sums": digest, "noise": noise and vars(noise), "rho": rho}
        last = ledger.append(examples, when=f"{datetime.now(UTC):%Y-%m-%d %H:%M}", **fields)
    total = _total(ledger, noise)
    stated = None
    if noise:
        stated = vars(noise) | {"spread": found.noise, "total_epsilon": total}
    described = {"schema": submission.SCHEMA, "site": name, "id": identity, "number": last.number}
    described |= about | {"classes": classes, "noise": stated, "sums": digest}
    submission.write(folder, described, numbers)
    text = page(folder, described, counts, len(rows.labels), ledger, near, noise)
    with replacing(PAGE) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    for number, label, differs in near if not noise else []:
        whose = "the sum of their vectors" if differs > 1 else "its vector"
        print(
            f"site: warning: {differing(label, differs)} from submission {number}: anyone who has"
            f" both can compute {whose} by subtraction"
        )
    print(
        f"site: submission {last.number} of {name}, {sum(counts.values()):,} examples of"
        f" {len(classes)} classes: {_megabytes(folder)} in {folder}"
    )
    if noise:
        no_bound = "no bound, because one of them had no noise"
        of_all = no_bound if total is None else f"epsilon {total:.3g}"
        print(
            f"site: this submission has epsilon {noise.epsilon:g}; all submissions together have"
            f" {of_all}"
        )
    print(f"site: {PAGE} describes what you send; keep {LEDGER} here")


def _noise(epsilon: float | None, delta: float | None, clip: float | None) -> Noise | None:
    """Return the requested noise; None without `epsilon`.

    Raises:
        ParamsError: an option is missing or not valid.
        MissingSetError: OpenDP is not installed.
    """
    if epsilon is None:
        for option, value in (("--clip", clip), ("--delta", delta)):
            if value is not None:
                raise ParamsError(f"{option} needs --epsilon: add it, or leave out {option}")
        return None
    delta = DELTA if delta is None else delta
    if clip is None:
        raise ParamsError(
            "--epsilon needs --clip, the largest length of a feature vector: choose it from public"
            " examples, because a value from the site's own would reveal something about them"
        )
    if not (epsilon > 0 and clip > 0 and 0 < delta < 1 and np.isfinite([epsilon, clip]).all()):
        raise ParamsError(
            f"--epsilon {epsilon:g} and --clip {clip:g} have to be above 0, and --delta {delta:g}"
            " between 0 and 1"
        )
    packages.need("federated", "--epsilon")
    return Noise(epsilon, delta, clip)


def _rows(settings: Params) -> tuple[Split, dict[str, str], list[str]]:
    """Return the rows that `train` would use, their labels by digest, and the classes.

    Raises:
        DataError: there are no features, or no head can be computed from their sums.
    """
    manifest, task = read_manifest(MANIFEST), task_in(MANIFEST)
    if "federated" in TASKS[task].lacks:
        raise DataError(f"{MANIFEST} is for {task}; sites can be joined only for classification")
    if are_counts(FEATURES):
        raise DataError(
            f"{FEATURES} has term counts, whose weights depend on the texts of all sites"
            " together; use an encoder (extract.backbone)"
        )
    chosen = ["train", "val"] if settings.train.refit else ["train"]
    used = manifest[manifest["split"].isin(chosen)]
    classes = sorted(used["label"].unique())
    splits = read_splits(FEATURES, manifest, classes, chosen, settings.train.power)
    labels = dict(zip(used["digest"], used["label"], strict=True))
    return Split.concat(splits.values()), labels, classes


def _require_many(counts: Counter[str], least: int) -> None:
    """Check that there are enough examples, so that no sum reveals a single one.

    Raises:
        DataError: a class, or the whole site, has too few examples.
    """
    few = sorted((count, label) for label, count in counts.items() if count < least)
    if few:
        count, label = few[0]
        more = f" ({len(few)} classes have fewer)" if len(few) > 1 else ""
        raise DataError(
            f"class {label} has {count} example{'s' * (count > 1)}, but a sum of fewer than {least}"
            f" reveals too much about each{more}: add examples, or leave that class out of the data"
        )
    if sum(counts.values()) < LEAST_TOTAL:
        raise DataError(
            f"sums of {sum(counts.values())} examples would reveal too much about each: use"
            f" {LEAST_TOTAL} or more"
        )


def wanted(settings: Params, kind: str, dimension: int) -> dict[str, Any]:
    """Return the fields that must be equal in all submissions that are joined.

    Args:
        dimension: the dimension of the features.

    Raises:
        HeadstartError: the backbone is not available.
    """
    extract = settings.extract
    prints = map(exports.fingerprint, exports.of_each(extract.network))
    backbone: dict[str, Any] = {
        "name": extract.backbone,
        "weights": extract.weights,
        "pooling": extract.pooling,
    }
    backbone |= {"fingerprint": " ".join(prints), "dimension": dimension}
    precision, power = extract.precision, settings.train.power
    return {"kind": kind, "backbone": backbone, "precision": precision, "power": power}


def _digest(content: Any) -> str:
    return _sha256(json.dumps(content, sort_keys=True).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _is_there(folder: Path, entry: Entry) -> bool:
    """Whether a folder has the complete submission of a ledger entry."""
    try:
        there = submission.read(folder)
    except DataError:
        return False
    return there.number == entry.number and there.about["sums"] == entry.sums


def _total(ledger: Ledger, noise: Noise | None) -> float | None:
    """Return the joint ε of all submissions; None (no bound) if one of them had no noise."""
    rhos = [entry.rho for entry in ledger.entries]
    if noise is None or None in rhos:
        return None
    return privacy.epsilon([rho for rho in rhos if rho is not None], noise.delta)


def _megabytes(folder: Path) -> str:
    return f"{sum(file.stat().st_size for file in folder.iterdir()) / 1e6:.1f} MB"
