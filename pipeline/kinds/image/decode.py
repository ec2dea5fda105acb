"""Decode pictures to upright sRGB pixels, or refuse them with a reason.

`docs/pictures.md` has the result for every kind of file. Only the formats in `FORMATS` are opened,
detected by content and not by file name, because some of Pillow's other formats start programs
(EPS) or are documents. A `Reading` has the settings for values that are not colours (`reading.py`);
the modules `tiff`, `png` and `dicom` read such values.

Four limits bound the time and memory that one file takes, even a malicious one: `most_bytes`,
`MAX_PIXELS`, `MAX_SCANS` and `MAX_READS`. `tests/faults/fuzz.md` lists the slowest files within
these limits.
"""

import contextlib
import io
import logging
import math
import re
import threading
import warnings
from functools import cache, lru_cache
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageFile, TiffImagePlugin, UnidentifiedImageError

from ...core import packages
from ...core.errors import RefusedError
from ...examples import files
from . import FORMATS, dicom, flaws, png, tiff
from .reading import PLAIN, Reading, check, eight_bits, listed

OPENED = tuple(name for name in FORMATS if name not in ("DICOM", "HEIF"))  # by Pillow itself

MAX_PIXELS = 120_000_000  # accepts 108-megapixel phone pictures, but no decompression bombs
MAX_SCANS = 100  # for a JPEG of MAX_PIXELS; proportionally more if smaller (10 are usual)
MAX_READS = 5_000_000  # while a file is decoded; only files of tiny pieces need more
MAX_PROFILE_BYTES = 4_000_000  # size of an embedded colour profile; printer profiles have 1 to 2 MB
MIN_SIDE = 4
TOO_LARGE = (
    f"too large: over {MAX_PIXELS:,} pixels; cut it into tiles first, for instance with OpenSlide,"
    " tiatoolbox or `vips dzsave`"
)
REDUCING_GAP = 2.0  # a JPEG decoded at a reduced size is still larger than needed by this factor

# Larger pictures take hundreds of megabytes each, so they are decoded one at a time.
LARGE_PIXELS = 25_000_000
LARGE_BYTES = 32_000_000
_one_large = threading.RLock()

Image.init()  # not thread-safe

TURNS = {  # EXIF orientation → transposition that makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # except restart markers
DIVIDED = "16 bits divided by 256"
START_OF_IMAGE, END_OF_IMAGE, START_OF_SCAN = 0xD8, 0xD9, 0xDA


class _Settings:
    """Changes Pillow's settings while threads decode here, and then restores them.

    The settings of Pillow, warnings and logging are global, and other code in the process may use
    Pillow too. The changes do not affect pictures that other threads read at the same time. A
    change of Pillow's pixel limit would, so `_open` has its own limit.
    """

    SILENT = r"PIL\.(?#here)"  # a unique filter, so that it can be found and removed

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._threads:
                self._set()
            self._threads += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                self._undo.close()

    def _set(self) -> None:
        # Pillow's own reader takes 100 µs per strip, and a small file may have millions of strips.
        # It also mixes up 16-bit colours in separate planes. libtiff has neither problem.
        before = TiffImagePlugin.READ_LIBTIFF
        self._undo.callback(setattr, TiffImagePlugin, "READ_LIBTIFF", before)
        TiffImagePlugin.READ_LIBTIFF = True
        # Pillow's warnings are either in the reason or irrelevant (damaged EXIF). Pictures must be
        # accepted even if the user turns warnings into errors.
        self._undo.callback(self._hear)
        warnings.filterwarnings("ignore", module=self.SILENT)
        logger = logging.getLogger("PIL")
        self._undo.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)

    def _hear(self) -> None:
        kept = [one for one in warnings.filters if getattr(one[3], "pattern", "") != self.SILENT]
        cast(list[Any], warnings.filters)[:] = kept


_settings = _Settings()


class Inspection(NamedTuple):
    """The columns of the manifest for a picture: upright size and a name of `FORMATS`.

    read_as: describes which part of the file is used and how its values become pixels; empty for
    an ordinary picture. low, high and sharpness: as in `flaws.Measures`.
    """

    width: int
    height: int
    format: str
    read_as: str = ""
    low: int = 0
    high: int = 255
    sharpness: float = math.nan


