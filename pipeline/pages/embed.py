"""Examples embedded in HTML."""

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from markupsafe import Markup
from PIL import Image

from ..core.errors import DataError
from ..core.paths import MANIFEST
from ..examples.files import read
from ..kinds import Kind, Shown
from ..tables.manifest import TARGET

DIGITS = 12  # of a digest; enough to distinguish a million examples
SIDE = 240  # pixels of an example's longer side; the page crops it to a square

REVIEWED = '<datalist id="labels"'  # in a page whose examples can be corrected

Row = dict[str, object]  # values for the template, by name


class Thumbnails:
    """Thumbnails of the manifest's examples, embedded in HTML.

    If `hidden`, examples have no HTML, and are named by the first `DIGITS` of their digests.
    """

    def __init__(
        self,
        manifest: pd.DataFrame,
        kind: Kind,
        hidden: bool = False,
        targets: Sequence[str] = (),
    ) -> None:
        """Index the manifest by path; `targets` are those of `ingest.targets`."""
        columns = (manifest[name] for name in ("path", "digest", "label"))
        self._rows = {path: of for path, *of in zip(*columns, manifest.index, strict=True)}
        self._manifest, self._targets = manifest, targets
        self._kind = kind
        self.hidden = hidden
        self._made: dict[str, Markup] = {}

    def data(self, path: str) -> bytes:
        """Return the bytes of an example's file, and check that it is the file that was ingested.

        Raises:
            DataError: the file changed, or is not in the manifest.
        """
        return read(Path(path), self._digest(path))

    def _digest(self, path: str) -> str:
        if path not in self._rows:
            raise DataError(f"{path} is not in {MANIFEST}; run `headstart repro`")
        return str(self._rows[path][0])

    def name(self, path: str) -> str:
        """Return the name of the example at `path` on the page; empty if it has no path."""
        return self._digest(path)[:DIGITS] if self.hidden and path else path

    def attributes(self, path: str) -> dict[str, str]:
        """Return the data attributes that `review.js` needs to correct the example at `path`."""
        if self.hidden or not path:
            return {}
        label = str(self._rows[path][1])
        fields = json.dumps(self.fields(path) or {"label": label})
        return {"digest": self._digest(path), "label": label, "fields": fields}

    def fields(self, path: str) -> dict[str, str]:
        """Return the targets that can be corrected; empty if the label is corrected instead."""
        columns = [TARGET + name for name in self._targets]
        row, at = self._rows[path][2], self._manifest.at
        return {name: as_cell(at[row, name]) for name in columns if name in self._manifest}

    def marks(self, path: str) -> Markup:
        """Return `attributes` in HTML."""
        pairs = (Markup(' data-{}="{}"').format(*one) for one in self.attributes(path).items())
        return Markup().join(pairs)

    def __call__(self, path: str) -> Markup | None:
        """Return the example at `path` as HTML; None if it is hidden, or has no path."""
        if self.hidden or not path:
            return None
        if path not in self._made:
            self._made[path] = embedded(self._kind.show(self.data(path), SIDE), path)
        return self._made[path]


def as_cell(value: float) -> str:
    """Return a target as in a cell of the source's table; empty if it is not known.

    It is the shortest text of this very number, because a correction names the number.
    """
    return "" if pd.isna(value) else repr(float(value)).removesuffix(".0")


def reviewing() -> tuple[Markup, str]:
    """Return the page's script, and its digest for a content security policy."""
    here = Path(__file__).parent
    code = "".join((here / name).read_text(encoding="utf-8") for name in ("review.js", "map.js"))
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return Markup(code), f"sha256-{digest}"  # noqa: S704 (our own)


def embedded(shown: Shown, alt: str) -> Markup:
    """Return an `img`, `audio` or `pre` element for a picture, sound or text.

    The element of `shown.also` follows, if there is one. HTML is inserted as it is: the kind that
    wrote it has escaped the content of the example.

    Args:
        alt: the alternative text of a picture, or the title of a sound.
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
    """Return the contact sheet as a data URL.

    Raises:
        DataError: the file is damaged.
    """
    buffer = io.BytesIO()
    try:
        with Image.open(file) as sheet:
            picture = sheet.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{file} is not readable ({error}); run the augment stage again") from None
    picture.save(buffer, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
