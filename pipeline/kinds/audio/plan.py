"""The plan of augmentation: the views of each training sound, drawn without decoding it."""

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
    """Cast the section `augment`, which `params.load` has validated with this kind's schema."""
    return cast(Augment, settings)


def plan(digests: list[str], settings: Augment) -> pd.DataFrame:
    """Plan the views of each sound, one row per view, sorted by digest and view number.

    A view's random numbers depend on its sound's digest, its own number and the seed. Each random
    number has a fixed use, so a different range of the gain does not change shift, noise and speed.
    """
    rows = [
        (digest, number, *draw(digest, number, settings))
        for digest in sorted(digests)
        for number in range(1, settings.views + 1)
    ]
    return pd.DataFrame(rows, columns=list(TYPES)).astype(TYPES)


def draw(digest: str, number: int, settings: Augment) -> View:
    """Draw the view `number` of the sound `digest`."""
    speed, shift, noisy, snr, seed, gain = units(f"{settings.seed}:{digest}:{number}", 6)
    has_noise = noisy < settings.noise
    return View(
        speed=round(1 + (2 * speed - 1) * settings.speed, 4),
        shift=round((2 * shift - 1) * settings.shift, 4),
        snr=round(settings.snr + 20 * snr, 2) if has_noise else QUIET,
        seed=int(seed * 2**32) if has_noise else 0,
        gain=round((2 * gain - 1) * settings.gain, 2),
    )
