"""A toy kind: a grid of digits in a text file, shown to an image backbone as levels of grey.

`tests/kinds/test_new_kind.py` copies it to `plugins/kind.py`, and as a folder to `pipeline/kinds/`.
"""

import contextlib
import struct
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.plugins import (
    IR_VERSION,
    OPSET,
    Asked,
    Augmentation,
    Example,
    Preprocessing,
    RefusedError,
    Share,
    Shown,
    View,
    read,
    setting,
)

GRAPH = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
grid (uint8[{side}, {side}, 3] grid) => (uint8[1, {side}, {side}, 3] input)
<int64[1] front = {{0}}>
{{
    input = Unsqueeze(grid, front)
}}
"""


def levels(data: bytes) -> NDArray[np.uint8]:
    """The grid as bytes [rows, columns]."""
    lines = data.decode("ascii", "replace").split()
    if not lines or len({len(line) for line in lines}) > 1:
        raise RefusedError("its rows are not of one length")
    if not all(line.isdecimal() and line.isascii() for line in lines):
        raise RefusedError("it holds something else than digits")
    return np.array([[28 * int(digit) for digit in line] for line in lines], dtype=np.uint8)


def pixels(data: bytes, side: int, turned: bool = False) -> NDArray[np.uint8]:
    """The grid as the backbone sees it, [side, side, 3]."""
    grid = levels(data)
    grid = grid.T if turned else grid
    rows, columns = (np.arange(side) * length // side for length in grid.shape)
    return np.repeat(grid[np.ix_(rows, columns)][..., None], 3, axis=2)


class Maker:
    made_by = ""

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, asked: Asked) -> NDArray[np.uint8]:
        return np.stack([pixels(data, self.side, *view) for data, views in asked for view in views])


class Grid:
    noun, nouns = "grid", "grids"
    most_bytes = 10_000
    columns = ("rows", "across")
    view_columns = ("turned",)
    original = (False,)
    view_code = 1
    feeds = frozenset({"pixels"})
    accepts = ("text/plain",)

    def inspect(self, data: bytes) -> tuple[Any, ...]:
        return levels(data).shape

    def inspected_by(self) -> str:
        return "grid 1"

    def remember(self, seen: tuple[Any, ...]) -> NDArray[np.float32]:
        return np.array(seen, dtype=np.float32)

    def recall(self, numbers: NDArray[np.float32]) -> tuple[Any, ...]:
        return tuple(int(number) for number in numbers)

    def alone(self, path: Path) -> Any:
        return contextlib.nullcontext()

    def schema(self) -> Any:
        class Augment(Augmentation):
            """How many training views are turned."""

            turned: Share = setting(0.5, "probability that rows and columns change places")

        return Augment

    def plan(self, digests: list[str], settings: Any) -> Any:
        import pandas as pd

        rows = [
            (digest, number, *self.draw(digest, number, settings))
            for digest in sorted(digests)
            for number in range(1, settings.views + 1)
        ]
        types = {"digest": "str", "view": "int32", "turned": bool}
        return pd.DataFrame(rows, columns=list(types)).astype(types)

    def draw(self, digest: str, number: int, settings: Any) -> View:
        drawn = blake2b(f"{settings.seed}:{digest}:{number}".encode(), digest_size=8).digest()
        return (int.from_bytes(drawn, "big") / 2**64 < settings.turned,)

    def contact_sheet(self, training: Any, plan: Any, file: Path) -> None:
        from PIL import Image

        some = training.head(3)
        shown = [pixels(read(Path(row.path), row.digest), 64) for row in some.itertuples()]
        Image.fromarray(np.concatenate(shown)).save(file)

    def pack_view(self, view: View) -> bytes:
        return struct.pack("?", *view)

    def views_made_by(self, augmented: bool) -> str:
        return "grid 1"

    def inputs(self, preprocessing: Preprocessing, device: str) -> Maker:
        return Maker(preprocessing.crop)

    def copies(self, pairs: Sequence[tuple[Example, Example]]) -> list[bool]:
        def grid(example: Example) -> NDArray[np.uint8]:
            return levels(read(Path(example[0]), example[1]))

        return [np.array_equal(grid(one), grid(other)) for one, other in pairs]

    def copies_by(self) -> str:
        return "grids alike 1"

    def graph(self, preprocessing: Preprocessing) -> Any:
        from onnx import parser

        numbers = {"ir_version": IR_VERSION, "opset": OPSET, "side": preprocessing.crop}
        return parser.parse_model(GRAPH.format(**numbers))

    def torch_input(self, example: Any, preprocessing: Preprocessing) -> Any:
        return example

    def encode(self, array: NDArray[Any]) -> bytes:
        return "\n".join("".join(map(str, row)) for row in array.tolist()).encode()

    def read(self, data: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
        return pixels(data, preprocessing.crop)

    def explain(self, example: Any, heat: Any, preprocessing: Preprocessing, side: Any) -> Shown:
        rows = ["".join(" .:*#"[int(4 * share)] for share in row) for row in heat]
        return Shown("text/plain", "\n".join(rows).encode())

    def show(self, data: bytes, side: int) -> Shown:
        levels(data)
        return Shown("text/plain", data)


KIND = Grid()
