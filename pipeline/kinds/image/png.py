"""PNG files with 16-bit colours, with all their bits; Pillow keeps only the upper 8."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

GREY_ALPHA, COLOUR = 4, (2, 4, 6)  # colour types of the header, section 11.2.1 of the specification

UPPER = np.uint16(256)  # the weight of the upper byte


def is_deep(data: bytes) -> bool:
    """Return whether a file is a PNG with several channels of 16 bits."""
    return data[:4] == b"\x89PNG" and data[24] == 16 and data[25] in COLOUR


def values(data: bytes, file: io.BytesIO) -> tuple[NDArray[np.uint16], NDArray[np.bool_] | None]:
    """Return the values [height, width, channels], alpha last, and a mask of the key colour.

    Pillow decodes the upper bytes first, and then, with the other byte order, the lower bytes. Grey
    with alpha, four bytes per pixel, is decoded as an 8-bit picture with four channels. The mask is
    None if there is no key colour.
    """
    if data[25] == GREY_ALPHA:
        both = _unpacked(file, "RGBA").astype(np.uint16)
        return both[..., ::2] * UPPER + both[..., 1::2], None
    channels = "RGB" if data[25] == 2 else "RGBA"
    upper = _unpacked(file, f"{channels};16B").astype(np.uint16)
    file.seek(0)
    whole = upper * UPPER + _unpacked(file, f"{channels};16L")
    file.seek(0)
    with Image.open(file, formats=("PNG",)) as image:
        key = image.info.get("transparency")
    is_key = isinstance(key, tuple) and len(key) == 3
    return whole, (whole == np.array(key)).all(axis=2) if is_key else None


def _unpacked(file: io.BytesIO, raw_mode: str) -> NDArray[np.uint8]:
    image = Image.open(file, formats=("PNG",))
    assert isinstance(image, ImageFile.ImageFile)  # noqa: S101 (it was opened from a file)
    image.tile = [tile._replace(args=raw_mode) for tile in image.tile]
    image.load()
    return np.asarray(image)
