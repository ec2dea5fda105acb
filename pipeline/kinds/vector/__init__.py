"""Vectors: features from another model, such as an encoder or a recommender.

A vector is an NPY file with a one-dimensional array, or a JSON list of numbers. Rows of tables are
vectors too (`examples/rows.py`). The backbone is the identity, and there is no augmentation.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import ParamsError, RefusedError
from ...examples.files import read as read_file
from .. import IR_VERSION, OPSET, Asked, Example, Maker, Plain, Shown, Vector

if TYPE_CHECKING:
    import onnx
    import pandas as pd
    import torch

    from ...core.params import Augmentation

INSPECTION_CODE = 1  # raise when parse.py accepts or refuses other vectors
COPIES_CODE = 1  # raise when other pairs count as copies
VIEW_CODE = 1  # raise when the same bytes give another vector
SHOWN = 8  # dimensions of a vector that a page shows
ALIKE = 1e-3  # maximum distance of copies, as a fraction of the smaller norm

GRAPH = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
vector (float[{length}] vector) => (float[1, {length}] input)
<int64[1] front = {{0}}>
{{
    input = Unsqueeze(vector, front)
}}
"""


class Rows:
    """Makes the identity's input from vectors."""

    made_by = ""

    def __call__(self, asked: Asked) -> NDArray[np.float32]:
        """Return the vectors, float32 [n, length]."""
        from .parse import vector

        return np.stack([vector(data) for data, views in asked for _ in views])


class OfNumbers(Plain):
    """Implements `Kind`, which documents each attribute and method."""

    noun, nouns = "vector", "vectors"
    most_bytes = 10_000_000
    columns = ("length",)
    rows, same = "vector", "length"
    view_code = VIEW_CODE
    feeds = frozenset({"vector"})
    floor = ""
    windowed = texts = hides = False
    maps_first = True
    accepts = ("application/json", "application/x-npy")
    dimensions = 1
    libraries: tuple[str, ...] = ()
    evidence = ""

    def schema(self) -> "type[Augmentation]":
        """Return the section `augment`, in which `views` can only be 0."""
        from .parameters import Augment

        return Augment

    def inspect(self, data: bytes) -> tuple[Any, ...]:
        """Return the number of dimensions."""
        from .parse import vector

        return (len(vector(data)),)

    def inspected_by(self) -> str:
        """Return the version of this code."""
        return f"vector inspection {INSPECTION_CODE}"

    def remember(self, seen: tuple[Any, ...]) -> NDArray[np.float32]:
        """Return the length."""
        return np.array(seen, dtype=np.float32)

    def recall(self, numbers: NDArray[np.float32]) -> tuple[Any, ...]:
        """Undo `remember`."""
        return (int(numbers[0]),)

    def contact_sheet(self, training: "pd.DataFrame", plan: "pd.DataFrame", file: Path) -> None:
        """Draw vectors of each class as rows of colours."""
        from .contact_sheet import contact_sheet

        contact_sheet(training, file)

    def views_made_by(self, augmented: bool) -> str:
        """Return a constant: no library changes the vectors."""
        return "vector"

    def inputs(self, preprocessing: Vector, device: str) -> Maker:
        """Return a maker of vectors, float32 [n, length]."""
        return Rows()

    def copies(self, pairs: Sequence[tuple[Example, Example]]) -> list[bool]:
        """Return for each pair whether the vectors are equal up to rounding."""
        from .parse import vector

        def of(example: Example) -> NDArray[np.float64]:
            return vector(read_file(Path(example[0]), example[1])).astype(np.float64)

        alike = []
        for one, other in ((of(first), of(second)) for first, second in pairs):
            shorter = min(np.linalg.norm(one), np.linalg.norm(other))
            alike.append(
                one.shape == other.shape and bool(np.linalg.norm(one - other) <= ALIKE * shorter)
            )
        return alike

    def copies_by(self) -> str:
        """Return the version of this code."""
        return f"vectors alike {COPIES_CODE}"

    def graph(self, preprocessing: Vector) -> "onnx.ModelProto":
        """Return the graph from a vector, float32 [length], to a batch of one."""
        from onnx import parser

        return parser.parse_model(
            GRAPH.format(ir_version=IR_VERSION, opset=OPSET, length=preprocessing.length)
        )

    def torch_input(self, example: "torch.Tensor", preprocessing: Vector) -> "torch.Tensor":
        """Raise an error: there is no network to run in PyTorch.

        Raises:
            ParamsError: always.
        """
        raise ParamsError("a bundle of vectors does not run in PyTorch: it has no network")

    def encode(self, array: NDArray[Any]) -> bytes:
        """Convert an array [length] to the bytes of an NPY file."""
        from .parse import npy

        if array.ndim != 1 or array.dtype.kind not in "fiu":
            raise RefusedError(
                f"an array of {array.dtype} {list(array.shape)}; a vector should be a"
                " one-dimensional array of numbers"
            )
        return npy(array)

    def read(self, data: bytes, preprocessing: Vector) -> NDArray[np.float32]:
        """Read a vector, float32 [length], which must have the length that the bundle expects."""
        from .parse import vector

        found = vector(data)
        if preprocessing.length not in (0, len(found)):
            raise RefusedError(
                f"it has length {len(found)}, but the bundle takes {preprocessing.length}"
            )
        return found

    def explain(
        self,
        example: NDArray[Any],
        heat: NDArray[np.float32],
        preprocessing: Vector,
        side: int | None,
    ) -> Shown:
        """Raise an error; never called, because the identity has no activation maps."""
        raise ParamsError(f"{self.nouns} have no activation maps")

    def hidden(self, data: bytes, preprocessing: Vector) -> Sequence[NDArray[Any]]:
        """Raise an error; never called, because the dimensions mean nothing to people."""
        raise ParamsError(f"{self.nouns} have no parts to hide")

    def explain_parts(
        self, data: bytes, preprocessing: Vector, weights: NDArray[np.float32], side: int | None
    ) -> Shown:
        """Raise an error; never called, like `hidden`."""
        raise ParamsError(f"{self.nouns} have no parts to show")

    def show(self, data: bytes, side: int) -> Shown:
        """Show the first dimensions."""
        from .parse import vector

        found = vector(data)
        some = ", ".join(f"{number:.3g}" for number in found[:SHOWN])
        more = ", …" if len(found) > SHOWN else ""
        return Shown("text/plain", f"[{some}{more}]\n{len(found)} numbers".encode())


KIND = OfNumbers()
