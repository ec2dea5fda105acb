"""Running something as a command: an error is one line on stderr and an exit code."""

import argparse
import atexit
import errno
import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import IO, NoReturn, cast

from . import packages, plugins, terminal
from .errors import DiskError, HeadstartError, MissingSetError, ParamsError


def debug_option() -> argparse.ArgumentParser:
    """The option `--debug`, as a parent of a parser."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS,
        help="show the traceback of an error",
    )
    return parser


def need(set_name: str, stage: str) -> None:
    """End with one line if `stage` needs a set of packages that is not installed.

    A stage calls it before it imports what it needs.
    """
    try:
        packages.need(set_name, stage)
    except MissingSetError as error:
        print(f"{stage}: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def run(
    stage: Callable[[], None], takes_arguments: bool = False, has_colours: bool = False
) -> None:
    """Run `stage`; turn whatever it raises into one line and an exit code.

    A stage reads all it needs from params.yaml: unless it `takes_arguments`, and reads them itself,
    one on the command line is refused before any work, which would delete the last results.

    A `HeadstartError` has its own exit code, a failing disk that of `DiskError`, code in `plugins/`
    that of `ParamsError`, and anything else, which is a mistake of ours, 1. With `--debug` on the
    command line, or `HEADSTART_DEBUG` set, the traceback is kept.

    What is printed may name files and classes, so control characters are spelt out on the way, but
    for a command which `has_colours`: a library's own, of which nothing comes from data.
    """
    printed = sys.stdout if has_colours else cast(IO[str], terminal.Printable(sys.stdout))
    with redirect_stdout(printed):
        _run(stage, takes_arguments)


def _run(stage: Callable[[], None], takes_arguments: bool) -> None:
    # Python looks for cycles to free in all it holds, modules too, again and again and as it ends:
    # with 100,000 examples a sixth of `extract`, and 0.4 s of every stage. What is frozen it skips.
    gc.freeze()
    atexit.register(gc.freeze)
    unknown = [argument for argument in sys.argv[1:] if argument != "--debug"]
    if unknown and not takes_arguments:
        given = " ".join(unknown)
        _end(stage, ParamsError(f"{given!r} is not understood; give nothing, or --debug"))
    if "--debug" in sys.argv or os.environ.get("HEADSTART_DEBUG"):
        stage()
        return
    try:
        stage()
    except BrokenPipeError:  # `| head` has seen enough; what is left to print goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        print(f"{stage.__name__}: interrupted", file=sys.stderr)
        # Whoever started this is to see that it ended by the signal.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except Exception as error:
        _end(stage, in_words(error))


def in_words(error: Exception) -> HeadstartError:
    """Whatever was raised, as an error whose text is one line for a person."""
    if isinstance(error, HeadstartError):
        return error
    if isinstance(error, OSError):
        return _disk_error(error)
    if plugins.raised_in(error):
        return ParamsError(plugins.in_words(error))
    reason = " ".join(str(error).split())[:300]
    return HeadstartError(
        f"{type(error).__name__}: {reason}; this was not foreseen, please report it;"
        " HEADSTART_DEBUG=1 shows where it happened"
    )


def _disk_error(error: OSError) -> DiskError:
    """What the operating system raised, in words; a stage cannot foresee it at every file."""
    file = f"{error.filename}: " if error.filename else ""
    reason = error.strerror or " ".join(str(error).split())
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskError(f"{file}{reason}; free some disk space and run again, nothing is lost")
    return DiskError(f"{file}{reason}; see that it can be read and written, and run again")


def _end(stage: Callable[[], None], error: HeadstartError) -> NoReturn:
    print(f"{stage.__name__}: error: {terminal.printable_lines(str(error))}", file=sys.stderr)
    sys.exit(error.exit_code)
