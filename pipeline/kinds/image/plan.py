"""The plan of augmentation: the views of each training picture, drawn without decoding it."""

from typing import cast

import pandas as pd

from ...core.params import Augmentation
from ...examples.drawn import units
from .parameters import Augment
from .views import View


def as_augment(settings: Augmentation) -> Augment:
    """Cast the section `augment`, which `params.load` has validated with this kind's schema."""
    return cast(Augment, settings)


def plan(digests: list[str], settings: Augment) -> pd.DataFrame:
    """Plan the views of each picture, one row per view, sorted by digest and view number.

    A view's random numbers depend on its picture's digest, its own number and the seed, and not on
    other pictures or the number of views. Each random number has a fixed use, so a different range
    of the rotation does not change scale and flips.
    """
    rows = [
        (digest, number, *draw(digest, number, settings))
        for digest in sorted(digests)
        for number in range(1, settings.views + 1)
    ]
    columns = ["digest", "view", "angle", "scale", "hflip", "vflip"]
    types = {
        "digest": "str",
        "view": "int32",
        "angle": float,
        "scale": float,
        "hflip": bool,
        "vflip": bool,
    }
    return pd.DataFrame(rows, columns=columns).astype(types)


def draw(digest: str, number: int, settings: Augment) -> View:
    """Draw the view `number` of the picture `digest`."""
    angle, scale, hflip, vflip = units(f"{settings.seed}:{digest}:{number}", 4)
    return View(
        angle=round((2 * angle - 1) * settings.rotate, 4),
        scale=round(1 + (2 * scale - 1) * settings.scale, 6),
        hflip=hflip < settings.hflip,
        vflip=vflip < settings.vflip,
    )
