"""Record a flow run in which there is nothing to do.

Prefect takes longer to import than DVC takes to find that nothing changed. To make a check cheap,
such a run is reported to Prefect's server over its REST API, as the flow would report it.
"""

import http.client
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.core.errors import BusyError, MayPassError, StageError

from . import access, artifacts, server
from .dvc.claim import Claim
from .dvc.pool import ask_warm

NOTHING = "nothing to do"


def noted(root: Path, api: str, targets: list[str], say: Callable[[str], object]) -> bool:
    """Return whether DVC has nothing to do for `targets`; if so, record that as a flow run.

    `say` is then called with each of the last lines for a person, as in `flows.run`. If anything is
    unusual, the result is False, and the flow handles it.
    """
    try:
        with Claim(root, "refuse") as claim:
            if claim.died:
                return False
            claim.sign(run="a look at what is to be done")
            plan = ask_warm(root, "plan", targets=targets, force=False)
            if any(stage["changed"] for stage in plan["stages"]):
                return False
            _note(root, api, targets, plan, say)
            return True
    except (BusyError, MayPassError, StageError, OSError, http.client.HTTPException):
        return False


class _Server:
    """Prefect's REST API, over one connection."""

    def __init__(self, api: str) -> None:
        address = urlsplit(api)
        secure = address.scheme == "https"
        connection = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._connection = connection(address.netloc, timeout=10)
        self._path = address.path
        # If only Prefect's profile has the password, the server refuses, and the flow handles it.
        who = access.header(access.bring(api))
        self._headers = {"Content-Type": "application/json", **who}

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        content = json.dumps(body)
        self._connection.request("POST", f"{self._path}/{path}", content, self._headers)
        reply = self._connection.getresponse()
        text = reply.read()
        if reply.status >= 300:
            raise OSError(f"{path}: {reply.status} {text[:200]!r}")
        answer: dict[str, Any] = json.loads(text)
        return answer


def _note(
    root: Path,
    api: str,
    targets: list[str],
    plan: dict[str, Any],
    say: Callable[[str], object],
) -> None:
    prefect = _Server(api)
    flow = prefect.post("flows/", name="headstart")["id"]
    begun = {"type": "RUNNING", "name": "Running"}
    run = prefect.post("flow_runs/", flow_id=flow, parameters={"targets": targets}, state=begun)
    ids: dict[str, str] = {}
    steps: dict[str, dict[str, Any]] = {}
    for stage in plan["stages"]:
        name, upstream = stage["name"], stage["upstream"]
        ids[name] = prefect.post(
            "task_runs/",
            flow_run_id=run["id"],
            name=name,
            task_key=name,
            dynamic_key=name,
            task_inputs={
                "wait_for": [{"input_type": "task_run", "id": ids[up]} for up in upstream]
            },
            state={"type": "COMPLETED", "name": "Cached", "message": NOTHING},
        )["id"]
        steps[name] = {"upstream": upstream, "outcome": "cached", "message": NOTHING}
        print(f"{name}: cached; {NOTHING}")
    report = artifacts.report(root, [out for stage in plan["stages"] for out in stage["outs"]])
    outcome = artifacts.outcome(root.name, steps, report)
    prefect.post("artifacts/", flow_run_id=run["id"], **outcome)
    if plan["metrics"]:
        same = artifacts.metrics(root.name, plan["metrics"], plan["metrics"])
        prefect.post("artifacts/", flow_run_id=run["id"], **same)
    done = {"type": "COMPLETED", "name": "Completed", "message": f"{len(ids)} cached"}
    prefect.post(f"flow_runs/{run['id']}/set_state", state=done, force=True)
    say(f"Completed: {len(ids)} cached")
    page = f"{api.removesuffix('/api')}/runs/flow-run/{run['id']}" if api.endswith("/api") else None
    for line in server.where_to_look(report, page):
        say(line)
