"""Sounds on pages: a spectrogram, and a small file to play."""

import io
import wave

import numpy as np
import soxr
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .. import Shown
from .decode import Sound, beginning
from .spectrum import levels
from .views import QUALITY, heard_of

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

RATE = 16_000  # sample rate of spectrograms and played sounds
LONGEST = 4  # seconds that are played, from the beginning
FRAME = 512  # samples per frame
AXES = 16  # pixels of the strip below a spectrogram
LEAST = 120  # pixels of the side; the labels of a smaller spectrogram's axes would overlap
BACKGROUND, LINE, INK = (250, 250, 247), (198, 60, 20), (60, 60, 60)

# Colours from silence to full scale. Lighter always means less, so the colours work in print and
# for any colour vision.
COLOURS = np.array(
    [(255, 255, 255), (203, 219, 236), (129, 170, 209), (58, 111, 170), (22, 58, 112), (6, 20, 48)]
)


def shown(data: bytes, side: int) -> Shown:
    """Return the spectrogram (PNG), at most `side` pixels wide and high, and the sound (WAV).

    Time runs from left to right, and frequency from bottom to top. The limits of both axes are
    written below the spectrogram, unless it is too small.

    Raises:
        RefusedError: as in `decode.decode`.
    """
    samples = heard_of(data, RATE)
    if side < LEAST:
        drawn = picture(samples, side, side)
    else:
        drawn = with_axes(picture(samples, side, side - AXES), len(samples) / RATE)
    return Shown("image/png", png(drawn), Shown("audio/wav", small(beginning(data, LONGEST))))


def small(sound: Sound) -> bytes:
    """Convert the beginning of a sound to a WAV file: mono, 16 bits, 16 kHz, clipped."""
    cut = sound.samples[: LONGEST * sound.rate]
    samples = cut if sound.rate == RATE else soxr.resample(cut, sound.rate, RATE, quality=QUALITY)
    whole = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(whole.tobytes())
    return buffer.getvalue()


def picture(samples: Floats, width: int, height: int) -> Bytes:
    """Draw the spectrogram of samples at `RATE` in colours, uint8 [height, width, 3].

    The sound fills the width of the picture, whatever its length. For long sounds, each column
    shows the maximum over its segment of time.
    """
    hop = max(FRAME // 4, len(samples) // (8 * width))
    grey = levels(samples, RATE, FRAME, hop, min(height, 128))
    columns = np.linspace(0, grey.shape[1], width + 1)
    first = np.minimum(columns[:-1].astype(int), grey.shape[1] - 1)
    last = np.maximum(np.ceil(columns[1:]).astype(int), first + 1)
    wide = np.stack(
        [grey[:, start:end].max(axis=1) for start, end in zip(first, last, strict=True)], axis=1
    )
    rows = np.arange(height) * len(grey) // height
    return coloured(wide[rows])


def with_axes(drawn: Bytes, seconds: float) -> Bytes:
    """Add a strip of `AXES` pixels below a spectrogram with the ends of both axes."""
    height, width, _ = drawn.shape
    whole = Image.new("RGB", (width, height + AXES), BACKGROUND)
    whole.paste(Image.fromarray(drawn))
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default()
    end = f"{seconds:.3g} s"
    hertz = f"0 to {RATE // 2000} kHz upwards"
    pen.text((2, height + 2), "0 s", INK, font)
    pen.text(((width - pen.textlength(hertz, font)) / 2, height + 2), hertz, INK, font)
    pen.text((width - 2 - pen.textlength(end, font), height + 2), end, INK, font)
    return np.asarray(whole)


def coloured(grey: Bytes) -> Bytes:
    """Convert grey levels [height, width] to `COLOURS`, uint8 [height, width, 3]."""
    at = grey / 255 * (len(COLOURS) - 1)
    parts = [np.interp(at, range(len(COLOURS)), COLOURS[:, channel]) for channel in range(3)]
    return np.round(np.stack(parts, axis=2)).astype(np.uint8)


def png(pixels: Bytes) -> bytes:
    """Encode pixels [height, width, 3] as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=False)
    return buffer.getvalue()
