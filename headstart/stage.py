"""Run one stage of the pipeline: `headstart run STAGE`, the command of a project's `dvc.yaml`.

A stage starts as fast as with `python -m pipeline.STAGE`: little else is imported for it. First
`headstart.lock` is compared with what is installed (40 ms).
"""

import runpy
import sys
from pathlib import Path

from pipeline import __name__ as package
from pipeline import __path__ as folders
from pipeline.core import lock
from pipeline.core.errors import LockError


def names() -> list[str]:
    """Return the names of all stages: the modules of `pipeline`, whose folders are not stages."""
    return sorted(file.stem for file in Path(folders[0]).glob("[!_]*.py"))


def run(stage: str) -> None:
    """Run `stage` as the main module, with the arguments that follow its name."""
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument not in ("run", stage)]
    try:
        lock.check()
    except LockError as error:
        print(f"{stage}: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    runpy.run_module(f"{package}.{stage}", run_name="__main__", alter_sys=True)
