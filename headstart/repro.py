"""`headstart repro`: check the project, then run what changed with DVC."""

import os
import sys
from pathlib import Path

from flows.dvc.project import check_project, working_copy


def run(arguments: list[str]) -> None:
    """Check the project, then replace this process with `dvc repro` and these arguments."""
    check_project(working_copy())
    # Stages run `headstart` or `python`: those of this installation, whatever the PATH was.
    here = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", "")])
    # -P: a module of the project must not shadow anything that DVC imports.
    dvc = [sys.executable, "-P", "-m", "dvc", "repro", *arguments]
    os.execv(sys.executable, dvc)  # noqa: S606 (a fixed command)
