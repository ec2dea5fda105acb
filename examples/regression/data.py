"""Make the examples of numbers: `python examples/regression/data.py [two|diabetes]`.

- Without a word: `data/raw/shares/`, pictures of brick and another surface with a wavy boundary
  between them, and `labels.csv`, whose label is the share of the pixels that show brick.
- two: pictures of brick, grass and a third surface. The columns `brick` and `grass` hold their
  shares.
- diabetes: `data/raw/diabetes.parquet`, scikit-learn's 442 patients (Efron et al., Annals of
  Statistics, 2004): age, sex, body mass index, blood pressure and six serum measurements, and how
  far the disease had gone a year later.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_diabetes

from examples.patches import SIDE, Patches

RAW = Path("data/raw")
PICTURES = {"train": 480, "val": 160, "test": 160}
PIXELS = SIDE * SIDE

Row = tuple[str, str, list[float]]  # path, split, shares


def pictures(measured: list[str]) -> str:
    """Write the pictures, and the table with the share of each measured surface."""
    folder = RAW / "shares"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    rows: list[Row] = []
    for split, count in PICTURES.items():
        patches = Patches(split, random)
        others = [name for name in patches.surfaces if name not in measured]
        for number in range(count):
            shown = [*measured, others[random.integers(len(others))]]
            bands, pixels = divided(len(shown), random)
            drawn = np.stack([np.asarray(patches.draw(surface)) for surface in shown])
            picture = np.take_along_axis(drawn, bands[None], axis=0)[0]
            name = f"{split}_{number:03}.png"
            Image.fromarray(picture).save(folder / name)
            rows.append((name, split, [count / PIXELS for count in pixels[: len(measured)]]))
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "split", *(measured if len(measured) > 1 else ["label"])])
        table.writerows([path, split, *shares] for path, split, shares in rows)
    if len(measured) > 1:
        ask_for(measured)
    return f"{len(rows)} pictures in {folder}"


def divided(count: int, random: Generator) -> tuple[NDArray[np.int64], list[int]]:
    """Bands across a picture: which of `count` surfaces each pixel shows, and how many show each.

    The pixels are ordered along a direction that is drawn, with a wave across it, and cut at places
    that are drawn. So a share may be any, and is exact.
    """
    angle, phase = random.uniform(0, 2 * np.pi, 2)
    down, right = np.mgrid[:SIDE, :SIDE] / SIDE
    along = right * np.cos(angle) + down * np.sin(angle)
    across = down * np.cos(angle) - right * np.sin(angle)
    order = np.argsort((along + 0.1 * np.sin(6 * across + phase)).ravel(), kind="stable")
    ends = [0, *np.sort(random.integers(0, PIXELS + 1, count - 1)).tolist(), PIXELS]
    bands = np.empty(PIXELS, np.int64)
    pixels = [0] * count
    for which, start, end in zip(random.permutation(count), ends[:-1], ends[1:], strict=True):
        bands[order[start:end]] = which
        pixels[which] = end - start
    return bands.reshape(SIDE, SIDE), pixels


def ask_for(columns: list[str]) -> None:
    """Have `params.yaml` name the columns that hold the numbers."""
    file = Path("params.yaml")
    text = file.read_text(encoding="utf-8")
    asked = text.replace("targets: null", f"targets: [{', '.join(columns)}]")
    file.write_text(asked, encoding="utf-8")


def diabetes() -> str:
    """Write the patients; each measurement has mean 0 and variance 1."""
    found = load_diabetes()
    vectors = found.data * np.sqrt(len(found.data))
    table = {
        "key": [f"patient {number}" for number in range(1, len(vectors) + 1)],
        "vector": pa.array(vectors.tolist(), pa.list_(pa.float32())),
        "label": [f"{number:g}" for number in found.target],
    }
    file = RAW / "diabetes.parquet"
    pq.write_table(pa.table(table), file)
    return f"{len(vectors)} patients in {file}"


if __name__ == "__main__":
    variant = " ".join(sys.argv[1:])
    if variant not in ("", "two", "diabetes"):
        sys.exit(f"data.py: there is no variant {variant!r}; take two or diabetes, or no word")
    RAW.mkdir(parents=True, exist_ok=True)
    measured = ["brick", "grass"] if variant == "two" else ["brick"]
    print(f"data.py: {diabetes() if variant == 'diabetes' else pictures(measured)}")
