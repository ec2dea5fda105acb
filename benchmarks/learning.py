"""What each way of learning is worth: frozen, augmented, finetuned, from scratch; three sets.

    python -m benchmarks learning ../shared/data/hymenoptera --part frozen --set digits --seed 3

works out one part (`frozen`, `finetune` or `scratch`) of one set (of `benchmarks/heads.py`) under
one seed, which is that of the split, the augmentation, the head and the training. All choices are
made on our own validation pictures; the test pictures (for ants and bees the set's own `val`) are
looked at once. The parts are kept in `benchmarks/learning.json`, for all of them together take
hours on two cores; without a part only the table is written.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness import Project, digits, table

SETS = ("hymenoptera", "surfaces", "digits")
FROZEN = ("augment", "extract", "train", "evaluate")
WAYS = {
    "original": "frozen, pictures as they are",
    "augmented": "frozen, four augmented views",
    "finetuned": "last blocks finetuned, training pictures alone",
    "chosen": "finetuned where validation says so",
    "scratch": "from scratch, the same epochs, training pictures alone",
}


def pictures_of(name: str, given: Path, folder: Path) -> Path | None:
    """The pictures of a set; None for the surfaces, which the pipeline cuts itself."""
    if name == "digits":
        made = folder / "pictures of digits"
        return made if made.exists() else digits(made)
    return given if name == "hymenoptera" else None


def figures(part: str, name: str, seed: int, given: Path, folder: Path) -> dict[str, Any]:
    """Test accuracy of the ways in one part on one set under one seed, and seconds of each."""
    seeded = {section: {"seed": seed} for section in ("ingest", "augment", "train", "finetune")}
    project = Project(folder, pictures_of(name, given, folder), **seeded)
    del project.environment["HEADSTART_STORE"]  # the user's own: other seeds' originals are there

    def took(*stages: str) -> float:
        return sum(cost.wall for cost in project.stages(*stages).values())

    def measured() -> dict[str, Any]:
        found: dict[str, Any] = project.report("metrics")["test"]
        return found

    accuracy: dict[str, float] = {}
    seconds: dict[str, float] = {}
    found: dict[str, Any] = {"accuracy": accuracy, "seconds": seconds}
    project.stages("ingest")
    if part == "frozen":
        for way, views in (("original", 0), ("augmented", 4)):
            project.set(augment={"views": views})
            seconds[way] = took(*FROZEN)
            accuracy[way] = measured()["accuracy"]
        found["pictures"] = measured()["pictures"]
    if part == "finetune":
        project.stages(*FROZEN)
        seconds["finetuned"] = took("finetune")
        tuned = project.report("finetune")
        accuracy["finetuned"] = tuned["test"]["finetuned"]["accuracy"]
        found["taken"] = taken = tuned["taken"]
        accuracy["chosen"] = (tuned["test"]["refit"] if taken else measured())["accuracy"]
    if part == "scratch":
        seconds["scratch"] = took("from_scratch")
        scratch = project.report("from_scratch")["from_scratch"]
        accuracy["scratch"] = scratch["test"]["accuracy"]
        found["pictures"] = scratch["test"]["pictures"]
        # How many pictures a class the frozen backbone needs to be as good on the same validation.
        seconds["frozen, alone"] = took("augment", "extract", "train")
        project.stages("learning_curve")
        tried = pd.read_csv(project.folder / "reports" / "learning_curve.csv")
        as_good = tried[tried["accuracy"] >= scratch["validation"]["accuracy"]]
        found |= {"enough": int(as_good["pictures"].min()), "all": int(tried["pictures"].max())}
    return found


def rows(known: dict[str, dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    """A row a set and way: mean, spread and range of the test accuracy, seconds."""
    for name in SETS:
        of_set = [known[key] for key in sorted(known) if key.startswith(f"{name} ")]
        for way, words in WAYS.items():
            values = np.array([row["accuracy"][way] for row in of_set if way in row["accuracy"]])
            if not len(values):
                continue
            mean, spread = values.mean(), values.std(ddof=1) if len(values) > 1 else np.nan
            pictures = next(row["pictures"] for row in of_set if "pictures" in row)
            low, high = wilson(mean, pictures)
            seconds = [row["seconds"][way] for row in of_set if way in row["seconds"]]
            took = f"{np.median(seconds):.0f}" if seconds else ""
            yield name, words, len(values), mean, spread, f"{low:.3f} to {high:.3f}", took


def wilson(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of `count` pictures (Wilson, 1927)."""
    z = 1.96
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return middle - half, middle + half


def saved(known: dict[str, dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    """A row a set: what transfer saved, in pictures and in time, beside training from scratch."""
    for name in SETS:
        of_set = [row for key, row in known.items() if key.startswith(name) and "enough" in row]
        if of_set:
            counts = (np.median([row[key] for row in of_set]) for key in ("all", "enough"))
            spent = (
                [row["seconds"][way] for row in of_set] for way in ("frozen, alone", "scratch")
            )
            yield name, len(of_set), *counts, *map(np.median, spent)


def measure(
    scratch: Path, page: Path, pictures: Path, part: str = "", set: str = "", seed: int = 0
) -> str:
    file = page.with_suffix(".json")
    known = json.loads(file.read_text()) if file.exists() else {}
    if part:
        found = figures(part, set, seed, pictures, scratch)
        row = known.setdefault(f"{set} {seed}", {"accuracy": {}, "seconds": {}})
        for key, value in found.items():
            row[key] = row[key] | value if isinstance(value, dict) else value
        file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    tuned_runs = [key for key in sorted(known) if "taken" in known[key]]
    taken = [key for key in tuned_runs if known[key]["taken"]]
    columns = "set | how | seeds | test accuracy {:.4f} | standard deviation {:.4f}"
    times = " | seconds frozen {:.0f} | from scratch {:.0f}"
    return f"""# What each way of learning is worth

EfficientNet-Lite0, the parameters of `params.yaml`, `train.refit` on: frozen heads, and finetuned
networks that were taken, have learned from validation pictures too once those had been chosen by,
the rows `training pictures alone` have not. The interval is Wilson's for one set of test pictures
of this size. Seconds are the median of a seed: for the frozen rows augment to evaluate with
whatever the store has, for the others the stage alone. Only the digits' test pictures change with
the seed.

{table(columns + " | 95 % interval | seconds", rows(known))}

What transfer saved: on how many training pictures (the smallest number that `learning_curve`
tried) the frozen backbone is as good on the validation pictures as training from scratch on all of
them, and the seconds of both on all (frozen: augment, extract and train; the originals were in the
store but for the first seed). Medians.

{table("set | seeds | training pictures {:.0f} | enough frozen {:.0f}" + times, saved(known))}

Finetuning was taken in {len(taken)} of {len(tuned_runs)} runs: {", ".join(taken)}.
"""
