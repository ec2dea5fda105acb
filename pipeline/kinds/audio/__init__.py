"""Sounds: from bytes to samples, and from samples to the input of a backbone.

A backbone may take a waveform, a spectrum, or a spectrogram as the pixels of a picture. A long
sound has several inputs. Modules are imported where they are used, because a stage needs few of
them.
"""

import contextlib
import math
import struct
import threading
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...core import packages
from ...core.errors import ParamsError, RefusedError
from ...examples import files
from .. import Example, Flaw, Input, Maker, Plain, Shown, View

if TYPE_CHECKING:
    import onnx
    import pandas as pd
    import torch

    from ...core.params import Augmentation

QUIET = 100.0  # signal-to-noise ratio in decibels from which no noise is added
ORIGINAL = (1.0, 0.0, QUIET, 0, 0.0)  # speed, shift, noise, noise seed, gain: no change

INSPECTION_CODE = 3  # raise when decode.py accepts or refuses other files, or returns other values
COPIES_CODE = 1  # raise when, by decode.py or copies.py, other pairs count as copies
VIEW_CODE = 1  # raise when decode.py, views.py, windows.py or spectrum.py give other inputs

LARGE = 20_000_000  # bytes of a file from which it is read and decoded alone
SILENT = -60.0  # peak in dBFS below which a sound is reported as silent
TOO_MUCH = 0.01  # fraction from which a clipped sound is hardly usable
MUCH = 0.001  # fraction of samples at full scale from which a sound is reported as clipped

_one_at_a_time = threading.Lock()


