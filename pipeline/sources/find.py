"""Where pictures come from: each source lists every file it finds, with label and split.

A file is either found or refused with a reason; none is left out in silence.
"""

import csv
import inspect
import os
import re
import shutil
import stat
import unicodedata
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from PIL import Image

from ..core.errors import DataError
from ..core.params import IngestParams
from ..core.paths import PICTURES
from ..kinds.image import decode
from . import surfaces
from .splits import SPLITS

TABLE = "labels.csv"
SYSTEM_NAMES = {"thumbs.db", "desktop.ini", "__macosx", "@eadir"}  # Windows, macOS, Synology
LIKE_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}

# The splits of torchvision's classification sets where they are not train and test; theirs: ours.
TORCHVISION_SPLITS = {
    "CLEVRClassification": {"train": "train", "val": "val"},  # the test pictures have no labels
    "Country211": {"train": "train", "valid": "val", "test": "test"},
    "DTD": {"train": "train", "val": "val", "test": "test"},
    "FGVCAircraft": {"train": "train", "val": "val", "test": "test"},
    "Flowers102": {"train": "train", "val": "val", "test": "test"},
    "ImageNet": {"train": "train", "val": "val"},
    "Imagenette": {"train": "train", "val": "val"},
    "OxfordIIITPet": {"trainval": "train", "test": "test"},
    "PCAM": {"train": "train", "val": "val", "test": "test"},
    "Places365": {"train-standard": "train", "val": "val"},  # likewise
    "RenderedSST2": {"train": "train", "val": "val", "test": "test"},
}


class Found(NamedTuple):
    """A file that may be a picture; `split` and `group` are empty where none is given."""

    path: Path
    label: str
    split: str = ""
    group: str = ""


class Refused(NamedTuple):
    """A file that is not taken, and why."""

    path: Path
    reason: str


class Listing(NamedTuple):
    """Everything a source holds."""

    found: list[Found]
    refused: list[Refused]


def listing(params: IngestParams) -> Listing:
    """All files of the source that `params` names, sorted by path; `data/pictures/` is made anew.

    Raises:
        DataError: the source is not there, or cannot be understood as a whole.
    """
    path = Path(params.path)
    if params.source in ("folder", "csv") and decode.leads_out(path):
        raise DataError(
            f"ingest.path {path} leads out of the project; put your pictures into data/raw, or"
            " link their folder there"
        )
    if not path.exists():
        raise DataError(
            f"ingest.path {path} does not exist; name your pictures in params.yaml"
            " (for torchvision an empty folder)"
        )
    whole, made_here = path.resolve(), PICTURES.resolve()
    if made_here.is_relative_to(whole) or whole.is_relative_to(made_here):
        raise DataError(
            f"ingest.path {path} and {PICTURES}, where ingest writes, lie in each other;"
            " put your pictures in a folder of data/raw"
        )
    if PICTURES.exists():
        shutil.rmtree(PICTURES)
    PICTURES.mkdir(parents=True)
    if params.source == "surfaces":
        rows = surfaces.cut(path, PICTURES)
        return Listing([Found(picture, label, split) for picture, label, split in rows], [])
    if params.source == "folder":
        return folder(path)
    if params.source == "csv":
        return table(path)
    return torchvision_dataset(params.source.removeprefix("torchvision:"), path)


