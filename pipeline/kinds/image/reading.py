"""The read settings of pictures from instruments, `ingest.range` and `ingest.channels`.

A photograph file defines what its values mean. A microscope's counts do not: the user chooses which
values become black and white, and which of forty channels are used. The settings are part of the
kind's name in the manifest and in bundles, so that all code reads pictures in the same way.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...core.errors import ParamsError, RefusedError

ROWS = 1 << 18  # values scaled at once, in double precision


class Reading(NamedTuple):
    """The read settings.

    `range` sets which values become black and white. It is two numbers, or `file` for the smallest
    and largest value of each file, or `type` for the smallest and largest value of the data type (0
    and 1 for floats), or None if it is not set. `channels` are the channels that become red, green
    and blue, or grey, counted from 1; empty if they are not set.
    """

    range: str | tuple[float, float] | None = None
    channels: tuple[int, ...] = ()

    def __str__(self) -> str:
        """Format as in the kind's name, with leading spaces: ` range=0.0,4095.0 channels=3,2,1`."""
        limits = self.range if isinstance(self.range, tuple) else (self.range,) * bool(self.range)
        declared = {"range": limits, "channels": self.channels}
        return "".join(f" {key}={','.join(map(str, of))}" for key, of in declared.items() if of)


PLAIN = Reading()


def parsed(declared: dict[str, str]) -> Reading:
    """Parse the settings in a kind's name.

    Raises:
        ParamsError: the settings are not valid.
    """
    try:
        text = declared.pop("range", None)
        limits: str | tuple[float, ...] | None = text
        if text not in (None, "file", "type"):
            limits = tuple(float(number) for number in str(text).split(","))
        channels = tuple(int(c) for c in declared.pop("channels", "").split(",") if c)
        if declared or (
            isinstance(limits, tuple) and (len(limits) != 2 or not limits[0] < limits[1])
        ):
            raise ValueError
        if len(channels) not in (0, 1, 3) or not all(channel >= 1 for channel in channels):
            raise ValueError
    except ValueError:
        raise ParamsError(
            "the read settings are not valid: use a kind's name from a manifest or a bundle"
        ) from None
    return Reading(limits, channels)


def listed(channels: tuple[int, ...]) -> str:
    """Join channels, such as `3, 2, 1`."""
    return ", ".join(map(str, channels))


def check(channels: tuple[int, ...], there: int) -> None:
    """Raise `RefusedError` if a channel does not exist."""
    if max(channels) > there:
        has = f"{there} channel" + "s" * (there > 1)
        raise RefusedError(f"has {has}, but ingest.channels is {listed(channels)}")


def eight_bits(
    values: NDArray[np.generic],
    declared: str | tuple[float, float],
    whole: tuple[float, float],
    absent: NDArray[np.bool_] | None = None,
    inverted: bool = False,
) -> tuple[NDArray[np.uint8], str]:
    """Scale values to grey levels: the lower end of the range becomes 0, the upper end 255.

    Values beyond the range are clipped. All channels have the same range, so colours keep their
    balance. NaN, infinite and `absent` values become black.

    Args:
        values: [height, width] or [height, width, channels], integers or floats.
        declared: as `Reading.range`.
        whole: the data type's smallest and largest value.
        absent: in the shape of `values`, True where there is no value.
        inverted: whether high values are dark: the lower end becomes 255, the upper end 0.

    Returns:
        the levels, and the range in words.

    Raises:
        RefusedError: there is no value, all values are equal, or none is within the range.
    """
    flat = np.ascontiguousarray(values).reshape(-1)
    gone = None if absent is None else np.ascontiguousarray(absent).reshape(-1)
    least, most, black = np.inf, -np.inf, 0
    for part, missing in _parts(flat, gone):
        there = part[~missing]
        black += int(missing.sum())
        if there.size:
            least, most = min(least, float(there.min())), max(most, float(there.max()))
    if black == flat.size:
        raise RefusedError("no pixel has a value: all are NaN, infinite or absent")
    if least == most:
        raise RefusedError(f"constant: every value is {_number(least)}")
    if isinstance(declared, tuple):
        low, high = declared
    else:
        low, high = (least, most) if declared == "file" else whole
    if most <= low or least >= high:
        raise RefusedError(
            f"no value is between {_number(low)} (black) and {_number(high)} (white): the values"
            f" are from {_number(least)} to {_number(most)}"
        )
    levels = np.zeros(flat.size, np.uint8)
    at = 0
    for part, missing in _parts(flat, gone):
        with np.errstate(over="ignore", invalid="ignore"):  # for floats near the largest possible
            fraction = (np.where(missing, low, part).astype(np.float64) - low) / (high - low)
        grey = np.nan_to_num(np.clip(fraction * 255 + 0.5, 0, 255)).astype(np.uint8)
        grey = 255 - grey if inverted else grey
        levels[at : at + part.size] = np.where(missing, np.uint8(0), grey)
        at += part.size
    words = f"from {_number(low)} to {_number(high)}"
    if black:
        words += f", {black:,} without a value black"
    return levels.reshape(values.shape), words


def _parts(
    flat: NDArray[np.generic], gone: NDArray[np.bool_] | None
) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
    """Yield pieces of the values, with masks of missing values."""
    for start in range(0, flat.size, ROWS):
        part = flat[start : start + ROWS]
        missing = ~np.isfinite(part) if part.dtype.kind == "f" else np.zeros(part.size, bool)
        yield part, missing if gone is None else missing | gone[start : start + ROWS]


def _number(value: float) -> str:
    return f"{value:.9g}"
