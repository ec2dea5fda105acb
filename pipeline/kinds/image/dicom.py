"""DICOM files: one frame, as on a radiologist's screen, or with the range in `ingest.range`.

Stored values are converted to measured values (rescale slope and intercept, or the modality LUT),
and these to grey levels (a window, or the VOI LUT); in MONOCHROME1 the lowest values are white. See
PS3.3 of the standard, C.11.1, C.11.2 and C.7.6.3.1.2. Only fields that affect the pixels are read
from the header, so no patient's name gets into a table or a bundle.
"""

import io
import logging
import warnings
from functools import cache
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...core import packages
from ...core.errors import RefusedError
from .reading import Reading, eight_bits

if TYPE_CHECKING:
    from pydicom import Dataset

DEFLATED = b"1.2.840.10008.1.2.1.99"  # the transfer syntax of files that are compressed as a whole
READ = [
    "SOPClassUID", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "PlanarConfiguration",
    "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept",
    "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PixelData",
    "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
]  # fmt: skip


def is_dicom(data: bytes) -> bool:
    """Return whether a file is DICOM: it has DICM after 128 arbitrary bytes."""
    return data[128:132] == b"DICM"


def picture(file: io.BytesIO, reading: Reading, most_pixels: int) -> tuple[NDArray[np.uint8], str]:
    """Return the frame's pixels, [height, width] or [height, width, 3], and how they were computed.

    Raises:
        RefusedError: the file has no pixels or several frames, or cannot be read.
    """
    dcmread = _dcmread()
    if DEFLATED in file.getbuffer()[:4096].tobytes():
        raise RefusedError("a DICOM file that is compressed as a whole: decompress it first")
    try:
        dataset = dcmread(file, specific_tags=READ)
        _check(dataset, most_pixels)
        return _levels(dataset, reading)
    except RefusedError:
        raise
    except Exception as error:  # pydicom raises many kinds on malicious files
        reason = shorten(str(error), 120, placeholder=" …") or type(error).__name__
        raise RefusedError(f"damaged or cut short ({reason})") from None


@cache
def _dcmread() -> Any:
    """Return pydicom's `dcmread`, without warnings: they are irrelevant, or in a refusal's text."""
    try:
        import pydicom
    except ImportError:
        raise RefusedError(
            f"a DICOM file, which needs pydicom: {packages.how_to_install('instruments')}"
        ) from None
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"pydicom")
    return pydicom.dcmread


def _check(dataset: "Dataset", most_pixels: int) -> None:
    """Raise `RefusedError` unless there is exactly one frame that can be decoded."""
    from pydicom.pixels.decoders.base import get_decoder

    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        what = getattr(dataset.get("SOPClassUID"), "name", "of no stated kind")
        raise RefusedError(f"a DICOM file without pixels ({what})")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise RefusedError(f"a DICOM file with {frames:,} frames: save each frame as a file")
    if "SharedFunctionalGroupsSequence" in dataset or "PerFrameFunctionalGroupsSequence" in dataset:
        raise RefusedError(
            "an enhanced DICOM file, whose rescaling differs from frame to frame: save each frame"
            " as a classic file"
        )
    if dataset.Rows * dataset.Columns > most_pixels:
        raise RefusedError(f"too large: over {most_pixels:,} pixels")
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        can_decode = not syntax.is_compressed or get_decoder(syntax).is_available
    except NotImplementedError:
        can_decode = False
    if not can_decode:
        raise RefusedError(
            f"a DICOM file compressed with {syntax.name}, for which there is no decoder:"
            " decompress it first, for instance with gdcmconv --raw"
        )


