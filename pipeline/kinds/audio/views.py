"""Views of a sound, the input of a backbone. View 0 is the sound; the plan has the others."""

from typing import NamedTuple

import numpy as np
import soxr
from numpy.typing import NDArray

from . import ORIGINAL as UNCHANGED
from . import QUIET
from .decode import Sound, mono

Floats = NDArray[np.float32]

QUALITY = "HQ"  # of soxr: 20 bits


class View(NamedTuple):
    """One augmentation; its steps are in the order of the fields.

    speed: a factor, which changes the pitch too, like a faster tape; shift: seconds of silence
    before the sound, or after it if negative; snr: signal-to-noise ratio of white noise in
    decibels, `QUIET` for no noise; seed: seed of the noise; gain: decibels.
    """

    speed: float = 1.0
    shift: float = 0.0
    snr: float = QUIET
    seed: int = 0
    gain: float = 0.0


ORIGINAL = View(*UNCHANGED)


def heard(sound: Sound, rate: int, view: View = ORIGINAL) -> Floats:
    """Return a view of a sound, float32 [samples] at `rate` samples per second."""
    played = sound.rate * view.speed
    samples = sound.samples
    if played != rate:
        samples = soxr.resample(samples, played, rate, quality=QUALITY)
    if view == ORIGINAL:
        return samples
    power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    silence = np.zeros(round(abs(view.shift) * rate), np.float32)
    parts = [silence, samples] if view.shift > 0 else [samples, silence]
    samples = np.concatenate(parts)
    if view.snr < QUIET:
        # Uniform noise from -1 to 1 has a power of 1/3.
        level = np.float32(np.sqrt(3 * power) * 10 ** (-view.snr / 20))
        samples = samples + level * noise(len(samples), view.seed)
    return samples * np.float32(10 ** (view.gain / 20))


def heard_of(data: bytes, rate: int) -> Floats:
    """Decode and resample a file to float32 [samples] at `rate`, block by block.

    If the file has another rate, its own samples are never all in memory. The result has the same
    bits as `heard(decode(data), rate)`.

    Raises:
        RefusedError: as in `decode.inspect`.
    """
    with mono(data) as (own, blocks):
        if own == rate:
            return np.concatenate(list(blocks))
        stream = soxr.ResampleStream(own, rate, 1, dtype="float32", quality=QUALITY)
        parts = [stream.resample_chunk(block) for block in blocks]
        return np.concatenate([*parts, stream.resample_chunk(np.empty(0, np.float32), last=True)])


def noise(count: int, seed: int) -> Floats:
    """Return white noise, uniform from -1 to 1.

    The noise is made from the raw bits of the generator, which NumPy guarantees never to change;
    its distributions may change between versions.
    """
    bits = np.random.PCG64(seed).random_raw(count)
    return ((bits >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23)) - np.float32(1)
