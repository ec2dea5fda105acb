"""Pictures on pages: small as a JPEG, or in full size as a PNG."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .. import Shown
from .decode import decode
from .reading import PLAIN, Reading

QUALITY = 85


def thumbnail(data: bytes, side: int, reading: Reading = PLAIN) -> Shown:
    """Return the picture, at most `side` pixels wide and high.

    Raises:
        RefusedError: as in `decode.decode`.
    """
    picture = decode(data, side, reading)
    picture.thumbnail((side, side))
    return _file(picture, "JPEG")


def encoded(pixels: NDArray[np.uint8], side: int | None) -> Shown:
    """Encode pixels [height, width, 3] as a PNG; with a `side`, as a square JPEG of that size."""
    picture = Image.fromarray(pixels)
    return _file(picture, "PNG") if side is None else _file(picture.resize((side, side)), "JPEG")


def _file(picture: Image.Image, form: str) -> Shown:
    buffer = io.BytesIO()
    picture.save(buffer, form, quality=QUALITY)
    return Shown(f"image/{form.lower()}", buffer.getvalue())
