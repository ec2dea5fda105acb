"""Last stage, report: one HTML page with the results, and with reasons to doubt them.

The page is self-contained, except for the thumbnails of a map of over `points.INLINE` examples. It
depends only on the stage's inputs and on one thing that DVC cannot track: the commit that the run
is compared with, which the page names.
"""

import shutil

import jinja2
import pandas as pd

from . import kinds
from .core import command, params
from .core.params import Params
from .core.paths import (
    BUNDLE,
    CHECKS,
    CHECKS_MAP,
    CONFIRMED,
    CONTACT_SHEET,
    MANIFEST,
    METRICS,
    PREDICTIONS,
    REFUSED,
    REPEATS,
    REPORT,
    SETS,
    SHEETS,
    SLICES,
    SWEEP,
    TRAINING,
)
from .evaluation.intervals import doubts, grouped
from .evaluation.slices import worst
from .heads.hyperparameters import used
from .kinds import Shown
from .pages import of_task, points, tables
from .pages.comparison import since_last_commit
from .pages.embed import Thumbnails, contact_sheet, reviewing
from .pages.mistakes import HEAT, NEAR, Mistake, Near, Reasons, cards
from .serving.classifier import Classifier
from .serving.description import Bundle
from .serving.hidden import hidden_features
from .serving.thumbnails import thumbnails
from .tables import confirmed
from .tables.figures import Metrics
from .tables.manifest import groups, kind_in, read_manifest, task_in
from .tasks import TASKS

README = f"Thumbnails of ../report.html, if its map has over {points.INLINE:,} examples.\n"


