"""Kinds of examples: one folder per kind, and the interface that every kind implements.

`ingest.kind` in `params.yaml` names the kind. A kind is a package in this folder with an object
`KIND` that implements `Kind`. Its methods import the package's other modules when they are called,
so that a stage imports only what it needs. To add a kind, add its folder and its line in `KINDS`,
or write `plugins/kind.py` in your project (the kind `plugin` loads it).

Every stage that uses a kind lists this file in `dvc.yaml` beside the kind's folder, because the
file defines the types of inputs, the plan of kinds without views and the versions of ONNX.
"""

import contextlib
import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ParamsError

if TYPE_CHECKING:  # slow to import, or not installed where only predictions are made
    import onnx
    import pandas as pd
    import torch

    from ..core.params import Augmentation, IngestParams

# The names of kinds in params.yaml, which are also the names of their folders.
KINDS = (
    "image",
    "text",
    "vector",
    "audio",
    "plugin",
)  # fmt: skip

# The version of the operators in the ONNX graphs that make up a bundle.
OPSET = 20
IR_VERSION = 10

View = tuple[Any, ...]  # one augmentation: a value for each of the kind's `view_columns`
Asked = Iterable[tuple[bytes, list[View]]]  # the bytes of examples, and the requested views of each
# The input of a backbone for n views: a NumPy array [n, …], on a GPU a PyTorch tensor, or a list of
# n arrays whose shapes may differ.
Inputs = Any
Example = tuple[str, str]  # path and digest, as in the manifest


class Pixels(NamedTuple):
    """The input of a backbone that takes pixels: uint8 [crop, crop, 3], sRGB.

    resize: pixels of the shorter side before cropping; crop: side of the centre crop in pixels;
    interpolation: one of `INTERPOLATIONS`; mean and std: those of each channel, for values from 0
    to 1.
    """

    resize: int
    crop: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


Preprocessing = Pixels  # the name in plugins for older versions

INTERPOLATIONS = ("bicubic", "bilinear", "lanczos", "nearest")
FITS = ("squash", "border")


class Fitted(NamedTuple):
    """The input of a backbone that takes pixels of whole pictures, as in timm's `crop_mode`.

    The fields are those of `Pixels`, and fit: `squash` scales both sides to `resize`; `border`
    scales the longer side and fills the rest of the square with the colour `mean`.
    """

    resize: int
    crop: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: str


class Vector(NamedTuple):
    """The input of the identity backbone: float32 [length].

    length: the dimensions of a vector; 0 if any length is accepted, because no examples are known
    yet.
    """

    length: int = 0


class Tokens(NamedTuple):
    """The input of a text encoder: token ids, int64 [length].

    tokenizer: the content of a tokenizer.json of the library `tokenizers`; longest: the maximum
    number of tokens, to which longer texts are truncated. Texts are never padded.
    """

    tokenizer: str
    longest: int


class Terms(NamedTuple):
    """The input of TF-IDF: term counts of a text per column, float32 [width]."""

    width: int


class Characters(Terms):
    """The input of hashed character n-grams: a text's signed counts per column, float32 [width]."""


class Waveform(NamedTuple):
    """The input of a backbone that takes sound: float32 [samples], mono, full scale from -1 to 1.

    rate: samples per second; window: maximum samples of an input (longer sounds are cut into
    several inputs); least: minimum samples of an input (shorter sounds are padded with silence on
    both sides).
    """

    rate: int
    window: int
    least: int


class Spectrum(NamedTuple):
    """The input of a backbone that takes mel spectra: float32 [bands, frames], in decibels.

    rate, window and least: as for a waveform; frame: samples per frame; hop: samples from one
    frame to the next; bands: number of bands from 0 Hz to half the rate.
    """

    rate: int
    window: int
    least: int
    frame: int
    hop: int
    bands: int


# The types of inputs of backbones; their fields describe how to prepare examples. All fields are
# JSON values; a bundle stores long texts in separate files.
INPUTS: dict[str, type] = {
    "pixels": Pixels,
    "fitted": Fitted,
    "vector": Vector,
    "tokens": Tokens,
    "characters": Characters,  # before `terms`, whose subclass it is
    "terms": Terms,
    "waveform": Waveform,
    "spectrum": Spectrum,
}
Input = Any  # an instance of one of these types


