"""The same changes to ten thousand pictures: `dvc repro` and DataChain's `delta=True`.

    python -m benchmarks datachain_delta --python PYTHON_WITH_DATACHAIN

DataChain needs a virtual environment of its own (`pip install datachain` there), to which this
script adds the packages of its own. Both compute one feature a picture with the same code and ONNX
Runtime session; DataChain on as many processes as there are cores.
"""

import os
import re
import sysconfig
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Repository, draw, multiply, need, run, table

# Run by DataChain's Python; its own processes know the environment but no arguments.
PEER = """
import os, sys
import datachain
from datachain import C

ENGINE = None

def feature(file: datachain.File) -> list[float]:
    global ENGINE
    if os.environ["OUR_PACKAGES"] not in sys.path:
        sys.path.append(os.environ["OUR_PACKAGES"])
    from pipeline import kinds
    from pipeline.backbones.engines import open_engine
    from pipeline.core import params
    kind = kinds.named("image")
    if ENGINE is None:
        ENGINE = open_engine(params.load(kinds.schema).extract, kind)
    with open(os.environ["NOTES"], "a") as note:
        note.write(file.path + "\\n")
    return ENGINE.run(ENGINE.make_views([(file.read(), [kind.original])]))[0].tolist()

if __name__ == "__main__":
    pictures = datachain.read_storage(
        "file://" + os.environ["PICTURES"], update=True, delta=True, delta_on="file.path"
    )
    pictures = pictures.filter(C("file.path").glob("*.jpg")).settings(parallel=os.cpu_count())
    print(pictures.map(feature=feature).save("features").count())
"""


def ours(repository: Repository) -> tuple[float, int]:
    """Seconds of `dvc repro extract`, and pictures computed."""
    took = repository.run("dvc", "repro", "extract")
    found = re.search(r"(\d+) computed", took.gave)
    return took.wall, int(found[1]) if found else 0


def theirs(python: str, repository: Repository, folder: Path) -> tuple[float, int]:
    """The same of DataChain, over the same folder of pictures, with a catalogue of its own."""
    (folder / "peer.py").write_text(PEER)
    (folder / "computed").write_text("")
    took = repository.run(
        python,
        folder / "peer.py",
        PICTURES=str(repository.raw),
        NOTES=str(folder / "computed"),
        OUR_PACKAGES=sysconfig.get_paths()["purelib"],
        DATACHAIN_ROOT_DIR=str(folder / "datachain"),
        DATACHAIN_NO_ANALYTICS="1",
    )
    return took.wall, len((folder / "computed").read_text().splitlines())


def measure(scratch: Path, python: str = "", pictures: int = 10_000, drawn: int = 1_000) -> str:
    need(
        python,
        "a Python with DataChain: --python, see `python -m benchmarks datachain_delta --help`",
    )
    version = run(python, "-c", "import datachain as d; print(d.__version__)").gave.strip()
    draw(scratch / "drawn", range(drawn))
    exported = scratch / "backbones"  # both may look at it as a thing that is there
    ours(Repository(scratch / "warm", scratch / "drawn", exported, augment={"views": 0}))
    multiply(scratch / "drawn", pictures // drawn)
    repository = Repository(scratch, scratch / "drawn", exported, augment={"views": 0})
    some = sorted(repository.raw.rglob("*.jpg"))
    few = min(100, len(some) // 3)

    def edit() -> None:
        some[0].write_bytes(some[1].read_bytes() + b"edited")

    def touch() -> None:
        for file in some[few : 2 * few]:
            os.utime(file)

    def rename() -> None:
        for file in some[2 * few : 3 * few]:
            file.rename(file.with_stem(f"renamed_{file.stem}"))

    changes: dict[str, Callable[[], object]] = {
        f"{pictures:,} pictures, nothing computed yet": lambda: None,
        "nothing changed": lambda: None,
        "ten pictures added": lambda: draw(repository.raw, range(drawn, drawn + 10)),
        "one picture edited under its name": edit,
        f"{few} touched, bytes unchanged": touch,
        f"{few} renamed": rename,
    }
    rows = []
    for title, change in changes.items():
        change()
        mine, peer = ours(repository), theirs(python, repository, scratch)
        rows.append((title, *mine, *peer, mine[0] / peer[0]))
        print(rows[-1], flush=True)
    columns = "change | Headstart, s {:.1f} | computed {:,} | DataChain, s {:.1f} | computed {:,}"
    return f"""# `dvc repro extract` beside DataChain's `delta=True`

Originals only, the same code for a picture's feature, DataChain {version}. Headstart's seconds
include `ingest` (every file is hashed), `augment` and DVC; DataChain looks at names, sizes and
times.

{table(columns + " | Headstart over DataChain {:.2f}", rows)}
"""
