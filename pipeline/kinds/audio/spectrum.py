"""Mel spectra: the power of a sound in bands of the mel scale, per frame, in decibels.

The module uses only NumPy. The values of a frame depend only on that frame, and no BLAS matrix
product is used, so neither the batch nor the number of cores changes a bit.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .. import Spectrum

Floats = NDArray[np.float32]

# Pictures for backbones that take pixels: one column per 10 ms, one row per band; black is 80 dB
# below a full-scale sine. Chosen on validation examples (benchmarks/audio.md).
PICTURE_RATE = 32_000
PICTURE_FRAME = 1024
PICTURE_HOP = 320
RANGE = 80.0  # dB

FAINTEST = 1e-10  # power, as in librosa: -100 dB


def log_mel(samples: Floats, wanted: Spectrum) -> Floats:
    """Compute mel bands in decibels, float32 [bands, frames], as in librosa's `melspectrogram`.

    Frames are centred on each `hop`-th sample, padded with silence, with a periodic Hann window.
    The bands are Slaney's, each with the same area. Decibels are as in `power_to_db` with
    `top_db=None`.
    """
    bands = filters(wanted.rate, wanted.frame, wanted.bands, True)
    return decibels(powers(samples, wanted.frame, wanted.hop), bands).T


def powers(samples: Floats, frame: int, hop: int, longer: int = 1) -> NDArray[np.float64]:
    """Compute the power of each frequency in each frame, [frames, longer · frame // 2 + 1].

    With `longer`, each frame is zero-padded to `longer` times its length, which interpolates
    between the frequencies.
    """
    padded = np.pad(samples, (frame // 2, frame // 2))
    frames = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)
    transformed = np.fft.rfft(frames * window, longer * frame)
    return np.square(transformed.real) + np.square(transformed.imag)


def decibels(
    power: NDArray[np.float64], bands: tuple[tuple[int, NDArray[np.float64]], ...]
) -> Floats:
    """Convert each band's power to decibels, float32 [frames, bands]."""
    sums = [
        (power[:, first : first + len(weights)] * weights).sum(axis=1) for first, weights in bands
    ]
    loud: Floats = 10 * np.log10(np.maximum(np.stack(sums, axis=1), FAINTEST)).astype(np.float32)
    return loud


@lru_cache(16)
def filters(
    rate: int, frame: int, bands: int, even: bool
) -> tuple[tuple[int, NDArray[np.float64]], ...]:
    """Return triangular filters over the frequencies of a DFT, evenly spaced on the mel scale.

    The scale is Slaney's (Auditory Toolbox, 1998): 15 mels per kilohertz below 1 kHz, and above it
    27 mels for each factor of 6.4.

    Args:
        bands: number of bands from 0 Hz to half the rate.
        even: whether each band has the same area; else each has a maximum of 1.

    Returns:
        for each band the index of the first frequency with a weight above 0, and the weights from
        there.
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
    """Draw `side` · `PICTURE_HOP` samples at `PICTURE_RATE` in grey, uint8 [side, side, 3].

    Time goes to the right, and low bands are at the bottom. The scale does not depend on the sound:
    0 is 80 dB below a full-scale sine.
    """
    grey = levels(samples[: side * PICTURE_HOP], PICTURE_RATE, PICTURE_FRAME, PICTURE_HOP, side)
    return np.repeat(grey[:, :side, None], 3, axis=2)


def levels(samples: Floats, rate: int, frame: int, hop: int, bands: int) -> NDArray[np.uint8]:
    """Return grey levels [bands, frames], with the lowest band in the last row."""
    longer = 2
    power = powers(samples, frame, hop, longer) / (frame / 4) ** 2  # a full-scale sine has power 1
    loud = decibels(power, filters(rate, longer * frame, bands, False))
    grey = np.clip((loud + RANGE) * (255 / RANGE), 0, 255)
    upside_down: NDArray[np.uint8] = np.round(grey).astype(np.uint8).T[::-1]
    return upside_down
