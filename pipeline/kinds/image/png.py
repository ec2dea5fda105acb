"""PNG files of 16-bit colours, all bits of them; Pillow keeps the upper 8."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

GREY_ALPHA, COLOUR = 4, (2, 4, 6)  # colour types of the header, section 11.2.1 of the specification

UPPER = np.uint16(256)  # what the upper byte counts


def is_deep(data: bytes) -> bool:
    """Whether it is a PNG of 16 bits with several channels."""
    return data[:4] == b"\x89PNG" and data[24] == 16 and data[25] in COLOUR


def values(data: bytes, file: io.BytesIO) -> tuple[NDArray[np.uint16], NDArray[np.bool_] | None]:
    """The values [height, width, channels], opacity last if there is any, and the key colour.

    Pillow is made to take the upper bytes of each value, and then to take values of the other byte
    order, whose upper bytes are the lower ones here. Grey and opacity, four bytes, are taken for
    the four channels of an 8-bit picture.
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
