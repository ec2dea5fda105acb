"""Bring the pipeline up to date, as a Prefect flow: `headstart flow [STAGE ...]`."""

import argparse
import atexit
import contextlib
import gc
import json
import os
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

from pipeline.core import command

from . import access, server, uptodate
from .dvc.experiment import check_overrides
from .dvc.pool import warm_up
from .dvc.project import check_project, working_copy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the parameters of the flow."""
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="STAGE",
        help="stages to run (default: all stages of dvc.yaml)",
    )
    parser.add_argument(
        "--force", action="store_true", help="run the stages even if nothing changed"
    )
    parser.add_argument(
        "--set",
        action="append",
        type=_override,
        dest="overrides",
        metavar="KEY=VALUE",
        help="run a DVC experiment with this value instead of the value in params.yaml",
    )
    parser.add_argument("--name", help="name of the DVC experiment")
    parser.add_argument(
        "--update",
        action="store_true",
        help="update imported data with dvc update before the stages run",
    )
    parser.add_argument(
        "--pull", action="store_true", help="pull from the DVC remote before the stages run"
    )
    parser.add_argument(
        "--push", action="store_true", help="push to the DVC remote after the stages have run"
    )
    parser.add_argument(
        "--remote",
        metavar="NAME",
        help="name of the DVC remote (default: the default remote of DVC)",
    )
    parser.add_argument(
        "--gate",
        type=_gate_parameters,
        metavar="JSON",
        help="let the gate decide whether the new result replaces the old one; parameters as JSON,"
        ' such as {"when_worse": "keep"}',
    )
    parser.add_argument(
        "--when-busy",
        choices=["wait", "refuse"],
        default="wait",
        help="if another run uses this working copy, wait (default) or refuse to run",
    )


def _override(text: str) -> str:
    """Return an override of a parameter; the experiment checks the parameter's name and value."""
    if "=" not in text and not text.startswith("~"):  # ~KEY removes a line
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE, such as train.seed=1")
    return text


def _gate_parameters(text: str) -> dict[str, Any]:
    """Return the gate's parameters, which `stop_if_wrong` checks."""
    with contextlib.suppress(ValueError):
        if isinstance(found := json.loads(text), dict):
            return found
    raise argparse.ArgumentTypeError(f'{text!r} is not JSON such as \'{{"when_worse": "keep"}}\'')


def run(**asked: Any) -> None:
    """Run the flow; exit with 0 if all is up to date, with 1 if it failed or was cancelled."""
    last: list[str] = []
    # Prefect ends a server for a single run in an exit handler that prints a line. That handler is
    # registered later and so runs before this one: these lines are the last.
    atexit.register(lambda: [print(line) for line in last])
    sys.exit(0 if bring_up_to_date(asked, last.append) else 1)


def bring_up_to_date(asked: dict[str, Any], say: Callable[[str], object]) -> bool:
    """Run the flow with these arguments, unless nothing has changed; return True on success.

    `say` is called at the end with each line of the results, for the user.

    Raises:
        HeadstartError: this is not a project, or the project, `--set` or `--gate` is not valid.
        RunError: Prefect has no folder to write to, or its server refuses the password.
    """
    os.environ |= server.QUIET
    root = working_copy()
    # The flow checks this too, but a server for this run alone takes long to start.
    check_project(root, pulls=bool(asked.get("pull")))
    check_overrides(root, asked["overrides"] or [])
    if api := server.find(root):
        os.environ["PREFECT_API_URL"] = api
    else:
        server.stop_without_home()
    # A server for this run alone may have to create its database first.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "300")
    if not asked["overrides"]:
        warm_up(root)
    # Not before now, because Prefect reads its settings at import.
    importing = threading.Thread(target=_import_prefect)
    importing.start()
    plain = {"targets", "when_busy"}
    others = any(value for knob, value in asked.items() if knob not in plain)
    if not others and uptodate.answered(root, api, asked["targets"], say, importing.join):
        return True
    importing.join()  # two threads that import at once would see half of a module
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )
    from prefect.utilities.urls import url_for

    from .gate import stop_if_wrong
    from .headstart import headstart

    if asked.get("gate") is not None:
        stop_if_wrong(asked["gate"])
    if known := PREFECT_API_URL.value():
        server.stop_if_silent(known)
    server.stop_without_database()
    # At the end, a run waits up to a second for its heartbeat. Heartbeats serve automations that
    # watch the runs of workers; at a terminal a person watches.
    with access.admitted(), temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        state = headstart(**asked, return_state=True)
    done = bool(state.is_completed())
    page = url_for("flow-run", obj_id=state.state_details.flow_run_id)
    say(f"{state.name}: {state.message}")
    report: Any = state.result() if done else None
    for line in server.where_to_look(report, page):
        say(line)
    return done


def _import_prefect() -> None:
    """Import Prefect, while DVC looks for changes; both take about the same time."""
    gc.disable()  # an import allocates much and frees nothing
    with contextlib.suppress(Exception):  # whoever needs Prefect imports it again, and sees why
        import_module(f"{__package__}.headstart")
    gc.enable()


if __name__ == "__main__":
    command.run_module(f"{__package__}.run", __doc__, add_arguments, run)
