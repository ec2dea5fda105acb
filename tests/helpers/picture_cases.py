"""Picture files of every kind, made for the purpose: what each is, and what becomes of it.

The upright picture is 48 × 32 pixels in four fields: red and green above blue and grey. `TAKEN`
and `REFUSED` are the tables that the tests of pictures and ingest go through and that
`tests/faults/fuzz.py` starts from; `docs/pictures.md` is their version for people.
"""

import base64
import functools
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import ExifTags, Image, ImageCms

Colour = tuple[int, int, int]
Fields = tuple[Colour, Colour, Colour, Colour]

RED, GREEN, BLUE, GREY, WHITE = (
    (220, 30, 40), (20, 160, 60), (30, 50, 200), (128, 128, 128), (255, 255, 255),
)  # fmt: skip
COLOURS: Fields = (RED, GREEN, BLUE, GREY)
LEVELS = (32, 96, 160, 224)  # of the greyscale pictures
GREYS: Fields = tuple((level, level, level) for level in LEVELS)  # type: ignore[assignment]


class Taken(NamedTuple):
    """A file that is taken: its bytes, the colours of the four fields, how near, Pillow's name."""

    data: Callable[[], bytes]
    fields: Fields
    format: str
    near: int = 0
    size: tuple[int, int] = (48, 32)


class Refused(NamedTuple):
    """A file that is refused: its bytes, and a pattern that the reason matches."""

    data: Callable[[], bytes]
    reason: str


def fields_of(picture: Image.Image) -> Fields:
    """The colours in the middle of the four fields of a 48 × 32 picture, or of its likeness."""
    seen = [picture.getpixel((x, y)) for y in (8, 24) for x in (12, 36)]
    return tuple(seen)  # type: ignore[return-value]


# The picture in the modes that files hold.


def colour(mode: str = "RGB") -> Image.Image:
    array = np.zeros((32, 48, 3), np.uint8)
    array[:16, :24], array[:16, 24:], array[16:, :24], array[16:, 24:] = COLOURS
    return Image.fromarray(array).convert(mode)


def levels(dtype: str = "u1", factor: int = 1, add: int = 0) -> np.ndarray[Any, Any]:
    array = np.zeros((32, 48), dtype)
    parts = [level * factor + add for level in LEVELS]
    array[:16, :24], array[:16, 24:], array[16:, :24], array[16:, 24:] = parts
    return array


def grey() -> Image.Image:
    return Image.fromarray(levels())


def see_through(mode: str = "RGBA") -> Image.Image:
    """The last field is transparent, and black beneath."""
    picture = colour("RGBA") if mode == "RGBA" else grey().convert("RGBA")
    picture.paste((0, 0, 0, 0), (24, 16, 48, 32))
    return picture.convert(mode)


def palette() -> Image.Image:
    return colour().quantize(4, dither=Image.Dither.NONE)


# As files.


def file(picture: Image.Image, form: str, **options: Any) -> bytes:
    made = io.BytesIO()
    picture.save(made, form, **options)
    return made.getvalue()


def jpeg(picture: Image.Image | None = None, **options: Any) -> bytes:
    return file(picture or colour(), "JPEG", **{"quality": 95, "subsampling": 0, **options})


def png(picture: Image.Image, **options: Any) -> bytes:
    return file(picture, "PNG", **options)


def tiff(array: np.ndarray[Any, Any], **options: Any) -> bytes:
    made = io.BytesIO()
    tifffile.imwrite(made, array, **options)
    return made.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    checked = name + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def raw_png(depth: int, kind: int, rows: np.ndarray[Any, Any], *chunks: bytes) -> bytes:
    """A PNG of any depth and colour kind, from its rows of bytes; 48 × 32 pixels."""
    header = struct.pack(">IIBBBBB", 48, 32, depth, kind, 0, 0, 0)
    filtered = b"".join(b"\0" + row.tobytes() for row in rows)
    content = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(filtered))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(content) + chunk(b"IEND", b"")


def with_chunks(data: bytes, *chunks: bytes) -> bytes:
    """A PNG with more chunks after its header."""
    return data[:33] + b"".join(chunks) + data[33:]


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags.tobytes()


def turned(orientation: int) -> Image.Image:
    """The picture as a camera stores it that was held as the EXIF orientation says."""
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    return colour() if undo is None else colour().transpose(undo)


def animated(form: str, **options: Any) -> bytes:
    second = Image.new("RGB", (48, 32), "black")
    return file(colour(), form, save_all=True, append_images=[second], duration=100, **options)


