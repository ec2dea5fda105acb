"""Optional stage, adapt: adapt the head to another domain (unsupervised domain adaptation).

The stage trains a head on features that are aligned with that domain. If `adapt.method` is auto,
it uses this head only if there is evidence, without labels of that domain, that the head is better
(`transfer/adapting.py`). The stage writes the bundle of this head to `adapted/`, or else a copy of
the existing bundle. The test examples serve only to measure the effect.
"""

import json
import shutil
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from . import kinds
from .backbones import exports
from .backbones.engines import open_encoder
from .core import command, params
from .core.errors import ParamsError
from .core.paths import (
    ADAPT,
    ADAPT_TABLE,
    ADAPTED,
    BUNDLE,
    FEATURES,
    HEAD,
    HEAD_WEIGHTS,
    MANIFEST,
    TARGET,
)
from .evaluation import paired
from .heads.fit import class_weights, device_for
from .heads.head import load_head
from .heads.hyperparameters import CLOSED_FORMS
from .heads.trained import Schedule, with_figures
from .runners.wanted import vectors
from .serving.writing import Examples, Parts
from .tables.features import Split, read_splits
from .tables.labels import require, require_unlabelled
from .tables.manifest import group_keys, kind_in, read_manifest, task_in
from .tables.power import raised
from .transfer import adapting
from .transfer.adapting import NONE, Method, Source

NO_SETS = "the prediction sets of the bundle have no guaranteed coverage on another domain"
DIFFERENCE, BINS = 0.03, 15  # for `paired.compare`; accuracy and loss use no bins


def adapt() -> None:
    """Train the heads, choose one, evaluate all on the test examples, and write the bundle."""
    settings = params.load(kinds.schema)
    extracting, training = settings.extract, settings.train
    manifest, unlabelled = read_manifest(MANIFEST), read_manifest(TARGET)
    kind = kind_in(MANIFEST)
    require(manifest, "adapt")
    require_unlabelled(len(unlabelled))
    head, about = load_head(HEAD_WEIGHTS, HEAD)
    about.require_task(task_in(MANIFEST))
    names, power = about.classes, about.power
    splits = read_splits(FEATURES, manifest, names, ["train", "val", "test"], power)
    last = extracting.model_copy(update={"blocks": "last"})
    encoder = open_encoder(last, kinds.named(kind))
    _, features, computed = vectors(unlabelled, encoder, extracting.batch_size)
    target = raised(features, power)
    print(f"adapt: {len(target) - computed} target examples reused, {computed} computed")

    (hyperparameters, epochs), rows = about.trained_with(), splits["train"]
    schedule = Schedule(
        epochs=epochs,
        batch_size=training.batch_size,
        patience=0,
        class_weights=class_weights(training.class_weights, rows.labels, len(names)),
        counts=head.idf is not None,
        row_weights=training.row_weights,
    )
    descends = hyperparameters.optimizer not in CLOSED_FORMS
    device = device_for(training.device, descends)
    source = Source(rows, splits["val"], hyperparameters, schedule, device, about.refit)
    methods = adapting.methods(source, target)
    known = adapting.evidence(methods, target)
    chosen, why = adapting.choose(known, len(names))
    if settings.adapt.method != "auto":
        chosen, why = settings.adapt.method, "adapt.method asks for it"
    if chosen not in methods:
        raise ParamsError(
            "adapt.method coral aligns features, but term counts cannot be aligned: set"
            " adapt.run to []"
        )

    print(f"adapt: {chosen}: {why}")
    of_test = group_keys(manifest.set_index("digest", drop=False).loc[splits["test"].digests])
    table, measured = _measured_on(splits["test"], of_test.to_numpy(), methods, names, chosen)
    report = {
        "chosen": chosen,
        "why": why,
        "target": {"pictures": len(target)},
        "evidence": _rounded(asdict(known)),
        "test": measured,
    }
    ADAPT.parent.mkdir(parents=True, exist_ok=True)
    ADAPT.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    table.insert(1, "information", [known.information[name] for name in table["method"]])
    table.to_csv(ADAPT_TABLE, index=False, float_format="%.6g", lineterminator="\n")
    if chosen == NONE:
        shutil.copytree(BUNDLE, ADAPTED, dirs_exist_ok=True)
        print(f"adapt: {ADAPTED} is a copy of {BUNDLE}")
        return
    method = methods[chosen]
    about = with_figures(about, method.kept, len(splits["val"].labels))
    notes = about.notes | {"adapted": chosen}
    about = replace(about.without_sets(NO_SETS), calibration=method.calibration, notes=notes)
    files = exports.of_each(extracting.network)
    given_away = settings.bundle.training_examples
    parts = Parts(kind, extracting, files, method.head, about, report)
    parts.write(ADAPTED, Examples(manifest, method.source.train, method.source.val, given_away))
    if about.sets is not None:
        print(f"adapt: no prediction sets: {about.sets.why_none}")


def _measured_on(
    test: Split,
    groups: npt.NDArray[np.str_],
    methods: dict[str, Method],
    names: list[str],
    chosen: str,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Evaluate each method on the test examples, and compare the chosen one with no adaptation.

    Returns:
        a table with one row per method; and a dictionary with the number of test examples and, for
        accuracy and loss, the values before and after and the result of the paired test.
    """
    answers = {}
    for name, method in methods.items():
        probabilities = method.head.answers(test.features, method.temperature)
        predicted = method.answered(probabilities)
        columns = {
            f"p({label})": column for label, column in zip(names, probabilities.T, strict=True)
        }
        answers[name] = pd.DataFrame(columns, index=pd.Index(test.digests)).assign(
            label=[names[label] for label in test.labels],
            predicted=[names[label] for label in predicted],
            group=groups,
            probability=probabilities[np.arange(len(probabilities)), predicted],
        )
    rows = []
    for name, one in answers.items():
        right = one["predicted"] == one["label"]
        was = answers[NONE]["predicted"] == one["label"]
        row = (right.mean(), (right & ~was).sum(), (was & ~right).sum()) if len(one) else ("",) * 3
        rows.append((name, "yes" if name == chosen else "no", *row))
    table = pd.DataFrame(rows, columns=["method", "chosen", "test_accuracy", "gained", "lost"])
    found: dict[str, Any] = {"pictures": len(test.labels)}
    for measure_, lower in (("accuracy", False), ("loss", True)):
        compared = paired.compare(answers[NONE], answers[chosen], measure_, lower, DIFFERENCE, BINS)
        if compared is None or not compared.shared:
            continue
        found[measure_] = _rounded({"before": compared.old, "after": compared.new}) | {
            "answer": compared.answer,
            "found": compared.found,
        }
        if chosen != NONE:
            print(
                f"adapt: {measure_} on {compared.shared} test examples {compared.old:.4f} before,"
                f" {compared.new:.4f} after: {compared.answer} ({compared.found})"
            )
    return table, found


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    """Round figures to six significant digits; further digits differ between CPUs."""
    return {
        name: _rounded(value) if isinstance(value, dict) else float(f"{value:.6g}")
        for name, value in figures.items()
    }


if __name__ == "__main__":
    command.run(adapt)
