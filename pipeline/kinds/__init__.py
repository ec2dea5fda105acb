"""What an example is: one folder for each kind, and what every kind has to answer.

`ingest.kind` in `params.yaml` names the kind. A kind is a package in this folder with a `KIND`, an
object that answers what `Kind` asks. Its methods import the package's other modules when they are
called, so that a stage imports no more than it asks for. To add a kind, add its folder and its line
in `KINDS`; or, as code of a project's own, write `plugins/kind.py` (`plugin/` here finds it).

Every stage that opens a kind lists this file in `dvc.yaml` beside the kind's folder: the forms of
inputs, the plan of a kind without views and the versions of ONNX are decided here.
"""

import contextlib
import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ParamsError

if TYPE_CHECKING:  # slow to import, or not there if a bundle only answers
    import onnx
    import pandas as pd
    import torch

    from ..core.params import Augmentation, IngestParams

# The name of a kind in params.yaml is that of its folder beside this file.
KINDS = (
    "image",
    "text",
    "vector",
    "audio",
    "plugin",
)  # fmt: skip

# The version of the operators in the ONNX graphs that a bundle is put together from.
OPSET = 20
IR_VERSION = 10

View = tuple[Any, ...]  # one augmentation, a value for each of a kind's view_columns
Asked = Iterable[tuple[bytes, list[View]]]  # examples' bytes, and the views wanted of each
# What a backbone takes, for views [n, …]: a NumPy array; on a GPU a PyTorch tensor; or a list of n
# arrays whose shapes may differ.
Inputs = Any
Example = tuple[str, str]  # path and digest, as the manifest has them


class Pixels(NamedTuple):
    """What a backbone that takes pixels wants: uint8 [crop, crop, 3] of sRGB.

    resize: pixels of the shorter side before cropping; crop: side of the square cut from the
    middle; interpolation: one of `INTERPOLATIONS`; mean and std: of each channel, for values
    from 0 to 1.
    """

    resize: int
    crop: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


Preprocessing = Pixels  # its name for plugins of before there were other inputs

INTERPOLATIONS = ("bicubic", "bilinear", "lanczos", "nearest")
FITS = ("squash", "border")


class Fitted(NamedTuple):
    """The same for a backbone that is to see whole pictures, as timm's `crop_mode` says.

    The fields are those of `Pixels`, and fit: `squash`, if both sides are scaled to `resize`, or
    `border`, if the longer one is, and the rest of the square has the colour `mean`.
    """

    resize: int
    crop: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: str


class Vector(NamedTuple):
    """What the identity takes: float32 [length].

    length: how many numbers a vector has; 0 for any number, if the examples are not known.
    """

    length: int = 0


class Tokens(NamedTuple):
    """What an encoder of texts takes: int64 [length], the numbers of pieces of words.

    tokenizer: the text of a tokenizer.json, as the library `tokenizers` reads it; longest: the most
    tokens, beyond which a text is cut off. No text is filled up to the length of another.
    """

    tokenizer: str
    longest: int


class Terms(NamedTuple):
    """What TF-IDF takes: float32 [width], how often the terms of each column stand in a text."""

    width: int


class Waveform(NamedTuple):
    """What a backbone that takes sound wants: float32 [samples], mono, full scale from -1 to 1.

    rate: samples a second; window: samples of one input at most, a longer sound is cut into
    several; least: samples of one input at least, a shorter sound is laid in the middle of silence.
    """

    rate: int
    window: int
    least: int


class Spectrum(NamedTuple):
    """What takes a spectrum wants: float32 [bands, frames] of decibels, bands of the mel scale.

    rate, window and least: as for a waveform; frame: samples under one frame; hop: samples from
    one frame to the next; bands: how many, from 0 Hz to half the rate.
    """

    rate: int
    window: int
    least: int
    frame: int
    hop: int
    bands: int


# What a backbone takes, and what it says of it: how examples have to be prepared. The fields are
# values that JSON has; a text of them is a file of its own in a bundle.
INPUTS: dict[str, type] = {
    "pixels": Pixels,
    "fitted": Fitted,
    "vector": Vector,
    "tokens": Tokens,
    "terms": Terms,
    "waveform": Waveform,
    "spectrum": Spectrum,
}
Input = Any  # an instance of one of these


def takes(preprocessing: Input) -> str:
    """The name in `INPUTS` of what is prepared in this way."""
    return next(name for name, form in INPUTS.items() if isinstance(preprocessing, form))


class Shown(NamedTuple):
    """Something for people to look at, as a small file: its media type and its bytes.

    `also` is shown beside it, such as the sound beside its picture.
    """

    # Such as image/png; pages show image/*, audio/*, text/plain and text/html, a piece of HTML in
    # which the kind has escaped what is the example's.
    media_type: str
    data: bytes
    also: "Shown | None" = None


