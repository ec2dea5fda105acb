"""TIFF files from instruments: any number of channels, of integers or floats of 8 to 64 bits.

Pillow reads few such files, and keeps only 8 bits of most. But libtiff, which Pillow calls, can
decompress all of them. So this module presents each page to libtiff as a grey picture whose pixels
are the bytes of the values, and converts these with NumPy. No further package is needed, libtiff
limits the cost of damaged files, and the compressions are the same as in Pillow. The fields are
those of the TIFF 6.0 specification; predictors are defined in its section 14 and in Adobe's
technical note 3 on floating-point values.
"""

import io
import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from ...core.errors import RefusedError
from .reading import check, listed

MOST_PAGES = 10_000  # more pages are ignored
# Maximum bytes of a page's values, those of the largest 8-bit picture with transparency.
MOST_VALUES = 480_000_000

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIPS, ORIENTATION, SAMPLES, STRIP_ROWS, STRIP_BYTES, PLANES = 273, 274, 277, 278, 279, 284
PREDICTOR, TILE_WIDTH, TILE_LENGTH, TILES, TILE_BYTES = 317, 322, 323, 324, 325
EXTRA, FORMAT = 338, 339
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CMYK = 0, 1, 2, 5
# None, LZW, deflate (two numbers), PackBits, LZMA, Zstandard. Others are only for colours.
LOSSLESS = (1, 5, 8, 32946, 32773, 34925, 50000)
PREDICTED = (5, 8, 32946, 34925, 50000)  # compressions with which predictors can be combined
MOST_FIELDS = 65535  # fields of a page, the number of possible tags
KINDS = {1: "u", 2: "i", 3: "f"}  # NumPy kinds by FORMAT
SHORT, LONG = 3, 4  # types of fields
FORMS = {1: "B", SHORT: "H", LONG: "L", 16: "Q"}  # for `struct`
READ = {
    WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, STRIPS, ORIENTATION, SAMPLES,
    STRIP_ROWS, STRIP_BYTES, PLANES, PREDICTOR, TILE_WIDTH, TILE_LENGTH, TILES, TILE_BYTES, EXTRA,
    FORMAT,
}  # fmt: skip


class Page(NamedTuple):
    """The header of a page.

    order: the byte order, `<` or `>`; samples: samples per pixel; dtype: the NumPy type of a
    sample, None if there is none; tags: the values of the fields in `READ`.
    """

    order: str
    width: int
    height: int
    samples: int
    dtype: np.dtype[Any] | None
    bits: int
    photometric: int
    compression: int
    tags: dict[int, tuple[int, ...]]


