"""The plan of augmentation: which views each training sound has, before there are samples."""

from typing import cast

import pandas as pd

from ...core.params import Augmentation
from ...examples.drawn import units
from . import QUIET
from .parameters import Augment
from .views import View

TYPES = {
    "digest": "str",
    "view": "int32",
    "speed": float,
    "shift": float,
    "snr": float,
    "seed": "int64",
    "gain": float,
}


def as_augment(settings: Augmentation) -> Augment:
    """The section `augment`, which `params.load` has checked against this kind's schema."""
    return cast(Augment, settings)


def plan(digests: list[str], settings: Augment) -> pd.DataFrame:
    """The views of each sound, one row per view, sorted by digest and view number.

    A view's random numbers come from its sound's digest, its own number and the seed, and each
    number has its fixed use: another range for the gain leaves shift, noise and speed as they were.
    """
    rows = [
        (digest, number, *draw(digest, number, settings))
        for digest in sorted(digests)
        for number in range(1, settings.views + 1)
    ]
    return pd.DataFrame(rows, columns=list(TYPES)).astype(TYPES)


def draw(digest: str, number: int, settings: Augment) -> View:
    """The view `number` of the sound `digest`."""
    speed, shift, noisy, snr, seed, gain = units(f"{settings.seed}:{digest}:{number}", 6)
    has_noise = noisy < settings.noise
    return View(
        speed=round(1 + (2 * speed - 1) * settings.speed, 4),
        shift=round((2 * shift - 1) * settings.shift, 4),
        snr=round(settings.snr + 20 * snr, 2) if has_noise else QUIET,
        seed=int(seed * 2**32) if has_noise else 0,
        gain=round((2 * gain - 1) * settings.gain, 2),
    )
