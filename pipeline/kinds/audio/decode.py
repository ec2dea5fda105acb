"""Decode sound files to samples, or refuse them with a reason.

The first bytes show the format of a file, and libsndfile (through soundfile) decodes it from
memory. libsndfile decodes truncated files without an error, so this module compares the length in
the header with the file.
"""

import contextlib
import io
import math
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...core.errors import RefusedError
from . import SILENT, notes

if TYPE_CHECKING:
    from soundfile import SoundFile

Floats = NDArray[np.float32]

MOST_SECONDS = 600
# In all channels together: 10 minutes at 96 kHz with two channels. Uncompressed files with at least
# 16 bits per sample never exceed the limit, because 200 MB hold fewer samples. It bounds what
# compressed files decode to.
MOST_SAMPLES = MOST_SECONDS * 96_000 * 2
# Above either limit, decoding or prediction takes hundreds of megabytes or more.
LARGE_SAMPLES, LARGE_SECONDS = MOST_SAMPLES // 10, 60
LEAST_SECONDS = 0.01
RATES = (1_000, 400_000)  # samples per second
MOST_CHANNELS = 64
LOUDEST = 10.0  # full scale is 1; lossy formats exceed it a little, wrong units by far
BLOCK = 1 << 18  # samples of all channels that are decoded at once
CLIPPED = 0.999  # from this absolute value, a sample is at full scale
SILENCE = -120.0  # dBFS, the peak of digital silence
UNKNOWN = 0xFFFFFFFF  # the length in the header of a stream


class Sound(NamedTuple):
    """Mono samples, float32 [samples], full scale from -1 to 1, and the sample rate."""

    samples: Floats
    rate: int


class About(NamedTuple):
    """The columns of the manifest for a sound.

    peak: the largest absolute sample of all channels, in decibels of full scale (dBFS), or that of
    their mean if the channels cancel each other to silence; clipped: the fraction of samples at
    full scale.
    """

    seconds: float
    rate: int
    channels: int
    peak: float
    clipped: float


def inspect(data: bytes) -> About:
    """Decode the whole sound once and describe it.

    Raises:
        RefusedError: the sound is not accepted; the text says why.
    """
    with _opened(data) as file:
        frames, peak, heard, clipped = 0, 0.0, 0.0, 0
        for block in _blocks(file):
            sizes = np.abs(block)
            peak = max(peak, float(sizes.max()))
            heard = max(heard, float(np.abs(block.mean(axis=1, dtype=np.float32)).max()))
            clipped += int((sizes >= CLIPPED).sum())
            frames += len(block)
        rate, channels = file.samplerate, file.channels
    cancelled = _decibels(heard) < SILENT
    return About(
        round(frames / rate, 3),
        rate,
        channels,
        round(_decibels(heard if cancelled else peak), 1),
        round(clipped / (frames * channels), 6),
    )


def _decibels(peak: float) -> float:
    return max(20 * math.log10(peak), SILENCE) if peak > 0 else SILENCE


def decode(data: bytes) -> Sound:
    """Return the mean of the channels, at the file's sample rate.

    Raises:
        RefusedError: as in `inspect`.
    """
    with mono(data) as (rate, blocks):
        return Sound(np.concatenate(list(blocks)), rate)


def beginning(data: bytes, seconds: int) -> Sound:
    """Decode at most the first `seconds` of a sound.

    Raises:
        RefusedError: as in `inspect`, for the part that is read.
    """
    parts: list[Floats] = []
    with mono(data) as (rate, blocks):
        while sum(map(len, parts)) < seconds * rate and (block := next(blocks, None)) is not None:
            parts.append(block)
    return Sound(np.concatenate(parts)[: seconds * rate], rate)


@contextlib.contextmanager
def mono(data: bytes) -> Iterator[tuple[int, Iterator[Floats]]]:
    """Yield the file's sample rate, and an iterator over the mean of the channels, in blocks.

    Raises:
        RefusedError: as in `inspect`, also while the blocks are read.
    """
    with _opened(data) as file:
        yield file.samplerate, (block.mean(axis=1, dtype=np.float32) for block in _blocks(file))


def is_large(data: bytes) -> bool:
    """Return whether a server must process a sound alone, according to its header.

    Raises:
        RefusedError: according to its header, the sound is not accepted.
    """
    with _opened(data) as file:
        frames, rate, channels = int(file.frames), int(file.samplerate), int(file.channels)
    return frames > LARGE_SECONDS * rate or frames * channels > LARGE_SAMPLES