class Audio(Plain):
    """Implements `Kind`, which documents each attribute and method."""

    noun, nouns = "sound", "sounds"
    most_bytes = 200_000_000
    columns = ("seconds", "rate", "channels", "peak", "clipped")
    measures: tuple[str, ...] = ()
    rows = same = ""
    view_columns = ("speed", "shift", "snr", "seed", "gain")
    original: View = ORIGINAL
    view_code = VIEW_CODE
    feeds = frozenset({"waveform", "spectrum", "pixels"})
    floor = "mfcc"
    windowed = hides = maps_first = True
    texts = False
    accepts = ("audio/*",)
    dimensions = 1
    libraries = ("soundfile", "soxr")
    evidence = "its spectrogram, reddest where the predicted class is heard"

    def schema(self) -> "type[Augmentation]":
        """Return the section `augment`."""
        from .parameters import Augment

        return Augment

    def inspect(self, data: bytes) -> tuple[Any, ...]:
        """Return seconds, rate, channels, peak (dBFS) and the fraction of clipped samples."""
        from . import decode

        return tuple(decode.inspect(data))

    def inspected_by(self) -> str:
        """Return the versions of this code and of libsndfile."""
        return f"sound inspection {INSPECTION_CODE}, {libsndfile()}"

    def remember(self, seen: tuple[Any, ...]) -> NDArray[np.float32]:
        """Return the numbers, which `inspect` has rounded so that float32 can hold them."""
        return np.array(seen, dtype=np.float32)

    def recall(self, numbers: NDArray[np.float32]) -> tuple[Any, ...]:
        """Undo `remember`."""
        seconds, rate, channels, peak, clipped = (float(number) for number in numbers)
        return round(seconds, 3), int(rate), int(channels), round(peak, 1), round(clipped, 6)

    def flaws(self, table: "pd.DataFrame") -> list[Flaw]:
        """Return the flaws silent and clipped; 6 dB, a factor of two, count as an octave."""
        clipped = np.log2(table["clipped"].to_numpy(float) + TOO_MUCH / 10)
        return [
            Flaw("silent", table["peak"].to_numpy(float) / 6, SILENT / 6),
            Flaw("clipped", -clipped, -math.log2(TOO_MUCH * 1.1)),
        ]

    @contextlib.contextmanager
    def alone(self, path: Path) -> Iterator[None]:
        """Admit one large file at a time, because each takes hundreds of megabytes."""
        if files.size(path) < LARGE:
            yield
            return
        with _one_at_a_time:
            yield

    def doubt(self, data: bytes) -> str:
        """Return a doubt if the sound is silent, else an empty text."""
        from . import decode

        about = decode.inspect(data)
        mean = "the mean of its channels" if about.channels > 1 else "it"
        return f"silent: {mean} peaks at {about.peak:g} dBFS" if about.peak < SILENT else ""

    def large(self, data: bytes) -> bool:
        """Return whether a sound takes much memory: it exceeds a minute or has many samples."""
        from .decode import is_large

        return is_large(data)

    def remarks(self, manifest: "pd.DataFrame") -> list[str]:
        """Report how many sounds are silent, and how many are clipped."""
        silent = manifest["path"][manifest["peak"] < SILENT]
        clipped = manifest["path"][manifest["clipped"] >= MUCH]
        lines = []
        if len(silent):
            mean = manifest["channels"][silent.index].max() > 1
            what = "peak of the mean of the channels" if mean else "peak"
            lines.append(
                f"warning: {_count(silent)} silent ({what} below {SILENT:g} dBFS), the first is"
                f" {silent.iloc[0]}"
            )
        if len(clipped):
            lines.append(
                f"{_count(clipped)} clipped ({MUCH:.1%} of the samples or more are at full scale),"
                f" the first is {clipped.iloc[0]}"
            )
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
        """Draw spectrograms of sounds beside those of their views."""
        from .contact_sheet import contact_sheet

        contact_sheet(training, plan, file)

    def pack_view(self, view: View) -> bytes:
        """Pack speed, shift, noise and gain as IEEE doubles (-0.0 as 0.0), and the seed.

        Raises:
            ValueError: a number is not finite.
        """
        speed, shift, snr, seed, gain = view
        numbers = [float(number) + 0.0 for number in (speed, shift, snr, gain)]
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"a view's speed, shift, noise and gain must be finite, not {view}")
        return struct.pack(">ddddQ", *numbers, int(seed))

    def views_made_by(self, augmented: bool) -> str:
        """Return the libraries that decode, resample and transform all views."""
        return f"{libsndfile()} soxr {version('soxr')} numpy {version('numpy')}"

    def inputs(self, preprocessing: Input, device: str) -> Maker:
        """Return a maker of inputs [w, …] of each view, which uses the CPU for every device."""
        if find_spec("soxr") is None:
            packages.need("audio", "a backbone that takes sounds")
        from .windows import ViewMaker

        return ViewMaker(preprocessing)

    def copies(self, pairs: Sequence[tuple[Example, Example]]) -> list[bool]:
        """Return for each pair whether the sounds are the same recording."""
        from .copies import copies

        return copies(pairs)

    def copies_by(self) -> str:
        """Return the versions of this code and of the libraries."""
        return f"sounds alike {COPIES_CODE}, {self.views_made_by(False)}"

    def graph(self, preprocessing: Input) -> "onnx.ModelProto":
        """Return the identity graph: windows of a sound already are the backbone's input."""
        from .onnx_input import graph

        return graph(preprocessing)

    def torch_input(self, example: "torch.Tensor", preprocessing: Input) -> "torch.Tensor":
        """Raise an error: windows are not made in PyTorch.

        Raises:
            ParamsError: always.
        """
        raise ParamsError("a bundle of sounds does not run in PyTorch, only in ONNX Runtime")

    def encode(self, array: NDArray[Any]) -> bytes:
        """Raise an error: an array has no sample rate.

        Raises:
            RefusedError: always.
        """
        raise RefusedError("an array has no sample rate; pass the bytes of a WAV file instead")

    def read(self, data: bytes, preprocessing: Input) -> NDArray[Any]:
        """Return a sound's inputs, [w, …], made by the same functions as in `extract`."""
        from .views import heard_of
        from .windows import inputs, rate_of

        return inputs(heard_of(data, rate_of(preprocessing)), preprocessing)

    def explain(
        self,
        example: NDArray[Any],
        heat: NDArray[np.float32],
        preprocessing: Input,
        side: int | None,
    ) -> Shown:
        """Show the spectrogram, as the network saw it, under the activation map of a class."""
        from .parts import overlaid

        return overlaid(example, heat, side)

    def hidden(self, data: bytes, preprocessing: Input) -> Sequence[NDArray[Any]]:
        """Return inputs made from the sound, each with a different segment silent."""
        from .parts import hidden

        return hidden(data, preprocessing)

    def explain_parts(
        self, data: bytes, preprocessing: Input, weights: NDArray[np.float32], side: int | None
    ) -> Shown:
        """Show the spectrogram, with the segments marked that are evidence for the class."""
        from .parts import marked

        return marked(data, weights, side)

    def show(self, data: bytes, side: int) -> Shown:
        """Show the spectrogram, with the sound to play."""
        from .show import shown

        return shown(data, side)


def _count(some: "pd.Series[str]") -> str:
    return f"{len(some)} sounds are" if len(some) > 1 else "1 sound is"


def libsndfile() -> str:
    """Return the versions of libsndfile, which decodes, and of soundfile."""
    import soundfile

    return f"soundfile {version('soundfile')} libsndfile {soundfile.__libsndfile_version__}"


KIND = Audio()