class _Reader(io.BytesIO):
    """The bytes of a file, which can be read in at most `MAX_READS` pieces.

    Pillow parses most headers in Python, with a few microseconds and a hundred bytes of memory per
    piece, and a file can have a hundred million pieces.
    """

    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise RefusedError(_too_many_pieces())
        return super().read(size)


def large(path: Path, most_bytes: int) -> contextlib.AbstractContextManager[object]:
    """Return a context manager for decoding `path`, which admits one large file at a time.

    Raises:
        RefusedError: the file is too large.
    """
    size = files.size(path)  # 0 if it is not a file, for which reading raises the error
    if size > most_bytes:
        raise RefusedError(
            f"too large: {size / 1e6:,.0f} MB, at most {most_bytes / 1e6:.0f} MB; cut it"
            " into tiles first, for instance with OpenSlide, tiatoolbox or `vips dzsave`"
        )
    return _one_large if size > LARGE_BYTES else contextlib.nullcontext()


def inspect(data: bytes, reading: Reading = PLAIN) -> Inspection:
    """Check that `decode` accepts a picture, and describe it.

    A large JPEG is decoded at a half, a quarter or an eighth of its size: the whole file is read,
    but few pixels are computed.

    Raises:
        RefusedError: the picture is not accepted; the text says why.
    """
    with _settings:
        return _inspected(data, reading)


def _inspected(data: bytes, reading: Reading) -> Inspection:
    if (measured := _measured(data, reading)) is not None:
        picture, name, words = measured
        (width, height), more = picture.size, ""
    else:
        image = _open(data, reading)
        if image.format == "PNG":
            _verify(image)  # the checksums of the pixels, which decoding ignores
            image = _open(data, reading)
        width, height = image.size
        words = _words(image, data, reading)
        picture, more = _pixels(image, flaws.SIDE // 2, data, reading)
        if _orientation(image) in (5, 6, 7, 8):
            width, height = height, width
        name = "JPEG" if image.format == "MPO" else str(image.format)  # an MPO is several JPEGs
    low, high, sharpness = flaws.measure(picture)
    return Inspection(width, height, name, _joined(words, more), low, high, sharpness)


def decode(data: bytes, shorter_side: int | None = None, reading: Reading = PLAIN) -> Image.Image:
    """Decode a picture to upright 8-bit sRGB.

    The picture is rotated by its EXIF orientation and converted by its embedded colour profile.
    Transparency becomes white, and only the first frame of an animation is used. 16-bit values are
    divided by 256 unless a range is set.

    Args:
        shorter_side: pixels to which the caller will scale the shorter side. A JPEG at least
            `2 * REDUCING_GAP` times as large is decoded at a half, a quarter or an eighth, in the
            frequency domain (Pillow's `draft`).

    Raises:
        RefusedError: as in `inspect`.
    """
    with _settings:
        if (measured := _measured(data, reading)) is not None:
            return measured.picture
        return _pixels(_open(data, reading), shorter_side, data, reading)[0]


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    """Convert a picture to an array [height, width, 3] of 8-bit values."""
    return np.asarray(image, dtype=np.uint8)


class Measured(NamedTuple):
    """A picture that Pillow did not decode: upright RGB, a name of `FORMATS`, and `read_as`."""

    picture: Image.Image
    format: str
    words: str


def _measured(data: bytes, reading: Reading) -> Measured | None:
    """Decode a DICOM file, or a TIFF whose values are not colours; None for other files."""
    if dicom.is_dicom(data):
        with _one_large if len(data) > LARGE_BYTES else contextlib.nullcontext():
            levels, words = dicom.picture(_Reader(data), reading, MAX_PIXELS)
        _check_size(levels.shape[1], levels.shape[0])
        grey = levels.ndim == 2
        picture, more = _picked(Image.fromarray(levels).convert("RGB"), grey, reading)
        return Measured(picture, "DICOM", _joined(words, more))
    if reading == PLAIN or not tiff.is_tiff(data):
        return None
    places = tiff.pages(data)
    if not places:
        return None
    page = tiff.page(data, places[0])
    deep = page.bits > 8
    if tiff.holds_colours(page) or not (reading.channels or deep):
        return None
    if page.photometric == tiff.CMYK and not reading.channels:
        raise RefusedError("a range for 16-bit CMYK makes no sense: save it as 16-bit RGB")
    _check_size(page.width, page.height)
    if page.width * page.height > MAX_PIXELS:
        raise RefusedError(TOO_LARGE)
    with _one_large if len(data) > LARGE_BYTES else contextlib.nullcontext():
        try:
            values, words = tiff.channels(data, reading.channels)
            inverted = page.photometric == tiff.WHITE_IS_ZERO
            levels, more = _levels(values, reading, inverted)
        except RefusedError:
            raise
        except Exception as error:  # libtiff raises many kinds on malicious files
            raise RefusedError(f"damaged or cut short ({_reason(error)})") from None
    picture = Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels).convert("RGB")
    turn = TURNS.get((page.tags.get(tiff.ORIENTATION) or (1,))[0])  # a damaged field is empty
    picture = picture if turn is None else picture.transpose(turn)
    return Measured(picture, "TIFF", _joined(words, more))


