"""Last stage, report: one HTML page that tells a person what came out and what to doubt.

The page needs nothing but itself. It is a function of the stage's inputs but for one thing that
DVC cannot watch: the commit that the run is compared with, which the page names.
"""

import base64
import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml
from markupsafe import Markup
from PIL import Image, ImageOps

from .core import command, params
from .core.errors import DataError
from .core.paths import (
    BUNDLE,
    CHECKS,
    CLASSES,
    CONTACT_SHEET,
    MANIFEST,
    METRICS,
    PLOTS,
    PREDICTIONS,
    REFUSED,
    REPORT,
    SWEEP,
    TRAINING,
)
from .kinds.image import decode
from .pages import charts
from .serving.classifier import Classifier
from .tables.features import read_manifest

SHOWN = 12  # mistakes, suspects and pairs that have their pictures on the page
NEAR = 3  # training pictures beside a mistake
MOST_DRAWN = 40  # classes; a larger matrix is no longer legible on a page
MOST_ROWS = 20  # of the tables of confused classes and of heads
THUMBNAIL = 160  # pixels of a side
WITHOUT_PERCENT = ("loss", "calibration_error")
NAMES = ("class", "label", "predicted", "other_label", "suggested")  # columns of classes
FOUND = ("near_duplicates", "label_suspects", "few_pictures", "drift")


def report() -> None:
    """Write the page from what the stages before have left."""
    confidence = f"{100 * params.load().evaluate.confidence:g} %"
    manifest, metrics = read_manifest(MANIFEST), json.loads(_text(METRICS))
    about = json.loads(_text(BUNDLE / "bundle.json"))
    predictions, classes = _table(PREDICTIONS), about["classes"]
    checked = {name: _table(CHECKS / f"{name}.csv") for name in FOUND}
    shown = Thumbnails(manifest)
    with Image.open(CONTACT_SHEET) as sheet:
        contact_sheet = _inline(sheet.convert("RGB"), "WEBP", quality=80)

    template = (Path(__file__).parent / "pages" / "report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(template).render(
        classes=classes,
        confidence=confidence,
        pictures=_counts(manifest),
        refused=len(_table(REFUSED)),
        refused_file=REFUSED,
        backbone=about["backbone"],
        head=", ".join(f"{name} {value}" for name, value in about["head"]["knobs"].items()),
        headline=headline(metrics),
        commit=since_last_commit(metrics),
        checks=check_lines(checked),
        duplicates=_duplicates(checked["near_duplicates"], shown),
        suspects=_suspects(checked["label_suspects"], shown),
        few=_rows(checked["few_pictures"]),
        mistakes=mistakes(predictions, shown),
        confusion=_confusion(predictions, classes),
        confused=confused(predictions),
        of_class=_of_class(_table(CLASSES)),
        curves=_curves(_table(TRAINING)),
        reliability=_drawing(charts.reliability(_table(PLOTS / "reliability.csv"))),
        heads=_heads(_table(SWEEP)),
        contact_sheet=contact_sheet,
        made_of=_made_of(about),
    )
    REPORT.write_text(page, encoding="utf-8")
    print(f"report: {REPORT}, {len(page.encode()) / 1e6:.1f} MB, opens in any browser")


class Thumbnails:
    """Pictures of the manifest, small, as addresses that hold them."""

    def __init__(self, manifest: pd.DataFrame) -> None:
        """Know each picture's digest by its path."""
        self._digests = dict(zip(manifest["path"], manifest["digest"], strict=True))
        self._made: dict[str, str] = {}

    def data(self, path: str) -> bytes:
        """The bytes of a picture's file, which are those that were ingested.

        Raises:
            DataError: they are not, or the manifest does not have it.
        """
        if path not in self._digests:
            raise DataError(f"{path} is not in {MANIFEST}; run `dvc repro`")
        return decode.read(Path(path), self._digests[path])

    def __call__(self, path: str) -> str:
        """The picture at `path`, cut to a square."""
        if path not in self._made:
            picture = decode.decode(self.data(path), shorter_side=THUMBNAIL)
            self._made[path] = _inline(ImageOps.fit(picture, (THUMBNAIL, THUMBNAIL)))
        return self._made[path]


