"""Texts: from UTF-8 bytes to tokens or term counts.

Modules are imported where they are used, because a stage needs few of them.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import ParamsError, RefusedError
from .. import IR_VERSION, OPSET, Example, Flaw, Input, Maker, Plain, Shown, Terms

if TYPE_CHECKING:
    import onnx
    import pandas as pd
    import torch

    from ...core.params import Augmentation

INSPECTION_CODE = 2  # raise when reading.py accepts or refuses other files, or counts otherwise
COPIES_CODE = 1  # raise when, by reading.py or copies.py, other pairs count as copies
VIEW_CODE = 1  # raise when another module here gives other inputs

GRAPH = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
text ({type}[{length}] text) => ({type}[1, {length}] input)
<int64[1] front = {{0}}>
{{
    input = Unsqueeze(text, front)
}}
"""


class Text(Plain):
    """Implements `Kind`, which documents each attribute and method."""

    noun, nouns = "text", "texts"
    most_bytes = 1_000_000
    columns = ("characters", "words")
    measures = ("distinct",)
    rows = "text"
    same = ""
    view_code = VIEW_CODE
    feeds = frozenset({"tokens", "terms", "characters"})
    floor = "characters"
    windowed = False
    texts = hides = maps_first = True
    evidence = "the words that speak for the predicted class (a stronger colour is more evidence)"
    accepts = ("text/plain",)
    libraries: tuple[str, ...] = ()  # a backbone that takes tokens adds tokenizers
    dimensions = 0

    def schema(self) -> "type[Augmentation]":
        """Return the section `augment`."""
        from .parameters import Augment

        return Augment

    def inspect(self, data: bytes) -> tuple[Any, ...]:
        """Count the characters, the words and the different characters."""
        from . import reading

        return reading.inspect(data)

    def inspected_by(self) -> str:
        """Return the versions of this code and of Unicode."""
        return f"texts {INSPECTION_CODE}, Unicode {unicodedata.unidata_version}"

    def remember(self, seen: tuple[Any, ...]) -> NDArray[np.float32]:
        """Return the counts, which are small enough to be exact in float32."""
        return np.array(seen, dtype=np.float32)

    def recall(self, numbers: NDArray[np.float32]) -> tuple[Any, ...]:
        """Undo `remember`."""
        return tuple(int(number) for number in numbers)

    def flaws(self, table: "pd.DataFrame") -> list[Flaw]:
        """Return the flaw of texts that have a single character, which may be repeated."""
        distinct = np.log2(table["distinct"].to_numpy(float))
        return [Flaw("of one character", distinct, 0.5)]

    def contact_sheet(self, training: "pd.DataFrame", plan: "pd.DataFrame", file: Path) -> None:
        """Draw some texts of each class."""
        from .contact_sheet import contact_sheet

        contact_sheet(training, file)

    def views_made_by(self, augmented: bool) -> str:
        """Return the versions of the tokenizers library, if installed, and of Unicode."""
        try:
            tokenizers = version("tokenizers")
        except PackageNotFoundError:  # then the backbone cannot take tokens
            tokenizers = "none"
        return f"tokenizers {tokenizers} Unicode {unicodedata.unidata_version}"

    def inputs(self, preprocessing: Input, device: str) -> Maker:
        """Return a maker of tokens, a list of int64 [length], or counts, float32 [n, width]."""
        from .inputs import Maker as OfTexts

        return OfTexts(preprocessing)

    def copies(self, pairs: Sequence[tuple[Example, Example]]) -> list[bool]:
        """Return for each pair whether the texts have about the same words."""
        from .copies import copies

        return copies(pairs)

    def unread(self, examples: Sequence[Example], reads: Sequence[str]) -> str:
        """Return a message if the backbone does not read the language of most texts, else ""."""
        from ...examples.files import read_each
        from . import language

        some = sorted(examples, key=lambda one: one[1])[: language.LOOKED_AT]
        texts = read_each((Path(path), digest) for path, digest in some)
        return language.unread(Counter(map(language.language, texts)), reads)

    def copies_by(self) -> str:
        """Return the versions of this code and of Unicode."""
        return f"texts alike {COPIES_CODE}, Unicode {unicodedata.unidata_version}"

    def graph(self, preprocessing: Input) -> "onnx.ModelProto":
        """Return the graph from the result of `read` to a batch of one."""
        from onnx import parser

        form = {"type": "int64", "length": "length"}
        if isinstance(preprocessing, Terms):
            form = {"type": "float", "length": str(preprocessing.width)}
        return parser.parse_model(GRAPH.format(ir_version=IR_VERSION, opset=OPSET, **form))

    def torch_input(self, example: "torch.Tensor", preprocessing: Input) -> "torch.Tensor":
        """Return the result of `read` unchanged."""
        return example

    def encode(self, array: NDArray[Any]) -> bytes:
        """Convert an array with one text to UTF-8."""
        if array.dtype.kind != "U" or array.size != 1:
            raise RefusedError(
                f"an array of {array.dtype} {list(array.shape)}; a text should be a single str"
            )
        return str(array.item()).encode()

    def read(self, data: bytes, preprocessing: Input) -> NDArray[Any]:
        """Read a text as tokens, int64 [length], or term counts, float32 [width]."""
        from .inputs import read

        return read(data, preprocessing)

    def hidden(self, data: bytes, preprocessing: Input) -> Sequence[NDArray[Any]] | None:
        """Return inputs made from the text, each without one word, or several of a long text."""
        from .parts import hidden

        return hidden(data, preprocessing)

    def explain(
        self,
        example: NDArray[Any],
        heat: NDArray[np.float32],
        preprocessing: Input,
        side: int | None,
    ) -> Shown:
        """Raise an error; never called, because text encoders have no activation maps."""
        raise ParamsError(f"{self.nouns} have no activation maps")

    def explain_parts(
        self, data: bytes, preprocessing: Input, weights: NDArray[np.float32], side: int | None
    ) -> Shown:
        """Show the text; a stronger colour of a word means more evidence."""
        from .parts import marked

        return marked(data, preprocessing, weights, side)

    def show(self, data: bytes, side: int) -> Shown:
        """Show the beginning of the text."""
        from .parts import shortened
        from .reading import text_of

        return Shown("text/plain", shortened(text_of(data)).encode())


KIND = Text()
