"""Examples that are hardly usable are found, and an ordinary set has none."""

import io
from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from pipeline import kinds
from pipeline.core.errors import DataError
from pipeline.quality.flawed import flawed
from pipeline.tables import measures

Change = Callable[[Image.Image], Image.Image]
PLANTED: dict[str, Change] = {
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(4)),
    "dark": lambda picture: picture.point(lambda level: level // 10),
    "bright": lambda picture: picture.point(lambda level: 230 + level // 12),
    "blank": lambda picture: Image.new("RGB", picture.size, "#777"),
    "of odd shape": lambda picture: picture.crop((0, 0, 20, 160)),
}


@cache
def photograph(seed, width=240, height=180):
    """Noise with the spectrum of a photograph: as much detail at each scale."""
    spectrum = np.fft.fft2(np.random.default_rng(seed).standard_normal((height, width)))
    across, down = np.meshgrid(np.fft.fftfreq(width), np.fft.fftfreq(height))
    noise = np.fft.ifft2(spectrum / np.maximum(np.hypot(across, down), 1e-3)).real
    levels = np.clip(120 + 50 * (noise - noise.mean()) / noise.std(), 0, 255)
    return Image.fromarray(levels.astype(np.uint8)).convert("RGB")


def table_of(name, examples):
    """The manifest with the measures, as `ingest` gets them."""
    kind = kinds.named(name)
    rows = [(f"{place}", *kind.inspect(data)) for place, data in enumerate(examples)]
    table = pd.DataFrame(rows, columns=["path", *kind.columns, *kind.measures])
    return table.assign(split="train", label="x")


def saved(picture, form="PPM"):
    made = io.BytesIO()
    picture.save(made, form, quality=92)
    return made.getvalue()


@pytest.mark.parametrize("form", ["PPM", "JPEG"])
def test_pictures(form):
    ordinary = [photograph(seed) for seed in range(40)]
    planted = [change(photograph(99)) for change in PLANTED.values()]
    table = table_of("image", [saved(picture, form) for picture in ordinary + planted])
    found = flawed(table, kinds.named("image"))
    assert dict(zip(found["path"], found["problem"], strict=True)) == {
        str(40 + place): problem for place, problem in enumerate(PLANTED)
    }
    assert (found["beyond"] > 0).all()


def test_a_set_of_such_pictures_has_none():
    """What is usual in the training examples is no flaw."""
    for problem in ("blurred", "dark", "of odd shape"):
        pictures = [saved(PLANTED[problem](photograph(seed))) for seed in range(20)]
        assert flawed(table_of("image", pictures), kinds.named("image")).empty


def test_tiny_pictures_have_no_sharpness_and_few_examples_no_alarm():
    tiny = [saved(photograph(seed, 20, 20)) for seed in range(3)]
    assert flawed(table_of("image", tiny), kinds.named("image")).empty
    assert flawed(table_of("image", []), kinds.named("image")).empty


def test_texts():
    texts = [f"text {number} about something, and what came of it" for number in range(30)]
    table = table_of("text", [text.encode() for text in [*texts, "aaaa A", "-", "ok"]])
    found = flawed(table, kinds.named("text"))
    assert dict(zip(found["path"], found["problem"], strict=True)) == {
        "30": "of one character",
        "31": "of one character",
    }


def test_sounds():
    table = pd.DataFrame({"peak": [-6.0] * 30 + [-90.0, 0.0], "clipped": [0.0] * 31 + [0.2]})
    table = table.assign(path=table.index.astype(str), split="train", label="x")
    found = flawed(table, kinds.named("audio"))
    assert dict(zip(found["path"], found["problem"], strict=True)) == {
        "30": "silent",
        "31": "clipped",
    }
    assert flawed(table.assign(clipped=0.3, peak=-90.0), kinds.named("audio")).empty


def test_the_table_of_measures(tmp_path):
    file = tmp_path / "measures.parquet"
    rows = pd.DataFrame({"digest": ["b", "a", "c"]})
    with pytest.raises(DataError, match="does not exist; run the ingest stage first"):
        measures.joined(file, ["low"], rows)
    measures.write(file, ["low"], {"b": (2,), "a": (1,)})
    np.testing.assert_array_equal(measures.joined(file, ["low"], rows)["low"], [2, 1, np.nan])
    with pytest.raises(DataError, match="has no column high; run the ingest stage again"):
        measures.joined(file, ["high"], rows)
    measures.write(file, [], {"a": ()})
    assert list(measures.joined(file, [], rows)) == ["digest"]
