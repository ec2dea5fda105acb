"""The working copy of a run, and checks on it."""

import re
import subprocess
from pathlib import Path

from pipeline import kinds
from pipeline.core import lock, params
from pipeline.core.errors import RunError
from pipeline.core.paths import CORRECTIONS, LOCK


def working_copy() -> Path:
    """Return the DVC repository that the current folder is in.

    Raises:
        RunError: the folder is not in a DVC repository.
    """
    here = Path.cwd()
    for folder in [here, *here.parents]:
        if (folder / ".dvc").is_dir():
            return folder
    raise RunError(f"{here} is not in a DVC repository: change to one, or run `dvc init`")


def check_project(root: Path) -> None:
    """Check that `headstart.lock`, `params.yaml` and git fit `dvc.yaml` and what is installed.

    DVC's own error messages do not say what to write.

    Raises:
        LockError: the project was made with different code or libraries than are installed.
        ParamsError: the message says in one line what to write.
        RunError: git tracks an output that DVC keeps, or the folder of corrections is missing.
    """
    file = root / "dvc.yaml"
    graph = file.read_text(encoding="utf-8") if file.exists() else ""
    if not re.search("python -m pipeline[.]|headstart run ", graph):  # another project
        return
    lock.check(root)
    params.check_file(kinds.schema, root)
    stages = params.stages_in(graph).values()
    reads = any(str(CORRECTIONS) in stage.get("deps", []) for stage in stages)
    if reads and not (root / CORRECTIONS).is_dir():
        what = "headstart upgrade" if (root / LOCK).exists() else f"git checkout {CORRECTIONS}"
        raise RunError(f"the folder {CORRECTIONS}, which ingest reads, is missing: run `{what}`")
    entries = [out for stage in stages for out in stage.get("outs", [])]
    outs = [out for entry in entries for out in (entry if isinstance(entry, dict) else [entry])]
    try:
        asked = ["git", "ls-files", "--", *outs]
        done = subprocess.run(asked, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:  # git is not installed
        return
    if names := " ".join(done.stdout.split("\n")).strip():
        raise RunError(f"git tracks what DVC keeps: run `git rm -r --cached {names}`, then commit")
