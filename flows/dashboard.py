"""Open Prefect's own page: `python -m flows.dashboard`."""

import argparse
import os
import signal
import sys
import webbrowser

from flows import access, server
from flows.dvc.project import working_copy
from pipeline.core import command


def main() -> None:
    """Start a Prefect server, unless one is up at this address, until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.dashboard", description=__doc__, parents=[command.debug_option()]
    )
    server.add_arguments(parser)
    asked = parser.parse_args()

    def dashboard() -> None:
        with server.running(working_copy(), asked.host, asked.port) as api:
            page = api.removesuffix("/api")
            asks = "; it asks for the user:password" if os.environ.get(access.WANTED) else ""
            print(f"the dashboard is at {page}{asks}; Ctrl-C ends it", flush=True)
            if sys.platform == "darwin" or {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
                webbrowser.open(page)
            ends = {signal.SIGINT, signal.SIGTERM}
            signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # or they would end us, not our waiting
            signal.sigwait(ends)

    command.run(dashboard, takes_arguments=True)


if __name__ == "__main__":
    main()
