"""Running a stage as a command: an error is one line on stderr and an exit code."""

import errno
import os
import sys
from collections.abc import Callable

from pipeline.errors import DiskError, HeadstartError


def run(stage: Callable[[], None]) -> None:
    """Run `stage`; turn a `HeadstartError`, or a failing disk, into one line and an exit code.

    With `--debug` on the command line, or `HEADSTART_DEBUG` set, the traceback is kept.
    """
    debug = "--debug" in sys.argv or bool(os.environ.get("HEADSTART_DEBUG"))
    try:
        stage()
    except HeadstartError as error:
        if debug:
            raise
        _end(stage, error)
    except OSError as error:
        if debug:
            raise
        _end(stage, _disk_error(error))


def _disk_error(error: OSError) -> DiskError:
    """What the operating system said, in words; a stage cannot foresee it at every file."""
    file = f"{error.filename}: " if error.filename else ""
    said = error.strerror or " ".join(str(error).split())
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskError(f"{file}{said}; free some disk space and run again, nothing is lost")
    return DiskError(f"{file}{said}; see that it can be read and written, and run again")


def _end(stage: Callable[[], None], error: HeadstartError) -> None:
    print(f"{stage.__name__}: error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
