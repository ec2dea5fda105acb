"""Stage checks: what could make the figures dishonest, found in the features; a table each."""

import json
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from .core import command, params
from .core.errors import DataError
from .core.params import ChecksParams
from .core.paths import CHECKS, CHECKS_COUNTS, FEATURES, MANIFEST
from .quality import drift, duplicates, label_issues
from .quality.duplicates import Picture
from .sources.splits import SPLITS
from .tables.features import read_manifest, read_splits
from .tables.power import raised

# Features are raised to it, as those that heads are trained on by default.
POWER = 0.5
# Decimals in tables: more would only show how the machine rounds.
DIGITS = 6
# Pictures or classes named in a line; the table has all.
NAMED = 3


def checks() -> None:
    """Look for near-duplicates, wrong labels, scarce classes and drift; write what was found."""
    knobs = params.load().checks
    manifest = read_manifest(MANIFEST)
    if "group" not in manifest:
        raise DataError(f"{MANIFEST} has no column group; run the ingest stage again")
    rows, features = originals(manifest)
    # With one thread no digit hangs on how many cores there are. It is also the faster way to solve
    # many small systems, above all beside `train`.
    with threadpool_limits(limits=1, user_api="blas"):
        pairs, compared, known = near_duplicates(rows, features, knobs.duplicate_cosine)
        found = {
            "near_duplicates": pairs,
            "label_suspects": label_suspects(rows, features, knobs),
            "few_pictures": few_pictures(manifest, knobs.least_pictures),
            "drift": drifts(rows, features, knobs),
        }
    CHECKS.mkdir(parents=True, exist_ok=True)
    for name, table in found.items():
        file = CHECKS / f"{name}.csv"
        table.to_csv(file, index=False, float_format=f"%.{DIGITS}g", lineterminator="\n")
    drifted = found["drift"][found["drift"]["drifted"]]
    counts = {name: len(table) for name, table in found.items() if name != "drift"}
    counts["drifted_splits"] = len(drifted)
    CHECKS_COUNTS.write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")

    _say(
        "near_duplicates",
        "near-duplicate across splits",
        "near-duplicates across splits",
        [f"{one} ~ {other}" for one, other in zip(pairs["path"], pairs["other_path"], strict=True)],
    )
    doubted = found["label_suspects"][["path", "label", "suggested"]].itertuples(index=False)
    _say(
        "label_suspects",
        "label suspect",
        "label suspects",
        [f"{path} ({label}, or {suggested}?)" for path, label, suggested in doubted],
    )
    scarce = found["few_pictures"][["class", "train"]].itertuples(index=False)
    scarcely = f"fewer than {knobs.least_pictures} training pictures"
    _say(
        "few_pictures",
        f"class with {scarcely}",
        f"classes with {scarcely}",
        [f"{name} ({count})" for name, count in scarce],
    )
    _say(
        "drift",
        "split unlike the training pictures",
        "splits unlike the training pictures",
        [f"{row.split} (p {row.p_value:g})" for row in drifted.itertuples()],
    )
    print(f"checks: {compared} pairs of pictures compared, {known} of them in earlier runs")


def _say(name: str, one: str, many: str, found: list[str]) -> None:
    if not found:
        print(f"checks: no {many}")
        return
    named = ", ".join(found[:NAMED]) + (", …" if len(found) > NAMED else "")
    what = one if len(found) == 1 else many
    print(f"checks: {len(found)} {what}: {named}; see {CHECKS / name}.csv")


def originals(manifest: pd.DataFrame) -> tuple[pd.DataFrame, label_issues.Floats]:
    """View 0 of every picture: its row of the manifest and its features [n, d], by digest.

    The rows' column `number` is the position of the label among the sorted labels.
    """
    classes = sorted(manifest["label"].unique())
    digests, features = [], []
    for split in read_splits(FEATURES, manifest, classes, SPLITS).values():
        first = split.views == 0
        digests.append(split.digests[first])
        features.append(split.features[first])
    joined = np.concatenate(digests)
    order = np.argsort(joined)
    rows = manifest.set_index("digest").loc[joined[order]].reset_index()
    rows["number"] = pd.Index(classes).get_indexer(rows["label"])
    return rows, raised(np.concatenate(features)[order], POWER)