def _inline(picture: Image.Image, kind: str = "JPEG", quality: int = 85) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=quality)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def headline(metrics: dict[str, Any]) -> list[dict[str, str]]:
    """Name, value and interval of each measure on the test pictures, accuracy first."""
    test, ends = metrics["test"], metrics["interval"]
    order = sorted(ends, key=lambda name: name != "accuracy")
    return [
        {
            "name": name.replace("_", " ").replace("f1", "F1"),
            "value": _figure(name, test[name]),
            "low": _figure(name, ends[name]["low"]),
            "high": _figure(name, ends[name]["high"]),
        }
        for name in order
    ]


def _figure(name: str, value: float) -> str:
    return f"{value:.3f}" if name in WITHOUT_PERCENT else f"{100 * value:.1f} %"


def mistakes(predictions: pd.DataFrame, shown: Thumbnails) -> list[dict[str, Any]]:
    """The wrong answers of the highest probability, with their reasons."""
    wrong = predictions[~predictions["correct"]].sort_values(
        ["probability", "path"], ascending=[False, True]
    )
    if not len(wrong):
        return []
    classifier = Classifier(BUNDLE, reasons=True)
    found = []
    for row in wrong.head(SHOWN).itertuples():
        answer = classifier.answer(shown.data(row.path), heat=True, neighbours=NEAR)
        heat = Image.fromarray(answer.heat) if answer.heat is not None else None
        found.append(
            {
                "path": row.path,
                "label": row.label,
                "predicted": row.predicted,
                "probability": f"{row.probability:.3f}",
                "picture": shown(row.path),
                "heat": _inline(heat.resize((THUMBNAIL, THUMBNAIL))) if heat else None,
                "neighbours": [
                    {
                        "path": near.path,
                        "label": near.label,
                        "cosine": near.cosine,
                        "picture": shown(near.path),
                    }
                    for near in answer.neighbours
                ],
            }
        )
    return found


def confused(predictions: pd.DataFrame) -> list[dict[str, Any]]:
    """Which class is taken for which other, the most frequent first."""
    wrong = predictions[~predictions["correct"]]
    counts = wrong.groupby(["label", "predicted"]).size().reset_index(name="pictures")
    counts = counts.sort_values(["pictures", "label", "predicted"], ascending=[False, True, True])
    return _rows(counts.rename(columns={"label": "actual"}).head(MOST_ROWS))


def _confusion(predictions: pd.DataFrame, classes: list[str]) -> Markup | None:
    if len(classes) > MOST_DRAWN:
        return None
    counted = pd.crosstab(predictions["label"], predictions["predicted"])
    counts = counted.reindex(index=classes, columns=classes, fill_value=0).to_numpy()
    return _drawing(charts.confusion(counts, classes))


def _curves(table: pd.DataFrame) -> list[Markup]:
    """Loss and accuracy by epoch; none of a head that was solved for, whose table has one row."""
    if len(table) < 2:
        return []
    return [_drawing(charts.curves(table, measure)) for measure in ("loss", "accuracy")]


def _drawing(svg: str) -> Markup:
    """An SVG of `charts`, which has escaped the names in it, to be taken as it is."""
    return Markup(svg)  # noqa: S704


