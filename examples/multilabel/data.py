"""Make the examples of several labels: `python examples/multilabel/data.py [columns|yeast]`.

- Without a word: `data/raw/composites/`, pictures put together from patches of two or three
  surfaces, and `labels.csv`, whose label names all that a picture holds, as `brick|wood`.
- columns: the same pictures, with one column per label that holds 1 or 0. One cell of five is left
  empty: nobody looked whether this surface is there.
- yeast: `data/raw/yeast.parquet`, 2,417 genes of baker's yeast, each 103 numbers from microarrays
  and phylogenetic profiles, and the functions that it has, out of 14 (Elisseeff and Weston, NIPS
  2001). Debian's package r-cran-mlr (BSD-2-clause) carries the set. It is fetched with `apt-get
  download`, and unpacked into a folder that is deleted again; nothing is installed.
"""

import csv
import gzip
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from examples.patches import SIDE, Patches

RAW = Path("data/raw")
PICTURES = {"train": 480, "val": 160, "test": 160}
# Which surface each quarter of a picture shows, from the upper left one on, and how that is called.
LAYOUTS = {
    "halves": [(0, 0, 1, 1), (0, 1, 0, 1)],
    "half and quarters": [(0, 0, 1, 2), (0, 1, 2, 1), (0, 1, 0, 2), (0, 1, 2, 2)],
    "quarters": [(0, 1, 1, 0), (0, 1, 2, 0), (0, 1, 1, 2)],
}
UNKNOWN = 0.2  # share of the cells that the variant `columns` leaves empty

Row = tuple[str, str, str, set[str]]  # path, split, layout, labels