class Maker(Protocol):
    """What makes the views of examples into a backbone's input."""

    made_by: str  # what else than the libraries could change an input; empty on a CPU

    def __call__(self, asked: Asked) -> Inputs:
        """The views, one after another.

        A maker may have a method `notice() -> str` about those made so far, such as how many were
        cut off; `extract` prints it.
        """


class Kind(Protocol):
    """What a kind implements. An example is passed as bytes, a view as its row of the plan."""

    # In words.
    noun: str  # "picture"
    nouns: str  # "pictures"

    # What ingest asks.
    most_bytes: int  # of a file that is read
    columns: tuple[str, ...]  # of the manifest, that only this kind has

    def inspect(self, data: bytes) -> tuple[Any, ...]:
        """A value for each of `columns`. Raises `RefusedError` with the reason why not."""

    def inspected_by(self) -> str:
        """Changes with whatever could change the outcome of `inspect`."""

    def form(self, data: bytes) -> str:
        """The format of an example that libraries of its own read, else empty.

        The first bytes show it. The manifest's column `format`, if there is one, has the
        same name for such an example.
        """

    def read_by(self, form: str) -> str:
        """These libraries with their versions, for the store's keys; empty for other formats."""

    def remember(self, seen: tuple[Any, ...]) -> NDArray[np.float32]:
        """What `inspect` returned, as numbers that the feature store can keep."""

    def recall(self, numbers: NDArray[np.float32]) -> tuple[Any, ...] | None:
        """The other way round; None if they lack something, so that it is inspected again."""

    def alone(self, path: Path) -> Any:
        """A context in which to read and inspect `path`: one large file at a time."""

    rows: str  # the column of a table whose cells are examples, such as text; empty for none
    same: str  # the one of `columns` in which all examples have to agree; empty for none

    def reading(self, declared: dict[str, str]) -> "Kind":
        """The same kind, with what `ingest` declares of how examples are read.

        It changes what `inspected_by`, `views_made_by` and `copies_by` say. Only called for a kind
        for which `ingest` declares something.
        """

    def remarks(self, manifest: "pd.DataFrame") -> list[str]:
        """Notes for the user about the accepted examples, one sentence each."""

    # What augment asks.
    def schema(self) -> "type[Augmentation]":
        """The schema of the section `augment` of `params.yaml`."""

    def plan(self, digests: list[str], settings: "Augmentation") -> "pd.DataFrame":
        """The views of training examples: `digest`, `view` (from 1 on) and `view_columns`.

        A view is decided by its example's digest, its number and the settings alone.
        """

    def draw(self, digest: str, number: int, settings: "Augmentation") -> View:
        """One view of the plan."""

    def contact_sheet(self, training: "pd.DataFrame", plan: "pd.DataFrame", file: Path) -> None:
        """A picture (PNG) of some training examples beside their views."""

    # What extract asks.
    view_columns: tuple[str, ...]
    original: View  # the example itself
    view_code: int  # raise when the same view comes to give another input

    def pack_view(self, view: View) -> bytes:
        """The view in bytes of a fixed width, for the store's key."""

    def views_made_by(self, augmented: bool) -> str:
        """The libraries that could change an input: an augmented view, or the example itself."""

    feeds: frozenset[str]  # what inputs of backbones it can make, such as pixels

    # Whether a view becomes several inputs, [w, …], over whose features the mean is taken. Then
    # `inputs` makes a list of such arrays, and `read` returns one.
    windowed: bool

    def inputs(self, preprocessing: Input, device: str) -> Maker:
        """What makes views on `cpu` or `cuda`; any number of threads may call it."""

    # What checks asks.
    def copies(self, pairs: Sequence[tuple[Example, Example]]) -> list[bool]:
        """Whether the two examples of each pair show the same."""

    def copies_by(self) -> str:
        """Changes with whatever could change the outcome of `copies`."""

    # What a bundle, `predict`, `serve`, the report and `headstart/` ask.
    accepts: tuple[str, ...]  # media types of an example that is sent, such as image/*
    dimensions: int  # of the array that `encode` takes
    texts: bool  # whether a text that is handed over is an example itself, and no path

    libraries: tuple[str, ...]  # that `read` uses, whose versions a bundle names

    def graph(self, preprocessing: Input) -> "onnx.ModelProto":
        """The ONNX graph from what `read` returns to the backbone's input, named `input`."""

    def torch_input(self, example: "torch.Tensor", preprocessing: Input) -> "torch.Tensor":
        """The same in PyTorch, for one example."""

    def encode(self, array: NDArray[Any]) -> bytes:
        """An example that is an array, as the bytes of a file. Raises `RefusedError`."""

    def large(self, data: bytes) -> bool:
        """Whether a server answers it alone, as nothing else large. Raises `RefusedError`."""

    def read(self, data: bytes, preprocessing: Input) -> NDArray[Any]:
        """An example as the input of a bundle's graph. Raises `RefusedError`."""

    def explain(
        self,
        example: NDArray[Any],
        heat: NDArray[np.float32],
        preprocessing: Input,
        side: int | None,
    ) -> Shown:
        """Which part of an example, as `read` gave it, speaks for a class.

        `heat` [h, w], from 0 to 1, is the class's map over the backbone's input. With a `side` it
        is made small for a page.
        """

    evidence: str  # what shows which part of an example speaks for a class; empty if nothing does
    hides: bool  # whether it can hide parts of an example: `hidden` and `explain_parts`
    maps_first: bool  # whether a backbone's maps, if it has some, explain better than hiding

    def hidden(self, data: bytes, preprocessing: Input) -> Sequence[NDArray[Any]]:
        """Inputs as `read` returns them, each with another part of the example hidden.

        Or with several, as `hidden_together` says.
        """

    def hidden_together(self) -> NDArray[np.bool_] | None:
        """Which parts each of the inputs of `hidden` hides, [inputs, parts]; None: one each."""

    def explain_parts(
        self, data: bytes, preprocessing: Input, weights: NDArray[np.float32], side: int | None
    ) -> Shown:
        """Which of the parts that `hidden` hides speak for a class.

        `weights` [parts], from 0 to 1, say by how much less probable the class is without each,
        as `serving/explain.py` makes them.
        """

    def show(self, data: bytes, side: int) -> Shown:
        """The example, small: at most `side` pixels wide and high. Raises `RefusedError`."""


