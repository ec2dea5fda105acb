"""A fresh clone to the end of `make repro`: megabytes, packages and seconds, before and now.

Before is the commit of `--before`, whose one set had all packages. Each round starts with empty
caches of pip and of uv, and nothing is in the feature store. Then come the sizes of smaller
installations. Needs uv.
"""

import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.harness import ROOT, Cost, in_turns, need, ratios, run, spread, table

# `make setup` of before knew pip alone.
WITH_UV = """
set -e
python3 -m venv .venv
uv pip install --quiet --python .venv --no-deps --require-hashes --requirement requirements.lock
uv pip install --quiet --python .venv --no-deps --no-build-isolation --editable .
touch .venv/ready
"""


def fresh(folder: Path, commit: str, tool: str) -> tuple[Cost, Cost, float, int]:
    """The costs of `make setup` and of what `make repro` adds, megabytes and packages."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    clone = folder / "clone"
    run("git", "clone", "--quiet", ROOT, clone)
    run("git", "checkout", "--quiet", commit, folder=clone)
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
    by_hand = tool == "uv" and (clone / "requirements.lock").exists()
    command = ("bash", "-c", WITH_UV) if by_hand else ("make", "setup")
    setup = run(*command, folder=clone, **environment)
    megabytes = megabytes_in(clone / ".venv")
    packages = len(list((clone / ".venv").rglob("*.dist-info")))
    rest = run("make", "repro", folder=clone, **environment)
    shutil.rmtree(folder)
    return setup, rest, megabytes, packages


# What an installation is for: what uv installs.
SMALLER = {
    "`requirements/base.lock`, to predict": (
        *("--no-deps", "--require-hashes", "--requirement"),
        str(ROOT / "requirements" / "base.lock"),
    ),
    "NumPy, ONNX Runtime and Pillow, for `model.onnx` of a bundle": (
        "numpy",
        "onnxruntime",
        "pillow",
    ),
}


def smaller(folder: Path, packages: Sequence[str]) -> float:
    """The megabytes of an environment with these packages."""
    python = folder / "bin" / "python"
    run("uv", "venv", "--quiet", folder)
    run("uv", "pip", "install", "--quiet", "--python", python, *packages)
    size = megabytes_in(folder)
    shutil.rmtree(folder)
    return size


def megabytes_in(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def measure(scratch: Path, before: str = "3c78ef8", rounds: int = 2) -> str:
    need(shutil.which("uv"), "uv: pip install uv")
    works = {
        (when, tool): partial(fresh, scratch / "fresh", commit, tool)
        for tool in ("pip", "uv")
        for when, commit in (("before", before), ("now", "HEAD"))
    }
    costs = in_turns(rounds, works)
    rows = []
    for (when, tool), found in costs.items():
        gave = [cost.gave for cost in found]
        installed = [setup.wall for setup, *_ in gave]
        ended = [setup.wall + rest.wall for setup, rest, *_ in gave]
        earlier = [cost.gave[0].wall for cost in costs["before", tool]]
        *_, megabytes, packages = gave[0]
        sooner = spread(ratios(earlier, installed)) if when == "now" else None
        rows.append(
            (when, tool, megabytes, packages, spread(installed, "{:.0f}"), sooner,
             spread(ended, "{:.0f}"))
        )  # fmt: skip
    sizes = [(what, smaller(scratch / "smaller", asked)) for what, asked in SMALLER.items()]
    columns = (
        "commit | with | megabytes {:.0f} | packages {:d} | seconds to the install's end"
        " | times sooner than before | seconds to the end of `make repro`"
    )
    return f"""# A fresh `make repro`, before and now

Before is {before}: one set of all packages, PyTorch with CUDA among them. Now is the set of the
default run. Caches and store are empty each time; median of {rounds} rounds, taken in turns.

{table(columns, rows)}

Smaller installations, with uv and without bytecode:

{table("packages | megabytes {:.0f}", sizes)}
"""
