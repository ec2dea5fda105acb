"""What a site computes: sums of its features, a linear softmax head by SGD, and how good one is.

All of it is numpy on one thread, in float32. A head here is its weight [c, d] and bias [c] on
features that were centred and scaled by what all sites have together.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.heads.head import Floats, Head, one_thread, probabilities

Floats64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
# At which temperatures the loss on validation examples is told: steps of 7 % from 0.2 to 5.
TEMPERATURES = np.geomspace(0.2, 5, 47)


@dataclass(frozen=True)
class Recipe:
    """How a site trains in a round; `decay` and `proximal` are L2 penalties (`penalty / 2 * |·|²`).

    `rate` is in units of 1 / d, the inverse of the mean square length of a scaled vector: 1 is
    about the largest step of which gradient descent is sure (the softmax's curvature is below
    |x|² / 2; Böhning, 1992).
    """

    epochs: int
    batch: int
    rate: float
    decay: float
    proximal: float = 0.0


def moments(features: Floats) -> tuple[Floats64, float]:
    """The mean [d] of rows, and the mean square of all their numbers."""
    wide = features.astype(np.float64)
    return wide.mean(axis=0), float(np.square(wide).mean())


def scale_of(mean: Floats64, square: float) -> float:
    """The root of the mean square around the mean, as `heads.fit.centre_and_scale` has it."""
    variance = square - float(np.square(mean).mean())
    return float(np.sqrt(variance)) if variance > 0 else 1.0


def trained(
    weight: Floats, bias: Floats, features: Floats, labels: Labels, recipe: Recipe, seed: int
) -> tuple[Floats, Floats]:
    """The head after `recipe.epochs` passes of SGD over the rows, from `weight` and `bias` on.

    It lowers the mean cross-entropy of the rows, plus both penalties of the weight. FedProx (Li et
    al., MLSys 2020) penalises the distance to the head that the round began with, bias too.

    Args:
        weight: [c, d].
        bias: [c].
        features: [n, d], centred and scaled.
        labels: [n], positions of classes.
        recipe: how.
        seed: of the order of the rows.
    """
    order = np.random.default_rng(seed)
    first, free = weight.copy(), bias.copy()
    weight, bias = weight.copy(), bias.copy()
    rate = np.float32(recipe.rate / features.shape[1])
    # A rate that is too high ends in numbers that are not finite, which whoever asked looks for.
    with one_thread(), np.errstate(over="ignore", invalid="ignore"):
        for _ in range(recipe.epochs):
            rows = order.permutation(len(labels))
            for start in range(0, len(rows), recipe.batch):
                some = rows[start : start + recipe.batch]
                seen, wanted = features[some], labels[some]
                error = probabilities(seen @ weight.T + bias).astype(np.float32)
                error[np.arange(len(some)), wanted] -= 1
                error /= len(some)
                slope = error.T @ seen
                if recipe.decay:
                    slope += np.float32(recipe.decay) * weight
                tilt = error.sum(axis=0)
                if recipe.proximal:
                    slope += np.float32(recipe.proximal) * (weight - first)
                    tilt += np.float32(recipe.proximal) * (bias - free)
                weight -= rate * slope
                bias -= rate * tilt
    return weight, bias


def told(weight: Floats, bias: Floats, features: Floats, labels: Labels) -> Floats64:
    """How good a head is on a site's validation examples, as sums: they add up across sites.

    Returns:
        how many examples there are, how many are right, and the summed cross-entropy at each of
        `TEMPERATURES`.
    """
    sums = np.zeros(2 + len(TEMPERATURES))
    if len(labels):
        logits = (features @ weight.T + bias).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        of_label = logits[np.arange(len(labels)), labels]
        sums[0], sums[1] = len(labels), (logits.argmax(axis=1) == labels).sum()
        for number, temperature in enumerate(TEMPERATURES):
            partition = np.log(np.exp(logits / temperature).sum(axis=1))
            sums[2 + number] = (partition - of_label / temperature).sum()
    return sums


@dataclass(frozen=True)
class Judged:
    """What all sites' validation examples say of a head; `loss` is at temperature 1."""

    examples: int
    accuracy: float
    loss: float
    temperature: float


def judged(shares: Floats64, sites: int) -> Judged | None:
    """What the sites' sums of `told` say; None without validation examples.

    The temperature is the one of `TEMPERATURES` with the lowest loss.

    Args:
        shares: the sums over all sites, and a 1 of each site, divided by all their rows.
        sites: how many these are.
    """
    sums = shares[:-1] / shares[-1] * sites
    if sums[0] < 0.5:
        return None
    losses = sums[2:] / sums[0]
    one = int(np.argmin(np.abs(TEMPERATURES - 1)))
    best = float(f"{TEMPERATURES[int(np.argmin(losses))]:.3g}")
    return Judged(round(sums[0]), float(sums[1] / sums[0]), float(losses[one]), best)


def in_raw_units(weight: Floats, bias: Floats, mean: Floats, scale: float) -> Head:
    """The head that takes features as they are, of one that takes them centred and scaled."""
    folded = (weight / np.float32(scale)).astype(np.float32)
    return Head(folded, (bias - folded @ mean).astype(np.float32))
