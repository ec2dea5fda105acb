"""Permutation test of whether a slice differs from the rest if examples come in groups.

Groups that are wholly inside or outside the slice are permuted, as in cluster-randomised trials
(Gail et al., 1996). In a group with examples on both sides the sides are swapped, which flips the
sign of their difference (Fisher, 1935). If the slice makes no difference, both operations leave the
distribution unchanged, whatever the examples of a group have in common.
"""

import math

import numpy as np
import numpy.typing as npt

from .intervals import Groups

Array = npt.NDArray[np.float64]

LEAST_GROUPS = 6  # with 5 groups that swap sides, none of the 32 outcomes is rare enough
LEVEL = 0.05  # significance level; a test that cannot reach it is left out
DRAWS, AT_ONCE = 9999, 2**22
MOVES = 2**23  # group moves over all draws; very many groups have fewer draws, at least a tenth


def p_value(figures: Array, inside: npt.NDArray[np.bool_], groups: Groups) -> float:
    """Return the two-sided p-value for equal means of a slice and the rest; NaN for too few groups.

    Args:
        figures: [n], the value of each example.
        inside: [n], whether each example is in the slice.
        groups: [n], the group of each example.
    """
    inside = inside if inside[0] else ~inside  # a slice and its complement are one comparison
    codes = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(codes)
    part = np.bincount(codes, inside) / sizes
    mixed = (part > 0) & (part < 1)
    # For mixed groups: the sum of the inside examples' deviations from the group's mean.
    own = np.bincount(codes, figures) / sizes
    signed = np.bincount(codes, np.where(inside, figures - own[codes], 0))[mixed]
    whole, moved = ~mixed[codes], signed[:0]
    if whole.any():  # for the others: the sum of deviations from the mean
        above = np.where(whole, figures - figures[whole].mean(), 0)
        moved = np.bincount(codes, above)[~mixed]
    chosen = part[~mixed] == 1
    many = int(chosen.sum())
    if not 0 < many < len(moved):
        moved, chosen, many = moved[:0], chosen[:0], 0
    lowest = least(len(moved), many, len(signed))
    if len(moved) + len(signed) < LEAST_GROUPS or lowest > LEVEL:
        return math.nan
    seen = abs(moved[chosen].sum() + signed.sum())
    generator = np.random.default_rng(0)
    draws = max(DRAWS // 10, min(DRAWS, MOVES // (len(moved) + len(signed))))
    reached, left = 0, draws
    while left:
        size = min(left, max(1, AT_ONCE // (len(moved) + len(signed))))
        drawn = generator.permuted(np.tile(moved, (size, 1)), axis=1)[:, :many].sum(axis=1)
        drawn += generator.choice([-1.0, 1.0], (size, len(signed))) @ signed
        # The tolerance counts a permutation that changes nothing, despite rounding errors.
        reached += int((np.abs(drawn) >= seen - 1e-9 * (1 + seen)).sum())
        left -= size
    return max(lowest, (1 + reached) / (1 + draws))


def least(moved: int, inside: int, signed: int) -> float:
    """Return the lowest possible p-value: 1 over the number of ways to move the groups.

    It is 2 over that number if each way has a mirror image with the same absolute statistic.
    """
    ways = math.comb(moved, inside) * 2**signed
    return float((2 if 2 * inside == moved else 1) / ways)
