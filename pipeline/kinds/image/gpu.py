"""The work of `views` on a CUDA device: many pictures at once.

Plain JPEGs are decoded by nvJPEG (`decode`), pictures of any sizes are scaled together by one
kernel (`scale`), and their views are warped together by another (`warp`). Every other picture is
decoded and scaled on the CPU, by `preprocess.base`. Which way a picture takes is decided by its
bytes alone. Scaling follows Pillow to the bit, and warping follows OpenCV to a grey level. nvJPEG
differs from libjpeg where colours change sharply: it repeats halved colour channels where libjpeg
interpolates them.

Each thread works on a CUDA stream of its own, so that one's decoding overlaps another's reading.
"""

import io
import re
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torchvision
import triton
import triton.language as tl
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor

from ...core.cuda import NO_MEMORY, own_stream
from ...core.errors import DeviceError
from .. import Asked, Fitted, Pixels
from . import preprocess
from .decode import REDUCING_GAP, TURNS, srgb_transform
from .reading import PLAIN, Reading
from .views import ORIGINAL, View

GPU_VIEW_CODE = 1  # raise when this module comes to give other pixels

# Fixed point of Pillow's 8-bit scaling: 8 bits of pixel and 2 of overshoot beside the fraction.
FRACTION_BITS = 22
BLOCK = 512  # pixels a program of a kernel
SCALED_HERE = ("bicubic", "bilinear")  # what else there is, the CPU scales

# Markers of a JPEG.
BASELINE_FRAME, START_OF_SCAN = 0xC0, 0xDA
EXIF_OR_XMP, COLOUR_PROFILE, ADOBE = 0xE1, 0xE2, 0xEE

# --- views ----------------------------------------------------------------------------------------


class ViewMaker:
    """Makes views on the GPU for a backbone's preprocessing, on the calling thread's stream."""

    made_by = f" gpu views {GPU_VIEW_CODE}"

    def __init__(self, preprocessing: Pixels | Fitted, reading: Reading = PLAIN) -> None:
        """Make one view, so that the kernels are compiled before threads ask for them.

        Raises:
            DeviceError: something is missing: nvJPEG, or the C compiler that Triton needs once.
        """
        self.preprocessing, self.reading = preprocessing, PLAIN
        file = io.BytesIO()
        Image.new("RGB", (64, 64)).save(file, "JPEG")
        try:
            decoded = decode([file.getvalue()], torch.device("cuda"))
            self([(file.getvalue(), [ORIGINAL])])
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise DeviceError(
                f"the GPU cannot make views ({reason}); set extract.device: cpu"
            ) from error
        if decoded[0] is None:
            raise DeviceError("torchvision has no nvJPEG here; set extract.device: cpu")
        self.reading = reading

    def __call__(self, asked: Asked) -> Tensor:
        """As `make_views`, on the GPU."""
        listed = [(data, [View(*view) for view in wanted]) for data, wanted in asked]
        with torch.inference_mode(), torch.cuda.stream(own_stream()):
            return make_views(listed, self.preprocessing, torch.device("cuda"), self.reading)


def make_views(
    asked: Sequence[tuple[bytes, list[View]]],
    preprocessing: Pixels | Fitted,
    device: torch.device,
    reading: Reading = PLAIN,
) -> Tensor:
    """The asked views of each picture, cropped as the backbone wants them.

    Where GPU memory runs out, half the pictures are taken at a time; that changes no pixel.

    Args:
        asked: the bytes of each picture and its views.
        preprocessing: how the backbone wants its pictures.
        device: where to make them.
        reading: what is declared of the pictures.

    Returns:
        uint8 [views, side, side, 3] on the device, in the order asked.

    Raises:
        DeviceError: memory does not suffice for a single picture.
        RefusedError: as `decode.decode`.
    """
    try:
        bases = _bases([data for data, _ in asked], preprocessing, device, reading)
        views, fitted = [wanted for _, wanted in asked], isinstance(preprocessing, Fitted)
        return warp(bases, views, preprocessing.crop, fitted)
    except torch.cuda.OutOfMemoryError:
        half = len(asked) // 2
    if half == 0:
        raise DeviceError(NO_MEMORY)
    torch.cuda.empty_cache()
    print(f"extract: GPU memory ran out; now {half} pictures at a time", flush=True)
    parts = (asked[:half], asked[half:])
    return torch.cat([make_views(part, preprocessing, device, reading) for part in parts])