class Plain:
    """What a kind answers whose examples are small and have no views; such a kind inherits it."""

    view_columns: tuple[str, ...] = ()
    original: View = ()

    def alone(self, path: Path) -> contextlib.AbstractContextManager[object]:
        """Any number may be read at a time."""
        return contextlib.nullcontext()

    def form(self, data: bytes) -> str:
        """Empty: all examples are read by the same libraries."""
        return ""

    def read_by(self, form: str) -> str:
        """Empty: no format needs its own libraries."""
        return ""

    def large(self, data: bytes) -> bool:
        """False: no example is large."""
        return False

    def remarks(self, manifest: "pd.DataFrame") -> list[str]:
        """No notes."""
        return []

    def plan(self, digests: list[str], settings: "Augmentation") -> "pd.DataFrame":
        """A plan without a view."""
        import pandas as pd

        return pd.DataFrame({"digest": [], "view": []}).astype({"digest": "str", "view": "int32"})

    def draw(self, digest: str, number: int, settings: "Augmentation") -> View:
        """The example itself."""
        return self.original

    def pack_view(self, view: View) -> bytes:
        """Empty: there is only one view."""
        return b""


# Answers that were added later. A kind of a plugin that lacks one is taken to answer so.
LATER: dict[str, Any] = {
    "reading": None,  # never called, then
    "form": lambda data: "",
    "read_by": lambda form: "",
    "rows": "",
    "same": "",
    "remarks": lambda manifest: [],
    "windowed": False,
    "large": lambda data: False,
    "dimensions": 3,
    "libraries": ("pillow",),
    "texts": False,
    "evidence": "a heat map of the predicted class (lighter means more evidence)",
    "hides": False,
    "maps_first": True,
    "hidden": None,  # never called, then
    "hidden_together": lambda: None,
    "explain_parts": None,
}


def named(name: str) -> Kind:
    """The kind of a name, alone or as `declared` writes it.

    Raises:
        ParamsError: there is none of this name, or it takes nothing that is declared.
    """
    first, *declared = name.split(" ")
    if first not in KINDS:
        raise ParamsError(f"ingest.kind is {first!r}; it should be {' or '.join(KINDS)}")
    kind = cast(Kind, importlib.import_module(f".{first}", __name__).KIND)
    if not declared:
        return kind
    if getattr(kind, "reading", None) is None:
        raise ParamsError(f"{kind.nouns} have no read settings; {name!r} should be {first!r}")
    return kind.reading(dict(word.partition("=")[::2] for word in declared))


def declared(settings: "IngestParams") -> str:
    """The kind's name, and what is declared of how its examples are read.

    `image range=0.0,4095.0 channels=3,2,1`, or `image` alone. The manifest and a bundle carry it,
    so that whoever reads an example later reads it as `ingest` did.
    """
    from ..core.params import IngestParams

    words = [settings.kind]
    for key, value in settings:
        if key not in IngestParams.model_fields and value is not None:
            values = value if isinstance(value, list) else [value]
            words.append(f"{key}={','.join(map(str, values))}")
    return " ".join(words)


def folder_of(name: str) -> str:
    """The folder of a kind, from its name with or without what is declared."""
    return name.partition(" ")[0]


def schema(name: str) -> "type[Augmentation]":
    """The schema of the section `augment` for that kind, as `params.load` asks for it."""
    return named(name).schema()
