"""If a run has nothing to do, show that, and record the run without starting a flow.

A flow takes longer to start than DVC takes to find that nothing changed. To make a check cheap,
such a run is reported to Prefect's server over its REST API, as the flow would report it.
"""

import contextlib
import http.client
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.core.errors import BusyError, MayPassError, StageError

from . import access, artifacts, server
from .dvc.claim import KEPT, Claim
from .dvc.pool import ask_warm

NOTHING = "nothing to do"
BUSY = http.HTTPStatus.SERVICE_UNAVAILABLE  # as Prefect answers while SQLite is locked
SECONDS_UNTIL_ASKED_AGAIN = (0.1, 0.4, 1.6)
NOT_RECORDED = "not recorded, because no Prefect server is up; `headstart dashboard` starts one"


def answered(
    root: Path,
    api: str | None,
    targets: list[str],
    say: Callable[[str], object],
    imported: Callable[[], object],
) -> bool:
    """Return whether DVC has nothing to do for `targets`; if so, show that and record a flow run.

    If no server is configured (`api` is None, and Prefect's settings have no address), nothing is
    recorded: starting a server for that alone would take ten times as long. `say` is called with
    each of the last lines for the user, as in `flows.run`. `imported`, which waits for a thread
    that imports Prefect, is called before Prefect's settings are read. If anything is unusual, the
    function returns False, and the flow handles it.

    Raises:
        StageError: DVC cannot make the plan, and there is no server that could record that.
    """
    try:
        with Claim(root, "refuse") as claim:
            if claim.died or (root / KEPT).exists():  # which a run with a gate left
                return False
            claim.sign(run="a look at what is to be done")
            plan = ask_warm(root, "plan", targets=targets, force=False)
            if any(stage["changed"] for stage in plan["stages"]):
                return False
            report = artifacts.report(root, [o for stage in plan["stages"] for o in stage["outs"]])
            if api:
                page = _record(root, api, targets, plan, report)
            elif _is_configured(imported):
                return False
            else:
                page = NOT_RECORDED
    except StageError:  # a stage is unknown, or dvc.yaml is wrong
        if api or _is_configured(imported):
            return False
        raise
    except (BusyError, MayPassError, OSError, http.client.HTTPException):
        return False
    for stage in plan["stages"]:
        print(f"{stage['name']}: cached; {NOTHING}")
    say(f"Completed: {len(plan['stages'])} cached")
    for line in server.where_to_look(report, page):
        say(line)
    return True


def _is_configured(imported: Callable[[], object]) -> bool:
    """Return whether Prefect's settings, such as its profile, have the address of a server."""
    imported()
    from prefect.settings import PREFECT_API_URL  # imported here because it is slow

    return bool(PREFECT_API_URL.value())


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
        """Send `body`, a few times if the server is busy, and return the answer."""
        answer: dict[str, Any] = json.loads(self._ask("POST", path, json.dumps(body)))
        return answer

    def delete(self, path: str) -> None:
        """Delete what has this path, also after a request that got no answer."""
        self._connection.close()
        self._ask("DELETE", path)

    def _ask(self, method: str, path: str, content: str | None = None) -> bytes:
        for pause in (*SECONDS_UNTIL_ASKED_AGAIN, None):
            self._connection.request(method, f"{self._path}/{path}", content, self._headers)
            reply = self._connection.getresponse()
            text = reply.read()
            if reply.status != BUSY or pause is None:
                break
            time.sleep(pause)
        if reply.status >= 300:
            raise OSError(f"{path}: {reply.status} {text[:200]!r}")
        return text


def _record(
    root: Path, api: str, targets: list[str], plan: dict[str, Any], report: Path | None
) -> str | None:
    """Record the run as the flow would; return its page on the dashboard, if that is known."""
    prefect = _Server(api)
    flow = prefect.post("flows/", name="headstart")["id"]
    begun = {"type": "RUNNING", "name": "Running"}
    run = prefect.post("flow_runs/", flow_id=flow, parameters={"targets": targets}, state=begun)
    try:
        _fill(prefect, run["id"], root.name, plan, report)
    except BaseException:
        # The flow records a run of its own, and this one would be shown as running for ever.
        with contextlib.suppress(OSError, http.client.HTTPException):
            prefect.delete(f"flow_runs/{run['id']}")
        raise
    return f"{api.removesuffix('/api')}/runs/flow-run/{run['id']}" if api.endswith("/api") else None


def _fill(
    prefect: _Server, run: str, project: str, plan: dict[str, Any], report: Path | None
) -> None:
    """Record the stages and the artifacts of the flow run `run`, and that it is completed."""
    ids: dict[str, str] = {}
    steps: dict[str, dict[str, Any]] = {}
    for stage in plan["stages"]:
        name, upstream = stage["name"], stage["upstream"]
        ids[name] = prefect.post(
            "task_runs/",
            flow_run_id=run,
            name=name,
            task_key=name,
            dynamic_key=name,
            task_inputs={
                "wait_for": [{"input_type": "task_run", "id": ids[up]} for up in upstream]
            },
            state={"type": "COMPLETED", "name": "Cached", "message": NOTHING},
        )["id"]
        steps[name] = {"upstream": upstream, "outcome": "cached", "message": NOTHING}
    prefect.post("artifacts/", flow_run_id=run, **artifacts.outcome(project, steps, report))
    if plan["metrics"]:
        same = artifacts.metrics(project, plan["metrics"], plan["metrics"])
        prefect.post("artifacts/", flow_run_id=run, **same)
    done = {"type": "COMPLETED", "name": "Completed", "message": f"{len(ids)} cached"}
    prefect.post(f"flow_runs/{run}/set_state", state=done, force=True)
