"""Label issues by confident learning: examples that a head trained on the others sees otherwise.

After Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels"
(JAIR 70, 2021).
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.linalg import solve

from ..core.params import ChecksParams
from ..heads.head import fit_temperature, probabilities

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

FOLDS = 5
# L2 penalty over the mean square of a feature. A third of it or three times as much finds as many.
PENALTY = 0.01


def label_issues(rows: pd.DataFrame, features: Floats, settings: ChecksParams) -> pd.DataFrame:
    """A row an example whose label a head trained on the others doubts, the most doubtful first.

    `probability` is the suggested label's, `given_probability` that of the label it has. Examples
    of one group are judged together, by a head that saw none of them.
    """
    classes, labels = rows.groupby("number")["label"].first(), rows["number"].to_numpy()
    keys = rows["group"].where(rows["group"] != "", rows["digest"])
    fold = folds(keys.tolist(), settings.seed)
    shares, judged = held_out(features, labels, len(classes), fold)
    doubted, suggested = off_diagonal(shares, labels)
    every = np.arange(len(labels))
    table = rows[["path", "split", "label"]].assign(
        suggested=classes.to_numpy()[suggested],
        probability=shares[every, suggested],
        given_probability=shares[every, labels],
    )
    margin = table["probability"] - table["given_probability"]
    chosen = table.assign(margin=margin)[doubted & judged & (margin >= settings.label_issue_margin)]
    chosen = chosen.sort_values(["margin", "path"], ascending=[False, True])
    return chosen.drop(columns="margin")


def folds(keys: Sequence[str], seed: int) -> Integers:
    """The fold [n] of each example, drawn from its key alone (its digest or its group's name)."""
    drawn = [hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest() for key in keys]
    return np.array([int.from_bytes(hashed, "big") % FOLDS for hashed in drawn], dtype=np.int64)


def held_out(
    features: Floats, labels: Integers, classes: int, fold: Integers
) -> tuple[Doubles, npt.NDArray[np.bool_]]:
    """What a ridge classifier trained on the other folds says of each example.

    Its scores become probabilities by one temperature, fitted to all of them.

    Args:
        features: [n, d].
        labels: [n], positions of the classes.
        classes: how many there are.
        fold: [n], as `folds` gives it.

    Returns:
        probabilities [n, classes], and which examples [n] were judged: those whose label some
        example of another fold has.
    """
    centred = features - features.mean(axis=0)
    centred /= max(float(np.sqrt(np.square(centred).mean())), 1e-12)
    wanted = np.eye(classes, dtype=np.float32)[labels]
    scores = np.zeros(wanted.shape, dtype=np.float32)
    judged = np.zeros(len(labels), dtype=bool)
    for held in range(FOLDS):
        out = fold == held
        if out.all():
            continue
        mean, shares = centred[~out].mean(axis=0), wanted[~out].mean(axis=0)
        weights = _ridge(centred[~out] - mean, wanted[~out] - shares)
        scores[out] = (centred[out] - mean) @ weights + shares
        judged[out] = shares[labels[out]] > 0
    temperature = fit_temperature(scores[judged], labels[judged])
    return probabilities(scores, temperature), judged


def _ridge(features: Floats, wanted: Floats) -> Floats:
    """Weights [d, c]; the smaller of the two systems of equations is solved."""
    rows, dimension = features.shape
    penalty = PENALTY * rows * dimension
    if rows <= dimension:
        system = features @ features.T
        system[np.diag_indices(rows)] += penalty
        combined: Floats = solve(system, wanted, assume_a="pos")
        return features.T @ combined
    system = features.T @ features
    system[np.diag_indices(dimension)] += penalty
    weights: Floats = solve(system, features.T @ wanted, assume_a="pos")
    return weights


def off_diagonal(shares: Doubles, labels: Integers) -> tuple[npt.NDArray[np.bool_], Integers]:
    """The examples that the confident joint counts under another class than their label.

    A class's threshold is the mean probability that examples with that label get for it. An example
    counts for the most probable of the classes whose threshold it reaches, and for none where it
    reaches none.

    Args:
        shares: held-out probabilities [n, c].
        labels: [n]; every class has an example.

    Returns:
        which examples are in doubt [n], and the class that each counts for [n].
    """
    thresholds = np.array([shares[labels == c, c].mean() for c in range(shares.shape[1])])
    reached = shares >= thresholds
    counted: Integers = np.where(reached, shares, -1).argmax(axis=1)
    return reached.any(axis=1) & (counted != labels), counted
