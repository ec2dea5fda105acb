"""Serve predictions over HTTP: `headstart serve BUNDLE`.

`door.py` has the access control, `connections.py` the timeouts of connections, and `desk.py` the
limits and scheduling of requests.
"""

import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, Field

from ..core.errors import ParamsError
from ..tasks import TASKS
from .classifier import Classifier
from .connections import Server
from .desk import EXPLAINING, Desk, Limits
from .door import Door, Guard, opened
from .replies import Explained, of_task, reply

PAGE = Path(__file__).with_name("server.html")
MOST_NEIGHBOURS = 20
# The page has its own style and script inline, and no script of another site can run in it.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
    " img-src 'self' data: blob:; media-src blob:; connect-src 'self'; frame-ancestors 'none'"
)


class Problem(BaseModel):
    """The reason why a request failed."""

    detail: str


class Health(BaseModel):
    """The reply of a running server."""

    status: str


class About(BaseModel):
    """The model that the server answers with."""

    task: str = Field(description="classification, multilabel or regression")
    nouns: list[str] = Field(
        description="the word for what is predicted, singular and plural, such as class and classes"
    )
    answers: list[str] = Field(
        description="what `headstart.Prediction` has for this task, such as label or numbers"
    )
    classes: list[str] = Field(description="names of the classes, labels or targets")
    backbone: str
    weights: str = Field(description="of the backbone, such as pretrained or random")
    accepts: list[str] = Field(description="media types of an example")
    manifest: str = Field(description="SHA-256 of the manifest that the model was trained on")
    waiting: int = Field(description="requests accepted and not yet answered")
    coverage: float | None = Field(
        description="of prediction sets or intervals; null: the bundle has none"
    )


BINARY = {"type": "string", "format": "binary"}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "a form that cannot be read"},
    408: {"model": Problem, "description": "the body came too slowly"},
    413: {"model": Problem, "description": "too large"},
    415: {"model": Problem, "description": "another type of body"},
    422: {"description": "not taken as an example, with the reason; or an impossible parameter"},
    429: {"model": Problem, "description": "too much is waiting or being sent; try again"},
    503: {"model": Problem, "description": "not answered in time; try again"},
}


THUMBNAILS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"*/*": {"schema": BINARY}}},
    404: {"model": Problem, "description": "no such number, or its file does not exist"},
    429: PROBLEMS[429],
    503: PROBLEMS[503],
}


def body_of(accepts: tuple[str, ...]) -> dict[str, Any]:
    """Return the OpenAPI description of a request's body, for media types such as image/*."""
    form = {"type": "object", "properties": {"file": BINARY}, "required": ["file"]}
    kinds = ("application/octet-stream", *accepts)
    return {
        "required": True,
        "description": "the bytes of an example, or a form with one as its first file",
        "content": {kind: {"schema": BINARY} for kind in kinds}
        | {"multipart/form-data": {"schema": form}},
    }


