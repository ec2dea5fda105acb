"""Stamps of files: values that change whenever a file's content does, found without reading it.

A stamp is device, inode, size, and the times of the last change of content and of status (mtime and
ctime, in nanoseconds). A program can set mtime back, but only the kernel sets ctime; a file that is
renamed over another has a different inode. So an equal stamp means equal content, except in a case
that Git calls racy: two changes in one tick of the clock. Later runs therefore do not trust a stamp
that was less than `SETTLED_NS` old when `ingest` looked at it, or that was in the future, because
the clock had been set back.
"""

import os
import time
from collections.abc import Iterable
from pathlib import Path

from ..core.errors import DataError
from ..examples import rows
from .found import Found

SETTLED_NS = 2_000_000_000  # the longest tick of a file system, that of FAT


Stamp = tuple[str, int]  # its text, empty if there is no file, and the later of its times


class Stamps:
    """The stamps of the files that hold a source's examples, taken before the examples are read.

    `of_examples` has a text for each example whose stamps are trusted. The text changes with the
    file or, if the example is a row, with its table or the matrix beside the table.
    """

    def __init__(self, tables: Iterable[Path]) -> None:
        """Look at the tables that may list the examples; they need not exist."""
        self._settled = time.time_ns() - SETTLED_NS
        self._files = {name: _stamp(name) for name in map(str, tables)}  # hashes of paths are slow
        self.of_examples: dict[Path, str] = {}

    def look(self, found: list[Found]) -> None:
        """Look at the files of these examples."""
        for row in found:
            stamps = []
            for file in map(str, rows.files_of(row.path)):
                if file not in self._files:
                    self._files[file] = _stamp(file)
                stamps.append(self._files[file])
            if all(changed < self._settled for _, changed in stamps):
                self.of_examples[row.path] = ", ".join(text for text, _ in stamps)

    def stop_if_changed(self) -> None:
        """Raise `DataError` if a file has changed since it was looked at.

        DVC records the files' state after the stage, and would record the changed file as ingested.
        """
        changed = [file for file, stamp in self._files.items() if _stamp(file) != stamp]
        if changed:
            files = f"{len(changed)} file{'s' * (len(changed) > 1)}"
            raise DataError(
                f"{files} changed while ingest was reading the source, such as {changed[0]};"
                " run ingest again when nothing writes there any more"
            )


def _stamp(file: str) -> Stamp:
    try:
        it = os.stat(file)  # noqa: PTH116 (faster than Path.stat)
    except OSError:
        return "", 0
    times = it.st_mtime_ns, it.st_ctime_ns
    return f"{it.st_dev} {it.st_ino} {it.st_size} {times[0]} {times[1]}", max(times)
