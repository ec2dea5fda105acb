"""The same changes to ten thousand pictures: `dvc repro` and DataChain's `delta=True`.

    python benchmarks/datachain_delta.py --python PYTHON_WITH_DATACHAIN

DataChain needs a virtual environment of its own (`pip install datachain` there), to which this
script adds the packages of its own. Both compute one feature a picture with the same code and ONNX
Runtime session; DataChain on as many processes as there are cores. Writes
`benchmarks/datachain_delta.md`.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from memory import multiply
from ten_in_ten_thousand import Repository, draw

ROOT = Path(__file__).parent.parent
DRAWN = 1_000

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
    from pipeline import engines, params
    from pipeline.views import ORIGINAL
    if ENGINE is None:
        ENGINE = engines.open_engine(params.load().extract)
    with open(os.environ["NOTES"], "a") as note:
        note.write(file.path + "\\n")
    return ENGINE.run(ENGINE.make_views([(file.read(), [ORIGINAL])]))[0].tolist()

if __name__ == "__main__":
    pictures = datachain.read_storage(
        "file://" + os.environ["PICTURES"], update=True, delta=True, delta_on="file.path"
    )
    pictures = pictures.filter(C("file.path").glob("*.jpg")).settings(parallel=os.cpu_count())
    print(pictures.map(feature=feature).save("features").count())
"""


class Peer:
    """DataChain over the repository's folder of pictures, with a catalogue of its own."""

    def __init__(self, python: str, repository: Repository, folder: Path) -> None:
        self.repository, self.notes = repository, folder / "computed"
        script = folder / "peer.py"
        script.write_text(PEER)
        self.command = [python, str(script)]
        self.environment = repository.environment | {
            "PICTURES": str(repository.raw),
            "NOTES": str(self.notes),
            "OUR_PACKAGES": sysconfig.get_paths()["purelib"],
            "PYTHONPATH": str(ROOT),
            "DATACHAIN_ROOT_DIR": str(folder / "datachain"),
            "DATACHAIN_NO_ANALYTICS": "1",
        }

    def run(self) -> tuple[float, int]:
        """Seconds, and pictures computed."""
        self.notes.write_text("")
        start = time.perf_counter()
        done = subprocess.run(
            self.command,
            cwd=self.repository.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(done.stderr)
        return time.perf_counter() - start, len(self.notes.read_text().splitlines())


def ours(repository: Repository) -> tuple[float, int]:
    """Seconds of `dvc repro extract`, and pictures computed."""
    seconds, _, output = repository.run("dvc", "repro", "extract")
    found = re.search(r"(\d+) computed", output)
    return seconds, int(found[1]) if found else 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", required=True, help="of an environment with DataChain")
    parser.add_argument("--pictures", type=int, default=10_000)
    asked = parser.parse_args()
    ask = "import datachain; print(datachain.__version__)"
    version = subprocess.check_output([asked.python, "-c", ask], text=True).strip()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = Repository(folder, views=0)
        peer = Peer(asked.python, repository, folder)
        draw(repository.raw, range(DRAWN))
        multiply(repository.raw, asked.pictures // DRAWN)
        some = sorted(repository.raw.rglob("*.jpg"))

        def edit() -> None:
            some[0].write_bytes(some[1].read_bytes() + b"edited")

        def touch() -> None:
            for file in some[100:200]:
                os.utime(file)

        def rename() -> None:
            for file in some[200:300]:
                file.rename(file.with_stem(f"renamed_{file.stem}"))

        # Both may look at the backbone's export as a thing that is there.
        warm = Repository(folder / "warm", views=0)
        draw(warm.raw, range(60))
        ours(warm)
        warm_store, store = (of / "cache" / "features" for of in (folder / "warm", folder))
        shutil.copytree(warm_store / "backbones", store / "backbones")
        changes: list[tuple[str, Callable[[], object]]] = [
            (f"{asked.pictures:,} pictures, nothing computed yet", lambda: None),
            ("nothing changed", lambda: None),
            ("ten pictures added", lambda: draw(repository.raw, range(DRAWN, DRAWN + 10))),
            ("one picture edited under its name", edit),
            ("a hundred touched, bytes unchanged", touch),
            ("a hundred renamed", rename),
        ]
        for title, change in changes:
            change()
            rows.append((title, *ours(repository), *peer.run()))
            print(rows[-1], flush=True)
    lines = [
        "# `dvc repro extract` beside DataChain's `delta=True`",
        "",
        "Made by `python benchmarks/datachain_delta.py`; originals only, the same code for a",
        f"picture's feature and the same {os.cpu_count()} cores, DataChain {version}; load"
        f" {os.getloadavg()[1]:.1f}. Headstart's seconds include `ingest` (every file",
        "is hashed), `augment` and DVC; DataChain looks at names, sizes and times.",
        "",
        "| change | Headstart, s | computed | DataChain, s | computed | Headstart over DataChain |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {title} | {mine:.1f} | {count:,} | {theirs:.1f} | {peers:,} | {mine / theirs:.2f} |"
            for title, mine, count, theirs, peers in rows
        ),
        "",
    ]
    (ROOT / "benchmarks" / "datachain_delta.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
