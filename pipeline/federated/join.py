"""`headstart federate`: join the submissions of sites into one head, and write its bundle."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save

from .. import kinds
from ..backbones import exports
from ..core import params
from ..core.errors import DataError, ParamsError
from ..core.params import Params
from ..core.paths import JOINED
from ..core.terminal import printable
from ..heads.description import HeadDescription
from ..heads.head import Head, one_thread
from ..heads.hyperparameters import Hyperparameters
from ..heads.penalty import PATH
from ..serving.description import Data
from ..serving.writing import Parts
from ..store.places import replacing
from . import sums
from .site import wanted
from .submission import SHARED, Submission, read

BUNDLE, MOMENTS, SITES = "bundle", "moments.safetensors", "sites.json"


class LeftOut(NamedTuple):
    """A folder that was not joined, and why. If `lacking` is true, the head may lack its site."""

    folder: Path
    reason: str
    lacking: bool = True


def run(
    folders: Sequence[Path],
    into: Path = JOINED,
    optimizer: str = "ridge",
    weight_decay: Sequence[float] | None = None,
) -> int:
    """Join submissions; leave out those that cannot be joined, with a warning.

    Args:
        folders: the folders that `headstart site` wrote, one per site.
        into: the folder to write.
        optimizer: a key of `sums.SOLVERS`.
        weight_decay: the penalties of a ridge head, from which generalised cross-validation
            chooses; None for those in `params.yaml`.

    Returns:
        The number of folders that were left out and whose site may therefore be missing. Copies of
        a submission, and those that a newer one of the same site replaces, do not count.

    Raises:
        HeadstartError: no submission can be joined, or the backbone is not available.
    """
    settings = params.load(kinds.schema)
    if weight_decay is None:
        given = settings.train.weight_decay
        if isinstance(given, str):  # auto
            weight_decay = PATH
        else:
            weight_decay = given if isinstance(given, list) else [given]
    if any(not (decay >= 0 and np.isfinite(decay)) for decay in weight_decay):
        raise ParamsError("--weight-decay has to be 0 or more")
    taken, left_out = chosen(folders, settings)
    for one in left_out:
        print(f"federate: warning: {printable(str(one.folder))} is left out: {one.reason}")
    if settings.train.class_weights != "none":
        print(
            f"federate: warning: train.class_weights {settings.train.class_weights} is ignored: in"
            " sums of sites, all examples have the same weight"
        )
    if not taken:
        raise DataError(f"none of {len(folders)} submissions can be joined")
    whole = sums.joined([one.sums for one in taken])
    _warn_of_spelling(whole.classes)
    if len(whole.classes) < 2:
        name = printable(whole.classes[0])
        raise DataError(f"all sites have only the class {name}; a head needs two")
    hyperparameters = Hyperparameters(optimizer)
    with one_thread():
        decay = weight_decay[0]
        if optimizer == "ridge":
            decay = weight_decay[sums.best(whole, weight_decay)]
            decay = max(decay, sums.least_decay(sums.possible(whole)))
            hyperparameters = replace(hyperparameters, weight_decay=decay)
        (solved,) = sums.SOLVERS[optimizer](whole, [decay])
        head = solved.head(sums.fair_scale(whole, solved, optimizer, decay))
    _write_bundle(into / BUNDLE, settings, taken, head, whole.classes, hyperparameters)
    with replacing(into / MOMENTS) as unfinished:
        unfinished.write_bytes(moments(whole))
    document = {"sites": [_described(one) for one in taken]}
    document["left_out"] = [
        {"folder": printable(str(one.folder)), "reason": one.reason} for one in left_out
    ]
    with replacing(into / SITES) as unfinished:
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        unfinished.write_text(text, encoding="utf-8")
    names = ", ".join(f"{one.site} {one.number}" for one in taken)
    decayed = f" with weight_decay {decay:g}" if optimizer == "ridge" else ""
    count = f"{len(taken)} site{'s' * (len(taken) > 1)}"
    print(
        f"federate: {count} joined ({names}): {whole.total:,.0f} vectors of {len(whole.classes)}"
        f" classes; {optimizer}{decayed} in {into / BUNDLE}"
    )
    return sum(one.lacking for one in left_out)


def chosen(folders: Sequence[Path], settings: Params) -> tuple[list[Submission], list[LeftOut]]:
    """Return the submissions that can be joined, sorted by site, and the folders left out."""
    left_out: list[LeftOut] = []
    found: list[Submission] = []
    for folder in dict.fromkeys(folders):
        try:
            found.append(read(folder))
        except DataError as error:
            left_out.append(LeftOut(folder, str(error)))
    expected = wanted(settings, kinds.declared(settings.ingest), dimension=0)  # not compared
    fitting = []
    for one in found:
        if reason := _unlike(one.about, expected):
            left_out.append(LeftOut(one.folder, reason))
        else:
            fitting.append(one)
    dimensions = Counter(one.sums.dimension for one in fitting)
    most_common = min(dimensions, key=lambda d: (-dimensions[d], d), default=0)
    alike = []
    for one in fitting:
        if (has := one.sums.dimension) != most_common:
            reason = f"it has {has} features, but most submissions have {most_common}"
            left_out.append(LeftOut(one.folder, reason))
        else:
            alike.append(one)
    taken: list[Submission] = []
    for name in sorted({one.site for one in alike}):
        newest, others = _newest([one for one in alike if one.site == name])
        left_out += others
        taken += newest
    unique: dict[str, Submission] = {}
    for one in taken:
        first = unique.setdefault(one.about["sums"], one)
        if first is not one:
            left_out.append(LeftOut(one.folder, f"its sums are the same as those of {first.site}"))
    order = list(dict.fromkeys(folders))
    left_out.sort(key=lambda one: order.index(one.folder))
    # A reason may quote text of a stranger.
    return list(unique.values()), [one._replace(reason=printable(one.reason)) for one in left_out]


def _unlike(about: dict[str, Any], expected: dict[str, Any]) -> str:
    """Return how a submission's features differ from this project's; empty if they do not."""
    for field, name in SHARED.items():
        has, wants = about[field], expected[field]
        if field != "backbone":
            if has != wants:
                return f"{name} is {has!r:.60}, but {wants!r:.60} in this project's params.yaml"
        elif has["fingerprint"] != wants["fingerprint"]:
            one, other = (f"{b['name']:.60} ({b['fingerprint'][:8]})" for b in (has, wants))
            return f"its backbone is {one}, but this project has {other}"
    return ""


def _newest(of_site: list[Submission]) -> tuple[list[Submission], list[LeftOut]]:
    """Return the newest submission of a site (none if that is ambiguous), and the others."""
    if len({one.about["id"] for one in of_site}) > 1:
        reason = f"two sites have the name {of_site[0].site}; rename one of them"
        return [], [LeftOut(one.folder, reason) for one in of_site]
    last = max(one.number for one in of_site)
    newest = [one for one in of_site if one.number == last]
    others = [
        LeftOut(
            one.folder, f"submission {last} of {one.site} replaces submission {one.number}", False
        )
        for one in of_site
        if one.number < last
    ]
    if len({one.about["sums"] for one in newest}) > 1:
        reason = f"{newest[0].site} sent two different submissions with the number {last}"
        return [], others + [LeftOut(one.folder, reason) for one in newest]
    same = f"it is the same as {newest[0].folder}"
    again = [LeftOut(one.folder, same, False) for one in newest[1:]]
    return newest[:1], others + again


def _warn_of_spelling(classes: Sequence[str]) -> None:
    spelt: dict[str, str] = {}
    for name in classes:
        other = spelt.setdefault(" ".join(name.split()).casefold(), name)
        if other != name:
            print(f"federate: warning: the classes {other!r} and {name!r} differ only in spelling")


def moments(whole: sums.Sums) -> bytes:
    """Return means and covariances of all sites' vectors as the bytes of a safetensors file.

    The tensors are `mean` [d], `covariance` [d, d], `class_means` [c, d], `within` [d, d] (the
    covariance around the class means) and `rows` [c], in float64. The classes have the bundle's
    order.
    """
    whole = sums.possible(whole)
    held = {
        "mean": whole.mean,
        "covariance": whole.covariance,
        "class_means": whole.class_means,
        "within": whole.within,
        "rows": whole.rows,
    }
    return bytes(save({name: np.ascontiguousarray(array) for name, array in held.items()}))


def _described(one: Submission) -> dict[str, Any]:
    """Return the entry of `sites.json` for a site that was joined."""
    entry = {"site": one.site, "number": one.number, "sums": one.about["sums"]}
    entry |= {"classes": list(one.sums.classes), "noise": one.about["noise"]}
    if one.examples is not None:
        entry["examples"] = int(one.examples.sum())
    return entry


def _write_bundle(
    folder: Path,
    settings: Params,
    taken: Sequence[Submission],
    head: Head,
    classes: Sequence[str],
    hyperparameters: Hyperparameters,
) -> None:
    """Write the bundle, without neighbours and metrics, since there are no examples."""
    extract = settings.extract
    files = exports.of_each(extract.network)
    about = HeadDescription(
        classes=list(classes),
        power=settings.train.power,
        hyperparameters=hyperparameters,
        refit=settings.train.refit,
        dimension=head.dimension,
        width=0,
        validation={"pictures": 0},
        notes={"sites": [one.site for one in taken]},
    )
    digests = [one.about["sums"] for one in taken]
    counts = [one.examples.sum() for one in taken if one.examples is not None]
    version = hashlib.sha256("".join(digests).encode()).hexdigest()
    data = Data(version, {"train": int(sum(counts)), "val": 0, "test": 0})
    kind = kinds.declared(settings.ingest)
    Parts(kind, extract, files, head, about, metrics={}).write(folder, data)