def folder(root: Path) -> Listing:
    """`<class>/<picture>` folders, or `train|val|test/<class>/<picture>`.

    It is the second layout when `train` is there and every other folder has a split's name too.
    Folders below a class belong to it. A link to a file is followed (DVC may link files from its
    cache); a link to a folder is refused, so that no circle is walked.

    Raises:
        DataError: it is no folder, or its folders have other names for splits.
    """
    if not root.is_dir():
        raise DataError(f"ingest.path {root} is not a folder; source: folder needs one")
    paths, folders, refused = _walk(root)
    top = {path.name for path in folders if path.parent == root and not path.is_symlink()}
    depth = 1 if "train" in top and top <= set(SPLITS) else 0
    if not depth and top and {name.casefold() for name in top} <= LIKE_SPLITS:
        raise DataError(
            f"the folders of {root} are {', '.join(sorted(top))}; name them train, val and test,"
            " or, if they are classes, use source: csv"
        )
    found: list[Found] = []
    for path in paths:
        parts = path.parts[len(root.parts) :]
        reason = _why_not(path, root)
        if not reason and len(parts) < depth + 2:
            reason = "not in a class's folder"
        label = _text(parts[depth]) if len(parts) > depth else ""  # beside the splits' folders
        reason = reason or _why_no_label(label)
        if reason:
            refused.append(Refused(path, reason))
        else:
            found.append(Found(path, label, parts[0] if depth else ""))
    levels = len(root.parts) + depth + 1
    classes = {_text(path.name) for path in folders if len(path.parts) == levels}
    for label in sorted(classes - {row.label for row in found}):
        print(f"ingest: warning: class {label!r} has no pictures and is left out")
    return Listing(found, sorted(refused))


def table(root: Path) -> Listing:
    """A folder that holds `labels.csv`: columns path, label, and perhaps split and group.

    Paths are relative to the folder and may not leave it; but a file in it may be a link, as DVC
    makes them.

    Raises:
        DataError: the table is not there, is not CSV in UTF-8, or lacks a column.
    """
    file = root / TABLE
    if not file.is_file():
        raise DataError(f"source: csv needs the file {file} with the columns path and label")
    found: list[Found] = []
    refused: list[Refused] = []
    for row in _rows(file):
        path = root / (row["path"] or "")
        label, split, group = (_text(row.get(name) or "") for name in ("label", "split", "group"))
        reason = _why_not_in_table(row, path, root) or _why_no_label(label)
        if not reason and split and split not in SPLITS:
            reason = f"split {split!r} is none of {', '.join(SPLITS)}"
        if reason:
            refused.append(Refused(path, reason))
        else:
            found.append(Found(path, label, split, group))
    named = {file} | {row.path for row in found} | {row.path for row in refused}
    others = len(set(_walk(root)[0]) - named)
    if others:
        print(f"ingest: {others} other files in {root} are not named in {TABLE}")
    return Listing(sorted(found), sorted(refused))


def torchvision_dataset(name: str, root: Path) -> Listing:
    """A classification set by its torchvision name, downloaded into `root` by torchvision.

    Its pictures are written to `data/pictures/` as PNG, losslessly, under their class's name.

    Raises:
        DataError: there is no such set, it is not one of pictures with a class each, or it cannot
            be had.
    """
    import torchvision  # slow to import, and only this source needs it

    dataset_class: Any = getattr(torchvision.datasets, name, None)
    known = inspect.isclass(dataset_class) and "root" in inspect.signature(dataset_class).parameters
    if not known:
        raise DataError(f"torchvision has no data set {name!r}; see torchvision.datasets")
    found: list[Found] = []
    refused: list[Refused] = []
    for split, options in _torchvision_parts(dataset_class):
        try:
            dataset = dataset_class(str(root), **options)
        # A missing package, an argument that only this set needs, a network that is not there.
        except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"torchvision cannot download {name} into {root} ({reason}); without a network,"
                " copy the set there as torchvision lays it out, or use source: folder"
            ) from None
        classes = getattr(dataset, "classes", None)
        for index in range(len(dataset)):
            path = PICTURES / (split or "all") / f"{index:06d}.png"
            try:
                picture, target = dataset[index]
            except OSError as error:
                refused.append(Refused(path, f"torchvision cannot read it ({error})"))
                continue
            if not isinstance(picture, Image.Image) or not isinstance(target, int):
                raise DataError(f"torchvision's {name} is no set of pictures with one class each")
            label = _text(str(classes[target]) if classes else str(target))
            words = re.sub(r"[^\w-]+", "-", label)[:40]  # no name of a class leads elsewhere
            path = path.parent / f"{target:04d}-{words}" / path.name
            path.parent.mkdir(parents=True, exist_ok=True)
            if picture.mode not in ("1", "L", "LA", "RGBA"):
                picture = picture.convert("RGB")
            picture.save(path)
            found.append(Found(path, label, split))
    return Listing(sorted(found), sorted(refused))


