"""Convert sounds to inputs of a backbone: windows of a waveform, a spectrum or pixels."""

import numpy as np
from numpy.typing import NDArray

from .. import Asked, Input, Pixels, Spectrum, Waveform
from .decode import decode
from .spectrum import PICTURE_HOP, PICTURE_RATE, log_mel, pixels
from .views import View, heard

Floats = NDArray[np.float32]


def rate_of(preprocessing: Input) -> int:
    """Return the sample rate of the backbone."""
    return PICTURE_RATE if isinstance(preprocessing, Pixels) else int(preprocessing.rate)


def inputs(samples: Floats, preprocessing: Input) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Convert the samples of a sound, at the backbone's rate, to inputs.

    Returns:
        waveforms [w, samples], spectra [w, bands, frames], or pixels uint8 [w, crop, crop, 3].
    """
    if isinstance(preprocessing, Waveform):
        return windows(samples, preprocessing.window, preprocessing.least)
    if isinstance(preprocessing, Spectrum):
        cut = windows(samples, preprocessing.window, preprocessing.least)
        return np.stack([log_mel(window, preprocessing) for window in cut])
    length = preprocessing.crop * PICTURE_HOP
    cut = windows(samples, length, length)
    return np.stack([pixels(window, preprocessing.crop) for window in cut])


def windows(samples: Floats, window: int, least: int) -> Floats:
    """Split a sound into windows of the same length, [w, samples].

    A sound shorter than `least` is padded with silence on both sides. A sound longer than `window`
    is covered by the smallest possible number of evenly spaced windows, which may overlap.
    """
    count = len(samples)
    if count < least:
        before = (least - count) // 2
        return np.pad(samples, (before, least - count - before))[None]
    if count <= window:
        return samples[None]
    pieces = -(-count // window)
    starts = [round(piece * (count - window) / (pieces - 1)) for piece in range(pieces)]
    return np.stack([samples[start : start + window] for start in starts])


class ViewMaker:
    """Makes views for a backbone's preprocessing; thread-safe."""

    made_by = ""

    def __init__(self, preprocessing: Input) -> None:
        """Store the backbone's preprocessing."""
        self.preprocessing = preprocessing

    def __call__(self, asked: Asked) -> list[NDArray[np.float32] | NDArray[np.uint8]]:
        """Return the inputs of each view, one array [w, …] per view."""
        rate = rate_of(self.preprocessing)
        return [
            inputs(heard(sound, rate, View(*view)), self.preprocessing)
            for sound, wanted in ((decode(data), views) for data, views in asked)
            for view in wanted
        ]
