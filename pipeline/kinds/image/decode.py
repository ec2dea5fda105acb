"""Pictures: bytes in, upright sRGB pixels out, or a reason why not.

`docs/pictures.md` has the outcome for every kind of file. Only formats named in `FORMATS` are ever
opened, told by content and not by file name: some of Pillow's other formats start programs (EPS)
or hold documents rather than photographs.

What bounds the time and memory that one file can take, however it was made: `most_bytes`,
`MAX_PIXELS`, `MAX_SCANS` and `MAX_READS`; `tests/faults/fuzz.md` has the slowest files within them.
"""

import contextlib
import io
import re
import threading
import warnings
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageFile, TiffImagePlugin, UnidentifiedImageError

from ...core.errors import RefusedError
from . import FORMATS

MAX_PIXELS = 120_000_000  # a 108-megapixel telephone picture passes; a decompression bomb does not
MAX_SCANS = 100  # of a JPEG of MAX_PIXELS; a smaller one may have as many more (real ones have 10)
MAX_READS = 5_000_000  # of a file while it is decoded; more only where it consists of tiny pieces
MAX_PROFILE_BYTES = 4_000_000  # of an embedded colour profile; a printer's have one or two million
MIN_SIDE = 4
REDUCING_GAP = 2.0  # a JPEG is decoded at a half, quarter or eighth only if this much is left over

# Larger ones take hundreds of megabytes each, so these are read and decoded one at a time.
LARGE_PIXELS = 25_000_000
LARGE_BYTES = 32_000_000
_one_large = threading.RLock()

# Pillow raises at twice its limit, also for sizes that turn up while it reads, and warns before.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
# What it says in warnings is either in the reason or of no matter (damaged EXIF).
warnings.filterwarnings("ignore", module=r"PIL\.")
# Pillow's own reader takes 100 µs a strip, of which a small file may name millions, and mixes up
# 16-bit colours that are stored plane by plane; libtiff does neither.
TiffImagePlugin.READ_LIBTIFF = True
Image.init()  # two threads must not do it at once

