"""Pictures: bytes in, upright sRGB pixels out, or a reason why not.

Only formats named in `FORMATS` are ever opened, told by content and not by file name: some of
Pillow's other formats start programs (EPS) or hold documents rather than photographs.
"""

import hashlib
import io
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from pipeline.errors import DataError

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 120_000_000  # a 108-megapixel telephone picture passes; a decompression bomb does not
MIN_SIDE = 4
REDUCING_GAP = 2.0  # a JPEG is decoded at a half, quarter or eighth only if this much is left over

# The limit above is checked before any pixel is decoded and gives its own words.
Image.MAX_IMAGE_PIXELS = None
Image.init()


class RefusedError(DataError):
    """A file that is not taken as a picture; the text is the reason."""


class Inspection(NamedTuple):
    """What ingest knows of a picture: SHA-256, upright size in pixels, Pillow's format name."""

    digest: str
    width: int
    height: int
    format: str


def digest(data: bytes) -> str:
    """The SHA-256 of `data`, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def inspect(data: bytes) -> Inspection:
    """Check that `data` is a picture that can be decoded to its end.

    A JPEG is decoded at an eighth of its size: every bit of it is read, few pixels are made.

    Raises:
        RefusedError: with the reason, in a few words.
    """
    image = _open(data)
    width, height = _upright_size(image)
    image.draft(None, (1, 1))  # no effect on other formats
    _load(image)
    return Inspection(digest(data), width, height, str(image.format))


def decode(data: bytes, shorter_side: int | None = None) -> Image.Image:
    """The picture as upright 8-bit sRGB.

    Turned by its EXIF orientation, converted by its embedded colour profile, transparency laid on
    white, the first frame of an animation, 16-bit values divided by 256.

    Args:
        data: the file's bytes.
        shorter_side: pixels that the caller will scale the shorter side to. A JPEG at least
            `2 * REDUCING_GAP` times as large is decoded at a half, a quarter or an eighth, in the
            frequency domain (Pillow's `draft`).

    Raises:
        RefusedError: as `inspect`.
    """
    image = _open(data)
    if shorter_side is not None:
        wanted = round(shorter_side * REDUCING_GAP)
        image.draft(None, (wanted, wanted))
    _load(image)
    upright = ImageOps.exif_transpose(image)
    return _to_srgb(upright)


def read(path: Path, expected_digest: str) -> bytes:
    """The bytes of a picture of the manifest, checked against the digest it has there.

    Raises:
        DataError: the file is gone or is another than the one that was ingested.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise DataError(f"{path}: {reason}; run ingest again (dvc repro)") from None
    if digest(data) != expected_digest:
        raise DataError(f"{path} changed after it was ingested; run dvc repro again")
    return data


def _open(data: bytes) -> Image.Image:
    if not data:
        raise RefusedError("empty file")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise RefusedError(f"not a picture in a known format ({_looks_like(data)})") from None
    except Exception as error:  # Pillow's readers raise many kinds on hostile bytes
        raise RefusedError(f"damaged header ({_reason(error)})") from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise RefusedError(f"too large: {width} × {height} is over {MAX_PIXELS:,} pixels")
    if min(width, height) < MIN_SIDE:
        raise RefusedError(f"too small: {width} × {height}, at least {MIN_SIDE} a side")
    if image.mode == "F":
        raise RefusedError("floating-point pixels have no stated range")
    return image


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except Exception as error:  # as above: the kind depends on the format and the damage
        raise RefusedError(f"damaged or cut short ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _looks_like(data: bytes) -> str:
    start = data[:256].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "it is a web page"
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        return "HEIC; convert it to JPEG"
    return "its first bytes are " + data[:8].hex(" ")


def _upright_size(image: Image.Image) -> tuple[int, int]:
    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    width, height = image.size
    return (height, width) if turned else (width, height)


def _to_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    if "A" in image.mode or "transparency" in image.info:
        picture = image.convert("RGBA")
        image = Image.new("RGBA", picture.size, "white")
        image.alpha_composite(picture)
        image = image.convert("RGB")
    if profile and image.mode in ("RGB", "CMYK", "L"):
        transform = _transform(profile, image.mode)
        if transform is not None:
            image = ImageCms.applyTransform(image, transform) or image
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From an embedded profile to sRGB; None where it is sRGB already or does not fit."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None  # a damaged or foreign profile: the pixels are taken as sRGB, as browsers do


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    """The picture as an array [height, width, 3] of 8-bit values."""
    return np.asarray(image, dtype=np.uint8)