class Bases(NamedTuple):
    """Scaled pictures of several sizes, one after another.

    pixels: uint8 on the device, [3, height, width] of each picture; start, height, width: int64
    [n], where each begins and its size.
    """

    pixels: Tensor
    start: NDArray[np.int64]
    height: NDArray[np.int64]
    width: NDArray[np.int64]


def _bases(
    files: list[bytes], preprocessing: Pixels | Fitted, device: torch.device, reading: Reading
) -> Bases:
    """The base of each picture, from nvJPEG where it takes the file and from the CPU elsewhere."""
    on_gpu: dict[int, Tensor] = {}
    parts = []
    # Which colours are taken is told the CPU alone.
    scaled_here = isinstance(preprocessing, Pixels) and preprocessing.interpolation in SCALED_HERE
    if isinstance(preprocessing, Pixels) and scaled_here and not reading.channels:
        shorter = max(preprocessing.resize, preprocessing.crop)
        suited = [i for i, data in enumerate(files) if suits_nvjpeg(data, shorter)]
        decoded = zip(suited, decode([files[i] for i in suited], device), strict=True)
        on_gpu = {i: picture for i, picture in decoded if picture is not None}
        parts = [scale(list(on_gpu.values()), preprocessing)] if on_gpu else []
    on_cpu = {
        i: preprocess.base(data, preprocessing, reading)
        for i, data in enumerate(files)
        if i not in on_gpu
    }
    if on_cpu:
        planes = [torch.from_numpy(base.copy()).permute(2, 0, 1) for base in on_cpu.values()]
        height, width = np.array([plane.shape[1:] for plane in planes]).T
        pixels = torch.cat([plane.flatten() for plane in planes]).to(device)
        parts.append(Bases(pixels, _starts(3 * height * width), height, width))
    order = np.argsort([*on_gpu, *on_cpu])
    begin = _starts(np.array([len(part.pixels) for part in parts]))
    return Bases(
        torch.cat([part.pixels for part in parts]),
        np.concatenate([part.start + b for part, b in zip(parts, begin, strict=True)])[order],
        np.concatenate([part.height for part in parts])[order],
        np.concatenate([part.width for part in parts])[order],
    )


