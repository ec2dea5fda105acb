"""Serve the deployments of prefect.yaml, and watch the data: `python -m flows.serve`."""

import argparse
import os
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from flows import access, server, watch
from flows.dvc.project import working_copy
from pipeline.core import command

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment


def main() -> None:
    """Start a Prefect server if none answers, then run what is due until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.serve", description=__doc__, parents=[command.debug_option()]
    )
    server.add_arguments(parser)
    watch.add_arguments(parser)
    asked = parser.parse_args()

    def serve() -> None:
        run(asked.host, asked.port, asked.look_at, asked.look_every, asked.name)

    command.run(serve, takes_arguments=True, has_colours=True)


def run(
    host: str, port: int, look_at: list[Path], look_every: float, names: list[str] | None = None
) -> None:
    """Serve the deployments and look at the data, until interrupted.

    Raises:
        RunError: this is no DVC repository, or a server does not start or let us in.
    """
    root = working_copy()
    with ExitStack() as stack:
        api = stack.enter_context(server.running(root, host, port, names))
        os.environ |= server.QUIET | {"PREFECT_API_URL": api}
        # Only now, for Prefect reads its settings when it is imported.
        from prefect import serve

        stack.enter_context(access.admitted())
        found = deployments(root / "prefect.yaml")
        end = threading.Event()
        stack.callback(end.set)
        looking = threading.Thread(
            target=watch.watch,
            args=(root, look_at, look_every, watch.start_run, end),
            daemon=True,
        )
        looking.start()
        see = access.let_in(api) or api.removesuffix("/api")
        print(f"serving {', '.join(d.name for d in found)}; see {see}", flush=True)
        # It pauses the schedules when it ends, so that missed nights are not made up for at once.
        serve(*found)


def deployments(declared: Path) -> "list[RunnerDeployment]":
    """The deployments that prefect.yaml declares, to be run by this process."""
    from prefect.schedules import Schedule

    from flows.headstart import headstart

    content: dict[str, Any] = yaml.safe_load(declared.read_text())
    to_deployment: Any = headstart.to_deployment  # in the face of its being async as well
    return [
        to_deployment(
            name=one["name"],
            description=one.get("description"),
            parameters=one.get("parameters"),
            schedules=[Schedule(**schedule) for schedule in one.get("schedules", [])],
        )
        for one in content["deployments"]
    ]


if __name__ == "__main__":
    main()