def _opened(data: bytes) -> "SoundFile":
    import soundfile

    _refuse_by_content(data)
    speaks = data[:3] == b"ID3" or _is_mpeg(data)
    try:
        with notes.kept_off() if speaks else contextlib.nullcontext():
            file = soundfile.SoundFile(io.BytesIO(data))
    except soundfile.LibsndfileError as error:
        raise RefusedError(f"damaged: {error.error_string}") from None
    least, most = RATES
    if not least <= file.samplerate <= most:
        raise RefusedError(f"{file.samplerate} samples a second; accepted are {least} to {most}")
    if file.channels > MOST_CHANNELS:
        raise RefusedError(f"{file.channels} channels; at most {MOST_CHANNELS} are accepted")
    _refuse_length(file, file.frames)
    return file


def _blocks(file: "SoundFile") -> Iterator[Floats]:
    """Yield all samples, checked, in blocks [frames, channels]."""
    import soundfile

    promised, got = file.frames, 0
    while True:
        try:
            with notes.kept_off() if file.format == "MP3" else contextlib.nullcontext():
                block = file.read(max(1, BLOCK // file.channels), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise RefusedError(f"damaged: {error.error_string}") from None
        if not len(block):
            break
        got += len(block)
        _refuse_length(file, got)
        if not np.isfinite(block).all():
            raise RefusedError("a sample is NaN or infinite")
        loudest = float(np.abs(block).max())
        if loudest > LOUDEST:
            raise RefusedError(
                f"a sample is {loudest:.4g}, but full scale is 1: scale the samples to -1 to 1"
            )
        yield block
    if got < promised:
        raise RefusedError(f"cut short: it has {got} of {promised} samples")
    if got < LEAST_SECONDS * file.samplerate:
        raise RefusedError(
            f"too short: {1000 * got / file.samplerate:.3g} ms; at least"
            f" {1000 * LEAST_SECONDS:g} ms are needed"
            if got
            else "it has no samples"
        )


def _refuse_length(file: "SoundFile", frames: int) -> None:
    """Refuse a sound that is too long."""
    if frames > MOST_SECONDS * file.samplerate:
        seconds = frames / file.samplerate
        raise RefusedError(f"too long: {seconds:.0f} s; at most {MOST_SECONDS} s are accepted")
    if (samples := frames * file.channels) > MOST_SAMPLES:
        raise RefusedError(
            f"too long: {samples / 1e6:,.1f} million samples in all channels; at most"
            f" {MOST_SAMPLES / 1e6:,.1f} million are accepted, as in {MOST_SECONDS} s at 96 kHz"
            " with 2 channels"
        )


def _refuse_by_content(data: bytes) -> None:
    """Refuse a file that is truncated or not in a known format."""
    if not data:
        raise RefusedError("empty file")
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        _refuse_cut(data, "<", b"data")
    elif data[:4] == b"FORM" and data[8:12] in (b"AIFF", b"AIFC"):
        _refuse_cut(data, ">", b"SSND")
    elif data[:4] == b"OggS":
        _refuse_cut_ogg(data)
    elif data[:4] == b"fLaC" or data[:3] == b"ID3" or _is_mpeg(data):
        return
    else:
        raise RefusedError("not a sound: accepted are WAV, FLAC, Ogg (Vorbis, Opus), MP3 and AIFF")


def _is_mpeg(data: bytes) -> bool:
    """Return whether the data begin with an MPEG audio frame (layers 1 to 3)."""
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xE0 != 0xE0:
        return False
    version, layer = data[1] >> 3 & 3, data[1] >> 1 & 3
    return version != 1 and layer != 0 and data[2] >> 4 != 15 and data[2] >> 2 & 3 != 3


def _refuse_cut(data: bytes, order: str, wanted: bytes) -> None:
    """Walk the chunks of WAV or AIFF to the samples, and check that none are missing."""
    place = 12
    while place + 8 <= len(data):
        name, size = struct.unpack_from(f"{order}4sI", data, place)
        there = len(data) - place - 8
        if name == wanted:
            if size > there and size != UNKNOWN:
                raise RefusedError(f"cut short: it has {there} of {size} bytes of samples")
            return
        place += 8 + size + size % 2
    raise RefusedError("cut short: it ends before its samples begin")


def _refuse_cut_ogg(data: bytes) -> None:
    """Walk the pages of Ogg, and check that the last one is complete and marked as the last."""
    place, last = 0, False
    while data[place : place + 4] == b"OggS":
        if place + 27 > len(data):
            raise RefusedError("cut short: its last page is incomplete")
        segments = data[place + 26]
        size = 27 + segments + sum(data[place + 27 : place + 27 + segments])
        if place + size > len(data):
            raise RefusedError("cut short: its last page is incomplete")
        last = bool(data[place + 5] & 4)
        place += size
    if not last:
        raise RefusedError("cut short: its last page is missing")
