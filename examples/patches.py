"""Patches of surfaces, cut at places that are drawn: what the examples put pictures together from.

The places lie in the boxes of `data/raw/surfaces.csv` (docs/surfaces.md). Those of different splits
never overlap, so no piece of a photograph is in two splits.
"""

from pathlib import Path

from numpy.random import Generator
from PIL import Image

from pipeline.sources.surfaces import PATCH, PHOTOGRAPHS, read_recipe

RECIPE = Path(__file__).parent.parent / "data/raw/surfaces.csv"
SIDE = PATCH  # of a patch, in pixels


class Patches:
    """The patches of one split."""

    def __init__(self, split: str, random: Generator) -> None:
        """Read the recipe; places will be drawn with `random`."""
        self.boxes = [box for box in read_recipe(RECIPE) if box.split == split]
        self.surfaces = sorted({box.label for box in self.boxes})
        self.random = random
        self.photographs: dict[str, Image.Image] = {}

    def draw(self, surface: str) -> Image.Image:
        """A patch of the surface, in grey, as the source `surfaces` has them."""
        fitting = [box for box in self.boxes if box.label == surface]
        box = fitting[self.random.integers(len(fitting))]
        if box.photograph not in self.photographs:
            with Image.open(PHOTOGRAPHS / box.photograph) as file:
                self.photographs[box.photograph] = file.convert("L")
        left = int(self.random.integers(box.left, box.right - SIDE + 1))
        top = int(self.random.integers(box.top, box.bottom - SIDE + 1))
        return self.photographs[box.photograph].crop((left, top, left + SIDE, top + SIDE))
