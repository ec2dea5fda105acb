"""Source `torchvision:NAME`: a classification set that torchvision downloads and reads."""

import inspect
import re
from pathlib import Path
from typing import Any

from PIL import Image

from ..core import packages
from ..core.errors import DataError
from ..core.paths import PICTURES
from .found import Found, Listing, Refused, tidy

# The splits of torchvision's sets, if not train and test: torchvision's name to Headstart's.
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
    "Places365": {"train-standard": "train", "val": "val"},  # the test pictures have no labels
    "RenderedSST2": {"train": "train", "val": "val", "test": "test"},
}


def torchvision_dataset(name: str, root: Path) -> Listing:
    """Download torchvision's classification set `name` into `root`, and list its pictures.

    The pictures are written to `data/pictures/` as PNG, in a folder for each split and class. PNG
    is lossless; a mode other than grey or RGB, with or without alpha, is converted to RGB.

    Raises:
        DataError: there is no such set, it does not have pictures with one class each, or it cannot
            be downloaded.
    """
    packages.need("torch", f"ingest.source torchvision:{name}")
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
        # A missing package, an argument that only this set needs, or no network.
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
                raise DataError(
                    f"torchvision's {name} is not a set of pictures with one class each"
                )
            label = tidy(str(classes[target]) if classes else str(target))
            words = re.sub(r"[^\w-]+", "-", label)[:40]  # cannot lead elsewhere
            path = path.parent / f"{target:04d}-{words}" / path.name
            path.parent.mkdir(parents=True, exist_ok=True)
            if picture.mode not in ("1", "L", "LA", "RGBA"):
                picture = picture.convert("RGB")
            picture.save(path)
            found.append(Found(path, label, split))
    return Listing(sorted(found), sorted(refused))


def _torchvision_parts(dataset_class: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the parts of a torchvision class, as (split, constructor's arguments)."""
    arguments = inspect.signature(dataset_class).parameters
    options = {"download": True} if "download" in arguments else {}
    if "train" in arguments:
        return [("train", {**options, "train": True}), ("test", {**options, "train": False})]
    if "split" in arguments:
        names = TORCHVISION_SPLITS.get(dataset_class.__name__, {"train": "train", "test": "test"})
        return [(ours, {**options, "split": theirs}) for theirs, ours in names.items()]
    return [("", options)]