class Figures:
    """The Prometheus metrics at `/metrics`."""

    def __init__(self, desk: Desk) -> None:
        """Create the metrics, with all counts at 0."""
        self.registry = registry = CollectorRegistry()
        self._answered = Counter(
            "headstart_answers", "Answers, by HTTP status", ["status"], registry=registry
        )
        self._seconds = Histogram("headstart_seconds", "From arrival to answer", registry=registry)
        waiting = Gauge("headstart_waiting", "Requests not yet answered", registry=registry)
        waiting.set_function(lambda: desk.waiting)
        reading = Gauge("headstart_reading", "Bodies not yet whole", registry=registry)
        reading.set_function(lambda: len(desk.bodies))

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Count the prediction that runs in this context, and observe its time."""
        start, status = time.monotonic(), 500
        try:
            yield
            status = 200
        except HTTPException as error:
            status = error.status_code
            raise
        finally:
            self._answered.labels(status).inc()
            self._seconds.observe(time.monotonic() - start)


def application(classifier: Classifier, limits: Limits, door: Door | None = None) -> FastAPI:
    """Return the web application for `classifier`, which was opened with `explains`.

    Without a `door` the application accepts only the host names of loopback.
    """
    desk = Desk(classifier, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    # FastAPI's own documentation pages load scripts from another site.
    app = FastAPI(title="Headstart", version="1", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(Guard, door=door or Door())
    figures = Figures(desk)
    _add_predict(app, desk, figures)
    _add_about(app, desk, figures)
    _add_training(app, desk)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(
            PAGE.read_text(encoding="utf-8"), headers={"Content-Security-Policy": POLICY}
        )

    return app


def _add_predict(app: FastAPI, desk: Desk, figures: Figures) -> None:
    """Add `/predict`, which receives an example."""

    @app.post(
        "/predict",
        response_model=of_task(desk.classifier.task).form,
        responses=PROBLEMS,
        openapi_extra={"requestBody": body_of(desk.classifier.kind.accepts)},
    )
    async def predict(
        request: Request,
        heat_map: Annotated[bool, Query(description="whether one is wanted")] = False,
        neighbours: Annotated[int, Query(ge=0, le=MOST_NEIGHBOURS)] = 0,
    ) -> Explained:
        """The prediction for an example and, if requested, an explanation."""
        until = desk.until()
        with figures.answering():
            async with desk.received(request, until) as data:
                answer = await desk.answer(data, heat_map, neighbours, until)
            return reply(desk.classifier.task, answer, desk.classifier.outputs)


def _add_about(app: FastAPI, desk: Desk, figures: Figures) -> None:
    """Add `/health`, `/about` and `/metrics`, which describe the server."""

    @app.get("/health")
    async def health() -> Health:
        """Whether the server is running; no token is needed."""
        return Health(status="ok")

    @app.get("/about")
    async def about() -> About:
        """The model that the server answers with."""
        bundle = desk.classifier.bundle
        task = TASKS[bundle.head.task]
        return About(
            task=task.name,
            nouns=[task.noun, task.nouns],
            answers=list(task.answers),
            classes=bundle.head.classes,
            backbone=bundle.backbone.name,
            weights=bundle.backbone.weights,
            accepts=list(desk.classifier.kind.accepts),
            manifest=bundle.data.manifest,
            waiting=desk.waiting,
            coverage=desk.classifier.coverage,
        )

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Metrics for Prometheus."""
        found = generate_latest(figures.registry)
        return Response(found, media_type="text/plain; version=0.0.4")


def _add_training(app: FastAPI, desk: Desk) -> None:
    """Add `/training`, which shows the training examples that predictions name as neighbours."""

    @app.get(
        "/training/{number}",
        responses=THUMBNAILS,
        response_class=Response,
    )
    async def training(
        number: int,
        beside: Annotated[
            bool, Query(description="return what is shown next to the thumbnail, such as a sound")
        ] = False,
    ) -> Response:
        """The thumbnail of a training example, if its file is available to the server."""
        shown = await desk.thumbnail(number, desk.until())
        if beside:
            if shown.also is None:
                raise HTTPException(404, "this example has only a thumbnail")
            shown = shown.also
        return Response(shown.data, media_type=shown.media_type)


def run(
    bundle: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    megabytes: float = Limits.megabytes,
    waiting: int = Limits.waiting,
    seconds: float = Limits.seconds,
    names: Sequence[str] = (),
    token_file: Path | None = None,
) -> None:
    """Serve until interrupted.

    Raises:
        DataError: the bundle cannot be opened.
        ParamsError: a limit is not above 0, the port is not valid or in use, or other machines
            could reach the server and it has no token or no name.
    """
    if min(megabytes, waiting, seconds) <= 0:
        raise ParamsError("--megabytes, --waiting and --seconds should be above 0")
    if not 0 <= port <= 65535:
        raise ParamsError(f"--port is {port}; it should be from 0 to 65535")
    door, limits = opened(host, names, token_file), Limits(megabytes, waiting, seconds)
    app = application(Classifier(bundle, explains=True, hands=EXPLAINING), limits, door)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        reason = error.strerror or error
        raise ParamsError(
            f"cannot listen on {host}, port {port} ({reason}); give another --host or --port"
        ) from None
    print(f"serve: answering with {bundle} at http://{host}:{port} ; Ctrl-C ends it", flush=True)
    with listening, suppress(KeyboardInterrupt):
        Server(app, limits).run(sockets=[listening])
