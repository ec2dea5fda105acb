"""`headstart repro`: check the project, then run what changed with DVC."""

import contextlib
import logging
import os
import shutil
import sys
from pathlib import Path

from flows.dvc.claim import KEPT, Claim
from flows.dvc.project import check_project, working_copy
from pipeline.core.errors import BusyError
from pipeline.core.paths import REPORT


def run(arguments: list[str]) -> None:
    """Check the project, then run `dvc repro` with these arguments, and exit as it does.

    After a run of the whole project, the last line has the path of its report. If a stage ran, the
    line before it says how to commit: DVC's own list of files lacks metrics and corrections.
    """
    root = working_copy()
    check_project(root, pulls="--pull" in arguments)
    # Stages run `headstart` or `python`: those of this installation, whatever the PATH was.
    here = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", "")])
    from dvc.cli import main  # slow, and not needed if the project is refused

    from flows.dvc.forked import forked
    from flows.dvc.once import look_once, parse_once
    from flows.dvc.process import noted_commands

    logging.getLogger("dvc.repo.scm_context").setLevel(logging.WARNING)
    forks = forked(root if _will_run(root, arguments) else None)
    with look_once(), noted_commands() as ran, parse_once(), forks:
        code = main(["repro", *arguments])
    if not code and "--dry" not in arguments:
        _forget(root)
    whole = all(argument.startswith("-") for argument in arguments)
    if not code and ran and any((folder / ".git").exists() for folder in (root, *root.parents)):
        print("To commit what changed: git add --all && git commit")
    if not code and whole and (root / REPORT).exists():
        print(f"Report: {root / REPORT}")
    sys.exit(code)


def _forget(root: Path) -> None:
    """Delete the result that an interrupted run with a gate kept: the new one has replaced it.

    A flow without a gate does the same. A flow that is at work now still needs what it kept.
    """
    if not (root / KEPT).exists():
        return
    with contextlib.suppress(BusyError), Claim(root, "refuse"):
        shutil.rmtree(root / KEPT, ignore_errors=True)


def _will_run(root: Path, arguments: list[str]) -> bool:
    """Return whether a stage will probably run: a file that people change is newer than dvc.lock.

    The answer decides only when the stages' code is imported.
    """
    lock = root / "dvc.lock"
    files = [root / "params.yaml", root / "dvc.yaml", *(root / "data" / "raw").glob("*.dvc")]
    there = [file.stat().st_mtime_ns for file in files if file.exists()]
    forced = {"-f", "--force"} & {*arguments}
    return bool(forced) or not lock.exists() or max(there, default=0) > lock.stat().st_mtime_ns
