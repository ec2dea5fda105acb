"""Open Prefect's own page: `python -m flows.dashboard`."""

import argparse
import html
import os
import signal
import sys
import webbrowser
from pathlib import Path

from flows import access, server
from flows.dvc.project import working_copy
from pipeline.core import command

LEADS = Path(".headstart/dashboard.html")


def main() -> None:
    """Start a Prefect server and run it until interrupted, unless one is up at this address."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.dashboard", description=__doc__, parents=[command.debug_option()]
    )
    server.add_arguments(parser)
    asked = parser.parse_args()

    def dashboard() -> None:
        root = working_copy()
        with server.running(root, asked.host, asked.port, asked.name) as api:
            page = access.let_in(api)
            once = " (once: the browser is let in from then on)" if page else ""
            page = page or api.removesuffix("/api")
            print(f"the dashboard is at {page}{once}; Ctrl-C ends it", flush=True)
            if sys.platform == "darwin" or {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
                webbrowser.open(leads_to(page, root / LEADS))
            ends = {signal.SIGINT, signal.SIGTERM}
            signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # else they would end us while we wait
            signal.sigwait(ends)

    command.run(dashboard, takes_arguments=True)


def leads_to(page: str, file: Path) -> str:
    """Return the address of `file`, from which a browser goes on to `page`.

    All users of a machine can see the command line of a browser, and the page's address contains
    the code that logs this browser in.
    """
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    file.touch(0o600)
    file.write_text(f'<meta http-equiv="refresh" content="0; url={html.escape(page)}">\n')
    return file.absolute().as_uri()


if __name__ == "__main__":
    main()
