"""Checks of the memory and the disk that a stage needs, before it uses them."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from .errors import DataError, DiskError

PROC = Path("/proc/self")
# The file that limits memory, in a control group of version 1 and of version 2.
LIMIT_1, LIMIT_2 = "memory.limit_in_bytes", "memory.max"


class Limit(NamedTuple):
    """Bytes of memory that this process may use, and the file that limits it; None: the machine."""

    bytes: int
    file: Path | None = None


def limit() -> Limit:
    """Return the least of the machine's memory and the limits of this process's control groups.

    A container and a batch system set such limits. A group's limit also holds for all groups in it,
    so all groups from this process's own up to the root are read, of both versions.
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([Limit(machine), *_limits()], key=lambda one: one.bytes)


def _limits() -> Iterator[Limit]:
    try:
        groups = (PROC / "cgroup").read_text().splitlines()
        mounts = (PROC / "mountinfo").read_text().splitlines()
    except OSError:  # not Linux
        return
    path_of = {}  # by the name of the file that limits memory
    for group in groups:
        number, controllers, path = group.split(":", 2)
        if number == "0" and not controllers:
            path_of[LIMIT_2] = path
        elif "memory" in controllers.split(","):
            path_of[LIMIT_1] = path
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        root, point = before.split(" ")[3:5]
        kind, _, options = after.split(" ", 2)
        name = {"cgroup": LIMIT_1, "cgroup2": LIMIT_2}.get(kind)
        if name not in path_of or (name == LIMIT_1 and "memory" not in options.split(",")):
            continue
        own = PurePosixPath(path_of[name])
        # A container sees only a part of the tree, with its own group as the root of the mount.
        inside = own.relative_to(root) if own.is_relative_to(root) else PurePosixPath()
        for folder in (inside, *inside.parents):
            file = Path(point, folder, name)
            try:
                yield Limit(int(file.read_text()), file)
            except (OSError, ValueError):  # no such file at the root; `max` is no limit
                continue


def require(needed: int, purpose: str, otherwise: str) -> None:
    """Check that this process may use enough memory for the next step of a stage.

    Args:
        needed: bytes of memory.
        purpose: what needs this memory, for the message.
        otherwise: what the user can do if there is less.

    Raises:
        DataError: there is less memory.
    """
    there, file = limit()
    if needed > there:
        has = f"this machine has {there / 1e9:.1f} GB"
        if file is not None:
            has = f"{file} limits it to {there / 1e9:.1f} GB"
            otherwise = f"raise that limit, or {otherwise}"
        raise DataError(
            f"{purpose} needs about {needed / 1e9:.1f} GB of memory, but {has}; {otherwise}"
        )


def require_disk(needed: int, folder: Path, purpose: str) -> None:
    """Check that the disk of `folder`, which may not exist yet, has `needed` bytes for `extract`.

    Raises:
        DiskError: the disk has less free space.
    """
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DiskError(
            f"{purpose} needs about {needed / 1e6:,.1f} MB. No space left on device: the disk of"
            f" {folder.absolute()} has {free / 1e6:,.1f} MB free; free some space, or set"
            " extract.features to keys"
        )