def near_duplicates(
    rows: pd.DataFrame, features: label_issues.Floats, least: float
) -> tuple[pd.DataFrame, int, int]:
    """A row a pair of pictures of different splits that show the same, the most alike first.

    Beside the table, how many pairs' pixels were compared, and how many of these in earlier runs.

    Args:
        rows: as `originals` gives them, n of them.
        features: [n, d].
        least: cosine of two features, less their mean, from which on the pixels are compared.
    """
    # The mean of few pictures would be these pictures; it counts ten more, of zeros.
    centred = features - features.sum(axis=0) / (len(features) + 10)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    directions = centred / np.maximum(lengths, np.finfo(np.float32).tiny)
    place = rows["split"].map(SPLITS.index).to_numpy()
    pairs = []
    for later in range(1, len(SPLITS)):
        ours, earlier = np.flatnonzero(place == later), np.flatnonzero(place < later)
        if len(ours) and len(earlier):
            near = duplicates.candidates(directions[ours], directions[earlier], least)
            pairs += [(ours[i], earlier[j], cosine) for i, j, cosine in near]
    files = [Picture(*row) for row in zip(rows["path"], rows["digest"], strict=True)]
    alike, known = duplicates.compare([(files[one], files[other]) for one, other, _ in pairs])
    kept = [pairs[i] for i in np.flatnonzero(alike)]
    columns = ["path", "split", "label"]
    one = rows[columns].iloc[[pair[0] for pair in kept]].reset_index(drop=True)
    other = rows[columns].iloc[[pair[1] for pair in kept]].reset_index(drop=True)
    table = pd.concat([one, other.add_prefix("other_")], axis=1)
    table["cosine"] = np.array([pair[2] for pair in kept], dtype=float)
    table = table.sort_values(["cosine", "path", "other_path"], ascending=[False, True, True])
    return table, len(pairs), known


def label_suspects(
    rows: pd.DataFrame, features: label_issues.Floats, knobs: ChecksParams
) -> pd.DataFrame:
    """A row a picture whose label a head trained on the others doubts, the most doubtful first.

    `probability` is the suggested label's, `given_probability` that of the label it has. Pictures
    of one group are judged together, by a head that saw none of them.
    """
    classes, labels = rows.groupby("number")["label"].first(), rows["number"].to_numpy()
    keys = rows["group"].where(rows["group"] != "", rows["digest"])
    fold = label_issues.folds(keys.tolist(), knobs.seed)
    shares, judged = label_issues.held_out(features, labels, len(classes), fold)
    doubted, suggested = label_issues.off_diagonal(shares, labels)
    every = np.arange(len(labels))
    table = rows[["path", "split", "label"]].assign(
        suggested=classes.to_numpy()[suggested],
        probability=shares[every, suggested],
        given_probability=shares[every, labels],
    )
    margin = table["probability"] - table["given_probability"]
    chosen = table.assign(margin=margin)[doubted & judged & (margin >= knobs.suspect_margin)]
    chosen = chosen.sort_values(["margin", "path"], ascending=[False, True])
    return chosen.drop(columns="margin")


def few_pictures(manifest: pd.DataFrame, least: int) -> pd.DataFrame:
    """A row a class with fewer than `least` training pictures: its pictures in each split."""
    counts = manifest.groupby(["label", "split"]).size().unstack(fill_value=0)
    counts = counts.reindex(columns=SPLITS, fill_value=0)
    scarce = counts[counts["train"] < least].sort_index()
    return scarce.rename_axis("class").rename_axis(columns=None).reset_index()


def drifts(rows: pd.DataFrame, features: label_issues.Floats, knobs: ChecksParams) -> pd.DataFrame:
    """A row for val and for test: whether their pictures look like the training pictures."""
    labels, split = rows["number"].to_numpy(), rows["split"].to_numpy()
    train = split == "train"
    table: list[dict[str, Any]] = []
    for name in SPLITS[1:]:
        ours = split == name
        found = drift.test(features[train], labels[train], features[ours], labels[ours], knobs.seed)
        table.append(
            {"split": name, "pictures": int(ours.sum())}
            | found._asdict()
            | {"drifted": found.p_value <= knobs.drift_level}
        )
    return pd.DataFrame(table)


if __name__ == "__main__":
    command.run(checks)
