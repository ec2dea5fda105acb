"""Images: from bytes to pixels, and from pixels to views.

Modules are imported where they are used, because a stage needs few of them.
"""

import contextlib
import math
import struct
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...core import packages
from ...core.errors import RefusedError
from .. import Example, Fitted, Flaw, Maker, Pixels, Plain, Shown, View
from .reading import PLAIN, Reading, parsed

if TYPE_CHECKING:
    import onnx
    import pandas as pd
    import torch

    from ...core.params import Augmentation

FORMATS = (  # all supported formats; positions are stored, so append new ones
    "AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP", "DICOM", "HEIF",
)  # fmt: skip
ORIGINAL = (0.0, 1.0, False, False)  # angle, scale and flips of an unaugmented picture

# Notes to print if `read_as` has these words.
REMARKS = {
    "page 1 of": "only the first page is used",
    "channel 1 of": "only the first channel is used (ingest.channels picks others)",
    "channels 1, 2, 3 of": "only the first three channels are used (ingest.channels picks others)",
    "16 bits divided": "16-bit values are divided by 256 (ingest.range stretches them)",
}

# Raise when decode.py accepts or refuses other files, or flaws.py measures something else.
INSPECTION_CODE = 2
COPIES_CODE = 3  # raise when, by decode.py, copies.py or detail.py, other pairs count as copies
VIEW_CODE = 1  # raise when decode.py, preprocess.py, views.py or warp.py give other pixels

# The libraries in Pillow that decode; their versions depend on the build. Wheels on PyPI have the
# versions in `WHEELS`, which keys do not include, so that keys of older versions are still valid.
CODECS = ("jpg", "libjpeg_turbo", "webp", "avif", "littlecms2", "jpg_2000", "libtiff")
WHEELS = {
    "13.0.0": "jpg 6.2 libjpeg_turbo 3.2.0 webp 1.6.0 avif 1.4.2 littlecms2 2.19 jpg_2000 2.5.4"
    " libtiff 4.7.2"
}
# Optional packages that decode the pixels of DICOM files.
DICOM_CODECS = (
    "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls", "python-gdcm",
)  # fmt: skip

version = cache(metadata.version)  # cached because it reads a file and is called for each example


@cache
def _codecs() -> str:
    """Return Pillow's decoding libraries, with their versions."""
    from PIL import features

    return " ".join(f"{name} {features.version(name)}" for name in CODECS)


def _pillow() -> str:
    """Return Pillow's version, with its libraries if they differ from those of PyPI's wheel."""
    number, codecs = version("pillow"), _codecs()
    return number if WHEELS.get(number) == codecs else f"{number} with {codecs}"


@cache
def _libheif() -> str:
    """Return libheif and its version; without the version if HEIC cannot be read."""
    try:
        import pi_heif
    except ImportError:
        return "libheif"
    return f"libheif {pi_heif.libheif_version()}"


