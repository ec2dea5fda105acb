"""Running a stage as a command: an error is one line on stderr and an exit code."""

import os
import sys
from collections.abc import Callable

from pipeline.errors import HeadstartError


def run(stage: Callable[[], None]) -> None:
    """Run `stage`; turn a `HeadstartError` into its one line and its exit code.

    With `--debug` on the command line, or `HEADSTART_DEBUG` set, the traceback is kept.
    """
    debug = "--debug" in sys.argv or bool(os.environ.get("HEADSTART_DEBUG"))
    try:
        stage()
    except HeadstartError as error:
        if debug:
            raise
        print(f"{stage.__name__}: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
