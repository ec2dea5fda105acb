"""Make pictures of surfaces of two domains, in `data/raw/surfaces/`.

Those of `train` and `val` are taken in good light, those of `test` and `target` with a third of it.
Those of `target` have no labels.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from examples.patches import Patches

FOLDER = Path("data/raw/surfaces")
PICTURES = {"train": 240, "val": 120, "test": 240, "target": 120}
ELSEWHERE = ("test", "target")


def dark(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """With a third of the light or so."""
    return ImageEnhance.Brightness(picture).enhance(float(random.uniform(0.2, 0.4)))


def write() -> None:
    """Write the folders of the splits."""
    for number, (split, count) in enumerate(PICTURES.items()):
        random = np.random.default_rng(number)
        # Places of the training split or of the test split: no piece of a photograph is in both.
        patches = Patches("train" if split in ("train", "val") else "test", random)
        surfaces = patches.surfaces
        for place in range(count):
            surface = surfaces[place % len(surfaces)]
            picture = patches.draw(surface)
            if split in ELSEWHERE:
                picture = dark(picture, random)
            folder = FOLDER / split / ("" if split == "target" else surface)
            folder.mkdir(parents=True, exist_ok=True)
            picture.save(folder / f"{place:03}.png")


if __name__ == "__main__":
    write()
    print(f"{FOLDER}: {sum(PICTURES.values())} pictures")
