"""Plots of classification."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ...evaluation.tables import MANY
from ...examples.lettering import fitted, font

MOST_CONFUSED = 40  # classes in the matrix if there are more than `MANY`
LONGEST, TOP = 240, 40  # pixels of a class's name, and above the matrix
# Nine colours of Cividis, from 0 to 1; those between are interpolated.
CIVIDIS = (
    *((0, 34, 78), (26, 56, 111), (67, 78, 108), (97, 101, 111), (125, 124, 120)),
    *((155, 148, 118), (188, 174, 108), (222, 201, 88), (254, 232, 56)),
)


def most_confused(
    labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], most: int
) -> npt.NDArray[np.int64]:
    """Return the classes of the most often confused pairs, sorted.

    Args:
        labels: [n].
        predicted: [n].
        most: how many classes to return; if fewer are confused, classes of the first examples
            follow.
    """
    wrong = labels != predicted
    pairs = np.sort(np.stack([labels[wrong], predicted[wrong]], axis=1), axis=1)
    pairs, counts = np.unique(pairs, axis=0, return_counts=True)
    ranked = pairs[np.argsort(-counts, kind="stable")].ravel()
    found = list(dict.fromkeys([*ranked.tolist(), *labels.tolist()]))
    return np.sort(np.array(found[:most], dtype=np.int64))


def draw_confusion(
    labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: list[str], file: Path
) -> None:
    """Save a picture (PNG) of the counts, shaded by the fraction of each actual class.

    Cividis looks the same to every kind of colour vision (Nuñez et al., 2018). If there are more
    than `MANY` classes, only the `MOST_CONFUSED` most confused ones are drawn.
    """
    examples, right = len(labels), int((labels == predicted).sum())
    title = f"{right} of {examples} test examples right"
    if len(classes) > MANY:
        chosen = most_confused(labels, predicted, MOST_CONFUSED)
        number = np.full(len(classes), -1)
        number[chosen] = np.arange(len(chosen))
        title += f"; the {len(chosen)} most confused of {len(classes):,} classes"
        labels, predicted = number[labels], number[predicted]
        among = (labels >= 0) & (predicted >= 0)
        labels, predicted = labels[among], predicted[among]
        classes = [classes[c] for c in chosen]
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (labels, predicted), 1)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # The picture grows with the classes, so that cells stay legible, up to the size of a page.
    cell = int(np.clip(2000 // len(classes), 18, max(45, 360 // len(classes))))
    side, small, large = cell * len(classes), font(int(np.clip(cell // 3, 8, 14))), font(16)
    ruler = ImageDraw.Draw(Image.new("L", (1, 1)))
    names = [fitted(name, ruler, small, LONGEST) for name in classes]
    margin = 40 + int(max(ruler.textlength(name, small) for name in names))
    # Names and the title of the rows; turned, they are those of the columns.
    beside = Image.new("RGB", (margin, side), "white")
    for place, name in enumerate(names):
        ImageDraw.Draw(beside).text((margin - 6, (place + 0.5) * cell), name, "black", small, "rm")
    below = beside.rotate(90, expand=True)
    ImageDraw.Draw(below).text((side / 2, margin - 6), "predicted", "black", small, "mb")
    beside.paste(_upright("actual", side, small), (0, 0))
    picture = Image.new(
        "RGB", (margin + max(side + 90, int(ruler.textlength(title, large))), TOP + side + margin),
        "white",
    )  # fmt: skip
    pen = ImageDraw.Draw(picture)
    pen.text((margin, TOP / 2), title, "black", large, "lm")
    picture.paste(_shaded(fractions, (side, side)), (margin, TOP))
    picture.paste(beside, (0, TOP))
    picture.paste(below, (margin, TOP + side))
    for row, column in zip(*np.nonzero(counts), strict=True):
        middle = margin + (column + 0.5) * cell, TOP + (row + 0.5) * cell
        colour = "black" if fractions[row, column] > 0.5 else "white"
        pen.text(middle, str(counts[row, column]), colour, small, "mm")
    bar = margin + side + 20
    picture.paste(_shaded(np.linspace(1, 0, side)[:, None], (16, side)), (bar, TOP))
    picture.paste(_upright("fraction of the actual class", side, small), (bar + 40, TOP))
    for words, height, anchor in (("1", TOP, "lt"), ("0", TOP + side, "lb")):
        pen.text((bar + 22, height), words, "black", small, anchor)
    picture.save(file)


def _shaded(fractions: npt.NDArray[np.float64], size: tuple[int, int]) -> Image.Image:
    """Return a picture of numbers from 0 to 1, one rectangle each."""
    ends, channels = np.linspace(0, 1, len(CIVIDIS)), np.array(CIVIDIS).T
    colours = np.stack([np.interp(fractions, ends, channel) for channel in channels], axis=2)
    picture = Image.fromarray(np.rint(colours).astype(np.uint8))
    return picture.resize(size, Image.Resampling.NEAREST)


def _upright(words: str, length: int, letters: ImageFont.FreeTypeFont) -> Image.Image:
    """Return a text that is rotated, to be read from bottom to top."""
    strip = Image.new("RGB", (length, 24), "white")
    ImageDraw.Draw(strip).text((length / 2, 12), words, "black", letters, "mm")
    return strip.rotate(90, expand=True)