TURNS = {  # EXIF orientation → what sets the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # but no restart marker
START_OF_IMAGE, END_OF_IMAGE, START_OF_SCAN = 0xD8, 0xD9, 0xDA


class Inspection(NamedTuple):
    """What is known of a picture without its pixels: upright size, and a name of `FORMATS`."""

    width: int
    height: int
    format: str


class _Reader(io.BytesIO):
    """The bytes of a file, to be read in at most `MAX_READS` pieces.

    Pillow takes most headers apart in Python, a few microseconds and a hundred bytes of memory a
    piece, of which a file can hold a hundred million.
    """

    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise RefusedError(f"made of over {MAX_READS:,} pieces")
        return super().read(size)


def large(path: Path) -> contextlib.AbstractContextManager[object]:
    """What to read and decode `path` in, so that only one large file is held at a time."""
    try:
        size = path.stat().st_size
    except OSError:
        size = 0  # `load` will say what is wrong
    return _one_large if size > LARGE_BYTES else contextlib.nullcontext()


def inspect(data: bytes) -> Inspection:
    """Check that `data` is a picture that `decode` takes.

    A JPEG is decoded at an eighth of its size: every bit of it is read, few pixels are made.

    Raises:
        RefusedError: with the reason, in a few words.
    """
    image = _open(data)
    if image.format == "PNG":
        _verify(image)  # its pixels' checksums, which decoding leaves out
        image = _open(data)
    width, height = image.size
    _pixels(image, shorter_side=1)
    if _orientation(image) in (5, 6, 7, 8):
        width, height = height, width
    name = "JPEG" if image.format == "MPO" else str(image.format)  # an MPO is several JPEGs
    return Inspection(width, height, name)


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
    return _pixels(_open(data), shorter_side)


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    """The picture as an array [height, width, 3] of 8-bit values."""
    return np.asarray(image, dtype=np.uint8)


def _open(data: bytes) -> ImageFile.ImageFile:
    """The picture with its header read and no pixel decoded."""
    try:
        image = Image.open(_Reader(data), formats=FORMATS)
    except RefusedError:
        raise
    except UnidentifiedImageError:
        raise RefusedError(f"not a picture in a known format ({_looks_like(data)})") from None
    except Image.DecompressionBombError:
        raise RefusedError(f"too large: over {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # Pillow's readers raise many kinds on hostile bytes
        raise RefusedError(f"damaged header ({_reason(error)})") from None
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise RefusedError(f"too small: {width} × {height}, at least {MIN_SIDE} a side")
    if image.mode == "F":
        raise RefusedError("floating-point pixels have no stated range")
    in_letters = image.format == "PPM" and data[:2] in (b"P1", b"P2", b"P3")
    if in_letters and width * height > MAX_READS:
        raise RefusedError(f"made of over {MAX_READS:,} pieces")
    if image.format in ("JPEG", "MPO") and _too_many_scans(data, width * height):
        raise RefusedError("a JPEG of too many scans, each a pass over all its pixels")
    return image


def _verify(image: ImageFile.ImageFile) -> None:
    try:
        image.verify()
    except RefusedError:
        raise
    except Exception as error:  # as above: the kind depends on the damage
        raise RefusedError(f"damaged or cut short ({_reason(error)})") from None


def _pixels(image: ImageFile.ImageFile, shorter_side: int | None) -> Image.Image:
    """The opened picture's pixels, upright 8-bit sRGB."""
    is_large = image.width * image.height > LARGE_PIXELS
    with _one_large if is_large else contextlib.nullcontext():
        try:
            if shorter_side is not None:
                wanted = round(shorter_side * REDUCING_GAP)
                image.draft(None, (wanted, wanted))  # no effect on formats other than JPEG
            image.load()
            picture = _to_srgb(image)
            turn = TURNS.get(_orientation(image))
            return picture if turn is None else picture.transpose(turn)
        except RefusedError:
            raise
        except Exception as error:  # as above
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


def _too_many_scans(data: bytes, pixel_count: int) -> bool:
    """Whether decoding the JPEG passes over its pixels so often that it takes minutes.

    A scan of a few bytes may refine nothing in a hundred million pixels; libjpeg-turbo's authors
    describe the trick (https://libjpeg-turbo.org/pmwiki/uploads/About/TwoIssueswiththeJPEGStandard.pdf).
    """
    allowed = MAX_SCANS * MAX_PIXELS / pixel_count
    if data.count(bytes([0xFF, START_OF_SCAN])) <= allowed:  # quick, and never too few
        return False
    scans = position = 0
    while found := JPEG_MARKER.search(data, position):
        marker, position = found[1][0], found.end()
        if marker == END_OF_IMAGE:
            break
        if marker not in (0x01, START_OF_IMAGE):  # the others give their segment's length
            position += int.from_bytes(data[position : position + 2], "big")
        scans += marker == START_OF_SCAN
    return scans > allowed


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where there is none, it makes no sense, or EXIF is damaged."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
        return int(value) if value in TURNS else 1
    except Exception:  # of many kinds; the pixels are sound all the same
        return 1


def _to_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    alpha = None
    if image.has_transparency_data:
        grey = image.mode in ("1", "L", "LA", "La")
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("L" if grey else "RGB")
    if image.mode not in ("RGB", "CMYK", "L"):
        image = image.convert("RGB")
    transform = srgb_transform(profile, image.mode) if isinstance(profile, bytes) else None
    if transform is not None:
        image = transform.apply(image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    if alpha is not None:
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=alpha)
        image = white
    return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey divided by 256."""
    levels = np.asarray(image)
    if levels.min() < 0 or levels.max() > 65535:
        raise RefusedError("integer pixels beyond 16 bits have no stated range")
    grey = Image.fromarray((levels >> 8).astype(np.uint8))
    see_through = image.info.get("transparency")  # a PNG may name one level
    if see_through is not None:
        grey.putalpha(Image.fromarray(np.where(levels == see_through, 0, 255).astype(np.uint8)))
    return grey


@lru_cache(maxsize=16)
def srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From an embedded profile to sRGB; None where it is sRGB already or cannot be used.

    Pixels of a damaged profile, or of one for another kind of pixel, are taken as sRGB, as
    browsers take them.
    """
    if len(profile) > MAX_PROFILE_BYTES:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None
    if mode == "RGB":
        # Many profiles describe sRGB, under many names; what they do to colours tells them.
        steps = np.arange(0, 256, 15, dtype=np.uint8)
        colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
        moved = pixels(transform.apply(Image.fromarray(colours)))
        if np.abs(moved.astype(int) - colours).max() <= 2:
            return None
    return transform