def _levels(dataset: "Dataset", reading: Reading) -> tuple[NDArray[np.uint8], str]:
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
    from pydicom.pixels.utils import pixel_array

    stored = pixel_array(dataset)
    form = str(dataset.PhotometricInterpretation)
    if form == "PALETTE COLOR":
        colours = apply_color_lut(stored, dataset)[..., :3]
        return (colours if colours.dtype == np.uint8 else (colours >> 8).astype(np.uint8)), form
    if stored.ndim == 3:
        if stored.dtype != np.uint8 or stored.shape[2] != 3:
            raise RefusedError(
                f"a DICOM file with {form} pixels of type {stored.dtype}, which is not supported"
            )
        return stored, form
    if form not in ("MONOCHROME1", "MONOCHROME2"):
        raise RefusedError(
            f"a DICOM file with the photometric interpretation {form}, which is not supported"
        )
    rescale = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    measured = dataset.get("ModalityLUTSequence") or rescale != (1, 0)
    values = apply_modality_lut(stored, dataset) if measured else stored
    levels, words = _grey(dataset, values, _padding(dataset, stored), reading)
    return levels, f"{form}, {words}"


def _grey(
    dataset: "Dataset",
    values: NDArray[Any],
    absent: NDArray[np.bool_] | None,
    reading: Reading,
) -> tuple[NDArray[np.uint8], str]:
    """Scale measured values to grey levels, by `ingest.range` or, if it is not set, by the file."""
    from pydicom.pixels.processing import apply_voi

    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"

    def levels(
        of: NDArray[Any], declared: str | tuple[float, float], whole: tuple[float, float]
    ) -> tuple[NDArray[np.uint8], str]:
        return eight_bits(of, declared, whole, absent, inverted)

    if reading.range is not None:
        return levels(values, reading.range, _whole(dataset))
    if dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        centre, width = (_first(dataset[name].value) for name in ("WindowCenter", "WindowWidth"))
        function = str(dataset.get("VOILUTFunction") or "LINEAR")
        least = 1 if function == "LINEAR" else 0
        if not (np.isfinite(centre) and np.isfinite(width) and width > least):
            raise RefusedError(f"a DICOM file whose window has width {width:g}: set ingest.range")
        words = f"window {centre:g} width {width:g}"
        if function == "SIGMOID":
            curve = 1 / (1 + np.exp(-4 * (values.astype(np.float64) - centre) / width))
            return levels(curve, (0.0, 1.0), (0.0, 1.0))[0], f"{words} sigmoid"
        # LINEAR is defined for integers, with centre - 0.5 and width - 1.
        half = (width - least) / 2
        middle = centre - least / 2
        return levels(values, (middle - half, middle + half), (0.0, 1.0))[0], words
    if dataset.get("VOILUTSequence"):
        table = apply_voi(values.astype(np.int64), dataset)
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return levels(table, (0.0, 2.0**bits - 1), (0.0, 1.0))[0], "table of levels"
    if values.dtype.kind == "u" and dataset.get("BitsStored") == 8:
        return levels(values, "type", (0.0, 255.0))
    raise RefusedError(
        "a DICOM file without a window: set ingest.range to file, type or two numbers"
    )


def _whole(dataset: "Dataset") -> tuple[float, float]:
    """Return the smallest and largest measured value that the file's data type allows."""
    if dataset.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    if "PixelData" not in dataset:
        return 0.0, 1.0
    bits = int(dataset.BitsStored)
    low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1)
    if not dataset.PixelRepresentation:
        low, high = 0.0, 2.0**bits - 1
    slope, intercept = 1.0, 0.0
    if "RescaleSlope" in dataset and "RescaleIntercept" in dataset:
        slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    ends = sorted((low * slope + intercept, high * slope + intercept))
    return ends[0], ends[1]


def _padding(dataset: "Dataset", stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Return a mask of the padding pixels (PS3.3, C.7.5.1.1.2); None if there are none."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = sorted((int(value), int(value if limit is None else limit)))
    filled: NDArray[np.bool_] = (stored >= ends[0]) & (stored <= ends[1])
    return filled if filled.any() else None


def _first(value: Any) -> float:
    """Return the first value of a field that has one value per window."""
    try:
        return float(value)
    except TypeError:
        return float(value[0])