def _of_class(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The table of classes with each measure in per cent, a dash where it is not defined."""
    shown = table.astype(object)
    for name in table.columns.difference(["class", "pictures", "predicted"]):
        shown[name] = table[name].map(lambda share: f"{100 * share:.0f} %", na_action="ignore")
    return _rows(shown.fillna("–"))


def _heads(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The best of the heads that were tried, with the knobs that they read."""
    if len(table) < 2:
        return []
    return _rows(table.dropna(axis="columns", how="all").head(MOST_ROWS).fillna(""))


def check_lines(found: dict[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """What each check of `reports/checks/` found, in a sentence."""
    pairs, suspects, few, _ = (len(found[name]) for name in FOUND)
    lines = [
        (
            pairs,
            "No picture has a near-duplicate in another split.",
            f"Near-duplicates across splits: {pairs}.",
        ),
        (suspects, "No label looks wrong.", f"Labels that look wrong: {suspects}."),
        (few, "No class has few training pictures.", f"Classes with few training pictures: {few}."),
    ]
    for row in found["drift"].itertuples():
        words = f"{row.split} and training pictures"
        if pd.isna(row.p_value):
            lines.append((False, f"No class has both {words}: drift was not looked for.", ""))
            continue
        words += f" (p = {row.p_value:.3g})"
        lines.append((row.drifted, f"No drift seen between {words}.", f"Drift between {words}."))
    return [{"found": bool(n), "words": some if n else none} for n, none, some in lines]


def _duplicates(table: pd.DataFrame, shown: Thumbnails) -> list[dict[str, Any]]:
    return [
        row | {"picture": shown(row["path"]), "other_picture": shown(row["other_path"])}
        for row in _rows(table.head(SHOWN))
    ]


def _suspects(table: pd.DataFrame, shown: Thumbnails) -> list[dict[str, Any]]:
    return [
        row
        | {
            "picture": shown(row["path"]),
            "given": f"{row['given_probability']:.3f}",
            "probability": f"{row['probability']:.3f}",
        }
        for row in _rows(table.head(SHOWN))
    ]


def since_last_commit(metrics: dict[str, Any]) -> dict[str, Any]:
    """Which parameters and metrics differ from those in git's last commit."""
    last = _git("log", "-1", "--format=%h%n%s")
    if last is None:
        return {"known": False, "why_not": "There is no commit to compare with yet."}
    committed = _git("show", f"HEAD:./{METRICS}")
    if committed is None:
        words = f"{METRICS} is not in the last commit. Commit it, and here stands what has changed."
        return {"known": False, "why_not": words}
    commit, _, subject = last.partition("\n")
    now = parameters()
    try:
        before = dict(json.loads(committed))
        knobs = dict(yaml.safe_load(_git("show", "HEAD:./params.yaml") or "{}"))
    except (ValueError, TypeError, yaml.YAMLError):
        words = f"{METRICS} or params.yaml of the last commit, {commit}, cannot be read."
        return {"known": False, "why_not": words}
    return {
        "known": True,
        "hash": commit,
        "subject": subject.strip(),
        "parameters": list(differences({name: knobs.get(name, {}) for name in now}, now)),
        "metrics": list(differences(before, metrics)),
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The leaves of two nested documents that differ: name, before, now, change of a number."""

    def shown(value: Any) -> str:
        return f"{value:g}" if isinstance(value, float) else str(value)

    old, new = (pd.json_normalize(document).to_dict("records")[0] for document in (before, now))
    for name in [*new, *(name for name in old if name not in new)]:
        one, other = old.get(name, "–"), new.get(name, "–")
        if one != other:
            numbers = isinstance(one, int | float) and isinstance(other, int | float)
            change = f"{other - one:+.4g}" if numbers else ""
            yield {"name": name, "before": shown(one), "now": shown(other), "change": change}


def parameters() -> dict[str, Any]:
    """Those of the stages before; an optional stage's say nothing of this run."""
    sections = {
        "ingest": params.load().ingest,
        "augment": params.load().augment,
        "extract": params.load().extract,
        "train": params.load().train,
        "evaluate": params.load().evaluate,
        "checks": params.load().checks,
    }
    return {name: section.model_dump() for name, section in sections.items()}


def _git(*arguments: str) -> str | None:
    """What git says, or None where there is no git, no repository or no such thing."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    except FileNotFoundError:
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


def _counts(manifest: pd.DataFrame) -> dict[str, int]:
    counts = manifest["split"].value_counts()
    return {"total": len(manifest)} | {s: int(counts.get(s, 0)) for s in ("train", "val", "test")}


def _made_of(about: dict[str, Any]) -> dict[str, str]:
    """Versions of data, weights and libraries, as the bundle has them."""
    return {
        "manifest": about["data"]["manifest"][:12],
        "backbone": about["backbone"]["fingerprint"][:12],
        "temperature": f"{about['calibration']['temperature']:g}",
        **about["libraries"],
    }


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{file} is not here; run `dvc repro`") from None


def _table(file: Path) -> pd.DataFrame:
    # A class may be called 7, or NA.
    text = dict.fromkeys(NAMES, str)
    return pd.read_csv(io.StringIO(_text(file)), dtype=text, keep_default_na=False, na_values=[""])


if __name__ == "__main__":
    command.run(report)
