"""A run with 1,200 classes, beside scikit-learn: characters in four typefaces of Debian's packages.

    apt-get install fonts-dejavu-core fonts-dejavu-extra fonts-freefont-ttf
    python -m benchmarks many_classes [--folder FOLDER, to keep the project]

Each class is a character that all four typefaces have: two typefaces are for training, one is for
validation and one for the test. Characters that look alike in a typefaces are left out but for one.
Nothing of it is kept in the repository.
"""

import hashlib
import unicodedata
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FONTS = Path("/usr/share/fonts/truetype")
TYPEFACES = {
    "train/DejaVuSans": "dejavu/DejaVuSans.ttf",
    "train/FreeSerif": "freefont/FreeSerif.ttf",
    "val/DejaVuSerif": "dejavu/DejaVuSerif.ttf",
    "test/FreeMono": "freefont/FreeMono.ttf",
}
CLASSES = 1200
SIDE = 128


def characters(count: int) -> list[str]:
    """Letters, digits and symbols that all typefaces have and draw differently, in a drawn order."""
    from matplotlib.ft2font import FT2Font

    shared = set.intersection(*(set(FT2Font(FONTS / f).get_charmap()) for f in TYPEFACES.values()))
    found = [chr(code) for code in shared if unicodedata.category(chr(code))[0] in "LNS"]
    found.sort(key=lambda one: hashlib.sha256(one.encode()).digest())
    fonts = [ImageFont.truetype(FONTS / file, 88) for file in TYPEFACES.values()]
    seen: set[bytes] = set()
    kept = []
    for one in found:
        drawn = {draw(one, font).tobytes() for font in fonts}
        if len(drawn) == len(fonts) and not drawn & seen:
            kept.append(one)
            seen |= drawn
    if len(kept) < count:
        raise SystemExit(f"the typefaces share only {len(kept)} characters; {count} are asked for")
    return kept[:count]


def draw(character: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """The character in black, in the middle of a white square."""
    picture = Image.new("L", (SIDE, SIDE), 255)
    left, top, right, bottom = font.getbbox(character)
    place = ((SIDE - left - right) / 2, (SIDE - top - bottom) / 2)
    ImageDraw.Draw(picture).text(place, character, fill=0, font=font)
    return picture


def pictures(folder: Path, classes: int) -> Path:
    """The set as `ingest` reads it: split/class/typeface.png; the folder."""
    chosen = characters(classes)
    for place, file in TYPEFACES.items():
        split, typeface = place.split("/")
        font = ImageFont.truetype(FONTS / file, 88)
        for one in chosen:
            path = folder / split / f"U+{ord(one):04X} {one}" / f"{typeface}.png"
            path.parent.mkdir(parents=True)if not path.parent.exists() else None
            draw(one, font).convert("RGB").save(path)
    return folder