def takes(preprocessing: Input) -> str:
    """Return the name that the type of `preprocessing` has in `INPUTS`."""
    return next(name for name, form in INPUTS.items() if isinstance(preprocessing, form))


class Shown(NamedTuple):
    """A small file to display: its media type and its bytes.

    `also` is displayed beside it, such as the sound beside its spectrogram.
    """

    # Such as image/png. Pages display image/*, audio/*, text/plain and text/html. In text/html, a
    # fragment of a page, the kind must escape everything that is from the example.
    media_type: str
    data: bytes
    also: "Shown | None" = None


class Flaw(NamedTuple):
    """A problem of quality, such as blur, and how good each example is in this respect.

    An example has the flaw if its value is low: below `least`, and far below the training examples.
    """

    name: str  # such as blurred
    values: NDArray[np.float64]  # [n], on a scale of octaves (log2); NaN if it is not known
    least: float


class Maker(Protocol):
    """Converts views of examples to a backbone's input."""

    made_by: str  # what else could change an input, besides libraries; empty on a CPU

    def __call__(self, asked: Asked) -> Inputs:
        """Return the inputs of the views, in their order.

        A maker may have a method `notice() -> str` about the inputs made so far, such as how many
        were truncated; `extract` prints it.
        """


class Kind(Protocol):
    """The interface of a kind. An example is passed as bytes, a view as its row of the plan."""

    # Used in messages.
    noun: str  # "picture"
    nouns: str  # "pictures"

    # Used by `ingest`.
    most_bytes: int  # maximum size of a file
    columns: tuple[str, ...]  # columns of the manifest that only this kind has
    measures: tuple[str, ...]  # further numbers about an example, for `flaws`

    def inspect(self, data: bytes) -> tuple[Any, ...]:
        """Return a value for each of `columns` and `measures`.

        Raises `RefusedError` for a bad example.
        """

    def inspected_by(self) -> str:
        """Return a text that changes with everything that could change the result of `inspect`."""

    def form(self, data: bytes) -> str:
        """Return the format of an example, if it needs its own libraries, else an empty text.

        The first bytes show the format. The column `format` of the manifest, if there is one, has
        the same name for such an example.
        """

    def read_by(self, form: str) -> str:
        """Return the libraries that decode a format, with versions; empty if it needs none.

        They are part of the keys of examples in this format.
        """

    def remember(self, seen: tuple[Any, ...]) -> NDArray[np.float32]:
        """Convert the result of `inspect` to numbers that the feature store can keep."""

    def recall(self, numbers: NDArray[np.float32]) -> tuple[Any, ...] | None:
        """Undo `remember`; return None if the numbers are incomplete, to inspect again."""

    def alone(self, path: Path) -> Any:
        """Return a context manager for reading `path`, which admits one large file at a time."""

    rows: str  # name of the table column whose cells are examples, such as text; empty if none
    same: str  # one of `columns`, whose value must be the same for all examples; empty if none

    def reading(self, declared: dict[str, str]) -> "Kind":
        """Return the kind with the read settings of `ingest`.

        The settings change the results of `inspected_by`, `views_made_by` and `copies_by`. The
        method is only called if a kind has read settings.
        """

    def remarks(self, manifest: "pd.DataFrame") -> list[str]:
        """Return notes for the user about the accepted examples, one sentence each."""

    # Used by `augment`.
    def schema(self) -> "type[Augmentation]":
        """Return the schema of the section `augment` of `params.yaml`."""

    def plan(self, digests: list[str], settings: "Augmentation") -> "pd.DataFrame":
        """Plan the views of training examples: `digest`, `view` (from 1) and `view_columns`.

        A view depends only on its example's digest, its number and the settings.
        """

    def draw(self, digest: str, number: int, settings: "Augmentation") -> View:
        """Draw one view of the plan."""

    def contact_sheet(self, training: "pd.DataFrame", plan: "pd.DataFrame", file: Path) -> None:
        """Write a picture (PNG) of some training examples beside their views."""

    # Used by `extract`.
    view_columns: tuple[str, ...]
    original: View  # the unaugmented example
    view_code: int  # raise when the same view gives another input

    def pack_view(self, view: View) -> bytes:
        """Convert a view to bytes of a fixed length, for the store's key."""

    def views_made_by(self, augmented: bool) -> str:
        """Return the libraries that could change the input of an augmented or original view."""

    feeds: frozenset[str]  # names in `INPUTS` of the inputs that it can make

    # Whether a view has several inputs, [w, …], whose features are averaged. If so, `inputs` makes
    # a list of such arrays, and `read` returns one array.
    windowed: bool

    def inputs(self, preprocessing: Input, device: str) -> Maker:
        """Return a maker of inputs on `cpu` or `cuda`, which is thread-safe."""

    floor: str  # a cheap backbone to compare others with; empty if there is none

    # Used by `checks`.
    def copies(self, pairs: Sequence[tuple[Example, Example]]) -> list[bool]:
        """Return for each pair whether its two examples are copies."""

    def copies_by(self) -> str:
        """Return a text that changes with everything that could change the result of `copies`."""

    def flaws(self, table: "pd.DataFrame") -> list[Flaw]:
        """Return what may be wrong with examples, the worst first.

        `table` has `columns` and `measures`, and a row for each example.
        """

    def unread(self, examples: Sequence[Example], reads: Sequence[str]) -> str:
        """Return why a backbone that `reads` these languages does not suit the examples, or "".

        Only called if the kind has it.
        """

    # Used by bundles, `predict`, `serve`, the report and `headstart/`.
    accepts: tuple[str, ...]  # media types of uploaded examples, such as image/*
    dimensions: int  # number of dimensions of the array that `encode` takes
    texts: bool  # whether a str passed by the user is an example and not a path

    libraries: tuple[str, ...]  # used by `read`; a bundle records their versions

    def graph(self, preprocessing: Input) -> "onnx.ModelProto":
        """Return the ONNX graph from the result of `read` to the backbone's input, `input`."""

    def torch_input(self, example: "torch.Tensor", preprocessing: Input) -> "torch.Tensor":
        """Compute in PyTorch what `graph` computes, for one example."""

    def encode(self, array: NDArray[Any]) -> bytes:
        """Convert an example in an array to the bytes of a file. Raises `RefusedError`."""

    def large(self, data: bytes) -> bool:
        """Return whether a server must process an example alone. Raises `RefusedError`."""

    def read(self, data: bytes, preprocessing: Input) -> NDArray[Any]:
        """Read an example as the input of a bundle's graph. Raises `RefusedError`."""

    def doubt(self, data: bytes) -> str:
        """Return why a prediction means little, such as silence; empty if nothing is wrong."""

    def explain(
        self,
        example: NDArray[Any],
        heat: NDArray[np.float32],
        preprocessing: Input,
        side: int | None,
    ) -> Shown:
        """Show which part of an example, as returned by `read`, is evidence for a class.

        `heat` [h, w], from 0 to 1, is the class activation map over the backbone's input. With a
        `side`, the picture is small, for a page.
        """

    evidence: str  # describes how the evidence for a class is shown; empty if it is not
    hides: bool  # whether it implements `hidden` and `explain_parts`
    maps_first: bool  # whether activation maps, if there are any, explain better than hiding

    def hidden(self, data: bytes, preprocessing: Input) -> Sequence[NDArray[Any]]:
        """Return inputs like those of `read`, each with a different part of the example hidden.

        If `hidden_together` is not None, several parts are hidden in each input.
        """

    def hidden_together(self) -> NDArray[np.bool_] | None:
        """Return which parts each input of `hidden` hides, [inputs, parts]; None means one each."""

    def explain_parts(
        self, data: bytes, preprocessing: Input, weights: NDArray[np.float32], side: int | None
    ) -> Shown:
        """Show which of the parts that `hidden` hides are evidence for a class.

        `weights` [parts], from 0 to 1, are how much the class's probability drops without each
        part, as `serving/explain.py` computes them.
        """

    def show(self, data: bytes, side: int) -> Shown:
        """Show the example, at most `side` pixels wide and high. Raises `RefusedError`."""


