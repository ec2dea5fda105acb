"""Where pictures come from: each source lists every file it finds, with label and split.

A file is either found or refused with a reason; none is left out in silence.
"""

import inspect
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pandas as pd
from PIL import Image

from pipeline import surfaces
from pipeline.errors import DataError
from pipeline.params import IngestParams
from pipeline.paths import PICTURES
from pipeline.splits import SPLITS

TABLE = "labels.csv"


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
    """All files of the source that `params` names, sorted by path.

    Raises:
        DataError: the source is not there, or cannot be understood as a whole.
    """
    path = Path(params.path)
    if not path.exists():
        raise DataError(f"ingest.path {path} does not exist; name your pictures in params.yaml")
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
    """
    if not root.is_dir():
        raise DataError(f"ingest.path {root} is not a folder; source: folder needs one")
    top = {entry.name for entry in root.iterdir() if entry.is_dir() and entry.name[0] != "."}
    depth = 1 if "train" in top and top <= set(SPLITS) else 0
    found: list[Found] = []
    refused: list[Refused] = []
    for path in _files(root):
        reason = _not_a_picture_file(path)
        parts = path.relative_to(root).parts
        if not reason and len(parts) < depth + 2:
            reason = "not in a class's folder"
        if reason:
            refused.append(Refused(path, reason))
        else:
            split = parts[0] if depth else ""
            found.append(Found(path, _label(parts[depth]), split))
    _warn_of_empty(root, depth, {row.label for row in found})
    return Listing(found, refused)


def table(root: Path) -> Listing:
    """A folder that holds `labels.csv`: columns path, label, and perhaps split and group.

    Paths are relative to the folder and may not leave it.
    """
    file = root / TABLE
    if not file.is_file():
        raise DataError(f"source: csv needs the file {file} with the columns path and label")
    try:
        rows = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file} cannot be read as CSV in UTF-8: {reason}") from None
    absent = [column for column in ("path", "label") if column not in rows.columns]
    if absent:
        raise DataError(
            f"{file} has no column {' or '.join(absent)}; it has {', '.join(rows.columns)}"
        )
    found: list[Found] = []
    refused: list[Refused] = []
    seen: set[Path] = set()
    for row in rows.to_dict("records"):
        given = PurePosixPath(row["path"])
        path = root / given
        split = row.get("split", "")
        if not row["path"] or given.is_absolute() or ".." in given.parts:
            reason = f"path leaves the folder {root}"
        elif not row["label"].strip():
            reason = "no label"
        elif split and split not in SPLITS:
            reason = f"split {split!r} is none of {', '.join(SPLITS)}"
        elif path in seen:
            reason = f"named twice in {TABLE}"
        else:
            reason = _not_a_picture_file(path)
        if reason:
            refused.append(Refused(path, reason))
        else:
            found.append(Found(path, _label(row["label"]), split, row.get("group", "")))
        seen.add(path)
    return Listing(sorted(found), sorted(refused))


def torchvision_dataset(name: str, root: Path) -> Listing:
    """A classification set by its torchvision name, downloaded into `root` by torchvision.

    Its pictures are written to `data/pictures/` as PNG, losslessly, under their class's name.
    """
    import torchvision  # slow to import, and only this source needs it

    dataset_class: Any = getattr(torchvision.datasets, name, None)
    if not callable(dataset_class):
        raise DataError(f"torchvision has no data set {name!r}; see torchvision.datasets")
    found: list[Found] = []
    for split, options in _torchvision_parts(dataset_class):
        try:
            dataset = dataset_class(str(root), **options)
        except (RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"torchvision cannot download {name} into {root} ({reason}); without a network,"
                " copy the set there as torchvision lays it out, or use source: folder"
            ) from None
        classes = getattr(dataset, "classes", None)
        for index in range(len(dataset)):
            picture, target = dataset[index]
            if not isinstance(picture, Image.Image) or not isinstance(target, int):
                raise DataError(f"torchvision's {name} is no set of pictures with one class each")
            label = str(classes[target]) if classes else str(target)
            path = PICTURES / (split or "all") / label.replace("/", "-") / f"{index:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
            found.append(Found(path, _label(label), split))
    return Listing(sorted(found), [])


def _torchvision_parts(dataset_class: Any) -> list[tuple[str, dict[str, Any]]]:
    """The parts that a torchvision class offers, as (split, constructor's arguments)."""
    arguments = inspect.signature(dataset_class).parameters
    options: dict[str, Any] = {"download": True} if "download" in arguments else {}
    if "train" in arguments:
        return [("train", {**options, "train": True}), ("test", {**options, "train": False})]
    if "split" in arguments:
        kept = {"StanfordCars": ("train", "test"), "OxfordIIITPet": ("trainval", "test")}
        known = kept.get(dataset_class.__name__) or (
            ("train", "val", "test")
            if dataset_class.__name__ in ("DTD", "FGVCAircraft", "Flowers102", "PCAM")
            else ("train", "test")
        )
        return [("train" if s == "trainval" else s, {**options, "split": s}) for s in known]
    return [("", options)]


def _files(root: Path) -> Iterator[Path]:
    """Every file and every link below `root`, in the order of their paths."""
    paths = []
    for directory, folders, files in os.walk(root):
        here = Path(directory)
        paths += [here / name for name in files]
        paths += [here / name for name in folders if (here / name).is_symlink()]
    yield from sorted(paths)


def _not_a_picture_file(path: Path) -> str:
    """Why `path` is not worth opening; empty where it is."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return "name is not valid UTF-8"
    if path.name.startswith(".") or path.name in ("Thumbs.db", "desktop.ini"):
        return "hidden or system file"
    if path.is_symlink() and not path.exists():
        return "link that leads nowhere"
    if path.is_dir():
        return "link to a folder" if path.is_symlink() else "a folder"
    if not path.exists():
        return "no such file"
    if not path.is_file():
        return "not a regular file"
    return ""


def _label(text: str) -> str:
    """Labels in Unicode's composed form, so that two ways to write an é are one class."""
    return unicodedata.normalize("NFC", text.strip())


def _warn_of_empty(root: Path, depth: int, labels: set[str]) -> None:
    pattern = "*/*" if depth else "*"
    folders = {_label(path.name) for path in root.glob(pattern) if path.is_dir()}
    for label in sorted(folders - labels):
        if not label.startswith("."):
            print(f"ingest: warning: class {label!r} has no pictures and is left out")