def _levels(
    values: NDArray[np.generic], reading: Reading, inverted: bool
) -> tuple[NDArray[np.uint8], str]:
    """Convert a TIFF's values to grey levels, inverted if 0 is white; describe the conversion."""
    kind = values.dtype
    if kind == np.uint8:
        plain = values.astype(np.uint8)
        return 255 - plain if inverted else plain, ""
    if reading.range is not None:
        whole = (0.0, 1.0)
        if kind.kind in "ui":
            ends = np.iinfo(str(kind))
            whole = (float(ends.min), float(ends.max))
        levels, words = eight_bits(values, reading.range, whole, inverted=inverted)
        return levels, f"{kind} {words}"
    if kind == np.uint16:
        upper = (values.astype(np.uint16) >> 8).astype(np.uint8)
        return 255 - upper if inverted else upper, DIVIDED
    raise RefusedError(f"{kind} values have no stated range; set ingest.range")


def _joined(*words: str) -> str:
    return ", ".join(filter(None, words))


def _open(data: bytes, reading: Reading = PLAIN) -> ImageFile.ImageFile:
    """Open a picture by reading its header, without decoding pixels."""
    try:
        image = _opened(data)
    except RefusedError:
        raise
    except UnidentifiedImageError:
        raise RefusedError(_unknown(data)) from None
    except Image.DecompressionBombError:
        raise RefusedError(_too_large()) from None
    except Exception as error:  # Pillow's readers raise many kinds on malicious files
        raise RefusedError(f"damaged header ({_reason(error)})") from None
    width, height = image.size
    if width * height > MAX_PIXELS:  # the size of everything that Pillow will allocate
        raise RefusedError(TOO_LARGE)
    _check_size(width, height)
    if image.mode == "F" and reading.range is None:
        raise RefusedError("floating-point pixels have no stated range; set ingest.range")
    in_letters = image.format == "PPM" and data[:2] in (b"P1", b"P2", b"P3")
    if in_letters and width * height > MAX_READS:
        raise RefusedError(_too_many_pieces())
    if image.format in ("JPEG", "MPO") and _too_many_scans(data, width * height):
        raise RefusedError(
            "a JPEG with too many scans, each of which goes over all its pixels: save it again"
        )
    return image


def _too_many_pieces() -> str:
    return f"too many pieces: over {MAX_READS:,} chunks, segments or numbers; save it again as PNG"


def _too_large() -> str:
    """Return why Pillow refuses a large picture; its limit may be lower than `MAX_PIXELS`."""
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    if limit >= MAX_PIXELS:
        return TOO_LARGE
    return f"too large: over {limit:,} pixels, twice what PIL.Image.MAX_IMAGE_PIXELS is set to here"


def _opened(data: bytes) -> ImageFile.ImageFile:
    try:
        return Image.open(_Reader(data), formats=OPENED)
    except UnidentifiedImageError:
        if not is_heic(data):
            raise
    _learn_heic()
    return Image.open(_Reader(data), formats=("HEIF",))


def is_heic(data: bytes) -> bool:
    """Return whether a file begins like HEIC; AVIF may begin in the same way."""
    return data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc")


@cache
def _learn_heic() -> None:
    """Register the HEIC plugin of Pillow."""
    try:
        import pi_heif
    except ImportError:
        raise RefusedError(
            "HEIC, which needs pi-heif: convert it to JPEG, or"
            f" {packages.how_to_install('instruments')}"
        ) from None
    pi_heif.register_heif_opener()


