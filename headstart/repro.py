"""`headstart repro`: check the project, then run what changed with DVC."""

import os
import sys
from pathlib import Path

from flows.dvc.project import check_project, working_copy
from pipeline.core.paths import REPORT


def run(arguments: list[str]) -> None:
    """Check the project, then run `dvc repro` with these arguments, and exit as it does.

    After a run of the whole project the last line has the path of its report.
    """
    root = working_copy()
    check_project(root)
    # Stages run `headstart` or `python`: those of this installation, whatever the PATH was.
    here = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", "")])
    from dvc.cli import main  # slow, and not needed if the project is refused

    from flows.dvc.forked import forked
    from flows.dvc.process import look_once, parse_once

    with look_once(), parse_once(), forked():
        code = main(["repro", *arguments])
    whole = all(argument.startswith("-") for argument in arguments)
    if not code and whole and (root / REPORT).exists():
        print(f"Report: {root / REPORT}")
    sys.exit(code)