def _starts(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of several pieces begins that lie one after another."""
    return np.cumsum(sizes) - sizes


# --- decoding -------------------------------------------------------------------------------------


def suits_nvjpeg(data: bytes, shorter_side: int) -> bool:
    """Whether nvJPEG can stand in for `decode.decode(data, shorter_side)`, and is faster.

    It can for an upright sRGB JPEG of three 8-bit channels in YCbCr with usual subsampling. It is
    for baseline ones, as the GPU's decoding engine does no progressive ones, and for those that
    `decode.decode` would not decode at reduced size. Panoramas, which `preprocess.base` cuts, are
    left to it. Only the header is read (ITU-T T.81, annex B).
    """
    suits, at = False, 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        segment = data[at + 4 : at + 2 + length]
        if marker == START_OF_SCAN:
            return suits
        if marker == BASELINE_FRAME:
            suits = _is_usual(segment, shorter_side)
        elif not _leaves_pixels(marker, segment):
            return False
        at += 2 + length
    return False


def _is_usual(frame: bytes, shorter_side: int) -> bool:
    """Whether the frame header is of 8-bit YCbCr, and of no panorama nor anything large."""
    height, width = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
    luma, *chroma = (tuple(frame[i : i + 2]) for i in range(6, 15, 3))  # number, subsampling
    return (
        len(frame) == 15
        and frame[0] == 8
        and 0 < min(height, width) < 2 * round(shorter_side * REDUCING_GAP)
        and max(height, width) <= 3 * min(height, width)
        and luma in [(1, 0x11), (1, 0x12), (1, 0x21), (1, 0x22)]
        and chroma == [(2, 0x11), (3, 0x11)]
    )


def _leaves_pixels(marker: int, segment: bytes) -> bool:
    """Whether nothing in a segment asks for pixels to be turned or colours to be converted."""
    if marker == EXIF_OR_XMP:
        return _is_upright(segment)
    if marker == COLOUR_PROFILE:
        return _is_srgb(segment)
    ycbcr = segment[11:12] == b"\1"
    return marker != ADOBE or not segment.startswith(b"Adobe") or ycbcr


def _is_upright(segment: bytes) -> bool:
    if segment.startswith(b"Exif\0\0"):
        exif = Image.Exif()
        try:
            exif.load(segment)
            return exif.get(ExifTags.Base.Orientation) not in TURNS
        except Exception:  # of many kinds; `decode.decode` knows what to do with it
            return False
    return b"tiff:Orientation" not in segment  # XMP, where Pillow looks as well


def _is_srgb(segment: bytes) -> bool:
    if not segment.startswith(b"ICC_PROFILE\0"):
        return True
    in_one_piece = segment[12:14] == b"\1\1"  # else it is not worth joining here
    return in_one_piece and srgb_transform(segment[14:], "RGB") is None


def decode(files: Sequence[bytes], device: torch.device) -> list[Tensor | None]:
    """Decode JPEGs on the device, all at once.

    Returns:
        uint8 [3, height, width] of each; None for what nvJPEG refuses.

    Raises:
        torch.cuda.OutOfMemoryError: GPU memory ran out.
    """
    if not files:
        return []
    encoded = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]
    # torchvision decodes on a stream of its own: before, the caller's stream must be done with the
    # memory that is used again, and after a failure torchvision's must.
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.current_stream(device).synchronize()
    try:
        return list(torchvision.io.decode_jpeg(encoded, mode="RGB", device=device))
    except RuntimeError as error:
        if on_gpu:
            torch.cuda.synchronize(device)
        # No refusal, or else what decodes a picture would not depend on its bytes alone; 5 is what
        # nvJPEG calls it.
        if re.search(r"out of memory|: 5\b", str(error)):
            raise torch.cuda.OutOfMemoryError(str(error)) from None
    if len(files) == 1:
        return [None]
    half = len(files) // 2
    return decode(files[:half], device) + decode(files[half:], device)


# --- scaling --------------------------------------------------------------------------------------


def scale(decoded: Sequence[Tensor], preprocessing: Pixels) -> Bases:
    """Scale pictures as `preprocess.base` does those that `suits_nvjpeg` takes, to the bit.

    Args:
        decoded: uint8 [3, height, width], all on one device, of any sizes; at least one.
        preprocessing: gives the shorter side and the filter.
    """
    shorter = max(preprocessing.resize, preprocessing.crop)
    size = np.array([picture.shape[1:] for picture in decoded])
    factor = shorter / size.min(axis=1, keepdims=True)
    scaled = np.maximum(shorter, np.rint(size * factor).astype(np.int64))
    (from_height, from_width), (height, width) = size.T, scaled.T
    weights = partial(_weights, preprocessing.interpolation, device=decoded[0].device)
    # What the rounding of the longer side cuts off is not squeezed in.
    seen_height, seen_width = np.minimum(scaled / factor, size).T

    pixels = torch.cat([picture.flatten() for picture in decoded])
    one, three = np.ones_like(width), np.full_like(width, 3)
    rows = weights(seen_width, from_width, width)
    pixels = _scale_axis(pixels, (3 * from_height, from_width, one), width, *rows)
    columns = weights(seen_height, from_height, height)
    pixels = _scale_axis(pixels, (three, from_height, width), height, *columns)
    return Bases(pixels, _starts(3 * height * width), height, width)


def _weights(
    kind: str,
    seen: NDArray[np.float64],
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """What each scaled pixel of an axis takes of which pixels: Pillow's filters, antialiased.

    Bicubic with a = -1/2 (Keys 1981) or a triangle, as wide as the reduction asks, the weights
    adding up to 1 and rounded to FRACTION_BITS.

    Args:
        kind: `bicubic` or `bilinear`.
        seen: how far each picture's axis is seen, in pixels.
        before: its pixels.
        after: the pixels to make of it.
        device: where to compute.

    Returns:
        the first pixel that counts, int32 [n, longest], and the weights of it and those after it,
        int32 [n, taps, longest].
    """
    step = seen.astype(np.float32).astype(np.float64) / after  # Pillow holds it in single precision
    stretch = np.maximum(step, 1.0)
    support = (2.0 if kind == "bicubic" else 1.0) * stretch
    taps = 2 * int(np.ceil(support.max())) + 1
    table = torch.from_numpy(np.stack([step, stretch, support, before])).to(device)
    step_, stretch_, support_, before_ = table[..., None].unbind()

    pixel = torch.arange(int(after.max()), dtype=torch.float64, device=device)
    centre = (pixel + 0.5) * step_
    first = (centre - support_ + 0.5).trunc().clamp(min=0)
    last = torch.minimum((centre + support_ + 0.5).trunc(), before_)
    position = first[:, None] + torch.arange(taps, device=device)[:, None]
    x = ((position - centre[:, None] + 0.5) / stretch_[:, None]).abs()
    if kind == "bicubic":
        near = (1.5 * x - 2.5) * x * x + 1
        far = ((-0.5 * x + 2.5) * x - 4) * x + 2
        weight = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    else:
        weight = (1 - x).clamp(min=0)
    weight = torch.where(position < last[:, None], weight, 0.0)
    weight = weight / weight.sum(dim=1, keepdim=True) * 2**FRACTION_BITS
    fixed = (weight + torch.where(weight < 0, -0.5, 0.5)).to(torch.int32)
    return first.to(torch.int32), fixed


def _scale_axis(
    pixels: Tensor,
    shape: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    after: NDArray[np.int64],
    first: Tensor,
    weight: Tensor,
) -> Tensor:
    """Scale the middle axis of pictures, one after another in `pixels`.

    Args:
        pixels: uint8.
        shape: the lengths of each picture's three axes.
        after: what the middle one becomes.
        first: as `_weights` gives it.
        weight: likewise.
    """
    outer, before, inner = shape
    table = np.stack([outer, before, after, inner], axis=1)
    begin = np.stack([_starts(outer * before * inner), _starts(outer * after * inner)], axis=1)
    sizes = outer * after * inner
    scaled = torch.empty(int(sizes.sum()), dtype=torch.uint8, device=pixels.device)
    _scale_kernel[(triton.cdiv(int(sizes.max()), BLOCK), len(table))](
        pixels,
        scaled,
        torch.from_numpy(begin).to(pixels.device),
        torch.from_numpy(table.astype(np.int32)).to(pixels.device),
        first,
        weight,
        weight.shape[1],
        weight.shape[2],
        FRACTION_BITS,
        BLOCK,
    )
    return scaled


# Triton compiles a kernel anew for arguments that are 1 or a multiple of 16, unless told not to.
@triton.jit(do_not_specialize=["taps", "longest"])  # type: ignore[untyped-decorator]
def _scale_kernel(
    source: tl.tensor,
    target: tl.tensor,
    start: tl.tensor,
    shape: tl.tensor,
    first: tl.tensor,
    weight: tl.tensor,
    taps: int,
    longest: int,
    BITS: tl.constexpr,  # noqa: N803
    SIZE: tl.constexpr,  # noqa: N803
) -> None:
    """One program: SIZE pixels of one scaled picture. See `_scale_axis` and `_weights`."""
    picture = tl.program_id(1)
    source += tl.load(start + picture * 2)
    target += tl.load(start + picture * 2 + 1)
    axes = shape + picture * 4
    outer, before = tl.load(axes), tl.load(axes + 1)
    after, inner = tl.load(axes + 2), tl.load(axes + 3)
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    inside = at < outer * after * inner
    i, o = at % inner, at // inner
    j, o = o % after, o // after
    begin = tl.load(first + picture * longest + j, mask=inside, other=0)
    total = tl.full((SIZE,), 1 << (BITS - 1), tl.int32)
    for tap in range(taps):
        k = begin + tap
        pixel = tl.load(source + (o * before + k) * inner + i, mask=inside & (k < before), other=0)
        share = tl.load(weight + (picture * taps + tap) * longest + j, mask=inside, other=0)
        total += pixel.to(tl.int32) * share
    level = tl.minimum(tl.maximum(total >> BITS, 0), 255)
    tl.store(target + at, level.to(tl.uint8), mask=inside)


# --- warping --------------------------------------------------------------------------------------


def warp(bases: Bases, wanted: Sequence[Sequence[View]], side: int, fitted: bool = False) -> Tensor:
    """The square of `side` pixels in the middle of each view, as `views.ViewMaker` makes it.

    Args:
        bases: the scaled pictures.
        wanted: the views of each.
        side: at most the pictures' shorter side.
        fitted: as in `preprocess.crop`.

    Returns:
        uint8 [views, side, side, 3], on the device of the bases.
    """
    counts = [len(of_one) for of_one in wanted]
    angle, factor, hflip, vflip = np.array([view for of_one in wanted for view in of_one]).T
    start, height, width = (np.repeat(column, counts) for column in bases[1:])
    left, top = (
        np.rint(around / 2).astype(np.int64) if fitted else around // 2
        for around in (width - side, height - side)
    )
    # A flip comes last: the pixel at x shows what without it is at width - 1 - x.
    first_x, step_x = np.where(hflip, width - 1 - left, left), np.where(hflip, -1, 1)
    first_y, step_y = np.where(vflip, height - 1 - top, top), np.where(vflip, -1, 1)
    table = np.stack([start, height, width, first_y, step_y, first_x, step_x], axis=1)

    # Where a pixel comes from: turned back and scaled back about the middle.
    cos, sin = np.cos(np.deg2rad(angle)) / factor, np.sin(np.deg2rad(angle)) / factor
    x, y = (width - 1) / 2, (height - 1) / 2
    back = np.stack([cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y], axis=1)

    device = bases.pixels.device
    seen = torch.empty((len(table), side, side, 3), dtype=torch.uint8, device=device)
    _warp_kernel[(triton.cdiv(side * side, BLOCK), len(table))](
        bases.pixels,
        seen,
        torch.from_numpy(table).to(device),
        torch.from_numpy(back.astype(np.float32)).to(device),
        side,
        BLOCK,
    )
    return seen


@triton.jit  # type: ignore[untyped-decorator]
def _warp_kernel(
    bases: tl.tensor,
    seen: tl.tensor,
    table: tl.tensor,
    back: tl.tensor,
    SIDE: tl.constexpr,  # noqa: N803
    SIZE: tl.constexpr,  # noqa: N803
) -> None:
    """One program: SIZE pixels of one view, each between the four pixels that it comes from."""
    view = tl.program_id(1)
    row = table + view * 7
    bases += tl.load(row)
    height, width = tl.load(row + 1).to(tl.int32), tl.load(row + 2).to(tl.int32)
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    inside = at < SIDE * SIDE
    y = (tl.load(row + 3) + tl.load(row + 4) * (at // SIDE)).to(tl.float32)
    x = (tl.load(row + 5) + tl.load(row + 6) * (at % SIDE)).to(tl.float32)
    m = back + view * 6
    from_x = x * tl.load(m) + y * tl.load(m + 1) + tl.load(m + 2)
    from_y = x * tl.load(m + 3) + y * tl.load(m + 4) + tl.load(m + 5)
    left, top = tl.floor(from_x), tl.floor(from_y)
    to_right, down = from_x - left, from_y - top
    x0, x1 = _mirrored(left.to(tl.int32), width), _mirrored(left.to(tl.int32) + 1, width)
    y0, y1 = _mirrored(top.to(tl.int32), height), _mirrored(top.to(tl.int32) + 1, height)
    seen += (view.to(tl.int64) * SIDE * SIDE + at) * 3
    for channel in range(3):
        p00 = tl.load(bases + y0 * width + x0, mask=inside, other=0).to(tl.float32)
        p01 = tl.load(bases + y0 * width + x1, mask=inside, other=0).to(tl.float32)
        p10 = tl.load(bases + y1 * width + x0, mask=inside, other=0).to(tl.float32)
        p11 = tl.load(bases + y1 * width + x1, mask=inside, other=0).to(tl.float32)
        above = p00 + to_right * (p01 - p00)
        below = p10 + to_right * (p11 - p10)
        level = tl.floor(above + down * (below - above) + 0.5)
        tl.store(seen + channel, level.to(tl.uint8), mask=inside)
        bases += height * width


@triton.jit  # type: ignore[untyped-decorator]
def _mirrored(at: tl.tensor, length: tl.tensor) -> tl.tensor:
    """The pixel that stands for one outside: the picture mirrored at its edge pixels."""
    period = 2 * (length - 1)
    at = tl.abs(at) % period
    return tl.minimum(at, period - at)
