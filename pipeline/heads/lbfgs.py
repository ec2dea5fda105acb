"""L-BFGS for many outputs side by side, each with a loss of its own: labels, or numbers by Huber.

The outputs share nothing but the features, so each has its own direction, step and end; but one
product of features and weights serves them all, which takes a tenth of the time of as many
products with vectors. The features are turned to their principal axes, along which the covariance
tells how far to go: L-BFGS (Nocedal, 1980) starts each direction from there, and needs some dozens
of iterations.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .head import Floats

Floats64 = npt.NDArray[np.float64]
Positions = npt.NDArray[np.intp]

MOST_ITERATIONS = 1000
# An objective may lie above its minimum by about half of this share of itself, and of `LEAST`.
TOLERANCE = 1e-8
ENOUGH = 1e-5  # the same, where float32 sees no way further down
SLACK = 1e-7  # share of the objective by which it may seem to rise, in float32
LEAST = 1e-3  # below it objectives are as good as 0
LEAST_CURVE = 1e-8  # of a step, beside the lengths of the step and of the change of the slope
PAIRS = 10  # the last steps that are remembered
MOST_HALVINGS = 25
TOGETHER = 32  # outputs; not by the number of cores, which must change no byte
AT_ONCE = 2**21  # logits


@dataclass(frozen=True)
class Axes:
    """Rows on their principal axes.

    `turned` is [n, r + 1], the first column all 1; `variances` [r + 1] of its columns, 1 for the
    first; `axes` [d, r] turns back.
    """

    turned: Floats
    variances: Floats64
    axes: Floats

    @classmethod
    def of(cls, features: Floats) -> "Axes":
        """Those of features [n, d] of mean zero; there are no more than rows."""
        rows, dimension = features.shape
        if rows < dimension:
            values, vectors = np.linalg.eigh((features @ features.T).astype(np.float64))
            kept = values > 1e-6 * max(values[-1], 1e-300)
            axes = (features.T @ (vectors[:, kept] / np.sqrt(values[kept]))).astype(np.float32)
            variances = values[kept] / rows
        else:
            values, vectors = np.linalg.eigh((features.T @ features / rows).astype(np.float64))
            axes, variances = vectors.astype(np.float32), np.maximum(values, 0)
        turned = np.ones((rows, 1 + axes.shape[1]), dtype=np.float32)
        turned[:, 1:] = features @ axes
        return cls(turned, np.append(1.0, variances), np.ascontiguousarray(axes))


def minima(
    loss: str, axes: Axes, labels: Floats, cells: Floats, decays: Sequence[float]
) -> tuple[list[Floats64], list[bool]]:
    """For each of the decays the weights of the lowest objectives, and whether these were reached.

    An objective is `cells` times the losses, added up, and `decay / 2 * |weight|^2`.

    Args:
        loss: `binary` or `huber`.
        axes: of n rows.
        labels: [n, c].
        cells: [n, c]; a column adds up to 1.
        decays: strengths of the L2 penalty.

    Returns:
        weights [c, r + 1] on the axes, the bias first.
    """
    outputs = labels.shape[1]
    parts = [slice(at, at + TOGETHER) for at in range(0, outputs, TOGETHER)]

    def solve(part: slice) -> list[tuple[Floats64, bool]]:
        rows = _Rows(loss, axes.turned, labels[:, part].copy(), cells[:, part].copy())
        weights, curvature = _start(rows)
        found: dict[float, tuple[Floats64, bool]] = {}
        # From the strongest penalty to the weakest, each from where the one before ended.
        for decay in sorted(set(decays), reverse=True):
            hessian = curvature[:, None] * axes.variances
            hessian[:, 1:] += max(decay, 1e-7 * float(hessian.max()))
            weights, reached = _descend(rows, weights, decay, 1 / hessian)
            found[decay] = weights, reached
        return [found[decay] for decay in decays]

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        solved = list(threads.map(solve, parts))
    return (
        [np.concatenate([part[at][0] for part in solved]) for at in range(len(decays))],
        [all(part[at][1] for part in solved) for at in range(len(decays))],
    )


@dataclass(frozen=True)
class _Rows:
    """Labels and cells [n, k] of k outputs, and the rows [n, r + 1] that they share."""

    loss: str
    turned: Floats
    labels: Floats
    cells: Floats

    def objective(
        self, weights: Floats64, some: Positions, decay: float
    ) -> tuple[Floats64, Floats64]:
        """The objectives [m] of the outputs `some` at `weights` [m, r + 1], and their slopes."""
        single = np.ascontiguousarray(weights.T, dtype=np.float32)
        total, gradient = np.zeros(len(some)), np.zeros(weights.shape)
        size = max(32, AT_ONCE // len(some))
        for start in range(0, len(self.turned), size):
            part = slice(start, start + size)
            logits = self.turned[part] @ single
            labels, cells = self.labels[part][:, some], self.cells[part][:, some]
            if self.loss == "binary":
                powers = np.exp(-np.abs(logits))
                losses = np.maximum(logits, 0) - logits * labels + np.log1p(powers)
                slopes = np.where(logits >= 0, np.float32(1), powers) / (1 + powers) - labels
            else:
                away = logits - labels
                slopes = np.clip(away, -1, 1)
                losses = slopes * (away - slopes / 2)
            total += np.einsum("nk,nk->k", losses, cells, dtype=np.float64)
            gradient += (slopes * cells).T @ self.turned[part]
        penalised = weights[:, 1:]
        gradient[:, 1:] += decay * penalised
        return total + decay / 2 * np.einsum("kd,kd->k", penalised, penalised), gradient


def _start(rows: _Rows) -> tuple[Floats64, Floats64]:
    """Where outputs begin, [k, r + 1], and how much their losses curve there, [k].

    A label begins at its share of positives, a number at 0.
    """
    outputs = rows.labels.shape[1]
    weights = np.zeros((outputs, rows.turned.shape[1]))
    if rows.loss == "huber":
        return weights, np.ones(outputs)
    share = np.einsum("nk,nk->k", rows.cells, rows.labels, dtype=np.float64)
    share = np.clip(share, 1e-6, 1 - 1e-6)
    weights[:, 0] = np.log(share / (1 - share))
    return weights, share * (1 - share)


def _descend(
    rows: _Rows, weights: Floats64, decay: float, inverse: Floats64
) -> tuple[Floats64, bool]:
    """The weights [k, r + 1] where the objectives are lowest, and whether all are there.

    Args:
        rows: k outputs.
        weights: where to begin.
        decay: strength of the L2 penalty.
        inverse: [k, r + 1], of the Hessian's diagonal, about.
    """
    found, reached = weights.copy(), np.zeros(len(weights), dtype=bool)
    live = np.arange(len(weights))
    now = weights.copy()
    height, gradient = rows.objective(now, live, decay)
    moved: list[Floats64] = []
    bent: list[Floats64] = []
    for _ in range(MOST_ITERATIONS):
        direction = -_two_loops(gradient, inverse[live], moved, bent)
        slope = np.einsum("kd,kd->k", direction, gradient)
        goal = np.maximum(height, LEAST)
        there = slope > -TOLERANCE * goal
        step, lower, turned = _step(rows, live, now, direction, height, slope, decay, ~there)
        stuck = ~there & (step == 0)
        reached[live[there | (stuck & (slope > -ENOUGH * goal))]] = True
        going = ~(there | stuck)
        change = step[:, None] * direction
        found[live] = now + change
        if not going.any():
            break
        moved, bent = [*moved, change][-PAIRS:], [*bent, turned - gradient][-PAIRS:]
        if not going.all():
            moved, bent = [one[going] for one in moved], [one[going] for one in bent]
        live, now = live[going], (now + change)[going]
        height, gradient = lower[going], turned[going]
    return found, bool(reached.all())


def _two_loops(
    gradient: Floats64, inverse: Floats64, moved: list[Floats64], bent: list[Floats64]
) -> Floats64:
    """The gradients [k, r + 1] times the inverse Hessians that the last steps tell (Nocedal)."""

    # A step along which the slope grew by no more than its rounding tells of no curvature.
    curves = [_dot(one, other) for one, other in zip(moved, bent, strict=True)]
    tells = [
        curve > LEAST_CURVE * np.sqrt(_dot(one, one) * _dot(other, other))
        for curve, one, other in zip(curves, moved, bent, strict=True)
    ]

    def part(some: Floats64, at: int) -> Floats64:
        return np.divide(some, curves[at], out=np.zeros_like(some), where=tells[at])

    direction = gradient.copy()
    shares: list[Floats64] = []
    for at in reversed(range(len(moved))):
        shares.insert(0, part(_dot(moved[at], direction), at))
        direction -= shares[0][:, None] * bent[at]
    direction *= inverse
    if moved:
        size = np.maximum(_dot(bent[-1], inverse * bent[-1]), 1e-300)
        direction *= np.where(tells[-1], curves[-1] / size, 1)[:, None]
    for at, share in enumerate(shares):
        direction += (share - part(_dot(bent[at], direction), at))[:, None] * moved[at]
    return direction


def _dot(one: Floats64, other: Floats64) -> Floats64:
    return np.asarray(np.einsum("kd,kd->k", one, other))


def _step(
    rows: _Rows,
    live: Positions,
    now: Floats64,
    direction: Floats64,
    height: Floats64,
    slope: Floats64,
    decay: float,
    wanted: npt.NDArray[np.bool_],
) -> tuple[Floats64, Floats64, Floats64]:
    """How far to go, [k], with the objectives and the gradients there.

    Halved until the objective is lower by a share of what the slope promises (Armijo, 1966); 0
    where it never is, and where no step is wanted.
    """
    step, lower, turned = np.zeros(len(live)), height.copy(), np.zeros_like(now)
    asked, length = np.flatnonzero(wanted), 1.0
    for _ in range(MOST_HALVINGS):
        if not len(asked):
            break
        tried = now[asked] + length * direction[asked]
        reached, gradient = rows.objective(tried, live[asked], decay)
        allowed = height[asked] + 1e-4 * length * slope[asked] + SLACK * height[asked]
        good = reached <= allowed
        at = asked[good]
        step[at], lower[at], turned[at] = length, reached[good], gradient[good]
        asked, length = asked[~good], length / 2
    return step, lower, turned
