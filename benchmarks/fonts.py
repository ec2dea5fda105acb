"""Fonts by their look, from packages of Debian that are fetched and unpacked, not installed."""

import subprocess
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FONTS = {
    "serif": (
        "fonts-linuxlibertine fonts-ebgaramond fonts-crosextra-caladea fonts-gfs-didot"
        " fonts-sil-gentiumplus fonts-sil-charis fonts-vollkorn fonts-oldstandard fonts-junicode"
        " fonts-gfs-artemisia fonts-averia-serif-gwf"
    ),
    "sans": (
        "fonts-crosextra-carlito fonts-cantarell fonts-open-sans fonts-roboto-unhinted fonts-hack"
        " fonts-jura fonts-yanone-kaffeesatz fonts-opendyslexic"
    ),
    "script": (
        "fonts-dancingscript fonts-kaushanscript fonts-kristi fonts-leckerli-one"
        " fonts-levien-typoscript fonts-lobster fonts-breip fonts-bwht fonts-dkg-handwriting"
        " fonts-femkeklaver fonts-havana fonts-joscelyn fonts-klaudia-berenika fonts-rufscript"
        " fonts-comic-neue fonts-humor-sans fonts-tomsontalks fonts-ecolier-court fonts-isabella"
        " fonts-sjfonts"
    ),
}
OF_PACKAGE = 5  # fonts
# Left out of these fonts: keys, initials, outlines and many widths of one.
NOT_FONTS = ("RZ", "_K.", "_DR", "_M.", "Beta-Cond", "Beta-Semi", "Beta-Exp")


def font_files(folder: Path) -> dict[str, list[Path]]:
    """Fonts by their look."""
    files: dict[str, list[Path]] = {}
    for look, packages in FONTS.items():
        files[look] = []
        for package in packages.split():
            into = folder / package
            if not into.exists():
                into.mkdir(parents=True)
                subprocess.run(
                    ["apt-get", "download", package], cwd=into, check=True, capture_output=True
                )
                (archive,) = into.glob("*.deb")
                subprocess.run(["dpkg", "-x", archive, into], check=True)
            fonts = sorted({file.name: file for file in into.rglob("*.[to]tf")}.items())
            fit = [file for name, file in fonts if not any(odd in name for odd in NOT_FONTS)]
            files[look] += fit[:OF_PACKAGE]
    return files


def drawn(character: str, font: Path, side: int) -> Image.Image:
    picture = Image.new("L", (side, side), 255)
    face = ImageFont.truetype(str(font), round(0.75 * side))
    ImageDraw.Draw(picture).text((side / 2, side / 2), character, 0, face, anchor="mm")
    return picture