def composites(folder: Path) -> list[Row]:
    """Pictures of 128 x 128 pixels, four patches each, of two or three surfaces."""
    random = np.random.default_rng(0)
    rows = []
    for split, count in PICTURES.items():
        patches = Patches(split, random)
        for number in range(count):
            layout = list(LAYOUTS)[number % len(LAYOUTS)]
            quarters = LAYOUTS[layout][random.integers(len(LAYOUTS[layout]))]
            held = random.permutation(patches.surfaces)[: max(quarters) + 1].tolist()
            picture = Image.new("L", (2 * SIDE, 2 * SIDE))
            for at, which in enumerate(quarters):
                picture.paste(patches.draw(held[which]), (at % 2 * SIDE, at // 2 * SIDE))
            name = f"{split}_{number:03}.png"
            picture.save(folder / name)
            rows.append((name, split, layout, set(held)))
    return rows


def one_column(rows: list[Row]) -> list[list[str]]:
    """The table with all labels of a picture in one column."""
    told = [[path, "|".join(sorted(held)), split, layout] for path, split, layout, held in rows]
    return [["path", "label", "split", "layout"], *told]


def a_column_each(rows: list[Row]) -> list[list[str]]:
    """The table with one column per label: 1, 0, or empty where it is unknown."""
    random = np.random.default_rng(1)
    labels = sorted(set().union(*(held for *_, held in rows)))
    table = [["path", "split", "layout", *labels]]
    for path, split, layout, held in rows:
        known = random.random(len(labels)) >= UNKNOWN
        cells = [
            str(int(label in held)) if seen else ""
            for label, seen in zip(labels, known, strict=True)
        ]
        table.append([path, split, layout, *cells])
    ask_for(labels)
    return table


def ask_for(columns: list[str]) -> None:
    """Have `params.yaml` name the columns that hold the labels."""
    file = Path("params.yaml")
    text = file.read_text(encoding="utf-8")
    asked = text.replace("targets: null", f"targets: [{', '.join(columns)}]")
    file.write_text(asked, encoding="utf-8")


def pictures(variant: str) -> str:
    """Write the pictures and their table."""
    folder = RAW / "composites"
    folder.mkdir(parents=True)
    rows = composites(folder)
    table = a_column_each(rows) if variant == "columns" else one_column(rows)
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(table)
    return f"{len(rows)} pictures in {folder}"


def yeast() -> str:
    """Write the genes, their numbers as vectors and their functions joined in one column."""
    with tempfile.TemporaryDirectory() as unpacked:
        data = fetch("r-cran-mlr", Path(unpacked)) / "usr/lib/R/site-library/mlr/data"
        columns = of_r(data, "yeast.task")
    labels = [name for name in columns if name.startswith("label")]
    numbers = [name for name in columns if name.startswith("x")]
    held = np.array([columns[name] for name in labels]).T.astype(bool)
    vectors = np.array([columns[name] for name in numbers], np.float32).T
    table = {
        "key": [f"gene {number}" for number in range(1, len(vectors) + 1)],
        "vector": pa.array(vectors.tolist(), pa.list_(pa.float32())),
        "label": ["|".join(np.array(labels)[one]) for one in held],
    }
    file = RAW / "yeast.parquet"
    pq.write_table(pa.table(table), file)
    return f"{len(vectors):,} genes in {file}"


def fetch(package: str, folder: Path) -> Path:
    """A package of Debian, unpacked in the folder."""
    try:
        subprocess.run(["apt-get", "-q", "download", package], cwd=folder, check=True)  # noqa: S603, S607
        (archive,) = folder.glob(f"{package}_*.deb")
        subprocess.run(["dpkg", "-x", archive.name, "."], cwd=folder, check=True)  # noqa: S603, S607
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"data.py: Debian's package {package} cannot be had: {error}")
    return folder


# A package of R keeps its data as serialised objects in one file, each compressed, and an index of
# their places (R Internals, "Serialization Formats"). Environments are objects of their own.


def of_r(folder: Path, name: str) -> dict[str, list[float]]:
    """The columns of the table that belongs to one of mlr's tasks."""
    index = Stream(gzip.decompress((folder / "Rdata.rdx").read_bytes())).read()
    objects = (folder / "Rdata.rdb").read_bytes()

    def read(place: tuple[int, int]) -> Any:
        start, length = place
        return Stream(zlib.decompress(objects[start + 4 : start + length])).read()

    (environment,) = read(index["variables"][name])["env"]
    columns: dict[str, list[float]] = read(index["references"][environment])["bindings"]["data"]
    return columns


class Stream:
    """R's binary serialisation, as far as tables need it: a list with names is a dictionary."""

    ATTRIBUTES, TAG = 1 << 9, 1 << 10  # flags of an item: what stands with it

    def __init__(self, data: bytes) -> None:
        """Begin with the first of these bytes."""
        self.data, self.at = data, 0
        self.known: list[Any] = []  # what later items refer to

    def read(self) -> Any:
        """The object."""
        self._bytes(2)
        version, _, _ = self._integers(3)
        if version == 3:
            self._bytes(self._integer())  # the encoding's name
        return self._item()

    def _bytes(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def _integers(self, count: int) -> list[int]:
        return list(struct.unpack(f">{count}i", self._bytes(4 * count)))

    def _integer(self) -> int:
        return self._integers(1)[0]

    def _item(self) -> Any:
        flags = self._integer()
        form = flags & 0xFF
        if form in (242, 254):  # the empty environment, NULL
            return None
        if form == 255:  # a reference
            return self.known[(flags >> 8) - 1]
        if form in (1, 247):  # a symbol; the name of an environment
            self.known.append(self._item() if form == 1 else self._names())
            return self.known[-1]
        if form == 9:  # a text
            return self._bytes(self._integer()).decode()
        if form == 2:  # a pair of a list, and the rest of it
            if flags & self.ATTRIBUTES:
                self._item()
            name = self._item() if flags & self.TAG else ""
            return {name: self._item()} | (self._item() or {})
        values: list[Any]
        if form in (10, 13):  # truth values, integers
            values = self._integers(self._integer())
        elif form == 14:  # numbers
            count = self._integer()
            values = list(struct.unpack(f">{count}d", self._bytes(8 * count)))
        elif form in (16, 19):  # texts, a list
            values = [self._item() for _ in range(self._integer())]
        else:
            sys.exit(f"data.py: R's type {form} is not known here")
        told = self._item() if flags & self.ATTRIBUTES else {}
        return dict(zip(told["names"], values, strict=True)) if "names" in told else values

    def _names(self) -> list[str]:
        self._integer()
        return [self._item() for _ in range(self._integer())]


if __name__ == "__main__":
    variant = " ".join(sys.argv[1:])
    if variant not in ("", "columns", "yeast"):
        sys.exit(f"data.py: there is no variant {variant!r}; take columns or yeast, or no word")
    RAW.mkdir(parents=True, exist_ok=True)
    print(f"data.py: {yeast() if variant == 'yeast' else pictures(variant)}")