def _torchvision_parts(dataset_class: Any) -> list[tuple[str, dict[str, Any]]]:
    """The parts that a torchvision class offers, as (split, constructor's arguments)."""
    arguments = inspect.signature(dataset_class).parameters
    options = {"download": True} if "download" in arguments else {}
    if "train" in arguments:
        return [("train", {**options, "train": True}), ("test", {**options, "train": False})]
    if "split" in arguments:
        names = TORCHVISION_SPLITS.get(dataset_class.__name__, {"train": "train", "test": "test"})
        return [(ours, {**options, "split": theirs}) for theirs, ours in names.items()]
    return [("", options)]


def _rows(file: Path) -> list[dict[str | None, Any]]:
    """The table's rows; under the key None what a row has beyond the columns."""
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            columns = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = list(reader)
        except (csv.Error, UnicodeDecodeError) as error:
            where = f"{file}, near line {reader.line_num + 1},"
            raise DataError(f"{where} cannot be read as CSV in UTF-8: {error}") from None
    absent = [column for column in ("path", "label") if column not in columns]
    if absent:
        hint = "; separate the columns by commas" if len(columns) == 1 else ""
        raise DataError(
            f"{file} has no column {' or '.join(absent)}; it has {', '.join(columns)}{hint}"
        )
    if len(set(columns)) < len(columns):
        raise DataError(f"{file} has two columns of one name: {', '.join(columns)}")
    return rows


def _walk(root: Path) -> tuple[list[Path], list[Path], list[Refused]]:
    """All files and links below `root`, sorted; its visible folders; folders it cannot list."""
    paths: list[Path] = []
    visible: list[Path] = []
    closed: list[Refused] = []

    def refuse(error: OSError) -> None:
        closed.append(Refused(Path(error.filename), f"folder cannot be listed ({error.strerror})"))

    for directory, folders, files in os.walk(root, onerror=refuse):
        here = Path(directory)
        paths += [here / name for name in files]
        paths += [here / name for name in folders if (here / name).is_symlink()]
        visible += [here / name for name in folders if not _is_hidden(name)]
    return sorted(paths, key=lambda path: path.parts), visible, closed  # as paths, but faster


def _why_not_in_table(row: dict[str | None, Any], path: Path, root: Path) -> str:
    """Why a row of the table names no file to open; empty where it does."""
    if None in row or None in row.values():
        return "its row has another number of fields than the header"
    given = PurePosixPath(row["path"])
    if not row["path"].strip():
        return "no path"
    if given.is_absolute() or ".." in given.parts:
        return f"path leaves the folder {root}"
    if reason := _why_not(path, root):
        return reason
    if not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(root)):
        return f"path leaves the folder {root} through a link"
    return ""


def _why_not(path: Path, root: Path) -> str:
    """Why a file below `root` is not worth opening; empty where it is."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return "name is not valid UTF-8"
    if any(_is_hidden(part) for part in path.parts[len(root.parts) :]):
        return "hidden or system file"
    try:
        mode = path.stat().st_mode
    except ValueError:
        return "name holds a zero byte"
    except OSError as error:
        # Path's own way to ask raises where a name is too long.
        if os.path.islink(path):  # noqa: PTH114
            return "link that leads nowhere"
        return f"cannot be read ({error.strerror})"
    if stat.S_ISDIR(mode):
        return "link to a folder" if path.is_symlink() else "a folder"
    return "" if stat.S_ISREG(mode) else "not a regular file"


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in SYSTEM_NAMES


def _text(text: str) -> str:
    """In Unicode's composed form, so that two ways to write an é are one; spaces made single."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _why_no_label(label: str) -> str:
    if not label:
        return "no label"
    if any(unicodedata.category(character) == "Cc" for character in label):
        return "label holds a control character"
    return ""
