"""Run a function as a command: an error is one line on stderr and an exit code."""

import argparse
import atexit
import errno
import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import IO, Any, NoReturn, cast

from . import packages, plugins, terminal
from .errors import DiskError, HeadstartError, MissingSetError, ParamsError


def debug_option() -> argparse.ArgumentParser:
    """Return the option `--debug`, as a parent parser."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS,
        help="show the traceback of an error",
    )
    return parser


def need(set_name: str, stage: str) -> None:
    """End with one line if `stage` needs an extra that is not installed.

    A stage calls this before it imports those packages.
    """
    try:
        packages.need(set_name, stage)
    except MissingSetError as error:
        print(f"{stage}: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def run_module(
    module: str,
    description: str | None,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    work: Callable[..., None],
    has_colours: bool = False,
) -> None:
    """Run `work` as `python -m MODULE`, with the arguments that `add_arguments` defines."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, parents=[debug_option()]
    )
    add_arguments(parser)
    run_parsed(module.rpartition(".")[2], work, vars(parser.parse_args()), has_colours)


def run_parsed(
    name: str, work: Callable[..., None], asked: dict[str, Any], has_colours: bool = False
) -> None:
    """Run `work` with these arguments; messages on errors begin with `name`."""
    asked.pop("debug", None)  # `run` finds it on the command line

    def stage() -> None:
        work(**asked)

    stage.__name__ = name
    run(stage, takes_arguments=True, has_colours=has_colours)


def run(
    stage: Callable[[], None], takes_arguments: bool = False, has_colours: bool = False
) -> None:
    """Run `stage`; turn any error into one line and an exit code.

    A stage reads all that it needs from params.yaml, and has no arguments on the command line. If
    the user gives any, it ends before any work, because the work would delete the last results.
    With `takes_arguments`, the function parses the arguments itself.

    A `HeadstartError` has its own exit code, a disk error that of `DiskError`, and an error in
    `plugins/` that of `ParamsError`. Any other error is a bug in Headstart, with exit code 1. With
    `--debug` on the command line, or `HEADSTART_DEBUG` set, the traceback is kept.

    Printed names of files and classes may contain control characters, which are therefore escaped.
    A command that `has_colours` is the exception: its lines come from a library, not from data.
    """
    printed = sys.stdout if has_colours else cast(IO[str], terminal.Printable(sys.stdout))
    with redirect_stdout(printed):
        _run(stage, takes_arguments)


def _run(stage: Callable[[], None], takes_arguments: bool) -> None:
    # Garbage collection scans all objects, modules too, again and again, and once at exit. That is
    # a sixth of `extract` for 100,000 examples, and 0.4 s of every stage. Frozen objects are not
    # scanned.
    gc.freeze()
    atexit.register(gc.freeze)
    unknown = [argument for argument in sys.argv[1:] if argument != "--debug"]
    if unknown and not takes_arguments:
        given = " ".join(unknown)
        _end(stage, ParamsError(f"{given!r} is not understood; give no argument, or --debug"))
    if "--debug" in sys.argv or os.environ.get("HEADSTART_DEBUG"):
        stage()
        return
    try:
        stage()
    except BrokenPipeError:  # `| head` has stopped reading; the remaining output is discarded
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        interrupted(stage.__name__)
    except Exception as error:
        _end(stage, in_words(error))


def interrupted(name: str) -> None:
    """Print that Ctrl-C ended the command `name`, and end by SIGINT, so that the parent sees it."""
    print(f"{name}: interrupted", file=sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


def in_words(error: Exception) -> HeadstartError:
    """Convert any exception to an error with a message of one line."""
    if isinstance(error, HeadstartError):
        return error
    if isinstance(error, OSError):
        return _disk_error(error)
    if plugins.raised_in(error):
        return ParamsError(plugins.in_words(error))
    reason = " ".join(str(error).split())[:300]
    return HeadstartError(
        f"{type(error).__name__}: {reason}; this is a bug, please report it;"
        " HEADSTART_DEBUG=1 shows where it happened"
    )


def _disk_error(error: OSError) -> DiskError:
    """Explain an operating system's error about any file, so that stages need not catch it."""
    name = error.filename2 or error.filename  # the former is the target of a move
    file = f"{name}: " if name else ""
    reason = error.strerror or " ".join(str(error).split())
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskError(f"{file}{reason}; free some disk space and run again, nothing is lost")
    return DiskError(f"{file}{reason}; check that it can be read and written, and run again")


def _end(stage: Callable[[], None], error: HeadstartError) -> NoReturn:
    print(f"{stage.__name__}: error: {terminal.printable_lines(str(error))}", file=sys.stderr)
    sys.exit(error.exit_code)
