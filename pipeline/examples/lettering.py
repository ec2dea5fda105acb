"""Text in pictures that Pillow draws."""

from importlib.util import find_spec

from PIL import ImageDraw, ImageFont


def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu, since Pillow's default font lacks most scripts and symbols.

    The file is matplotlib's, which is not imported, because that takes long.
    """
    spec = find_spec("matplotlib")
    assert spec is not None  # noqa: S101 (the extra that draws pictures has it)
    assert spec.submodule_search_locations is not None  # noqa: S101
    fonts = f"{spec.submodule_search_locations[0]}/mpl-data/fonts/ttf"
    return ImageFont.truetype(f"{fonts}/DejaVuSans{'-Bold' * bold}.ttf", size)


def fitted(words: str, pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, most: int) -> str:
    """Shorten words until they are at most `most` pixels wide."""
    while words and pen.textlength(words, font=font) > most:
        words = words[:-2] + "…"
    return words
