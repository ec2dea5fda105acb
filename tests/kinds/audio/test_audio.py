"""Sounds: real files of each format, bad ones, views, windows, copies, and the whole way."""

import asyncio
import csv
import importlib
import io
import json
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import soundfile
from PIL import Image, ImageDraw

from pipeline import kinds
from pipeline.backbones.engines.on_onnxruntime import on_export
from pipeline.core.errors import ParamsError, RefusedError
from pipeline.examples import lettering
from pipeline.heads.head import Head
from pipeline.kinds import Pixels, Spectrum, Waveform
from pipeline.kinds.audio import ORIGINAL, QUIET, contact_sheet
from pipeline.kinds.audio.copies import likeness
from pipeline.kinds.audio.decode import Sound, beginning, decode
from pipeline.kinds.audio.parameters import Augment
from pipeline.kinds.audio.parts import stretches
from pipeline.kinds.audio.views import View, heard, heard_of, noise
from pipeline.kinds.audio.windows import windows
from pipeline.serving import predict
from pipeline.serving.classifier import Classifier
from pipeline.serving.desk import Desk, Limits
from tests.conftest import export_once
from tests.helpers.bundles import write_by_hand

AUDIO = kinds.named("audio")
RATE = 16_000
SPEECH = Waveform(RATE, 32_880, 32_880)
PICTURE = Pixels(64, 64, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
STAGES = ("ingest", "augment", "extract", "train", "evaluate", "checks", "bundle", "report")

Floats = np.ndarray[Any, np.dtype[np.float32]]


def tone(hertz, seconds=0.5, rate=RATE, seed=0):
    """A tone that fades, over a little noise."""
    time = np.arange(round(seconds * rate)) / rate
    faint = np.random.default_rng(seed).standard_normal(len(time)) * 0.01
    return (0.5 * np.sin(2 * np.pi * hertz * time) * np.exp(-3 * time) + faint).astype(np.float32)


def file(samples, rate=RATE, form="WAV", subtype=None):
    """The samples as the bytes of a sound file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=form, subtype=subtype)
    return buffer.getvalue()


def why_refused(data):
    with pytest.raises(RefusedError) as caught:
        AUDIO.inspect(data)
    with pytest.raises(RefusedError):  # whatever inspect refuses is not read either
        AUDIO.read(data, SPEECH)
    return str(caught.value)


FORMATS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("WAV", "ULAW"),
    ("WAVEX", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


@pytest.mark.parametrize(("form", "subtype"), FORMATS)
def test_each_format_is_taken(form, subtype):
    sound = tone(440, 1.0)
    data = file(sound, RATE, form, subtype)
    seconds, rate, channels, peak, clipped = AUDIO.inspect(data)
    assert seconds == pytest.approx(1, abs=0.1)  # MP3 has whole frames
    assert (rate, channels, clipped) == (RATE, 1, 0)
    assert peak == pytest.approx(-6, abs=1)
    given = decode(data).samples
    ours, theirs = (np.diff(one.astype(np.float64)) for one in (sound, given))
    assert likeness(ours, theirs) > 0.9
    assert AUDIO.recall(AUDIO.remember(AUDIO.inspect(data))) == AUDIO.inspect(data)


def test_ninety_six_kilohertz_and_eight_channels_are_taken():
    one = tone(440, 1.0, 96_000)
    eight = np.stack([one * (channel == 3) * 8 for channel in range(8)], axis=1) / 4
    data = file(eight.astype(np.float32), 96_000, "WAV", "FLOAT")
    assert AUDIO.inspect(data)[:3] == (1.0, 96_000, 8)
    mono = decode(data)
    np.testing.assert_allclose(mono.samples, one / 4, atol=1e-6)  # the mean of the channels
    assert heard(mono, RATE).shape == (RATE,)


def test_resampling_keeps_what_is_heard_and_drops_what_is_not():
    low, high = tone(1000, 1.0, 44_100), tone(15_000, 1.0, 44_100)
    kept = heard(Sound(low, 44_100), RATE)
    reference = tone(1000, 1.0, RATE)
    assert np.abs(kept[2000:8000] - reference[2000:8000]).max() < 0.08  # noise differs
    gone = heard(Sound(high, 44_100), RATE)
    assert np.abs(gone[2000:8000]).max() < 0.05 * np.abs(high).max() + 0.05


def test_a_sound_at_the_wanted_rate_is_not_touched():
    samples = tone(300)
    assert heard(Sound(samples, RATE), RATE) is samples


def cut(data):
    return data[: len(data) * 2 // 3]


def test_bad_files_are_refused_with_a_reason():
    sound = tone(440, 2.0)
    assert why_refused(b"") == "empty file"
    assert why_refused(b"just some text, renamed to a.wav").startswith(
        "not a sound: accepted are WAV"
    )
    assert why_refused(cut(file(sound))).startswith("cut short: ")
    assert why_refused(cut(file(sound, form="AIFF"))).startswith("cut short: ")
    assert why_refused(cut(file(sound, form="OGG", subtype="VORBIS"))).startswith("cut short: ")
    assert "cut short" in why_refused(cut(file(sound, form="FLAC"))) or "damaged" in why_refused(
        cut(file(sound, form="FLAC"))
    )
    assert why_refused(file(sound)[:40]).startswith("cut short: it ends before its samples begin")
    assert why_refused(file(sound[:0])) == "it has no samples"
    assert why_refused(file(sound[:20])) == "too short: 1.25 ms; at least 10 ms are needed"
    assert why_refused(b"RIFF\x00\x00\x00\x00WAVEjunk").startswith("cut short")
    assert why_refused(b"ID3" + bytes(100)).startswith("damaged: ")
    assert why_refused(b"fLaC" + bytes(100)).startswith("damaged: ")

    broken = sound.copy()
    broken[100] = np.nan
    assert why_refused(file(broken, subtype="FLOAT")) == "a sample is NaN or infinite"
    broken[100] = np.inf
    assert why_refused(file(broken, subtype="FLOAT")) == "a sample is NaN or infinite"
    broken[100] = 20_000
    loud = "a sample is 2e+04, but full scale is 1: scale the samples to -1 to 1"
    assert why_refused(file(broken, subtype="FLOAT")) == loud


def test_absurd_sizes_are_refused_before_they_are_read():
    # A header that promises a day at 8 kHz, and its samples are not there.
    header = bytearray(file(np.zeros(1000, np.float32), 8000))
    assert why_refused(file(np.zeros(700 * 1000, np.float32), 1000)) == (
        "too long: 700 s; at most 600 s are accepted"
    )
    struct.pack_into("<I", header, 24, 100)
    assert why_refused(bytes(header)) == "100 samples a second; accepted are 1000 to 400000"
    many = np.zeros((1000, 100), np.float32)
    assert why_refused(file(many)) == "100 channels; at most 64 are accepted"


def promising(frames, rate, channels=1):
    """A short FLAC whose header promises so many samples of each channel, up to 2 ** 32 - 1."""
    data = bytearray(file(np.zeros((rate // 10, channels), np.float32), rate, "FLAC"))
    data[22:26] = struct.pack(">I", frames)  # the lower 32 bits of 36
    return bytes(data)


@pytest.mark.parametrize(
    ("seconds", "rate", "channels"), [(600, 400_000, 1), (600, 192_010, 1), (600, 48_000, 5)]
)
def test_a_sound_of_too_many_samples_is_refused_by_its_header(seconds, rate, channels):
    why = why_refused(promising(seconds * rate, rate, channels))
    count = f"{seconds * rate * channels / 1e6:,.1f}"
    assert why.startswith(f"too long: {count} million samples in all channels; at most 115.2 mill")
    assert "600 s at 96 kHz with 2 channels" in why


def test_ten_minutes_at_ninety_six_kilohertz_in_stereo_are_not_too_many():
    assert "too long" not in why_refused(promising(600 * 96_000, 96_000, 2))  # it is cut short
    assert why_refused(promising(601 * 8_000, 8_000)).startswith("too long: 601 s; at most 600 s")


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 96_000, 400_000])
def test_a_file_is_resampled_piece_by_piece_to_the_same_bits(rate):
    sound = np.stack([tone(440, 3.0, rate), tone(900, 3.0, rate, 1)], axis=1)
    data = file(sound, rate, "WAV", "FLOAT")
    np.testing.assert_array_equal(heard_of(data, RATE), heard(decode(data), RATE))


def test_the_beginning_of_a_sound_is_what_it_begins_with():
    data = file(tone(440, 9.0, 44_100), 44_100)
    start, whole = beginning(data, 4), decode(data)
    np.testing.assert_array_equal(start.samples, whole.samples[: 4 * 44_100])
    assert (start.rate, len(beginning(data, 10).samples)) == (44_100, 9 * 44_100)


def test_a_long_sound_is_large_and_so_is_one_of_many_samples():
    for data, large in (
        (file(tone(440, 5.0)), False),
        (promising(60 * 48_000, 48_000), False),
        (promising(61 * 1000, 1000), True),
        (promising(50 * 48_000, 48_000, 8), True),
    ):
        assert AUDIO.large(data) == large


def test_a_server_answers_large_sounds_one_at_a_time(tmp_path, exported, monkeypatch):
    monkeypatch.setenv("HEADSTART_STORE", str(exported.parent))
    head = Head(np.zeros((3, 80), np.float32), np.zeros(3, np.float32))
    bundle = write_by_hand(tmp_path, "classification", head, "audio", backbone="mfcc")
    desk = Desk(Classifier(bundle, explains=True), Limits(seconds=120))
    large, small = file(np.zeros(70 * 8_000, np.float32), 8_000, "FLAC"), file(tone(440))

    async def answers():
        until = asyncio.get_running_loop().time() + 120
        asked = [
            asyncio.create_task(desk.answer(data, False, 0, until))
            for data in [large] * 3 + [small]
        ]
        most = 0
        while not all(task.done() for task in asked):
            await asyncio.sleep(0)
            most = max(most, desk.alone.waiting)
        assert all(len(task.result().probabilities) == 3 for task in asked)
        return most

    assert asyncio.run(answers()) == 3
    desk.close()


def test_a_stream_of_unknown_length_is_taken_as_it_is():
    data = bytearray(file(tone(440)))
    struct.pack_into("<I", data, 4, 0xFFFFFFFF)
    struct.pack_into("<I", data, data.index(b"data") + 4, 0xFFFFFFFF)
    assert AUDIO.inspect(bytes(data))[0] == 0.5


def test_silence_and_clipping_are_told():
    square = np.sign(tone(440)) * np.float32(1)
    rows = [AUDIO.inspect(file(samples)) for samples in (tone(440), square, square * 0)]
    manifest = pd.DataFrame(rows, columns=list(AUDIO.columns)).assign(path=["a", "b", "c"])
    assert manifest["peak"][2] == -120
    assert AUDIO.remarks(manifest) == [
        "warning: 1 sound is silent (peak below -60 dBFS), the first is c",
        "1 sound is clipped (0.1% of the samples or more are at full scale), the first is b",
    ]
    assert AUDIO.remarks(manifest[:1]) == []


def test_channels_that_cancel_each_other_are_silent():
    both = np.stack([tone(440), -tone(440)], axis=1)
    assert AUDIO.doubt(file(both)) == "silent: the mean of its channels peaks at -96.3 dBFS"
    assert AUDIO.doubt(file(both * np.float32([1, 0.9]))) == ""
    rows = [AUDIO.inspect(file(both))]
    manifest = pd.DataFrame(rows, columns=list(AUDIO.columns)).assign(path=["a"])
    assert AUDIO.remarks(manifest) == [
        "warning: 1 sound is silent (peak of the mean of the channels below -60 dBFS), the first"
        " is a"
    ]


def test_predict_says_that_a_sound_is_silent(exported, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HEADSTART_STORE", str(exported.parent))
    head = Head(np.zeros((3, 80), np.float32), np.zeros(3, np.float32))
    bundle = write_by_hand(tmp_path, "classification", head, "audio", backbone="mfcc")
    paths = [tmp_path / "loud.wav", tmp_path / "nothing.wav"]
    for path, loudness in zip(paths, (1, 0), strict=True):
        path.write_bytes(file(tone(440) * np.float32(loudness)))
    predict.run(bundle, map(str, paths), csv=tmp_path / "out.csv")
    predict.run(bundle, map(str, paths))
    said = capsys.readouterr()
    assert said.out.splitlines()[-1].split() == ["silent:", "it", "peaks", "at", "-120", "dBFS"]
    assert said.out.count("silent") == 1
    warning = (
        "predict: warning: the predictions for 1 of 2 sounds are not reliable; the first is"
        f" {paths[1]}: silent: it peaks at -120 dBFS"
    )
    assert [line for line in said.err.splitlines() if "warning" in line] == [warning] * 2
    assert "doubt" not in (tmp_path / "out.csv").read_text()


def test_what_the_decoder_of_mp3_writes_stays_off_the_screen(capfd):
    half = file(tone(440, 3), form="MP3")
    half = half[: len(half) // 2] + b"\xff" * 100

    def read(number):
        os.write(2, f"line {number}\n".encode())
        with pytest.raises(RefusedError, match=r"^cut short: it has \d+ of \d+ samples"):
            AUDIO.inspect(half)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(20)))
    said = capfd.readouterr().err.splitlines()
    assert sorted(said) == sorted(f"line {number}" for number in range(20))


# Views


def test_a_view_is_decided_by_digest_number_and_settings_alone():
    settings = Augment(views=3)
    table = AUDIO.plan(["bb", "aa"], settings)
    assert table["digest"].tolist() == ["aa"] * 3 + ["bb"] * 3
    assert AUDIO.plan(["aa"], settings).equals(table[:3])
    more = AUDIO.plan(["aa"], Augment(views=5))
    assert more[:3].equals(table[:3])
    # Each number has its use: another range for one leaves the others as they were.
    other = AUDIO.plan(["aa"], Augment(views=3, gain=20))
    columns = [name for name in AUDIO.view_columns if name != "gain"]
    assert other[columns].equals(table[:3][columns])
    assert not other["gain"].equals(table[:3]["gain"])


def test_views_are_within_what_was_asked_for():
    settings = Augment(views=200, shift=0.3, gain=4, noise=0.5, snr=10, speed=0.1)
    table = AUDIO.plan(["aa"], settings)
    assert table["speed"].between(0.9, 1.1).all()
    assert table["shift"].between(-0.3, 0.3).all()
    assert table["gain"].between(-4, 4).all()
    noisy = table["snr"] < QUIET
    assert 0.35 < noisy.mean() < 0.65
    assert table["snr"][noisy].between(10, 30).all()
    assert (table["seed"][~noisy] == 0).all()
    assert table["seed"][noisy].is_unique
    still = AUDIO.draw("aa", 1, Augment(shift=0, gain=0, noise=0, speed=0))
    assert still == ORIGINAL


def test_what_a_view_does():
    sound = Sound(tone(440, 1.0), RATE)
    plain = heard(sound, RATE)
    louder = heard(sound, RATE, View(gain=6.0206))
    np.testing.assert_allclose(louder, 2 * plain, rtol=1e-4)
    later, earlier = heard(sound, RATE, View(shift=0.25)), heard(sound, RATE, View(shift=-0.25))
    assert np.array_equal(later[4000:], plain)
    assert not later[:4000].any()
    assert np.array_equal(earlier[:-4000], plain)
    faster = heard(sound, RATE, View(speed=1.25))
    assert len(faster) == RATE * 4 // 5
    peaks = [np.abs(np.fft.rfft(one)).argmax() / (len(one) / RATE) for one in (plain, faster)]
    assert peaks == pytest.approx([440, 550], abs=2)
    noisy = heard(sound, RATE, View(snr=20.0, seed=7))
    added = noisy - plain
    ratio = 10 * np.log10(np.square(plain).mean() / np.square(added).mean())
    assert ratio == pytest.approx(20, abs=0.2)
    assert np.array_equal(noisy, heard(sound, RATE, View(snr=20.0, seed=7)))
    assert not np.array_equal(noisy, heard(sound, RATE, View(snr=20.0, seed=8)))


def test_noise_is_white_and_the_same_everywhere():
    made = noise(100_000, 3)
    assert abs(made.mean()) < 0.01
    assert np.square(made).mean() == pytest.approx(1 / 3, rel=0.02)
    assert abs((made[1:] * made[:-1]).mean()) < 0.01
    assert [f"{number:.6f}" for number in noise(3, 1)] == ["0.023643", "0.900927", "-0.711681"]


def test_packed_views_differ_where_views_do():
    views = [ORIGINAL, View(seed=1), View(gain=1.0), View(shift=0.1), View(snr=20.0)]
    packed = {AUDIO.pack_view(tuple(view)) for view in views}
    assert len(packed) == len(views)
    assert len({len(one) for one in packed}) == 1
    assert AUDIO.pack_view((1.0, -0.0, QUIET, 0, 0.0)) == AUDIO.pack_view(ORIGINAL)
    with pytest.raises(ValueError, match="finite"):
        AUDIO.pack_view((float("nan"), 0.0, QUIET, 0, 0.0))


# Inputs of backbones


def test_windows_hold_all_of_a_sound():
    numbers = np.arange(100, dtype=np.float32)
    assert windows(numbers, 200, 50)[0].tolist() == numbers.tolist()
    short = windows(numbers[:9], 200, 50)
    assert short.shape == (1, 50)
    assert short[0, 20:29].tolist() == list(range(9))
    cut_up = windows(numbers, 30, 30)
    assert cut_up.shape == (4, 30)
    assert set(cut_up.ravel()) == set(numbers)
    assert (cut_up[0, 0], cut_up[-1, -1]) == (0, 99)


def test_each_input_has_its_shape():
    data = file(tone(440, 5.0, 44_100), 44_100)
    assert AUDIO.read(data, SPEECH).shape == (3, 32_880)
    spectrum = Spectrum(22_050, 44_100, 2048, 2048, 512, 32)
    assert AUDIO.read(data, spectrum).shape == (3, 32, 87)
    pixels = AUDIO.read(data, PICTURE)
    assert (pixels.shape, pixels.dtype) == ((8, 64, 64, 3), np.uint8)
    for preprocessing in (SPEECH, spectrum, PICTURE):
        example = AUDIO.read(data, preprocessing)
        model = AUDIO.graph(preprocessing).SerializeToString()
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        assert np.array_equal(session.run(["input"], {name: example})[0], example)


def test_pixels_do_not_depend_on_the_loudest():
    """Half as loud is 6 dB darker everywhere, and no sound is stretched to white."""
    loud, soft = (AUDIO.read(file(tone(1000) * gain), PICTURE) for gain in (1, 0.5))
    seen = soft > 20
    fall = loud[seen].astype(int) - soft[seen]
    assert np.median(fall) == pytest.approx(6.02 * 255 / 80, abs=1)
    assert np.unravel_index(loud[0, ..., 0].max(axis=1).argmax(), (64,))[0] > 32  # low is below


@pytest.mark.parametrize("name", ["speech_embedding", "mfcc", "log_mel", "efficientnet_lite0"])
def test_a_sound_has_the_same_bits_in_any_company(exported, name):
    engine = on_export(export_once(exported, name, "pretrained"), AUDIO)
    assert engine.takes in AUDIO.feeds
    view = tuple(View(0.97, 0.1, 22.0, 5, -3.0))
    asked = [
        (file(tone(440, 0.4)), [ORIGINAL, view]),
        (file(tone(2000, 3.0, 44_100), 44_100), [view]),
        (file(tone(900, 0.4)), [ORIGINAL]),
    ]
    together = engine.features(engine.make_views(asked), 32)
    alone = [
        engine.features(engine.make_views([(data, [one])]), size)[0]
        for size, (data, views) in enumerate(asked, 1)
        for one in views
    ]
    assert np.array_equal(together, np.stack(alone))
    assert np.isfinite(together).all()
    assert not np.array_equal(together[0], together[1])


def test_silence_has_finite_features(exported):
    silent = file(np.zeros(RATE, np.float32))
    for name in ("speech_embedding", "mfcc", "log_mel"):
        engine = on_export(export_once(exported, name, "pretrained"), AUDIO)
        assert np.isfinite(engine.features(engine.make_views([(silent, [ORIGINAL])]), 4)).all()


def test_no_caption_of_the_contact_sheet_is_cut():
    pen, font = ImageDraw.Draw(Image.new("RGB", (1, 1))), lettering.font(9)
    words = contact_sheet.words(View(1.08, 0.28, 38.0, 0, 10.0))
    assert lettering.fitted(words, pen, font, contact_sheet.TILE) == words


# Checks


def test_copies_are_found_and_other_recordings_are_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)

    def word(pitch):
        """A glide with its overtones, as a voice has them, and breath."""
        time = np.arange(12_000) / RATE
        phase = 2 * np.pi * pitch * (time + 0.1 * time**2)
        voice = sum(np.sin(k * phase) / k for k in range(1, 9)) * np.sin(np.pi * time / 0.75)
        return (0.2 * voice + 0.01 * random.standard_normal(len(time))).astype(np.float32)

    one, other = word(150), word(158)
    silence = np.zeros(3000, np.float32)
    files = {
        "one.wav": file(one),
        "quiet.wav": file(one * 0.3),
        "one.ogg": file(one, form="OGG", subtype="VORBIS"),
        "one.mp3": file(one, form="MP3"),
        "late.flac": file(np.concatenate([silence, one, silence]), form="FLAC"),
        "low.wav": file(heard(Sound(one, RATE), 11_025), 11_025),
        "other.wav": file(other),
        "silent.wav": file(silence),
    }
    examples = {}
    for name, data in files.items():
        Path(name).write_bytes(data)
        examples[name] = (name, sha256(data).hexdigest())
    names = [name for name in files if name != "one.wav"]
    alike = AUDIO.copies([(examples["one.wav"], examples[name]) for name in names])
    assert dict(zip(names, alike, strict=True)) == {
        "quiet.wav": True,
        "one.ogg": True,
        "one.mp3": True,
        "late.flac": True,
        "low.wav": True,
        "other.wav": False,
        "silent.wav": False,
    }


# Shown and explained


def test_a_page_shows_the_spectrogram_and_plays_the_sound():
    shown = AUDIO.show(file(np.stack([tone(440, 9.0, 44_100)] * 2, axis=1), 44_100), 240)
    assert shown.media_type == "image/png"
    with Image.open(io.BytesIO(shown.data)) as picture:
        assert picture.size == (240, 240)
    assert shown.also is not None
    assert shown.also.media_type == "audio/wav"
    played = soundfile.SoundFile(io.BytesIO(shown.also.data))
    assert (played.samplerate, played.channels, played.subtype) == (RATE, 1, "PCM_16")
    assert played.frames == 4 * RATE
    with pytest.raises(RefusedError):
        AUDIO.show(b"text", 240)
    # A thumbnail has no axes, whose ends would overlap.
    small = np.asarray(Image.open(io.BytesIO(AUDIO.show(file(tone(440)), 64).data)))
    assert small.shape == (64, 64, 3)
    assert not (small[-2:] == (250, 250, 247)).all()


def test_hidden_stretches_are_silent_one_after_the_other():
    sound = tone(440, 1.0) + np.float32(0.2)
    hidden = AUDIO.hidden(file(sound, subtype="FLOAT"), SPEECH)
    assert len(hidden) == stretches(1.0, 1) == 16
    whole = AUDIO.read(file(sound, subtype="FLOAT"), SPEECH)
    for place, one in enumerate(hidden):
        assert one.shape == whole.shape
        changed = np.flatnonzero(one[0] != whole[0])
        middle = 8440 + (place + 0.5) * 1000  # in the middle of the silence around it
        assert abs(changed.mean() - middle) < 60
        assert not one[0, round(middle) - 450 : round(middle) + 450].any()
    assert stretches(600, 300) == 4  # a long sound has few, long ones


def test_marked_parts_are_where_the_weights_are():
    data = file(np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.1)
    weights = np.zeros(10, np.float32)
    weights[7] = 1
    shown = AUDIO.explain_parts(data, SPEECH, weights, 200)
    with Image.open(io.BytesIO(shown.data)) as picture:
        pixels = np.asarray(picture).astype(int)
    redness = (pixels[..., 0] - pixels[..., 2])[-5:].mean(axis=0)
    assert np.flatnonzero(redness > 50).tolist() == list(range(140, 160))


def test_a_map_is_laid_over_all_windows():
    windows_seen = np.full((2, 64, 64, 3), 100, np.uint8)
    heat = np.zeros((4, 8), np.float32)
    heat[:, 6:] = 1  # the end of the second window
    shown = AUDIO.explain(windows_seen, heat, PICTURE, None)
    with Image.open(io.BytesIO(shown.data)) as picture:
        pixels = np.asarray(picture).astype(int)
    assert pixels.shape == (64, 128, 3)
    redness = (pixels[..., 0] - pixels[..., 2]).mean(axis=0)
    assert redness[110:].min() > redness[:80].max()


# The whole way


@pytest.fixture
def sounds(project):
    project.set(
        **{
            "ingest.kind": "audio",
            "ingest.source": "folder",
            "ingest.path": "data/raw/sounds",
            "ingest.max_refused": 1.0,
            "augment": {"views": 1},
            "extract.backbone": "speech_embedding",
            "evaluate.bootstrap": 10,
        }
    )
    return project


FORMS = (("WAV", "wav"), ("FLAC", "flac"), ("OGG", "ogg"), ("MP3", "mp3"))


def write_sounds(count):
    """Hums with a beep in them, high in one class and low in the other, at any time."""
    for number in range(count):
        random = np.random.default_rng(number)
        form, ending = FORMS[number % 4 // 2]
        rate = (16_000, 44_100)[number % 3 // 2]
        hum = tone(120, 1.2, rate, number) * 0.3
        beep = tone((3000, 900)[number % 2] * random.uniform(0.9, 1.1), 0.15, rate, number)
        at = int(random.uniform(0.05, 0.9) * rate)
        hum[at : at + len(beep)] += beep
        path = Path("data/raw/sounds") / ("high", "low")[number % 2] / f"{number}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file(hum, rate, form))


def run(*stages):
    for stage in stages:
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()


def beep_file(at):
    """A second and a half of hum, with a high beep of 0.2 s in it."""
    hum = tone(120, 1.5) * 0.3
    beep = tone(3000, 0.2)
    hum[round(at * RATE) :][: len(beep)] += beep
    return file(hum)


def test_every_stage_takes_sounds(sounds, capsys):
    write_sounds(60)
    (Path("data/raw/sounds") / "high" / "text.wav").write_text("no sound at all")
    run(*STAGES)
    out = capsys.readouterr().out
    assert "60 of 61 files accepted" in out
    with Path("data/refused.csv").open(newline="") as table:
        (refused,) = csv.DictReader(table)
    assert refused["reason"].startswith("not a sound: accepted are WAV")
    assert json.loads(Path("reports/metrics.json").read_text())["test"]["accuracy"] >= 0.8
    page = Path("reports/report.html").read_text()
    assert "60 sounds" in page
    manifest = pd.read_parquet("data/manifest.parquet")
    assert sorted(manifest["rate"].unique()) == [16_000, 44_100]

    run("extract")
    assert "0 computed" in capsys.readouterr().out

    classifier = Classifier(Path("bundle"), explains=True)
    row = manifest.iloc[0]
    assert classifier.answer(Path(row["path"]).read_bytes()).probabilities.sum() == pytest.approx(1)
    # The stretch that is marked most is that of the beep which decides.
    for at in (0.3, 1.1):
        shown = []
        answer = classifier.answer(beep_file(at), heat=True, neighbours=2, side=150)
        assert classifier.classes[answer.best] == "high"
        assert answer.heat is not None
        with Image.open(io.BytesIO(answer.heat.data)) as picture:
            pixels = np.asarray(picture).astype(int)
        redness = (pixels[..., 0] - pixels[..., 2])[-4:].mean(axis=0)
        most = np.flatnonzero(redness >= 0.99 * redness.max())
        shown.append((most.min() / 100, most.max() / 100))
        (start, end) = shown[0]
        assert start < at + 0.2
        assert end > at
        assert len(answer.neighbours) == 2


@pytest.mark.slow
def test_a_picture_network_hears_by_its_spectrogram(sounds):
    write_sounds(24)
    sounds.set(**{"extract.backbone": "efficientnet_lite0"})
    run("ingest", "augment", "extract", "train", "evaluate", "bundle")
    classifier = Classifier(Path("bundle"), explains=True)
    assert classifier.has_maps
    long = np.concatenate([tone(120, 4.0) * 0.3, tone(3000, 0.3), tone(120, 0.3) * 0.3])
    for data in (beep_file(0.5), file(long)):  # of one window, and of three
        answer = classifier.answer(data, heat=True, side=160)
        assert answer.heat is not None
        assert answer.heat.media_type == "image/png"


def test_networks_are_not_trained_on_sounds():
    from pipeline.transfer.examples import Feed

    with pytest.raises(ParamsError, match=r"sounds give several: set finetune\.run"):
        Feed(AUDIO, PICTURE, Augment())


def test_arrays_and_torch_are_told_that_they_are_not_taken():
    with pytest.raises(RefusedError, match="sample rate"):
        AUDIO.encode(np.zeros(100, np.float32))
    with pytest.raises(ParamsError, match="does not run in PyTorch"):
        AUDIO.torch_input(np.zeros(1), SPEECH)  # type: ignore[arg-type]
