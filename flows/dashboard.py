"""Open Prefect's dashboard: `headstart dashboard`."""

import argparse
import html
import os
import signal
import sys
import webbrowser
from pathlib import Path

from pipeline.core import command

from . import access, server
from .dvc.project import working_copy

LEADS = Path(".headstart/dashboard.html")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the server."""
    server.add_arguments(parser)


def run(host: str, port: int, name: list[str] | None = None) -> None:
    """Start a Prefect server and run it until interrupted, unless one is up at this address.

    Raises:
        RunError: this is not a DVC repository, or a server does not start or refuses the password.
    """
    root = working_copy()
    with server.running(root, host, port, name) as api:
        page = access.let_in(api)
        once = " (it logs your browser in, and works once)" if page else ""
        page = page or api.removesuffix("/api")
        print(f"the dashboard is at {page}{once}; Ctrl-C ends it", flush=True)
        if sys.platform == "darwin" or {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
            webbrowser.open(leads_to(page, root / LEADS))
        ends = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # else they would end us while we wait
        signal.sigwait(ends)


def leads_to(page: str, file: Path) -> str:
    """Write `file`, which redirects a browser to `page`, and return the address of `file`.

    All users of a machine can see the command line of a browser, and the page's address contains
    the code that logs this browser in.
    """
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    file.touch(0o600)
    file.write_text(f'<meta http-equiv="refresh" content="0; url={html.escape(page)}">\n')
    return file.absolute().as_uri()


if __name__ == "__main__":
    command.run_module(f"{__package__}.dashboard", __doc__, add_arguments, run)