def report() -> None:
    """Write the page from the outputs of earlier stages."""
    settings = params.load(kinds.schema)
    confidence = f"{100 * settings.evaluate.confidence:g} %"
    kind = kinds.named(kind_in(MANIFEST))
    manifest = read_manifest(MANIFEST)
    metrics = Metrics.read(METRICS)
    bundle = Bundle.read(BUNDLE)
    repeats, classes = tables.table(REPEATS), bundle.head.classes
    checked = {name: tables.table(CHECKS / f"{name}.csv") for name in tables.FOUND}
    hidden = settings.report.examples == "hidden"
    shown = Thumbnails(manifest, kind, hidden, settings.ingest.targets or ())
    right = confirmed.paths(manifest, confirmed.read(CONFIRMED))
    head, _ = bundle.head.trained_with()
    task, sliced, few = TASKS[task_in(MANIFEST)], tables.table(SLICES), checked["few_examples"]
    page = of_task(task.name)
    predictions = tables.table(PREDICTIONS, page.columns)
    mistakes, test_count = page.mistakes(predictions), "test.pictures"  # whatever the kind

    folders = [jinja2.PackageLoader(__package__ or "pipeline", room) for room in ("pages", "tasks")]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(folders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    on_map = points.read(CHECKS_MAP, manifest)
    small = {} if hidden else small_ones(on_map, manifest, shown)
    flaws = checked["flawed"].set_index("path")["problem"].to_dict()
    script, digest_of_script = reviewing()
    text = environment.get_template("report.html").render(
        noun=kind.noun,
        hidden=hidden,
        on_map=on_map,
        points=points.points(on_map, predictions if task.exclusive else None, shown, small, flaws),
        script=script,
        digest_of_script=digest_of_script,
        evidence="" if hidden else kind.evidence,
        similar=""
        if bundle.training_examples == "none"
        else f"the most similar training {kind.nouns}",
        augmented=settings.augment.views > 0,
        nouns=kind.nouns,
        classes=classes,
        confidence=confidence,
        examples=tables.counts(manifest),
        groups=metrics.test.get("groups"),
        group_doubts=doubts(grouped(groups(manifest[manifest["split"] == "test"]))),
        refused=len(tables.table(REFUSED)),
        refused_file=REFUSED,
        backbone=bundle.backbone,
        head=", ".join(f"{name} {value}" for name, value in sorted(used(head).items())),
        headline=tables.headline(metrics, repeats, task.measure, len(classes)),
        baselines=tables.baselines(metrics.baselines, task.measure, confidence),
        repeats=tables.rows(repeats),
        slices=tables.of_slice(sliced),
        slice_measure=tables.slice_measure(sliced).replace("_", " "),
        worst_slice=worst(sliced),
        sets=tables.of_set(tables.table(SETS)),
        commit=since_last_commit(vars(metrics), parameters(settings)),
        test_count=test_count,
        main_metrics=(f"test.{task.measure}", "test.loss", test_count),
        checks=tables.check_lines(checked, task),
        by_place=tables.by_place(checked["drift"]),
        duplicates=tables.duplicates(checked["near_duplicates"], shown),
        label_issues=tables.label_issues(checked["label_issues"], shown),
        flawed=tables.flawed(checked["flawed"], shown),
        few=tables.few(few, len(classes)),
        all_few=len(few),
        curves=tables.curves(tables.table(TRAINING)),
        heads=tables.heads(tables.table(SWEEP)),
        contact_sheet=None if hidden else contact_sheet(CONTACT_SHEET),
        made_of=made_of(bundle),
        task=task,
        learned=task.counted(len(classes)),
        mistakes=cards(mistakes, reasons(mistakes, shown, manifest), shown, right),
        **page.parts(predictions, classes),
    )
    REPORT.write_text(text, encoding="utf-8")
    shutil.rmtree(SHEETS, ignore_errors=True)
    SHEETS.mkdir()
    (SHEETS / "README.txt").write_text(README, encoding="utf-8")  # DVC warns of an empty output
    sheets = points.sheets(on_map, small)
    for name, sheet in sheets.items():
        (SHEETS / name).write_text(sheet, encoding="utf-8")
    also = f", with its thumbnails in {SHEETS}" if sheets else ""
    print(f"report: {REPORT}, {len(text.encode()) / 1e6:.1f} MB, opens in any browser{also}")


def reasons(mistakes: list[Mistake], shown: Thumbnails, manifest: pd.DataFrame) -> list[Reasons]:
    """Return the bundle's explanations for the examples of these mistakes."""
    if not mistakes:
        return []
    classifier, found = Classifier(BUNDLE, explains=True), []
    heated = {one.path for one in mistakes if one.heat_of is not None and not shown.hidden}
    rows = manifest[manifest["path"].isin(heated)]
    forms = rows.get("format", pd.Series("", index=rows.index))
    examples = zip(rows["path"], rows["digest"], forms, strict=True)
    seen = hidden_features(classifier, examples, shown.data)
    for one in mistakes:
        heat, of_one = one.path in heated, seen.get(one.path)
        answer = classifier.answer(shown.data(one.path), heat, NEAR, HEAT, of_one)
        near = [Near(each.path, each.label, each.cosine) for each in answer.neighbours]
        found.append(Reasons(classifier.classes[answer.best], answer.heat, near))
    return found


def small_ones(on_map: pd.DataFrame, manifest: pd.DataFrame, shown: Thumbnails) -> dict[str, Shown]:
    """Return the thumbnails of the examples on the map, by path."""
    rows = manifest[manifest["path"].isin(on_map["path"])]
    forms = rows.get("format", pd.Series("", index=rows.index))
    examples = zip(rows["path"], rows["digest"], forms, strict=True)
    return thumbnails(kind_in(MANIFEST), examples, shown.data, points.SIDE)


def made_of(bundle: Bundle) -> dict[str, str]:
    """Return the versions of data, weights and libraries."""
    temperature = f"{bundle.head.calibration.temperature:g}"
    return {
        "manifest": bundle.data.manifest[:12],
        "backbone": bundle.backbone.fingerprint[:12],
        "licence of its weights": bundle.backbone.licence,
        **({"temperature": temperature} if TASKS[bundle.head.task].probabilities else {}),
        **bundle.libraries,
    }


def parameters(settings: Params) -> dict[str, object]:
    """Return the parameters of earlier stages, except those of `bundle` and of optional stages."""
    sections = {
        "ingest": settings.ingest,
        "augment": settings.augment,
        "extract": settings.extract,
        "train": settings.train,
        "evaluate": settings.evaluate,
        "checks": settings.checks,
    }
    return {name: section.model_dump() for name, section in sections.items()}


if __name__ == "__main__":
    command.run(report)
