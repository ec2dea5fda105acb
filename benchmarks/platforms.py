"""On which platforms and Pythons it runs: with the same bytes, resolved only, or not.

For each platform and Python, uv looks for a wheel of each package of each set. If a Python is on
this machine, a fresh clone runs `make repro` with it, and with `--tests yes` its fast tests.
"""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from benchmarks.harness import ROOT, need, run, table

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = {
    "Linux x86_64": "x86_64-manylinux_2_28",
    "Linux aarch64": "aarch64-manylinux_2_39",
    "macOS 14 arm64": "aarch64-apple-darwin",
    "macOS 14 x86_64": "x86_64-apple-darwin",
    "Windows x86_64": "x86_64-pc-windows-msvc",
}
SETS = ("base", "pipeline", "torch", "openvino")
# Has no wheel anywhere; a package of Python alone, which pip and uv build in a moment.
BUILT = "antlr4-python3-runtime"
SAME = ("reports/metrics.json", "reports/predictions.csv", "models/head.safetensors")


def lacking(scratch: Path, name: str, platform: str, python: str) -> str:
    """The package of the set `name` that has no wheel there, or nothing."""
    lock = scratch / f"{name}.lock"
    entries = (ROOT / "requirements" / f"{name}.lock").read_text().split("\n")
    kept, skips = [], False
    for line in entries:
        skips = line.startswith(BUILT) or (skips and line.startswith(" "))
        kept += [] if skips else [line]
    lock.write_text("\n".join(kept))
    done = subprocess.run(
        ["uv", "pip", "install", "--dry-run", "--target", scratch / "target", "--no-deps",
         "--only-binary", ":all:", "--require-hashes", "--python-platform", platform,
         "--python-version", python, "--requirement", lock],
        capture_output=True, text=True, env=os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"},
    )  # fmt: skip
    if done.returncode == 0:
        return ""
    printed = " ".join(re.sub(r"\x1b\[\d+m", "", done.stderr).split())
    found = re.search(r"`([\w.-]+)` \(v[\d.]+\)", printed) or re.search(r"([\w.-]+)==", printed)
    return found[1] if found else printed[:120]


def interpreter(version: str) -> str | None:
    """A Python of that version on this machine, on the PATH or pyenv's."""
    found = [shutil.which(f"python{version}")]
    found += sorted(map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python")))
    for python in filter(None, found):
        if subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
            return python
    return None


def ran(scratch: Path, python: str, tests: bool) -> tuple[str, str]:
    """A digest of what a fresh clone's `make repro` left, and the last line of its tests."""
    clone = scratch / "clone"
    shutil.rmtree(clone, ignore_errors=True)
    run("git", "clone", "--quiet", ROOT, clone)
    environment = {"HEADSTART_STORE": str(scratch / "store" / Path(python).parts[-3])}
    environment |= {"PYTHONPATH": "", "PATH": os.environ["PATH"]}
    run("make", "repro", f"PYTHON={python}", folder=clone, **environment)
    sha = hashlib.sha256(b"".join((clone / name).read_bytes() for name in SAME)).hexdigest()
    if not tests:
        return sha, "not run"
    printed = run("bash", "-c", "make test || true", folder=clone, **environment).gave
    last = [line for line in printed.splitlines() if re.search(r"\d+ passed", line)]
    return sha, re.sub(r"=+| in .*", "", last[-1]).strip() if last else "did not end"


def measure(scratch: Path, tests: str = "no") -> str:
    need(shutil.which("uv"), "uv: pip install uv")
    here = {version: python for version in PYTHONS if (python := interpreter(version))}
    done = {v: ran(scratch, python, tests == "yes") for v, python in here.items()}
    digests = {sha for sha, _ in done.values()}
    rows = []
    for title, platform in PLATFORMS.items():
        cells = []
        for python in PYTHONS:
            missing = {name: lacking(scratch, name, platform, python) for name in SETS}
            sets = [name for name in SETS if not missing[name]]
            if title == "Linux x86_64" and python in done:
                same = "ran, same bytes" if len(digests) == 1 else f"ran, {done[python][0][:8]}"
                cells.append(f"**{same}**; tests: {done[python][1]}")
            elif missing["base"]:
                cells.append(f"no: no wheel of {missing['base']}")
            else:
                without = "; ".join(f"[{n}]: no wheel of {m}" for n, m in missing.items() if m)
                cells.append(f"resolved: {', '.join(sets)}" + f" ({without})" * bool(without))
        rows.append((title, *cells))
    columns = " | ".join(["platform", *PYTHONS])
    return f"""# Platforms and Pythons

'Ran' is `make repro` in a fresh clone on this machine; same bytes are those of `metrics.json`,
`predictions.csv` and `head.safetensors` under all Pythons that ran. 'Resolved' means that every
package of these sets has a wheel for that platform and Python, at the versions and hashes of
`requirements/`; nothing was run there.

{table(columns, rows)}
"""