def _check_size(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise RefusedError(f"too small: {width} × {height}, at least {MIN_SIDE} a side")


def _words(image: ImageFile.ImageFile, data: bytes, reading: Reading) -> str:
    """Describe which part of an opened file is used, and whether 16 bits are reduced to 8."""
    many = len(tiff.pages(data)) if image.format == "TIFF" else 1
    deep = image.mode.startswith("I") or (image.format == "PNG" and data[24] == 16)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        deep = deep or 16 in image.tag_v2.get(tiff.BITS, ())
    lines = [f"page 1 of {many}"] if many > 1 else []
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # If the file has more channels than a picture can have, Pillow uses the first ones.
        there, taken = int(image.tag_v2.get(tiff.SAMPLES, 1)), len(image.getbands())
        if there > taken:
            first = listed(tuple(range(1, taken + 1)))
            lines.append(f"channel{'s' * (taken > 1)} {first} of {there}")
    return _joined(*lines, DIVIDED * (deep and reading.range is None))


def _verify(image: ImageFile.ImageFile) -> None:
    try:
        image.verify()
    except RefusedError:
        raise
    except Exception as error:  # as above, many kinds
        raise RefusedError(f"damaged or cut short ({_reason(error)})") from None


def _pixels(
    image: ImageFile.ImageFile, shorter_side: int | None, data: bytes, reading: Reading
) -> tuple[Image.Image, str]:
    """Decode an opened picture to upright 8-bit sRGB; also describe the settings applied."""
    is_large = image.width * image.height > LARGE_PIXELS
    with _one_large if is_large else contextlib.nullcontext():
        try:
            if shorter_side is not None:
                wanted = round(shorter_side * REDUCING_GAP)
                image.draft(None, (wanted, wanted))  # no effect on formats other than JPEG
            ranged, words = _ranged(image, data, reading)
            image.load()
            grey = image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")
            picture, more = _picked(_to_srgb(image if ranged is None else ranged), grey, reading)
            turn = TURNS.get(_orientation(image))
            picture = picture if turn is None else picture.transpose(turn)
            return picture, _joined(words, more)
        except RefusedError:
            raise
        except Exception as error:  # as above
            raise RefusedError(f"damaged or cut short ({_reason(error)})") from None


def _ranged(
    image: ImageFile.ImageFile, data: bytes, reading: Reading
) -> tuple[Image.Image | None, str]:
    """Scale a picture of more than 8 bits by the set range; None for 8 bits or without a range.

    The colour profile is ignored, because the values are measurements.
    """
    if reading.range is None:
        return None, ""
    if png.is_deep(data):
        values, key = png.values(data, _Reader(data))
        colours = values[..., : 1 if values.shape[2] == 2 else 3]
        levels, words = eight_bits(colours, reading.range, (0.0, 65535.0))
        picture = Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)
        opacity = values[..., -1] // 256 if values.shape[2] in (2, 4) else None
        seen = opacity if key is None else ~key
        return _with_opacity(picture, seen), f"uint16 {words}"
    most = 65535
    if image.format == "PPM":  # Pillow scales PPM values to the full 8 or 16 bits
        arguments = image.tile[0].args
        if isinstance(arguments, tuple) and isinstance(arguments[-1], int):
            most = arguments[-1]
            if most > 255 and image.mode == "RGB":
                raise RefusedError(
                    "ingest.range cannot scale a PPM with 16-bit colours: save it as PNG"
                )
    if image.mode != "F" and not image.mode.startswith("I"):
        return None, ""
    image.load()
    numbers = np.asarray(image)
    if image.mode == "F":
        levels, words = eight_bits(numbers, reading.range, (0.0, 1.0))
        return Image.fromarray(levels), f"{numbers.dtype} {words}"
    key = image.info.get("transparency")  # a PNG may make one level transparent
    seen = None if key is None else numbers != key
    if image.format == "PPM":
        numbers = np.rint(numbers * (most / 65535))
    levels, words = eight_bits(numbers.astype(np.uint16), reading.range, (0.0, float(most)))
    return _with_opacity(Image.fromarray(levels), seen), f"uint16 {words}"


