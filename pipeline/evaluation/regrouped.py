"""Whether a slice differs from the rest if examples come in groups: whole groups are moved.

Groups that lie wholly inside or outside of the slice change places, as in trials that treat whole
clusters (Gail et al., 1996). In a group with examples on both sides the sides are swapped, which
turns the sign of their difference (Fisher, 1935). If the slice makes no difference, either leaves
all as likely as it was, whatever the examples of a group have in common.
"""

import math

import numpy as np
import numpy.typing as npt

from .intervals import Groups

Array = npt.NDArray[np.float64]

LEAST_GROUPS = 6  # of fewer that swap sides, none of the 32 outcomes is rare enough
LEVEL = 0.05  # a test that cannot reach it says nothing
DRAWS, AT_ONCE = 9999, 2**22
MOVES = 2**23  # of a group, in all draws: of very many groups there are fewer draws, but a tenth


def p_value(figures: Array, inside: npt.NDArray[np.bool_], groups: Groups) -> float:
    """The two-sided p-value that a slice has the rest's mean; NaN of too few groups to say so.

    Args:
        figures: [n], of each example.
        inside: [n], whether it is of the slice.
        groups: [n], its group.
    """
    inside = inside if inside[0] else ~inside  # both halves of a column are one comparison
    codes = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(codes)
    part = np.bincount(codes, inside) / sizes
    mixed = (part > 0) & (part < 1)
    # For a mixed group: by how much the inside is above the group's own mean.
    own = np.bincount(codes, figures) / sizes
    signed = np.bincount(codes, np.where(inside, figures - own[codes], 0))[mixed]
    whole, moved = ~mixed[codes], signed[:0]
    if whole.any():  # in the others the sum of how much its examples are above the mean
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
        # A permutation that changes nothing must not fall behind by a rounding.
        reached += int((np.abs(drawn) >= seen - 1e-9 * (1 + seen)).sum())
        left -= size
    return max(lowest, (1 + reached) / (1 + draws))


def least(moved: int, inside: int, signed: int) -> float:
    """The least p-value that can come out: 1 over the number of ways to move the groups.

    Every way has another of the same size if it can be turned round.
    """
    ways = math.comb(moved, inside) * 2**signed
    return float((2 if 2 * inside == moved else 1) / ways)
