"""A fresh clone to the end of `make repro`, with pip and with uv: megabytes, packages and seconds.

Each run starts with empty caches of pip and of uv, and nothing is in the feature store. Then come
the sizes of smaller installations. Needs uv.
"""

import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import ROOT, in_turns, need, run, spread, table

# What an installation is for: what uv installs.
SMALLER = {
    "`requirements/base.lock`, to predict": (
        *("--no-deps", "--require-hashes", "--requirement"),
        str(ROOT / "requirements" / "base.lock"),
    ),
    "NumPy, ONNX Runtime and Pillow, for a bundle's `model.onnx`": [
        "numpy",
        "onnxruntime",
        "pillow",
    ],
}
LARGEST = 12  # folders of packages in the table


class Fresh(NamedTuple):
    """What `make setup` took, and `make repro` after it."""

    setup: float  # seconds
    repro: float
    installed: float  # megabytes after `make setup`
    used: float  # megabytes after `make repro`, which compiles what it imports
    packages: int
    largest: list[tuple[str, float]]  # folders of packages, and their megabytes


def fresh(folder: Path, tool: str) -> Fresh:
    """What a fresh clone takes with `pip` or `uv`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    clone = folder / "clone"
    run("git", "clone", "--quiet", ROOT, clone)
    tools = [shutil.which(name) for name in ("python3", "git", "make", "bash")]
    path = [str(Path(str(found)).parent) for found in tools]
    if tool == "uv":
        path.insert(0, str(Path(str(shutil.which("uv"))).parent))
    environment = {
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": "",
        "PIP_FIND_LINKS": "",  # as where no package lies on the disk
        "UV_CACHE_DIR": str(folder / "uv"),
        "PIP_CACHE_DIR": str(folder / "pip"),
        "HEADSTART_STORE": str(folder / "store"),
    }
    setup = run("make", "setup", folder=clone, **environment).wall
    installed = megabytes(clone / ".venv")
    (packages,) = (clone / ".venv").glob("lib/python*/site-packages")
    count = len(list(packages.glob("*.dist-info")))
    repro = run("make", "repro", folder=clone, **environment).wall
    sizes = [(f"`{one.name}`", megabytes(one)) for one in packages.iterdir() if one.is_dir()]
    largest = sorted(sizes, key=lambda size: -size[1])[:LARGEST]
    found = Fresh(setup, repro, installed, megabytes(clone / ".venv"), count, largest)
    shutil.rmtree(folder)
    return found


def smaller(folder: Path, packages: Sequence[str]) -> float:
    """The megabytes of an environment with these packages."""
    run("uv", "venv", "--quiet", folder)
    run("uv", "pip", "install", "--quiet", "--python", folder / "bin" / "python", *packages)
    size = megabytes(folder)
    shutil.rmtree(folder)
    return size


def megabytes(folder: Path) -> float:
    """The size of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def measure(scratch: Path, rounds: int = 2) -> str:
    need(shutil.which("uv"), "uv: pip install uv")
    tools = ("pip", "uv")
    costs = in_turns(rounds, {tool: partial(fresh, scratch / "fresh", tool) for tool in tools})
    rows = []
    for tool, found in costs.items():
        every: list[Fresh] = [cost.gave for cost in found]
        installed, used, packages = every[0].installed, every[0].used, every[0].packages
        setup = spread([one.setup for one in every], "{:.0f}")
        ended = spread([one.setup + one.repro for one in every], "{:.0f}")
        rows.append((tool, packages, installed, setup, used, ended))
    sizes = [(what, smaller(scratch / "smaller", asked)) for what, asked in SMALLER.items()]
    columns = (
        "with | packages {:d} | megabytes after `make setup` {:,.0f} | seconds to its end"
        " | megabytes after `make repro` {:,.0f} | seconds to its end"
    )
    return f"""# A fresh `make repro`

The packages of the default run are installed into `.venv`. Caches and store are empty each time;
medians of {rounds} rounds, taken in turns. `make setup` compiles no module to bytecode, and
`make repro` compiles what it imports.

{table(columns, rows)}

The largest folders of packages with uv, after `make repro`:

{table("folder | megabytes {:.0f}", costs["uv"][0].gave.largest)}

Smaller installations, with uv:

{table("packages | megabytes {:.0f}", sizes)}
"""