# Colour profiles (ICC.1:2010), as small as they come.


def profile(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78), **tags}
    table = struct.pack(">I", len(tags))
    content = b""
    for name, value in tags.items():
        place = 128 + 4 + 12 * len(tags) + len(content)
        table += name + struct.pack(">II", place, len(value))
        content += value + bytes(-len(value) % 4)
    header = bytes(4) + b"none" + struct.pack(">I", 0x02400000) + kind + space + connection
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    body = header.ljust(128, b"\0") + table + content
    return struct.pack(">I", len(body)) + body[4:]


def _xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">iii", *(round(value * 65536) for value in values))


def _gamma(value: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256))


def rgb_profile(red: bytes = b"rXYZ", green: bytes = b"gXYZ") -> bytes:
    """sRGB's primaries, near enough; exchanged when the names are."""
    white = {b"wtpt": _xyz(0.9642, 1, 0.8249)}
    primaries = {
        red: _xyz(0.4361, 0.2225, 0.0139),
        green: _xyz(0.3851, 0.7169, 0.0971),
        b"bXYZ": _xyz(0.1431, 0.0606, 0.7141),
    }
    curves = {name: _gamma(2.2) for name in (b"rTRC", b"gTRC", b"bTRC")}
    return profile(b"RGB ", b"XYZ ", b"mntr", {**white, **primaries, **curves})


def swapped_profile() -> bytes:
    """Its red is sRGB's green, and its green sRGB's red."""
    return rgb_profile(b"gXYZ", b"rXYZ")


def linear_grey_profile() -> bytes:
    return profile(
        b"GRAY", b"XYZ ", b"mntr", {b"wtpt": _xyz(0.9642, 1, 0.8249), b"kTRC": _gamma(1)}
    )


def cmyk_profile() -> bytes:
    """A strange printer: cyan ink is red, magenta green, yellow blue; paper is white."""
    inks = {8: (54, 81, 70), 4: (88, -79, 81), 2: (30, 68, -112), 0: (100, 0, 0)}
    nodes = b""
    for ink in range(16):  # cyan is the slowest
        light, a, b = inks.get(ink, (0, 0, 0))
        nodes += bytes([round(light * 2.55), a + 128, b + 128])
    straight = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + straight * 4 + nodes + straight * 3
    return profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": table})


def cmyk() -> Image.Image:
    array = np.zeros((32, 48, 4), np.uint8)
    array[:16, :24, 0] = array[:16, 24:, 1] = array[16:, :24, 2] = 255
    return Image.fromarray(array, "CMYK")


CMYK_PLAIN: Fields = ((0, 255, 255), (255, 0, 255), (255, 255, 0), WHITE)
CMYK_BY_PROFILE: Fields = ((255, 0, 0), (0, 255, 0), (0, 0, 255), WHITE)
SWAPPED: Fields = ((30, 220, 40), (160, 20, 60), (50, 30, 200), GREY)
LINEAR: Fields = tuple((level,) * 3 for level in (99, 166, 208, 240))  # type: ignore[assignment]


# Files that are more, or less, than a picture.


def jpeg_scans(data: bytes) -> list[int]:
    """Where the scans of a JPEG begin."""
    return [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]


def scan_bomb() -> bytes:
    """Sixteen million white pixels, gone over 801 times."""
    data = file(Image.new("L", (4000, 4000), 255), "JPEG", progressive=True)
    second, third = jpeg_scans(data)[1:3]
    return data[:-2] + data[second:third] * 800 + b"\xff\xd9"


