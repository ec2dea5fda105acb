"""Examples as HTML that holds them."""

import base64
import io
from pathlib import Path

import pandas as pd
from markupsafe import Markup
from PIL import Image

from ..core.errors import DataError
from ..core.paths import MANIFEST
from ..examples.files import read
from ..kinds import Kind, Shown

DIGITS = 12  # of a digest: no two of a million examples have the same
SIDE = 240  # pixels of an example's longer side; the page cuts it to a square

Row = dict[str, object]  # what the template shows, by name


class Thumbnails:
    """Examples of the manifest, small, as HTML that holds them.

    If they are `hidden`, there is no HTML, and a part of its digest is an example's name.
    """

    def __init__(self, manifest: pd.DataFrame, kind: Kind, hidden: bool = False) -> None:
        """Know each example's digest by its path."""
        self._digests = dict(zip(manifest["path"], manifest["digest"], strict=True))
        self._kind = kind
        self.hidden = hidden
        self._made: dict[str, Markup] = {}

    def data(self, path: str) -> bytes:
        """The bytes of an example's file, which are those that were ingested.

        Raises:
            DataError: they are not, or the manifest does not have it.
        """
        return read(Path(path), self._digest(path))

    def _digest(self, path: str) -> str:
        if path not in self._digests:
            raise DataError(f"{path} is not in {MANIFEST}; run `dvc repro`")
        return str(self._digests[path])

    def name(self, path: str) -> str:
        """What the page calls the example at `path`; empty if it has no path."""
        return self._digest(path)[:DIGITS] if self.hidden and path else path

    def __call__(self, path: str) -> Markup | None:
        """The example at `path`; None if it is hidden, or the bundle does not name its path."""
        if self.hidden or not path:
            return None
        if path not in self._made:
            self._made[path] = embedded(self._kind.show(self.data(path), SIDE), path)
        return self._made[path]


def embedded(shown: Shown, alt: str) -> Markup:
    """An `img` of a picture, an `audio` of a sound, a `pre` of a text, and what is shown beside it.

    HTML is taken as it is: the kind that wrote it has escaped what is an example's.

    Args:
        shown: a small file.
        alt: the text to show if it cannot be seen.
    """
    beside = embedded(shown.also, alt) if shown.also else Markup()
    return _element(shown, alt) + beside


def _element(shown: Shown, alt: str) -> Markup:
    if shown.media_type == "text/html":
        return Markup(shown.data.decode(errors="replace"))  # noqa: S704 (see above)
    if shown.media_type.startswith("text/"):
        return Markup("<pre>{}</pre>").format(shown.data.decode(errors="replace"))
    address = f"data:{shown.media_type};base64,{base64.b64encode(shown.data).decode()}"
    if shown.media_type.startswith("audio/"):
        return Markup('<audio controls src="{}" title="{}"></audio>').format(address, alt)
    return Markup('<img src="{}" alt="{}">').format(address, alt)


def contact_sheet(file: Path) -> str:
    """The contact sheet as an address that holds it.

    Raises:
        DataError: it is damaged.
    """
    buffer = io.BytesIO()
    try:
        with Image.open(file) as sheet:
            picture = sheet.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{file} is not readable ({error}); run the augment stage again") from None
    picture.save(buffer, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
