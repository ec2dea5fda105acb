"""Source `folder`: one folder per class, which may be in one folder per split."""

from collections.abc import Sequence
from pathlib import Path

from ..core.errors import DataError
from ..tables.manifest import SPLITS, UNLABELLED
from .found import Found, Listing, Refused, tidy, walk, why_no_label, why_not

LIKE_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}


def folder(root: Path) -> Listing:
    """List the folders `<class>/<file>`, or `train|val|test/<class>/<file>`.

    The layout is the second one if `train` exists, and every other folder is `val`, `test` or
    `target`. `target/<file>` is an example without a label, of another domain. Folders below a
    class's folder belong to the class. Links to files are followed (DVC may link files from its
    cache); links to folders are refused, so that a cycle cannot occur.

    Raises:
        DataError: `root` is not a folder, or its folders have other names for splits.
    """
    if not root.is_dir():
        raise DataError(f"ingest.path {root} is not a folder; source: folder needs one")
    paths, folders, refused = walk(root)
    top = {path.name for path in folders if path.parent == root and not path.is_symlink()}
    depth = split_folders(top, str(root))
    found: list[Found] = []
    for path in paths:
        parts = path.parts[len(root.parts) :]
        reason = why_not(path, root)
        label, of_place = labelled(parts, depth)
        reason = reason or of_place
        if reason:
            refused.append(Refused(path, reason))
        else:
            found.append(Found(path, label, parts[0] if depth else ""))
    levels = len(root.parts) + depth + 1
    classes = {
        tidy(path.name)
        for path in folders
        if len(path.parts) == levels and not (depth and path.parent.name == UNLABELLED)
    }
    for label in sorted(classes - {row.label for row in found}):
        print(f"ingest: warning: class {label!r} has no examples and is left out")
    return Listing(found, sorted(refused))


def labelled(parts: Sequence[str], depth: int) -> tuple[str, str]:
    """Return the label of a file from its folders, and why the label is missing if it is needed.

    Args:
        parts: the parts of the file's path below the source's folder.
        depth: as `split_folders` returns it.
    """
    if len(parts) < depth + 2:
        unlabelled = depth and len(parts) > 1 and parts[0] == UNLABELLED
        return "", "" if unlabelled else "not in a class's folder"
    label = tidy(parts[depth])
    return label, "" if depth and parts[0] == UNLABELLED else why_no_label(label)


def split_folders(top: set[str], where: str) -> int:
    """Return 1 if the folders `top` are splits with classes below, 0 if they are classes.

    Raises:
        DataError: the folders look like splits, but have other names.
    """
    depth = 1 if "train" in top and top <= {*SPLITS, UNLABELLED} else 0
    if not depth and top and {name.casefold() for name in top} <= LIKE_SPLITS:
        raise DataError(
            f"the folders of {where} are {', '.join(sorted(top))}; name them train, val and test,"
            " or, if they are classes, use source: csv"
        )
    return depth