class Image(Plain):
    """Implements `Kind`, which documents each attribute and method."""

    noun, nouns = "picture", "pictures"
    most_bytes = 200_000_000
    columns = ("width", "height", "format", "read_as")
    measures = ("low", "high", "sharpness")
    rows = same = ""
    windowed = texts = False
    hides, maps_first = True, False  # benchmarks/reasons.md compares them
    dimensions = 3
    libraries = ("pillow",)
    evidence = "a heat map of the predicted class (lighter means more evidence)"
    view_columns = ("angle", "scale", "hflip", "vflip")
    original = ORIGINAL
    view_code = VIEW_CODE
    feeds = frozenset({"pixels", "fitted"})
    floor = "histogram"
    accepts = ("image/*", "application/dicom")

    def __init__(self, declared: Reading = PLAIN) -> None:
        """Store the read settings of pictures from instruments."""
        self.declared = declared

    def reading(self, declared: dict[str, str]) -> "Image":
        """Return the kind with read settings: `range` and `channels`."""
        return Image(parsed(declared))

    def schema(self) -> "type[Augmentation]":
        """Return the section `augment`."""
        from .parameters import Augment

        return Augment

    def inspect(self, data: bytes) -> tuple[Any, ...]:
        """Return upright width and height, the format (of `FORMATS`), `read_as` and `measures`."""
        from . import decode

        return decode.inspect(data, self.declared)

    def inspected_by(self) -> str:
        """Return the versions of this code and of Pillow, and the read settings."""
        return f"inspection {INSPECTION_CODE}, Pillow {_pillow()}{self.declared}"

    def form(self, data: bytes) -> str:
        """Return DICOM or HEIF, or an empty text for a picture that Pillow reads alone."""
        if data[128:132] == b"DICM":
            return "DICOM"
        if data[4:8] != b"ftyp":
            return ""
        from .decode import is_heic

        brands = data[8 : int.from_bytes(data[:4], "big")]
        return "HEIF" if is_heic(data) and b"avif" not in brands else ""

    def read_by(self, form: str) -> str:
        """Return the libraries besides Pillow that read DICOM or HEIC."""
        if form == "HEIF":
            return f"{packages.with_version('pi-heif')} {_libheif()}"
        if form != "DICOM":
            return ""
        codecs = [name for name in map(packages.with_version, DICOM_CODECS) if " " in name]
        return " ".join([packages.with_version("pydicom"), *codecs])

    def remember(self, seen: tuple[Any, ...]) -> NDArray[np.float32]:
        """Return the numbers, the format's position in `FORMATS` and the bytes of `read_as`."""
        width, height, form, read_as, *measures = seen
        numbers = [width, height, FORMATS.index(form), *measures, *read_as.encode()]
        return np.array(numbers, dtype=np.float32)

    def recall(self, numbers: NDArray[np.float32]) -> tuple[Any, ...]:
        """Undo `remember`."""
        width, height, form, low, high = (int(number) for number in numbers[:5])
        sharpness = math.nan if math.isnan(numbers[5]) else round(float(numbers[5]), 2)
        read_as = bytes(numbers[6:].astype(np.uint8)).decode()
        return width, height, FORMATS[form], read_as, low, high, sharpness

    def flaws(self, table: "pd.DataFrame") -> list[Flaw]:
        """Return blank, dark, bright, blurred, and of odd shape."""
        from .flaws import flaws

        return flaws(table)

    def alone(self, path: Path) -> contextlib.AbstractContextManager[object]:
        """Admit one large file at a time, because each takes hundreds of megabytes."""
        from . import decode

        return decode.large(path, self.most_bytes)

    def large(self, data: bytes) -> bool:
        """Return False: `decode.py` itself decodes large pictures one at a time."""
        return False

    def remarks(self, manifest: "pd.DataFrame") -> list[str]:
        """Report, from `read_as`, how many pictures are only partly used."""
        if "read_as" not in manifest:
            return []
        lines = []
        for sign, what in REMARKS.items():
            having = manifest["path"][manifest["read_as"].str.contains(sign, regex=False)]
            if len(having) and not (self.declared.channels and sign.startswith("channel")):
                count = f"{len(having)} picture{'s' * (len(having) > 1)}"
                lines.append(f"in {count}, {what}; the first is {having.iloc[0]}")
        return lines

    def plan(self, digests: list[str], settings: "Augmentation") -> "pd.DataFrame":
        """Return the plan, as in `Kind.plan`."""
        from . import plan as plans

        return plans.plan(digests, plans.as_augment(settings))

    def draw(self, digest: str, number: int, settings: "Augmentation") -> View:
        """Draw a view, as in `Kind.draw`."""
        from . import plan as plans

        return plans.draw(digest, number, plans.as_augment(settings))

    def contact_sheet(self, training: "pd.DataFrame", plan: "pd.DataFrame", file: Path) -> None:
        """Draw pictures beside their views."""
        from .contact_sheet import contact_sheet

        contact_sheet(training, plan, file, self.declared)

    def pack_view(self, view: View) -> bytes:
        """Pack angle and scale as IEEE doubles (-0.0 as 0.0), and the flips.

        Raises:
            ValueError: angle or scale is not finite.
        """
        angle, scale, hflip, vflip = view
        if not (math.isfinite(angle) and math.isfinite(scale)):
            raise ValueError(f"a view's angle and scale must be finite, not {angle} and {scale}")
        return struct.pack(
            ">dd??", float(angle) + 0.0, float(scale) + 0.0, bool(hflip), bool(vflip)
        )

    def views_made_by(self, augmented: bool) -> str:
        """Return the libraries that decode, scale and warp, and the read settings."""
        names = ("pillow", "opencv-python-headless", "albumentations")
        libraries = [f"{name} {version(name)}" for name in names[1 : 3 if augmented else 1]]
        return f"{' '.join([f'pillow {_pillow()}', *libraries])}{self.declared}"

    def inputs(self, preprocessing: Pixels | Fitted, device: str) -> Maker:
        """Return a maker of views, uint8 [n, side, side, 3]."""
        if device != "cpu":
            from .gpu import ViewMaker

            return ViewMaker(preprocessing, self.declared, device)
        from .views import ViewMaker as OnCpu

        return OnCpu(preprocessing, self.declared)

    def copies(self, pairs: Sequence[tuple[Example, Example]]) -> list[bool]:
        """Return for each pair whether the pictures are copies, by comparing their pixels."""
        from .copies import copies

        return copies(pairs, self.declared)

    def copies_by(self) -> str:
        """Return the versions of this code, Pillow and OpenCV, and the read settings."""
        libraries = f"Pillow {_pillow()}, OpenCV {version('opencv-python-headless')}"
        return f"alike {COPIES_CODE}, {libraries}{self.declared}"

    def graph(self, preprocessing: Pixels | Fitted) -> "onnx.ModelProto":
        """Return the graph from a picture, uint8 [height, width, 3], to the backbone's pixels."""
        from .onnx_input import graph

        return graph(preprocessing)

    def torch_input(
        self, example: "torch.Tensor", preprocessing: Pixels | Fitted
    ) -> "torch.Tensor":
        """Compute in PyTorch what `graph` computes: uint8 [height, width, 3] to [crop, crop, 3]."""
        from .torch_input import preprocess

        return preprocess(example, preprocessing)

    def encode(self, array: NDArray[Any]) -> bytes:
        """Encode pixels, uint8 [height, width, 3] of sRGB, as a binary PPM."""
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
            raise RefusedError(
                f"an array of {array.dtype} {list(array.shape)}; pixels should be uint8"
                " [height, width, 3]"
            )
        return b"P6\n%d %d\n255\n" % (array.shape[1], array.shape[0]) + array.tobytes()

    def read(self, data: bytes, preprocessing: Pixels | Fitted) -> NDArray[Any]:
        """Read a picture, uint8 [height, width, 3], scaled by the same function as in `extract`."""
        from .preprocess import base

        return base(data, preprocessing, self.declared)

    def explain(
        self,
        example: NDArray[Any],
        heat: NDArray[np.float32],
        preprocessing: Pixels | Fitted,
        side: int | None,
    ) -> Shown:
        """Show the picture, as the backbone saw it, under the activation map of a class."""
        from .heat import overlay
        from .preprocess import crop
        from .show import encoded

        seen = crop(example, preprocessing.crop, isinstance(preprocessing, Fitted))
        return encoded(overlay(seen, heat), side)

    def hidden(self, data: bytes, preprocessing: Pixels | Fitted) -> Sequence[NDArray[Any]]:
        """Return inputs made from the picture, in each of which other cells are blurred."""
        from .hiding import hidden

        fitted = isinstance(preprocessing, Fitted)
        return hidden(self.read(data, preprocessing), preprocessing.crop, fitted)

    def hidden_together(self) -> NDArray[np.bool_]:
        """Return which cells each input of `hidden` blurs."""
        from .hiding import together

        return together()

    def explain_parts(
        self,
        data: bytes,
        preprocessing: Pixels | Fitted,
        weights: NDArray[np.float32],
        side: int | None,
    ) -> Shown:
        """Show the picture, as the backbone saw it, under a map of the cells' weights."""
        from .hiding import as_map

        example = self.read(data, preprocessing)
        return self.explain(example, as_map(weights), preprocessing, side)

    def show(self, data: bytes, side: int) -> Shown:
        """Show a thumbnail."""
        from .show import thumbnail

        return thumbnail(data, side, self.declared)


KIND = Image()