def bit_png(width: int, height: int) -> bytes:
    """A black PNG of one bit a pixel, a few hundred kilobytes for a thousand million pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    squeeze = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    content = b"".join(squeeze.compress(row) for _ in range(height)) + squeeze.flush()
    data = chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def gif(width: int, height: int, frame: bool = True) -> bytes:
    """A GIF of that canvas, with a frame of 4 × 4 pixels in its corner."""
    small = file(Image.new("L", (4, 4)), "GIF")
    content = small[13:] if frame else b";"
    return b"GIF89a" + struct.pack("<HH", width, height) + small[10:13] + content


def png_text_bomb() -> bytes:
    """A text of a hundred million letters, in a hundred kilobytes."""
    squeeze = zlib.compressobj(9)
    text = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(100)) + squeeze.flush()
    return with_chunks(png(colour()), chunk(b"zTXt", b"Comment\0\0" + text))


def png_profile_bomb() -> bytes:
    squeezed = zlib.compress(bytes(20 << 20), 9)
    return with_chunks(png(colour()), chunk(b"iCCP", b"bomb\0\0" + squeezed))


def tiff_of_strips(count: int) -> bytes:
    """64 rows of pixels, and a table that names a million strips for them."""
    tags = [(256, 64), (257, 64), (258, 8), (259, 1), (262, 1), (278, 1)]
    after = 8 + 2 + 12 * (len(tags) + 2) + 4
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags]
    entries.insert(5, struct.pack("<HHII", 273, 4, count, after))
    entries.append(struct.pack("<HHII", 279, 4, count, after + 4 * count))
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    strips = 8 + np.arange(count, dtype="<u4") % 1000
    return head + strips.tobytes() + struct.pack("<I", 64) * count


def twelve_bit_jpeg() -> bytes:
    data = bytearray(jpeg())
    data[data.index(b"\xff\xc0") + 4] = 12
    return bytes(data)


def flat_jpeg() -> bytes:
    """A JPEG whose header says that it has no rows."""
    data = bytearray(jpeg())
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 7] = b"\0\0"
    return bytes(data)


def archive() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as packed:
        packed.writestr("picture.jpg", jpeg())
    return made.getvalue()


def flipped(data: bytes, place: float) -> bytes:
    """One bit turned, at that share of the file."""
    damaged = bytearray(data)
    damaged[int(len(data) * place)] ^= 0x10
    return bytes(damaged)


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def lab() -> Image.Image:
    to_lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(colour(), *to_lab, outputMode="LAB")
    assert converted is not None
    return converted


LAST_WHITE: Fields = (RED, GREEN, BLUE, WHITE)
LAST_WHITE_GREYS: Fields = (*GREYS[:3], WHITE)
HTML = b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>"
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 32\n(x) run\nshowpage\n%%EOF\n"
MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(100)
BEYOND_16_BITS = "^integer pixels beyond 16 bits .*set ingest.range$"
# Red, 48 x 32 pixels, as libheif writes it.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAA"
    "AAAAAAAAACJpbG9jAAAAAERAAAEAAQAAAAABoQABAAAAAAAAABoAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABo"
    "dmMxAAAAAA5waXRtAAAAAAABAAAA/WlwcnAAAADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEA"
    "GEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAA"
    "AwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAADAAAAAB"
    "AAAAIAAAAAH////wAAAAAv///+AAAAACAAAAEHBpeGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAACJt"
    "ZGF0AAAAFigBrxmA70mlv//cOZ/1Ni/5JrWmPm4="
)

TAKEN: dict[str, Taken] = {
    # JPEG
    "baseline.jpg": Taken(jpeg, COLOURS, "JPEG", 3),
    "progressive.jpg": Taken(lambda: jpeg(progressive=True), COLOURS, "JPEG", 3),
    "subsampled.jpg": Taken(lambda: jpeg(subsampling=2), COLOURS, "JPEG", 3),
    "grey.jpg": Taken(lambda: jpeg(grey()), GREYS, "JPEG", 2),
    "cmyk.jpg": Taken(lambda: jpeg(cmyk()), CMYK_PLAIN, "JPEG", 3),
    "cmyk_profile.jpg": Taken(
        lambda: jpeg(cmyk(), icc_profile=cmyk_profile()), CMYK_BY_PROFILE, "JPEG", 24
    ),
    "cmyk_with_rgb_profile.jpg": Taken(
        lambda: jpeg(cmyk(), icc_profile=swapped_profile()), CMYK_PLAIN, "JPEG", 3
    ),
    "profile.jpg": Taken(lambda: jpeg(icc_profile=swapped_profile()), SWAPPED, "JPEG", 12),
    "grey_profile.jpg": Taken(
        lambda: jpeg(grey(), icc_profile=linear_grey_profile()), LINEAR, "JPEG", 4
    ),
    "profile_like_srgb.jpg": Taken(
        lambda: jpeg(
            icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        ),
        COLOURS, "JPEG", 3,
    ),
    "damaged_profile.jpg": Taken(
        lambda: jpeg(icc_profile=swapped_profile()[:200]), COLOURS, "JPEG", 3
    ),
    "profile_of_5_megabytes.jpg": Taken(
        lambda: jpeg(icc_profile=swapped_profile() + bytes(5_000_000)), COLOURS, "JPEG", 3
    ),
    "no_profile_at_all.jpg": Taken(lambda: jpeg(icc_profile=b"junk" * 99), COLOURS, "JPEG", 3),
    **{
        f"exif_{turn}.jpg": Taken(
            functools.partial(lambda turn: jpeg(turned(turn), exif=exif(turn)), turn),
            COLOURS, "JPEG", 3,
        )
        for turn in range(1, 9)
    },
    "exif_turn_of_9.jpg": Taken(lambda: jpeg(exif=exif(9)), COLOURS, "JPEG", 3),
    "damaged_exif.jpg": Taken(
        lambda: jpeg(exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xee" * 60), COLOURS, "JPEG", 3
    ),
    "junk_behind.jpg": Taken(lambda: jpeg() + b"\0junk" * 999, COLOURS, "JPEG", 3),
    "film_behind.jpg": Taken(lambda: jpeg() + MP4 + b"\xff\xda" * 99, COLOURS, "JPEG", 3),
    "two_views.mpo": Taken(
        lambda: file(colour(), "MPO", quality=95, save_all=True, append_images=[turned(3)]),
        COLOURS, "JPEG", 6,
    ),
    # PNG
    "colour.png": Taken(lambda: png(colour()), COLOURS, "PNG"),
    "grey.png": Taken(lambda: png(grey()), GREYS, "PNG"),
    "bits.png": Taken(
        lambda: png(grey().point(lambda level: 255 * (level > 99)).convert("1")),
        ((0, 0, 0), (0, 0, 0), WHITE, WHITE), "PNG",
    ),
    "palette.png": Taken(lambda: png(palette()), COLOURS, "PNG"),
    "palette_transparent.png": Taken(
        lambda: png(palette(), transparency=palette().getpixel((36, 24))), LAST_WHITE, "PNG"
    ),
    "palette_alphas.png": Taken(
        lambda: png(
            palette(),
            transparency=bytes(0 if i == palette().getpixel((36, 24)) else 255 for i in range(4)),
        ),
        LAST_WHITE, "PNG",
    ),
    "alpha.png": Taken(lambda: png(see_through()), LAST_WHITE, "PNG"),
    "half_alpha.png": Taken(
        lambda: png(Image.new("RGBA", (48, 32), (0, 0, 0, 128))), ((127, 127, 127),) * 4, "PNG", 1
    ),
    "grey_alpha.png": Taken(lambda: png(see_through("LA")), LAST_WHITE_GREYS, "PNG"),
    "grey_key.png": Taken(lambda: png(grey(), transparency=224), LAST_WHITE_GREYS, "PNG"),
    "colour_key.png": Taken(lambda: png(colour(), transparency=GREY), LAST_WHITE, "PNG"),
    "alpha_profile.png": Taken(
        lambda: png(see_through(), icc_profile=swapped_profile()), (*SWAPPED[:3], WHITE), "PNG", 12
    ),
    "grey_alpha_profile.png": Taken(
        lambda: png(see_through("LA"), icc_profile=linear_grey_profile()),
        (*LINEAR[:3], WHITE), "PNG", 3,
    ),
    "grey16.png": Taken(lambda: png(Image.fromarray(levels("u2", 256, 77))), GREYS, "PNG"),
    "grey16_key.png": Taken(
        lambda: raw_png(
            16, 0, levels(">u2", 256), chunk(b"tRNS", struct.pack(">H", LEVELS[3] * 256))
        ),
        LAST_WHITE_GREYS, "PNG",
    ),
    "colour16.png": Taken(
        lambda: raw_png(16, 2, np.repeat(levels(">u2", 256, 9)[..., None], 3, axis=2)),
        GREYS, "PNG",
    ),
    "orientation.png": Taken(lambda: png(turned(6), exif=exif(6)), COLOURS, "PNG"),
    "animated.png": Taken(lambda: animated("PNG"), COLOURS, "PNG"),
    "junk_behind.png": Taken(lambda: png(colour()) + b"junk" * 99, COLOURS, "PNG"),
    # GIF
    "still.gif": Taken(lambda: file(palette(), "GIF"), COLOURS, "GIF"),
    "animated.gif": Taken(lambda: animated("GIF"), COLOURS, "GIF", 1),
    "transparent.gif": Taken(
        lambda: file(palette(), "GIF", transparency=palette().getpixel((36, 24))),
        LAST_WHITE, "GIF",
    ),
    # WebP
    "lossy.webp": Taken(lambda: file(colour(), "WEBP", quality=95), COLOURS, "WEBP", 10),
    "alpha.webp": Taken(lambda: file(see_through(), "WEBP", lossless=True), LAST_WHITE, "WEBP"),
    "animated.webp": Taken(lambda: animated("WEBP", lossless=True), COLOURS, "WEBP"),
    "orientation.webp": Taken(
        lambda: file(turned(8), "WEBP", lossless=True, exif=exif(8)), COLOURS, "WEBP"
    ),
    # AVIF
    "colour.avif": Taken(
        lambda: file(colour(), "AVIF", quality=95, subsampling="4:4:4"), COLOURS, "AVIF", 6
    ),
    "alpha.avif": Taken(
        lambda: file(see_through(), "AVIF", quality=95, subsampling="4:4:4"),
        LAST_WHITE, "AVIF", 6,
    ),
    "animated.avif": Taken(
        lambda: animated("AVIF", quality=95, subsampling="4:4:4"), COLOURS, "AVIF", 6
    ),
    "orientation.avif": Taken(
        lambda: file(turned(5), "AVIF", quality=95, subsampling="4:4:4", exif=exif(5)),
        COLOURS, "AVIF", 6,
    ),
    # TIFF
    "colour.tif": Taken(lambda: file(colour(), "TIFF"), COLOURS, "TIFF"),
    "lzw.tif": Taken(lambda: file(colour(), "TIFF", compression="tiff_lzw"), COLOURS, "TIFF"),
    "jpeg.tif": Taken(
        lambda: file(colour(), "TIFF", compression="jpeg", quality=95), COLOURS, "TIFF", 6
    ),
    "alpha.tif": Taken(lambda: file(see_through(), "TIFF"), LAST_WHITE, "TIFF"),
    "cmyk.tif": Taken(lambda: file(cmyk(), "TIFF"), CMYK_PLAIN, "TIFF"),
    "lab.tif": Taken(lambda: file(lab(), "TIFF"), COLOURS, "TIFF", 8),
    "grey16.tif": Taken(lambda: tiff(levels("u2", 256, 200)), GREYS, "TIFF"),
    "grey16_big_endian.tif": Taken(
        lambda: tiff(levels("u2", 256, 200), byteorder=">"), GREYS, "TIFF"
    ),
    "grey32_of_16_bits.tif": Taken(lambda: tiff(levels("i4", 256, 200)), GREYS, "TIFF"),
    "planes16.tif": Taken(
        lambda: tiff(
            np.asarray(colour()).transpose(2, 0, 1).astype("u2") * 256 + 99,
            photometric="rgb", planarconfig="separate",
        ),
        COLOURS, "TIFF",
    ),
    "pages.tif": Taken(
        lambda: file(colour(), "TIFF", save_all=True, append_images=[turned(3)]), COLOURS, "TIFF"
    ),
    "orientation.tif": Taken(lambda: file(turned(6), "TIFF", tiffinfo={274: 6}), COLOURS, "TIFF"),
    # HEIC
    "photo.heic": Taken(lambda: HEIC, (RED,) * 4, "HEIF"),
    "photo_of_a_telephone.jpg": Taken(
        lambda: HEIC.replace(b"heic", b"mif1", 1), (RED,) * 4, "HEIF"
    ),
    # BMP and the portable maps
    "colour.bmp": Taken(lambda: file(colour(), "BMP"), COLOURS, "BMP"),
    "palette.bmp": Taken(lambda: file(palette(), "BMP"), COLOURS, "BMP"),
    "colour.ppm": Taken(lambda: file(colour(), "PPM"), COLOURS, "PPM"),
    "grey16.pgm": Taken(
        lambda: b"P5 48 32 65535\n" + levels(">u2", 256, 9).tobytes(), GREYS, "PPM"
    ),
    "letters.pgm": Taken(
        lambda: b"P2 48 32 255\n" + " ".join(map(str, levels().ravel())).encode(), GREYS, "PPM"
    ),
    # Names that say something else
    "really_a_png.jpg": Taken(lambda: png(colour().convert("L").convert("RGB")),
        tuple((level,) * 3 for level in np.asarray(colour("L"))[[8, 8, 24, 24], [12, 36, 12, 36]]),  # type: ignore[arg-type]
        "PNG"),
    "no_ending": Taken(lambda: jpeg(quality=94), COLOURS, "JPEG", 3),
}  # fmt: skip

REFUSED: dict[str, Refused] = {
    # Not pictures
    "empty.jpg": Refused(lambda: b"", "^empty file$"),
    "page.jpg": Refused(lambda: HTML, r"^not a picture in a known format \(it is a web page\)$"),
    "text.png": Refused(lambda: b"a picture of a cat\n", "^not a picture in a known format"),
    "zeros.png": Refused(lambda: bytes(5000), "^not a picture in a known format"),
    "archive.jpg": Refused(archive, "known format .its first bytes are 50 4b 03 04"),
    "film.jpg": Refused(lambda: MP4, "^not a picture in a known format"),
    "damaged.heic": Refused(lambda: HEIC[:-40], "^damaged"),
    "program.eps": Refused(lambda: EPS, "^not a picture in a known format"),
    "icon.ico": Refused(lambda: file(colour(), "ICO"), "^not a picture in a known format"),
    # Cut short or damaged
    **{
        f"cut_{share}_{name}": Refused(
            functools.partial(lambda name, share: cut(TAKEN[name].data(), share), name, share),
            "damaged|not a picture in a known format",
        )
        for name in (
            "baseline.jpg",
            "progressive.jpg",
            "colour.png",
            "still.gif",
            "lossy.webp",
            "alpha.webp",
            "colour.avif",
            "colour.tif",
            "lzw.tif",
            "colour.bmp",
            "colour.ppm",
        )
        for share in (0.3, 0.9)
    },
    "no_end_marker.jpg": Refused(lambda: jpeg()[:-2], "^damaged or cut short .*truncated"),
    "last_bytes_missing.jpg": Refused(lambda: jpeg()[:-12], "^damaged or cut short .*truncated"),
    "flipped_header.png": Refused(lambda: flipped(png(colour()), 0.12), "^damaged|^not a picture"),
    "flipped_pixels.png": Refused(lambda: flipped(png(colour()), 0.7), "^damaged or cut short"),
    "no_pixels.png": Refused(
        lambda: png(colour())[:33] + chunk(b"IEND", b""), "^damaged|^not a picture"
    ),
    "no_frame.gif": Refused(lambda: gif(48, 32, frame=False), "^not a picture|^damaged"),
    "twelve_bits.jpg": Refused(twelve_bit_jpeg, "^not a picture|^damaged"),
    # Too small, too large
    "one_pixel.png": Refused(
        lambda: png(Image.new("RGB", (1, 1))), "^too small: 1 × 1, at least 4 a side$"
    ),
    "a_line.jpg": Refused(lambda: jpeg(Image.new("RGB", (500, 3))), "^too small: 500 × 3"),
    "no_width.png": Refused(
        lambda: png(colour()).replace(struct.pack(">II", 48, 32), struct.pack(">II", 0, 32)),
        "^not a picture|^damaged",
    ),
    "no_rows.jpg": Refused(flat_jpeg, "^not a picture|^damaged"),
    "no_canvas.gif": Refused(lambda: gif(0, 0, frame=False), "^not a picture|^damaged"),
    "bomb_30000.png": Refused(
        functools.partial(bit_png, 30_000, 30_000), "^too large: over 120,000,000 pixels; cut it"
    ),
    "bomb_65535.gif": Refused(
        lambda: gif(65535, 65535), "^too large: over 120,000,000 pixels; cut"
    ),
    "bomb_16383.webp": Refused(
        lambda: (
            b"RIFF"
            + struct.pack("<I", 22)
            + b"WEBPVP8X"
            + struct.pack("<I", 10)
            + bytes(4)
            + (b"\xfe\x3f\0" * 2)
            + bytes(8)
        ),
        "^too large|^damaged|^not a picture",
    ),
    "bomb_60000.pgm": Refused(lambda: b"P5 60000 60000 255\n" + bytes(99), "^too large"),
    "bomb_of_text.png": Refused(png_text_bomb, "^damaged header .*too large"),
    "bomb_of_scans.jpg": Refused(scan_bomb, "^a JPEG with too many scans"),
    "bomb_in_profile.png": Refused(png_profile_bomb, "^damaged header .*too large"),
    # Values without a stated range
    "float.tif": Refused(lambda: tiff(levels("f4")), "^floating-point pixels .*set ingest.range$"),
    "beyond_16_bits.tif": Refused(lambda: tiff(levels("i4", 4096)), BEYOND_16_BITS),
    "negative.tif": Refused(lambda: tiff(levels("i4") - 100), BEYOND_16_BITS),
}
