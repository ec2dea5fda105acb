"""What a kind of example shows, as HTML that holds it."""

import base64
import io
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from ..core.errors import DataError
from ..kinds import Shown


def embedded(shown: Shown, alt: str) -> Markup:
    """An `img` of a picture, an `audio` of a sound, a `pre` of a text, and what is shown beside it.

    HTML is taken as it is: the kind that wrote it has escaped what is an example's.

    Args:
        shown: a small file.
        alt: what stands for it where it cannot be seen.
    """
    beside = embedded(shown.also, alt) if shown.also else Markup()
    return _element(shown, alt) + beside


def _element(shown: Shown, alt: str) -> Markup:
    if shown.media_type == "text/html":
        return Markup(shown.data.decode(errors="replace"))  # noqa: S704 (as said above)
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
