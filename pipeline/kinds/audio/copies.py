"""Copies: whether two sounds are one recording, by laying one waveform over the other.

Other encodings, sample rates and gains, silence before or after, and ends that were cut off leave a
recording's waveform what it is. Another recording of the same word or drum has another one, however
alike the two are to hear. `benchmarks/audio.md` has what was measured.
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

RATE = 8000  # samples a second; lossy formats keep what is below 4 kHz best
SECONDS = 8  # of a long sound its beginning is compared
HELD = 256  # sounds, up to 0.5 MB each
# Least correlation of copies. Copies as Vorbis, Opus and MP3 had 0.96 and more; of other
# recordings 0.75 and less, but for hits of one bell, which rings the same each time (0.94).
LEAST_LIKENESS = 0.95


def copies(pairs: Sequence[tuple[Example, Example]]) -> list[bool]:
    """Decode the sounds; whether those of each pair are one recording."""

    @lru_cache(HELD)
    def opened(example: Example) -> Floats:
        path, digest = example
        samples = heard(decode(read(Path(path), digest)), RATE)[: SECONDS * RATE]
        # The difference of neighbours: low tones alone would decide otherwise.
        return np.diff(samples.astype(np.float64), prepend=0)

    verdicts = {
        (one, other): likeness(opened(one), opened(other)) >= LEAST_LIKENESS
        for one, other in sorted(set(pairs))  # pairs of one sound follow each other
    }
    return [verdicts[pair] for pair in pairs]


def likeness(one: Floats, other: Floats) -> float:
    """The correlation of two waveforms where they fit best, from 0 to 1; 0 if one is silent.

    A waveform upside down is as good. What only one of them has counts by its energy: silence at
    the ends costs nothing, and without a tenth of its energy a sound is no copy any more.
    """
    size = 1 << (len(one) + len(other) - 1).bit_length()
    spectra = np.fft.rfft(one, size) * np.conj(np.fft.rfft(other, size))
    products = np.fft.irfft(spectra, size)  # at each delay of one to the other
    energy = float(np.square(one).sum() * np.square(other).sum())
    return float(np.abs(products).max()) / energy**0.5 if energy > 0 else 0.0