def is_tiff(data: bytes) -> bool:
    """Return whether a file begins like a TIFF or a BigTIFF."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def pages(data: bytes) -> list[int]:
    """Return the offsets of the headers of at most `MOST_PAGES` pages."""
    order = "<" if data[:2] == b"II" else ">"
    # Formats of the field count and of an offset; bytes of the count and of a field.
    count, offset, before, entry = ("Q", "Q", 8, 20) if _is_big(data) else ("H", "L", 2, 12)
    places: dict[int, None] = {}
    try:
        (at,) = struct.unpack_from(order + offset, data, 8 if _is_big(data) else 4)
        while at and at not in places and len(places) < MOST_PAGES:
            (fields,) = struct.unpack_from(order + count, data, at)
            if fields > MOST_FIELDS:
                break
            places[at] = None
            (at,) = struct.unpack_from(order + offset, data, at + before + fields * entry)
    except (struct.error, OverflowError):  # the rest is cut off
        pass
    return list(places)


def _is_big(data: bytes) -> bool:
    return data[2:4] in (b"+\0", b"\0+")


def page(data: bytes, place: int) -> Page:
    """Parse a page's header.

    Raises:
        RefusedError: a required field is missing or damaged.
    """
    try:
        tags = _fields(data, place)
        width, height = tags[WIDTH][0], tags[LENGTH][0]
        samples = tags.get(SAMPLES, (1,))[0]
        bits, form = set(tags.get(BITS, (1,))), set(tags.get(FORMAT, (1,)))
        photometric = tags.get(PHOTOMETRIC, (BLACK_IS_ZERO,))[0]
        compression = tags.get(COMPRESSION, (1,))[0]
    except (struct.error, OverflowError, KeyError, IndexError):
        raise RefusedError("damaged header (of a TIFF's page)") from None
    order = "<" if data[:2] == b"II" else ">"
    dtype = None
    if len(bits) == len(form) == 1:
        kind, (deep,) = KINDS.get(*form), bits
        if kind and deep in ((16, 32, 64) if kind == "f" else (8, 16, 32, 64)):
            dtype = np.dtype(f"{order}{kind}{deep // 8}")
    return Page(
        order, width, height, samples, dtype, max(bits, default=1), photometric, compression, tags
    )


def _fields(data: bytes, place: int) -> dict[int, tuple[int, ...]]:
    """Return the values of the fields in `READ`."""
    order, big = "<" if data[:2] == b"II" else ">", _is_big(data)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, place)
    entry, room = (20, 8) if big else (12, 4)
    found = {}
    for at in range(place + (8 if big else 2), place + 2 + min(count, MOST_FIELDS) * entry, entry):
        tag, form = struct.unpack_from(order + "HH", data, at)
        if tag not in READ or form not in FORMS:
            continue
        (numbers,) = struct.unpack_from(order + ("Q" if big else "L"), data, at + 4)
        packed = f"{order}{min(numbers, len(data))}{FORMS[form]}"
        value = at + entry - room
        if struct.calcsize(packed) > room:
            (value,) = struct.unpack_from(order + ("Q" if big else "L"), data, value)
        found[tag] = struct.unpack_from(packed, data, value)
    return found


def in_words(one: Page) -> str:
    """Describe the values of a page: `5 channels of uint16`."""
    what = f"{one.bits}-bit values" if one.dtype is None else one.dtype.newbyteorder("=").name
    return f"{one.samples} channel{'s' * (one.samples > 1)} of {what}"


def holds_colours(one: Page) -> bool:
    """Return whether the values are colours: palette indices, or compressed as only colours are."""
    known = (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CMYK)
    return one.photometric not in known or one.compression in (6, 7)


class Channels(NamedTuple):
    """Values [height, width, channels], and their source in words."""

    values: NDArray[np.generic]
    words: str


def channels(data: bytes, wanted: tuple[int, ...]) -> Channels:
    """Return the values of the `wanted` channels; if empty, of the file's one or three channels.

    The channels of a file are the samples of its first page. If pixels have only one sample, the
    channels are the pages, as in files from microscopes.

    Raises:
        RefusedError: a wanted channel does not exist, none is wanted of a file with two or more
            than three, or the values cannot be read.
    """
    places = pages(data)
    first = page(data, places[0]) if places else None
    if first is None:
        raise RefusedError("damaged header (a TIFF without pages)")
    if not wanted and first.samples not in (1, 3):
        raise RefusedError(
            f"a TIFF of {in_words(first)}: set ingest.channels to those that become red, green and"
            " blue, or to the one that becomes grey"
        )
    words = ""
    if wanted and first.samples == 1 and len(places) > 1:
        check(wanted, len(places))
        found = [page(data, places[number - 1]) for number in wanted]
        shapes = {(one.width, one.height, one.samples, one.dtype) for one in found}
        if len(shapes) > 1:
            raise RefusedError(
                "its pages, which ingest.channels picks from, differ in size or type"
            )
        parts = {number: _values(data, one) for number, one in zip(wanted, found, strict=True)}
        values = np.concatenate([parts[number] for number in wanted], axis=2)
        return Channels(values, f"pages {listed(wanted)} of {len(places)}")
    if wanted:
        check(wanted, first.samples)
        words = f"channels {listed(wanted)} of {first.samples}"
    values = _values(data, first, [number - 1 for number in wanted] or None)
    if len(places) > 1:
        words = ", ".join(filter(None, [f"page 1 of {len(places)}", words]))
    return Channels(values, words)


def _values(data: bytes, one: Page, picked: list[int] | None = None) -> NDArray[np.generic]:
    """Return the `picked` samples of a page (None: all), [height, width, samples]."""
    if one.dtype is None:
        raise RefusedError(
            f"a TIFF of {in_words(one)}, which is not supported: save it as 16-bit values"
        )
    if one.compression not in LOSSLESS:
        raise RefusedError(
            f"a TIFF of {in_words(one)} with compression {one.compression}, which is not supported:"
            " save it uncompressed, or with LZW or deflate"
        )
    # Either each plane is decompressed separately, or all samples together.
    apart = one.tags.get(PLANES, (1,))[0] == 2 and one.samples > 1
    together = 1 if apart else one.samples
    if one.width * one.height * together * one.dtype.itemsize > MOST_VALUES:
        raise RefusedError(f"too large: over {MOST_VALUES / 1e6:,.0f} MB of values")
    if not apart:
        values = _plane(data, one, together, slice(None))
        return values if picked is None else values[..., picked]
    wanted = list(range(one.samples)) if picked is None else picked
    places = one.tags.get(TILES, one.tags.get(STRIPS, ()))
    each = len(places) // one.samples
    parts = {s: _plane(data, one, 1, slice(s * each, (s + 1) * each)) for s in set(wanted)}
    return np.concatenate([parts[sample] for sample in wanted], axis=2)


def _plane(data: bytes, one: Page, samples: int, pieces: slice) -> NDArray[np.generic]:
    """Decompress values [height, width, samples] from some of a page's strips or tiles."""
    assert one.dtype is not None  # noqa: S101 (`_values` checks it)
    tags, size = one.tags, one.dtype.itemsize
    tiled = TILES in tags
    row = tags[TILE_WIDTH][0] if tiled else one.width
    across = -(-one.width // row) if row else 0
    wide = across * row  # the full last tile, which libtiff would crop and predictors need
    if not 0 < wide * one.height * samples * size <= 2 * MOST_VALUES:
        raise RefusedError("damaged header (tiles larger than the picture)")
    fields: dict[int, tuple[int, list[int]]] = {
        WIDTH: (LONG, [wide * samples * size]),
        LENGTH: (LONG, [one.height]),
        BITS: (SHORT, [8]),
        COMPRESSION: (SHORT, [one.compression]),
        PHOTOMETRIC: (SHORT, [BLACK_IS_ZERO]),
        FILL_ORDER: (SHORT, [tags.get(FILL_ORDER, (1,))[0]]),
        SAMPLES: (SHORT, [1]),
    }
    if tiled:
        fields[TILE_WIDTH] = (LONG, [row * samples * size])
        fields[TILE_LENGTH] = (LONG, [tags[TILE_LENGTH][0]])
    else:
        fields[STRIP_ROWS] = (LONG, [min(tags.get(STRIP_ROWS, (one.height,))[0], one.height)])
    pieces_of = (TILES, TILE_BYTES) if tiled else (STRIPS, STRIP_BYTES)
    if not all(tags.get(field) for field in pieces_of):
        raise RefusedError("damaged header (a page of the TIFF does not say where its pixels are)")
    for field in pieces_of:
        fields[field] = (LONG, list(tags[field])[pieces])
    shown = TiffImagePlugin.TiffImageFile(io.BytesIO(_with_header(data, fields)))
    shown.load()
    lines = np.asarray(shown).reshape(one.height, across, row * samples * size)
    values = _unpredicted(lines, one, samples).reshape(one.height, wide, samples)
    return values[:, : one.width]


def _with_header(data: bytes, fields: dict[int, tuple[int, list[int]]]) -> bytes:
    """Append a page header to the file, and make this page the first one."""
    at = len(data) + len(data) % 2
    lists = at + 2 + 12 * len(fields) + 4
    entries, behind = struct.pack("<H", len(fields)), b""
    for tag, (kind, numbers) in sorted(fields.items()):
        packed = struct.pack(f"<{len(numbers)}{'H' if kind == SHORT else 'L'}", *numbers)
        if len(packed) > 4:
            packed, behind = struct.pack("<L", lists + len(behind)), behind + packed
        entries += struct.pack("<HHL", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    first = b"II*\0" + struct.pack("<L", at)
    return first + data[8:].ljust(at - 8, b"\0") + entries + bytes(4) + behind


def _unpredicted(lines: NDArray[np.uint8], one: Page, samples: int) -> NDArray[np.generic]:
    """Undo the predictor: bytes [height, pieces, bytes] to native [height, pieces, values]."""
    assert one.dtype is not None  # noqa: S101
    native = one.dtype.newbyteorder("=")
    predictor = one.tags.get(PREDICTOR, (1,))[0] if one.compression in PREDICTED else 1
    if predictor == 3 and one.dtype.kind == "f":
        # Each row has the first bytes of all values, then the second bytes, all as differences.
        height, pieces, length = lines.shape
        steps = lines.reshape(height, pieces, -1, samples)
        whole = np.cumsum(steps, axis=2, dtype=np.uint8)
        planes = whole.reshape(height, pieces, native.itemsize, length // native.itemsize)
        joined = np.ascontiguousarray(planes.transpose(0, 1, 3, 2))
        return joined.view(native.newbyteorder(">"))[..., 0].astype(native)
    values = np.ascontiguousarray(lines).view(one.dtype).astype(native)
    if predictor == 2 and one.dtype.kind in "ui":
        height, pieces, _ = values.shape
        steps = values.reshape(height, pieces, -1, samples)
        return np.cumsum(steps, axis=2, dtype=native).reshape(values.shape)
    if predictor != 1:
        raise RefusedError(
            f"a TIFF with predictor {predictor} of {in_words(one)}, which is not supported"
        )
    return values
