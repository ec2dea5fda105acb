"""The working copy of a run, and checks on it."""

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pipeline.core import lock
from pipeline.core.errors import DataError, ParamsError, RunError
from pipeline.core.paths import CORRECTIONS, LOCK, MANIFEST, MAP, PARAMS, WEIGHTS
from pipeline.core.plugins import FOLDER
from pipeline.core.starter import stamps

CHECKED = Path(".dvc/tmp/headstart.checked")
RWLOCK = Path(".dvc/tmp/rwlock")  # in which DVC notes who reads and who writes a file


def working_copy() -> Path:
    """Return the DVC repository that the current folder is in.

    Raises:
        RunError: the folder is not in a DVC repository.
    """
    here = Path.cwd()
    for folder in [here, *here.parents]:
        if (folder / ".dvc").is_dir():
            return folder
    raise RunError(
        f"{here} is not in a project: change to its folder, or make one with `headstart init`"
    )


def check_project(root: Path, pulls: bool = False) -> None:
    """Check all that a run needs: the lock, `params.yaml`, the examples, and what git tracks.

    DVC's own error messages do not say what to write.

    Raises:
        LockError: the project was made with different code or libraries than are installed.
        ParamsError: the message says in one line what to write.
        DataError: `ingest.path` is missing, no stage or import makes it, and the run does not pull
            it.
        RunError: git tracks an output that DVC keeps, or `dvc.yaml` or a folder that stages read is
            missing.
    """
    file = root / "dvc.yaml"
    if not file.exists():
        raise RunError(f"{file} does not exist: run `git checkout dvc.yaml` if you deleted it")
    graph = file.read_text(encoding="utf-8")
    if not re.search("python -m pipeline[.]|headstart run ", graph):  # another project
        return
    lock.check(root)
    reads, outs, cached, path = _checked(root, graph)
    if Path(path) in MANIFEST.parents:
        raise ParamsError(
            f"ingest.path in {PARAMS} is {path}, in which {MANIFEST} is written: put your"
            " examples into a folder of their own, such as data/raw"
        )
    _stop_without_examples(root, Path(path), outs, pulls)
    _mend_rwlock(root)
    for folder, stage in ((CORRECTIONS, "ingest"), (MAP, "checks")):
        if str(folder) in reads and not (root / folder).is_dir():
            back = f"`git checkout {folder}`"
            if (root / LOCK).exists():
                back = f"`headstart upgrade`, or {back} if you deleted it"
            raise RunError(f"the folder {folder}, which {stage} reads, is missing: run {back}")
    if not cached:  # without a path, git would list all files
        return
    try:
        asked = ["git", "ls-files", "--", *cached]
        done = subprocess.run(asked, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:  # git is not installed
        return
    if names := " ".join(done.stdout.split("\n")).strip():
        raise RunError(f"git tracks what DVC keeps: run `git rm -r --cached {names}`, then commit")


def _stop_without_examples(root: Path, path: Path, outs: list[str], pulls: bool) -> None:
    """Stop if `ingest.path` is missing: DVC would remove the outputs of `ingest`, and then fail.

    A path that a stage or an import makes may be missing.
    """
    made = {Path(out) for out in outs}
    above = [path, *path.parents[:-1]]
    if (root / path).exists() or made.intersection(above):
        return
    for note in [f"{one}.dvc" for one in above if (root / f"{one}.dvc").exists()]:
        is_import = "deps:" in (root / note).read_text(encoding="utf-8")
        if pulls or is_import:
            return
        raise DataError(
            f"{path} is missing, which {note} names: run `dvc checkout {note}`, or `dvc pull"
            f" {note}` if this machine never had it"
        )
    beside = root / path.parent
    names = {one.name.removesuffix(".dvc") for one in beside.glob("[!.]*")}
    has = f" ({path.parent} has {', '.join(sorted(names)[:9])})" if names else ""
    raise DataError(
        f"ingest.path in {PARAMS} is {path}, which does not exist{has}: put your examples there, or"
        " name the folder or table that has them"
    )


def _mend_rwlock(root: Path) -> None:
    """Delete DVC's notes if a process was killed as it wrote them: DVC would fail from then on."""
    with contextlib.suppress(OSError):
        for _ in range(2):
            try:
                json.loads((root / RWLOCK).read_bytes())
            except ValueError:
                time.sleep(0.2)  # another process may be writing them now
            else:
                return
        (root / RWLOCK).unlink()


def _checked(root: Path, graph: str) -> tuple[list[str], list[str], list[str], str]:
    """Check `params.yaml`; return what the stages in `graph` read and write, and `ingest.path`.

    Outputs with `cache: false`, which git may track, are missing from the third list. A check that
    has passed is remembered, because the import of the schema takes longer.
    """
    known = blake2b(digest_size=16)
    for part in _checked_by(root, graph):
        known.update(part)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads((root / CHECKED).read_bytes())
        if kept["known"] == known.hexdigest():
            return kept["reads"], kept["outs"], kept["cached"], kept["path"]
    from pipeline import kinds  # slow
    from pipeline.core import params

    settings = params.check_file(kinds.schema, root)
    if settings.finetune.run or settings.from_scratch.run:
        kinds.stop_if_windowed(kinds.named(settings.ingest.kind))
    path = str(settings.ingest.path)
    stages = params.stages_in(graph).values()
    reads = [dep for stage in stages for dep in stage.get("deps", [])]
    entries = [out for stage in stages for out in stage.get("outs", [])]
    options: dict[str, Any] = {}
    for entry in entries:
        options |= entry if isinstance(entry, dict) else {entry: None}
    outs = list(options)
    cached = [
        out
        for out, has in options.items()
        if not (isinstance(has, dict) and has.get("cache") is False)
    ]
    with contextlib.suppress(OSError):  # it is checked again
        (root / CHECKED).parent.mkdir(exist_ok=True)
        kept = {"known": known.hexdigest(), "reads": reads, "outs": outs, "path": path}
        kept["cached"] = cached
        (root / CHECKED).write_text(json.dumps(kept), encoding="utf-8")
    return reads, outs, cached, path


def _checked_by(root: Path, graph: str) -> Iterator[bytes]:
    """Yield all that decides whether `params.yaml` passes."""
    yield graph.encode() + b"\0"
    with contextlib.suppress(OSError):
        yield (root / PARAMS).read_bytes() + b"\0"
    # The code of Headstart, and installed packages.
    yield repr([sys.path, sorted(stamps().items())]).encode()
    for folder in (root / FOLDER, root / WEIGHTS):
        yield repr(folder.is_dir()).encode()
    for file in sorted((root / FOLDER).rglob("*")):
        with contextlib.suppress(OSError):
            stat = file.stat()
            yield f"{file}\0{stat.st_ino} {stat.st_size} {stat.st_mtime_ns}".encode()
