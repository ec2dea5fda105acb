"""Spectra: the power of a sound in bands of the mel scale, frame by frame, in decibels.

NumPy alone. A frame's numbers come from that frame alone, and no matrix product of a library is
asked, so that neither company nor the number of cores changes a bit.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .. import Spectrum

Floats = NDArray[np.float32]

# A picture for a backbone that takes pixels: one column per 10 ms, one row per band, black 80 dB
# below a sine of full scale. Chosen on validation examples (benchmarks/audio.md).
PICTURE_RATE = 32_000
PICTURE_FRAME = 1024
PICTURE_HOP = 320
RANGE = 80.0  # dB

FAINTEST = 1e-10  # power, as in librosa: -100 dB


def log_mel(samples: Floats, wanted: Spectrum) -> Floats:
    """Mel bands in decibels, float32 [bands, frames], as librosa's `melspectrogram` has them.

    Frames are centred on each `hop`-th sample, with silence beyond the ends, under a periodic Hann
    window. The bands are Slaney's, each of the same area. As `power_to_db` with `top_db=None`.
    """
    bands = filters(wanted.rate, wanted.frame, wanted.bands, True)
    return decibels(powers(samples, wanted.frame, wanted.hop), bands).T


def powers(samples: Floats, frame: int, hop: int, longer: int = 1) -> NDArray[np.float64]:
    """The power of each frequency in each frame, [frames, longer · frame // 2 + 1].

    With `longer` the frame is followed by silence up to `longer` times its length, which puts
    frequencies between the frequencies.
    """
    padded = np.pad(samples, (frame // 2, frame // 2))
    frames = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)
    transformed = np.fft.rfft(frames * window, longer * frame)
    return np.square(transformed.real) + np.square(transformed.imag)


def decibels(
    power: NDArray[np.float64], bands: tuple[tuple[int, NDArray[np.float64]], ...]
) -> Floats:
    """Ten times the logarithm of each band's power, float32 [frames, bands]."""
    sums = [
        (power[:, first : first + len(weights)] * weights).sum(axis=1) for first, weights in bands
    ]
    loud: Floats = 10 * np.log10(np.maximum(np.stack(sums, axis=1), FAINTEST)).astype(np.float32)
    return loud


@lru_cache(16)
def filters(
    rate: int, frame: int, bands: int, even: bool
) -> tuple[tuple[int, NDArray[np.float64]], ...]:
    """Triangles over the frequencies of a Fourier transform, spread evenly on the mel scale.

    The scale is Slaney's (Auditory Toolbox, 1998): 15 mels a kilohertz below 1 kHz, and from there
    27 mels for each factor of 6.4.

    Args:
        rate: samples a second.
        frame: samples of a transform.
        bands: how many, from 0 Hz to half the rate.
        even: whether each has the same area; else each reaches 1 in its middle.

    Returns:
        for each band the first frequency with a weight above 0, and the weights from there.
    """
    top = rate / 2
    most = top * 3 / 200 if top < 1000 else 15 + 27 * np.log(top / 1000) / np.log(6.4)
    mels = np.linspace(0, most, bands + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    frequencies = np.arange(frame // 2 + 1) * rate / frame
    found = []
    for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
        up, down = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
        weights = np.maximum(np.minimum(up, down), 0)
        places = np.flatnonzero(weights)
        first, last = (places[0], places[-1]) if len(places) else (0, 0)
        weights = weights[first : last + 1] * (2 / (high - low) if even else 1)
        found.append((int(first), weights))
    return tuple(found)


def pixels(samples: Floats, side: int) -> NDArray[np.uint8]:
    """A picture of `side` · `PICTURE_HOP` samples at `PICTURE_RATE`, uint8 [side, side, 3], grey.

    Time goes to the right, and low bands are below. Levels do not depend on the sound: 0 is 80 dB
    below a sine of full scale.
    """
    grey = levels(samples[: side * PICTURE_HOP], PICTURE_RATE, PICTURE_FRAME, PICTURE_HOP, side)
    return np.repeat(grey[:, :side, None], 3, axis=2)


def levels(samples: Floats, rate: int, frame: int, hop: int, bands: int) -> NDArray[np.uint8]:
    """Levels of grey [bands, frames], the lowest band in the last row."""
    longer = 2
    power = powers(samples, frame, hop, longer) / (frame / 4) ** 2  # a sine of full scale has 1
    loud = decibels(power, filters(rate, longer * frame, bands, False))
    grey = np.clip((loud + RANGE) * (255 / RANGE), 0, 255)
    upside_down: NDArray[np.uint8] = np.round(grey).astype(np.uint8).T[::-1]
    return upside_down