def _with_opacity(picture: Image.Image, seen: NDArray[np.generic] | None) -> Image.Image:
    """Add an alpha channel from values of 0 to 255 or booleans; None changes nothing."""
    if seen is None:
        return picture
    opacity = np.where(seen, 255, 0) if seen.dtype == bool else seen
    picture.putalpha(Image.fromarray(opacity.astype(np.uint8)))
    return picture


def _picked(picture: Image.Image, grey: bool, reading: Reading) -> tuple[Image.Image, str]:
    """Pick the channels in `ingest.channels` from red, green and blue, or from grey."""
    if not reading.channels:
        return picture, ""
    there = 1 if grey else 3
    check(reading.channels, there)
    chosen = [picture.getchannel(channel - 1) for channel in reading.channels]
    bands = chosen if len(chosen) == 3 else chosen * 3
    return Image.merge("RGB", bands), f"channels {listed(reading.channels)} of {there}"


def _reason(error: Exception) -> str:
    return shorten(str(error), 120, placeholder=" …") or type(error).__name__


def _unknown(data: bytes) -> str:
    """Say why a file is refused if neither Pillow nor another module can open it."""
    if not data:
        return "empty file"
    if tiff.is_tiff(data) and (places := tiff.pages(data)):
        page = tiff.page(data, places[0])
        if page.samples not in (1, 3, 4):
            return (
                f"a TIFF of {tiff.in_words(page)}: set ingest.channels to those that become red,"
                " green and blue, or to the one that becomes grey"
            )
        if page.dtype is not None and page.bits > 8 and page.dtype != np.uint16:
            return f"a TIFF of {tiff.in_words(page)}, which have no stated range; set ingest.range"
        return f"a TIFF of {tiff.in_words(page)} in a form that is not supported"
    start = data[:256].lstrip().lower()
    if is_heic(data):
        return "damaged header (of HEIC)"
    looks = "its first bytes are " + data[:8].hex(" ")
    if start.startswith((b"<!doctype html", b"<html")):
        looks = "it is a web page"
    return f"not a picture in a known format ({looks})"


def _too_many_scans(data: bytes, pixel_count: int) -> bool:
    """Return whether a JPEG has more scans than allowed, so that decoding would take minutes.

    A scan of a few bytes can make the decoder visit a hundred million pixels without changing any;
    the authors of libjpeg-turbo describe the attack
    (https://libjpeg-turbo.org/pmwiki/uploads/About/TwoIssueswiththeJPEGStandard.pdf).
    """
    allowed = MAX_SCANS * MAX_PIXELS / pixel_count
    if data.count(bytes([0xFF, START_OF_SCAN])) <= allowed:  # fast, and an upper bound
        return False
    scans = position = 0
    while found := JPEG_MARKER.search(data, position):
        marker, position = found[1][0], found.end()
        if marker == END_OF_IMAGE:
            break
        if marker not in (0x01, START_OF_IMAGE):  # the others have a segment length
            position += int.from_bytes(data[position : position + 2], "big")
        scans += marker == START_OF_SCAN
    return scans > allowed


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if it is missing or invalid, or EXIF is damaged."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
        return int(value) if value in TURNS else 1
    except Exception:  # of many kinds; the pixels are still intact
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
    """Divide 16-bit grey by 256."""
    levels = np.asarray(image)
    if levels.min() < 0 or levels.max() > 65535:
        raise RefusedError("integer pixels beyond 16 bits have no stated range; set ingest.range")
    grey = Image.fromarray((levels >> 8).astype(np.uint8))
    see_through = image.info.get("transparency")  # a PNG may make one level transparent
    if see_through is not None:
        grey.putalpha(Image.fromarray(np.where(levels == see_through, 0, 255).astype(np.uint8)))
    return grey


@lru_cache(maxsize=16)
def srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from a profile to sRGB; None if it is sRGB or cannot be used.

    If a profile is damaged or for a different kind of pixel, pixels count as sRGB, as in browsers.
    """
    if len(profile) > MAX_PROFILE_BYTES:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None
    if mode == "RGB":
        # Many profiles describe sRGB under different names, so their effect on colours is tested.
        steps = np.arange(0, 256, 15, dtype=np.uint8)
        colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
        moved = pixels(transform.apply(Image.fromarray(colours)))
        if np.abs(moved.astype(int) - colours).max() <= 2:
            return None
    return transform
