"""The default picture source: patches of surfaces, cut from scikit-image's own photographs.

The recipe (`data/raw/surfaces.csv`) has one row per box, a part of a photograph that shows a single
surface: its label and split, its position in pixels, and how many patches to cut across and down.
`docs/surfaces.md` explains the columns and names each photograph's origin. The photographs come
with scikit-image's wheel; nothing is ever downloaded.
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import skimage
from PIL import Image

from ..core.errors import DataError
from ..tables.manifest import SPLITS

PATCH = 64  # pixels, the side of a patch
PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
COLUMNS = ("label", "photograph", "split", "left", "top", "right", "bottom", "across", "down")


@dataclass(frozen=True)
class Region:
    """A row of the recipe: the box left <= x < right, top <= y < bottom in one photograph."""

    place: str  # file and line, for messages
    label: str
    photograph: str
    split: str
    left: int
    top: int
    right: int
    bottom: int
    across: int
    down: int

    def corners(self) -> list[tuple[int, int]]:
        """Return the upper left (x, y) of each patch, evenly spaced over the whole box."""
        xs = _spread(self.left, self.right, self.across)
        ys = _spread(self.top, self.bottom, self.down)
        return [(x, y) for y in ys for x in xs]

    def overlaps(self, other: "Region") -> bool:
        """Return whether the two boxes share a pixel of the same photograph."""
        return (
            self.photograph == other.photograph
            and max(self.left, other.left) < min(self.right, other.right)
            and max(self.top, other.top) < min(self.bottom, other.bottom)
        )


def cut(recipe: Path, into: Path) -> list[tuple[Path, str, str]]:
    """Write every patch of `recipe` as `into/<split>/<label>/<photograph>-<y>-<x>.png`.

    A patch is 64 x 64 pixels; x and y are its upper left pixel in the photograph. The boxes
    of a photograph never overlap, so no pixel is shared between splits or labels. Patches are
    grey, because some photographs are: colour would give away the photograph, not the surface.
    The whole recipe is checked before the first file is written.

    Returns:
        (path, label, split) of each patch, in the recipe's order.

    Raises:
        DataError: a row cannot be cut; the message has its file, its line and what to do.
    """
    patches = []
    photographs: dict[str, Image.Image] = {}
    for region in read_recipe(recipe):
        if region.photograph not in photographs:
            with Image.open(PHOTOGRAPHS / region.photograph) as file:
                photographs[region.photograph] = file.convert("L")
        folder = into / region.split / region.label
        folder.mkdir(parents=True, exist_ok=True)
        for x, y in region.corners():
            path = folder / f"{Path(region.photograph).stem}-{y}-{x}.png"
            photographs[region.photograph].crop((x, y, x + PATCH, y + PATCH)).save(path)
            patches.append((path, region.label, region.split))
    return patches


def read_recipe(recipe: Path) -> list[Region]:
    """Return the checked rows of the recipe, in their order.

    Raises:
        DataError: as `cut`.
    """
    sizes = _photograph_sizes()
    regions: list[Region] = []
    for place, row in _rows(recipe):
        region = _region(place, row, sizes)
        for earlier in regions:
            if region.overlaps(earlier):
                raise DataError(
                    f"{place}: the box of {region.label} ({region.split}) overlaps that of "
                    f"{earlier.label} ({earlier.split}) at {earlier.place} in "
                    f"{region.photograph}; move one, so that no pixel is in both"
                )
        regions.append(region)
    if not regions:
        raise DataError(f"{recipe} has no rows; add one, or git checkout -- {recipe}")
    return regions


def _rows(recipe: Path) -> list[tuple[str, dict[str, str]]]:
    """Return for each row its file and line, for messages, and its cells by column."""
    try:
        # A spreadsheet may write a byte order mark before the header; utf-8-sig drops it.
        with recipe.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except OSError as error:
        raise DataError(
            f"{recipe} cannot be read ({error.strerror}); bring it back: git checkout -- {recipe}"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{recipe} is not a CSV file in UTF-8 ({error}); save it as one") from None
    if sorted(header) != sorted(COLUMNS):
        raise DataError(
            f"{recipe} line 1: the columns are {', '.join(header) or 'missing'}; "
            f"they must be {', '.join(COLUMNS)}"
        )
    rows = []
    for line, cells in lines:
        if not any(cells):
            continue
        place = f"{recipe} line {line}"
        if len(cells) != len(header):
            raise DataError(
                f"{place} has {len(cells)} cells; fill each of the {len(header)} columns "
                f"{', '.join(header)}"
            )
        rows.append((place, dict(zip(header, cells, strict=True))))
    return rows


def _region(place: str, row: dict[str, str], sizes: dict[str, tuple[int, int]]) -> Region:
    if not re.fullmatch(r"[\w-]+", row["label"]):
        raise DataError(f"{place}: label is {row['label']!r}; use letters, digits, - and _")
    if row["photograph"] not in sizes:
        raise DataError(
            f"{place}: scikit-image's wheel has no photograph {row['photograph']!r}; "
            f"use one of {', '.join(sizes)}"
        )
    if row["split"] not in SPLITS:
        raise DataError(f"{place}: split is {row['split']!r}; use one of {', '.join(SPLITS)}")
    numbers = {column: _whole_number(place, column, row[column]) for column in COLUMNS[3:]}
    region = Region(place, row["label"], row["photograph"], row["split"], **numbers)
    width, height = sizes[region.photograph]
    for start, end, count, limit in (
        ("left", "right", "across", width),
        ("top", "bottom", "down", height),
    ):
        first, last = numbers[start], numbers[end]
        if last > limit:
            raise DataError(
                f"{place}: {end} is {last}, outside {region.photograph}, which is {width} pixels "
                f"wide and {height} high; use at most {limit}"
            )
        if last - first < PATCH:
            raise DataError(
                f"{place}: the box from {start} {first} to {end} {last} is smaller than a patch of "
                f"{PATCH} pixels; make the box larger"
            )
        positions = last - first - PATCH + 1
        if not 1 <= numbers[count] <= positions:
            raise DataError(
                f"{place}: {count} is {numbers[count]}; from {start} {first} to {end} {last} "
                f"use 1 to {positions}"
            )
    return region


def _whole_number(place: str, column: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise DataError(f"{place}: {column} is {text!r}; use a whole number, 0 or more")
    return int(text)


def _photograph_sizes() -> dict[str, tuple[int, int]]:
    """Return (width, height) in pixels of each photograph in the wheel, by its file name."""
    sizes = {}
    for path in sorted(PHOTOGRAPHS.iterdir()):
        if path.suffix in {".png", ".jpg"}:
            with Image.open(path) as file:
                sizes[path.name] = file.size
    return sizes


def _spread(start: int, end: int, count: int) -> list[int]:
    """Return `count` patch starts, the first at `start`, with the last patch flush with `end`."""
    if count == 1:
        return [start]
    return [start + step * (end - start - PATCH) // (count - 1) for step in range(count)]