class Plain:
    """Base class of our kinds: what suits examples that are small and have no augmented views."""

    view_columns: tuple[str, ...] = ()
    original: View = ()
    measures: tuple[str, ...] = ()

    def flaws(self, table: "pd.DataFrame") -> list[Flaw]:
        """Return no flaws."""
        return []

    def alone(self, path: Path) -> contextlib.AbstractContextManager[object]:
        """Return a context manager that does nothing: any number of files may be read at once."""
        return contextlib.nullcontext()

    def form(self, data: bytes) -> str:
        """Return an empty text: all examples need the same libraries."""
        return ""

    def read_by(self, form: str) -> str:
        """Return an empty text: no format needs its own libraries."""
        return ""

    def large(self, data: bytes) -> bool:
        """Return False: no example is large."""
        return False

    def doubt(self, data: bytes) -> str:
        """Return an empty text: no example makes its prediction doubtful."""
        return ""

    def remarks(self, manifest: "pd.DataFrame") -> list[str]:
        """Return no notes."""
        return []

    def plan(self, digests: list[str], settings: "Augmentation") -> "pd.DataFrame":
        """Return an empty plan."""
        import pandas as pd

        return pd.DataFrame({"digest": [], "view": []}).astype({"digest": "str", "view": "int32"})

    def draw(self, digest: str, number: int, settings: "Augmentation") -> View:
        """Return the original view."""
        return self.original

    def pack_view(self, view: View) -> bytes:
        """Return no bytes: there is only one view."""
        return b""

    def hidden_together(self) -> NDArray[np.bool_] | None:
        """Return None: parts are hidden one at a time."""
        return None


