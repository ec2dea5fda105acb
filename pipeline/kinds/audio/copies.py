"""Copies: whether two sounds are the same recording, by cross-correlation of their waveforms.

A different encoding, sample rate or gain, silence before or after, or trimmed ends hardly change a
recording's waveform. Another recording of the same word or drum has a different waveform, however
similar it sounds. `benchmarks/audio.md` has the measurements.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...examples.files import read
from .. import Example
from .decode import decode
from .views import heard

Floats = NDArray[np.float64]

RATE = 8000  # samples per second; lossy formats preserve frequencies below 4 kHz best
SECONDS = 8  # only this much of a long sound is compared
HELD = 256  # sounds in the cache, up to 0.5 MB each
# Minimum correlation of copies. Copies in Vorbis, Opus and MP3 had 0.96 or more, other recordings
# 0.75 or less, except for hits of the same bell, which sounds the same each time (0.94).
LEAST_LIKENESS = 0.95


def copies(pairs: Sequence[tuple[Example, Example]]) -> list[bool]:
    """Decode the sounds, and return for each pair whether they are the same recording."""

    @lru_cache(HELD)
    def opened(example: Example) -> Floats:
        path, digest = example
        samples = heard(decode(read(Path(path), digest)), RATE)[: SECONDS * RATE]
        # Differences of adjacent samples, because otherwise low frequencies dominate.
        return np.diff(samples.astype(np.float64), prepend=0)

    verdicts = {
        (one, other): likeness(opened(one), opened(other)) >= LEAST_LIKENESS
        for one, other in sorted(set(pairs))  # keeps pairs of a sound adjacent
    }
    return [verdicts[pair] for pair in pairs]


def likeness(one: Floats, other: Floats) -> float:
    """Return the maximum correlation of two waveforms, from 0 to 1; 0 if one is silent.

    An inverted waveform correlates equally. Parts that only one sound has reduce the correlation
    according to their energy: silence at the ends has no effect, and a sound that lacks a tenth of
    the energy is not a copy.
    """
    size = 1 << (len(one) + len(other) - 1).bit_length()
    spectra = np.fft.rfft(one, size) * np.conj(np.fft.rfft(other, size))
    products = np.fft.irfft(spectra, size)  # for each delay between the two
    energy = float(np.square(one).sum() * np.square(other).sum())
    return float(np.abs(products).max()) / energy**0.5 if energy > 0 else 0.0
