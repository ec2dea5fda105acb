"""The end of flow runs that are cancelled or die, and the wait until Prefect has recorded it."""

import contextvars
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Self
from uuid import UUID

import httpx
from prefect import State
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Crashed

SECONDS_BETWEEN_LOOKS = 2.0
PATIENCE_SECONDS = 10.0  # for a server of this run alone to record how the task runs ended


class Cancellation:
    """Calls `stop` when the flow run is cancelled on the dashboard; use it in a `with` block.

    A worker sends SIGTERM to the runs that it started, but a run started at a terminal has to ask
    the server itself. If the worker of a run dies, the run ends as if the worker had sent SIGTERM.
    """

    def __init__(self) -> None:
        """Prepare to check the state of the run."""
        self.asked = threading.Event()
        self.stop: Callable[[], None] = lambda: None
        self._over = threading.Event()
        self._worker = os.getppid() if "PREFECT__FLOW_RUN_ID" in os.environ else None
        in_this_run = contextvars.copy_context()
        self._thread = threading.Thread(target=in_this_run.run, args=(self._look,), daemon=True)

    def _look(self) -> None:
        client = None
        while not self._over.wait(SECONDS_BETWEEN_LOOKS):
            if self._worker and os.getppid() != self._worker:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            try:
                client = client or get_client(sync_client=True)
                state = client.read_flow_run(flow_run.id).state
            except httpx.HTTPError:  # the server does not answer at this moment
                continue
            if state and state.type is StateType.CANCELLING:
                self.asked.set()
                self.stop()
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()


def wait_until_recorded(names: set[str]) -> None:
    """Wait until the server that Prefect started for this run alone knows how task runs ended.

    Prefect reports that in the background, and sends SIGTERM to its server as soon as the flow has
    ended. The server then drops what it has not recorded yet, prints a traceback, and shows those
    task runs as Running from then on. `names` are the task runs to wait for.
    """
    if PREFECT_API_URL.value():  # a server that keeps running
        return
    end = time.monotonic() + PATIENCE_SECONDS
    of_this = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run.id)]))
    with get_client(sync_client=True) as client:
        while time.monotonic() < end:
            states = {run.name: run.state for run in client.read_task_runs(flow_run_filter=of_this)}
            # NotReady is not a final state, but tasks below a failed stage stay in it.
            over = {n for n, s in states.items() if s and (s.is_final() or s.name == "NotReady")}
            if names <= over:
                return
            time.sleep(0.1)


def bury(died: dict[str, Any]) -> None:
    """Mark a flow run whose process died as crashed, since the process could not do so itself.

    `died` is what the process wrote into its claim (see `flows.dvc.claim`). Runs of other servers
    are left alone.
    """
    message = f"its process {died.get('pid')} died, as the next run found"
    crashed: State[Any] = Crashed(message=message)
    with get_client(sync_client=True) as client:
        try:
            run = client.read_flow_run(UUID(died["id"]))
        except (KeyError, ObjectNotFound):
            return
        if run.state and run.state.is_final():
            return
        of_it = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        for task_run in client.read_task_runs(flow_run_filter=of_it):
            if task_run.state and task_run.state.is_running():
                client.set_task_run_state(task_run.id, crashed, force=True)
        client.set_flow_run_state(run.id, crashed, force=True)
