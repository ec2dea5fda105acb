"""Texts: bytes in UTF-8 to tokens, or to counts of terms.

The modules are imported where they are used, since a stage needs few of them.
"""

import unicodedata
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import ParamsError, RefusedError
from .. import IR_VERSION, OPSET, Example, Input, Maker, Plain, Shown, Terms

if TYPE_CHECKING:
    import onnx
    import pandas as pd
    import torch

    from ...core.params import Augmentation

INSPECTION_CODE = 1  # raise when reading.py comes to take or refuse other files
COPIES_CODE = 1  # raise when reading.py or copies.py come to call other pairs copies
VIEW_CODE = 1  # raise when reading.py, tokens.py or terms.py come to give other inputs

GRAPH = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
text ({type}[{length}] text) => ({type}[1, {length}] input)
<int64[1] front = {{0}}>
{{
    input = Unsqueeze(text, front)
}}
"""


class Text(Plain):
    """Implements `Kind`, which describes each attribute and method."""

    noun, nouns = "text", "texts"
    most_bytes = 1_000_000
    columns = ("characters", "words")
    rows = "text"
    same = ""
    view_code = VIEW_CODE
    feeds = frozenset({"tokens", "terms"})
    windowed = False
    texts = hides = maps_first = True
    evidence = "the words that speak for the predicted class (a stronger colour is more evidence)"
    accepts = ("text/plain",)
    libraries: tuple[str, ...] = ()  # a backbone that takes tokens names tokenizers
    dimensions = 0

    def schema(self) -> "type[Augmentation]":
        """The section `augment`."""
        from .parameters import Augment

        return Augment

    def inspect(self, data: bytes) -> tuple[Any, ...]:
        """How many characters and words it has."""
        from . import reading

        return reading.inspect(data)

    def inspected_by(self) -> str:
        """This code and the version of Unicode."""
        return f"texts {INSPECTION_CODE}, Unicode {unicodedata.unidata_version}"

    def remember(self, seen: tuple[Any, ...]) -> NDArray[np.float32]:
        """Both counts; a text is too short for one that float32 does not hold."""
        return np.array(seen, dtype=np.float32)

    def recall(self, numbers: NDArray[np.float32]) -> tuple[Any, ...]:
        """What `remember` was given."""
        return tuple(int(number) for number in numbers)

    def contact_sheet(self, training: "pd.DataFrame", plan: "pd.DataFrame", file: Path) -> None:
        """Some texts of each class."""
        from .contact_sheet import contact_sheet

        contact_sheet(training, file)

    def views_made_by(self, augmented: bool) -> str:
        """The library that makes tokens, if it is there, and the version of Unicode."""
        try:
            tokenizers = version("tokenizers")
        except PackageNotFoundError:  # and so the backbone takes no tokens
            tokenizers = "none"
        return f"tokenizers {tokenizers} Unicode {unicodedata.unidata_version}"

    def inputs(self, preprocessing: Input, device: str) -> Maker:
        """Tokens, a list of int64 [length], or counts of terms, float32 [n, width]."""
        from .inputs import Maker as OfTexts

        return OfTexts(preprocessing)

    def copies(self, pairs: Sequence[tuple[Example, Example]]) -> list[bool]:
        """Whether texts say the same, by their words."""
        from .copies import copies

        return copies(pairs)

    def copies_by(self) -> str:
        """This code and the version of Unicode."""
        return f"texts alike {COPIES_CODE}, Unicode {unicodedata.unidata_version}"

    def graph(self, preprocessing: Input) -> "onnx.ModelProto":
        """From what `read` returns to the same as a batch of one."""
        from onnx import parser

        form = {"type": "int64", "length": "length"}
        if isinstance(preprocessing, Terms):
            form = {"type": "float", "length": str(preprocessing.width)}
        return parser.parse_model(GRAPH.format(ir_version=IR_VERSION, opset=OPSET, **form))

    def torch_input(self, example: "torch.Tensor", preprocessing: Input) -> "torch.Tensor":
        """What `read` returns, as it is."""
        return example

    def encode(self, array: NDArray[Any]) -> bytes:
        """An array that holds one text, in UTF-8."""
        if array.dtype.kind != "U" or array.size != 1:
            raise RefusedError(f"an array of {array.dtype} {list(array.shape)}; a text is one str")
        return str(array.item()).encode()

    def read(self, data: bytes, preprocessing: Input) -> NDArray[Any]:
        """Tokens, int64 [length], or counts of terms, float32 [width]."""
        from .inputs import read

        return read(data, preprocessing)

    def hidden(self, data: bytes, preprocessing: Input) -> Sequence[NDArray[Any]] | None:
        """The text without one word after another."""
        from .parts import hidden

        return hidden(data, preprocessing)

    def hidden_together(self) -> None:
        """None: parts are hidden one at a time."""

    def explain(
        self,
        example: NDArray[Any],
        heat: NDArray[np.float32],
        preprocessing: Input,
        side: int | None,
    ) -> Shown:
        """Never called: no encoder of texts has maps."""
        raise ParamsError(f"{self.nouns} have no activation maps")

    def explain_parts(
        self, data: bytes, preprocessing: Input, weights: NDArray[np.float32], side: int | None
    ) -> Shown:
        """The text, its words the more coloured the more they count."""
        from .parts import marked

        return marked(data, preprocessing, weights, side)

    def show(self, data: bytes, side: int) -> Shown:
        """The beginning of the text."""
        from .parts import shortened
        from .reading import text_of

        return Shown("text/plain", shortened(text_of(data)).encode())


KIND = Text()
