"""`headstart doctor`: what is installed, what is missing and how to install it.

The command only reads, and works on a damaged installation: each line reports its own error.
"""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.core import errors, packages

from . import __version__

DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # of NVIDIA on Linux, and on Windows' WSL
PREDICT = {"numpy", "onnxruntime", "PIL", "safetensors"}  # required for prediction


def examine() -> None:
    """Print one line per item.

    Raises:
        MissingSetError: packages for `headstart predict` are missing.
    """
    for name, line in lines():
        print(f"{name:<13} {line}")
    if PREDICT & set(packages.absent("base")):
        packages.need("base", "headstart predict")


def lines() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each line."""
    here = "a wheel" if packages.IN_WHEEL else "a clone"
    yield "headstart", f"{__version__}, {here} in {Path(__file__).parents[1]}"
    yield "python", f"{platform.python_version()}, {sys.executable}"
    yield "platform", f"{platform.platform()}, {os.cpu_count()} cores"
    for name in packages.SETS:
        shown = name if name == "base" else f"[{name}]"
        yield shown, _set(name)
    for name in ("onnxruntime", "openvino", "torch"):
        yield name, _version(name)
    yield "gpu", _gpu()
    yield "auto engine", _engine()
    if line := _seen(_bfloat16):
        yield "bfloat16", line
    yield "store", _seen(_store)
    yield "disk", _seen(_disk)
    for name in ("dvc", "prefect"):
        yield name, _version(name)
    yield "git", _git()


def _set(name: str) -> str:
    absent = packages.absent(name)
    if not absent:
        return "installed"
    some = f" (without {', '.join(absent)})" * (len(absent) < len(packages.SETS[name]))
    return f"not installed{some}: {packages.how_to_install(name)}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _gpu() -> str:
    if not any(driver.exists() for driver in DRIVERS):
        return "no NVIDIA driver seen"
    if packages.missing("torch"):
        return f"an NVIDIA driver, but no PyTorch to use it: {packages.how_to_install('torch')}"
    return _card() or "an NVIDIA driver, but PyTorch sees no CUDA device"


def _card() -> str | None:
    """Return the GPU that PyTorch would use."""
    if packages.missing("torch") or not any(driver.exists() for driver in DRIVERS):
        return None
    import torch  # takes seconds

    if not torch.cuda.is_available():
        return None
    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"


def _engine() -> str:
    """Return the engine that `extract.engine: auto` chooses, as in `backbones/engines`."""
    if _card():
        return "torch, on the GPU"
    if packages.missing("openvino"):
        return "onnxruntime; bfloat16 needs OpenVINO or a GPU"
    return "onnxruntime; for bfloat16 openvino"


def _bfloat16() -> str:
    """Return how to choose bfloat16; empty if it would not be faster or is chosen already."""
    from pipeline.backbones.engines import processor
    from pipeline.core import params, paths

    section = params.document_in(paths.PARAMS).get("extract") if paths.PARAMS.exists() else None
    chosen = isinstance(section, dict) and section.get("precision") == "bfloat16"
    return "" if _card() or chosen else processor.advice()


def _store() -> str:
    from pipeline.store import database, places

    folder, limit = places.default_folder(), places.default_limit()
    most = "no limit" if limit is None else f"limit {limit / 1e9:g} GB"
    if address := places.default_address():  # without a request to the server
        lacks = "" if not packages.missing("s3") else f"; {packages.how_to_install('s3')}"
        return f"{address}, {most}{lacks}; exports and checkpoints in {folder}"
    file = database.features_file(folder)
    size = sum(part.stat().st_size for part in folder.glob(f"{file.name}*"))
    said = f"{folder}, {size / 1e6:,.1f} MB, {most}"
    if not file.exists():
        said += "; begun by the first run"
    elif file.open("rb").read(16) not in (b"SQLite format 3\0", b""):
        return f"{said}; damaged: the next run sets it aside and begins a new one"
    above = _nearest(folder)
    if not (above.is_dir() and os.access(above, os.W_OK)):
        return (
            f"{said}; cannot be written to: set store.folder in params.yaml (or HEADSTART_STORE) to"
            " another folder"
        )
    return said


def _disk() -> str:
    from pipeline.store import places

    folder = _nearest(places.default_folder())
    return f"{shutil.disk_usage(folder).free / 1e9:,.1f} GB free in {folder}"


def _nearest(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def _seen(look: Callable[[], str]) -> str:
    """Return the result of `look`, or its error in one line."""
    try:
        return look()
    except (errors.HeadstartError, OSError, ImportError, RuntimeError) as error:
        return f"cannot be read: {' '.join(str(error).split())}"


def _git() -> str:
    git = shutil.which("git")
    if git is None:
        return "not installed: DVC needs it"
    done = subprocess.run([git, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip().removeprefix("git version ") or "cannot be run"