# Members that were added to `Kind` later, with defaults for plugins that lack them.
LATER: dict[str, Any] = {
    "reading": None,  # then it is never called
    "unread": None,
    "measures": (),
    "flaws": lambda table: [],
    "form": lambda data: "",
    "read_by": lambda form: "",
    "rows": "",
    "same": "",
    "remarks": lambda manifest: [],
    "windowed": False,
    "floor": "",
    "large": lambda data: False,
    "doubt": lambda data: "",
    "dimensions": 3,
    "libraries": ("pillow",),
    "texts": False,
    "evidence": "a heat map of the predicted class (lighter means more evidence)",
    "hides": False,
    "maps_first": True,
    "hidden": None,  # then it is never called
    "hidden_together": lambda: None,
    "explain_parts": None,
}


def named(name: str) -> Kind:
    """Return a kind by its name, with or without read settings as written by `declared`.

    Raises:
        ParamsError: there is no such kind, or it has no read settings.
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


def kinds_that_feed(takes: str) -> list[str]:
    """Return the names of the kinds, except plugins, that can make this input of `INPUTS`."""
    return [name for name in KINDS if name != "plugin" and takes in named(name).feeds]


def declared(settings: "IngestParams") -> str:
    """Return the kind's name with its read settings.

    The result is `image range=0.0,4095.0 channels=3,2,1`, for example, or only `image`. It is in
    the manifest and in bundles, so that later code reads examples in the same way as `ingest`.
    """
    from ..core.params import IngestParams

    words = [settings.kind]
    for key, value in settings:
        if key not in IngestParams.model_fields and value is not None:
            values = value if isinstance(value, list) else [value]
            words.append(f"{key}={','.join(map(str, values))}")
    return " ".join(words)


def folder_of(name: str) -> str:
    """Return the folder of a kind from its name, with or without read settings."""
    return name.partition(" ")[0]


def stop_if_windowed(kind: Kind) -> None:
    """Check that each view of the kind is one input, because networks train on one.

    Raises:
        ParamsError: views of this kind become several inputs.
    """
    if kind.windowed:
        raise ParamsError(
            f"a network is trained on one input per view, but {kind.nouns} give several: set"
            " finetune.run and from_scratch.run to []"
        )


def schema(name: str) -> "type[Augmentation]":
    """Return the schema of a kind's section `augment`, for `params.load`."""
    return named(name).schema()
