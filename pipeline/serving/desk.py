"""The desk of `headstart serve` receives and schedules requests: bodies, queues and threads.

As in `predict`, one thread on one core handles an example from decoding to prediction. There is one
thread per core for fast requests. Slow requests, for heat maps and thumbnails, have their own queue
and one thread fewer (but at least one), so that no fast request queues behind them. Examples that
need much memory are handled one at a time. Requests are not batched: a core predicts as many
examples per second one by one as in batches (benchmarks/answers.md), and no request has to wait for
a batch to fill.
"""

import asyncio
import os
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TypeVar

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from ..core.errors import RefusedError
from ..kinds import Shown
from .answering import Answer
from .classifier import Classifier

THUMBNAIL = 160  # pixels of a neighbour's longer side
CORES = os.cpu_count() or 1
EXPLAINING = max(1, CORES - 1)  # threads for slow requests
HELD = 16  # times the largest body: bytes of all bodies in memory at a time
AGAIN = {"Retry-After": "1"}

Found = TypeVar("Found")


@dataclass(frozen=True)
class Limits:
    """The limits of the server.

    Attributes:
        megabytes: the size of the largest example.
        waiting: how many requests one queue may hold, with those that are being answered.
        seconds: the time from a request's arrival to its answer.
        header_seconds: the time until a request's header is complete.
        connections: how many may be open at a time.
        bodies: how many may be read at a time.
        rate: a body's minimum bytes per second, on average, after `grace` seconds.
        thumbnails: the size of the cache of thumbnails in bytes.
    """

    megabytes: float = 20.0
    waiting: int = 128
    seconds: float = 30.0
    header_seconds: float = 5.0
    connections: int = 1000
    bodies: int = 256
    rate: float = 1000.0
    grace: float = 2.0
    thumbnails: int = 32_000_000

    @property
    def held(self) -> int:
        """The most bytes that all bodies may take together, while read or being answered."""
        return int(HELD * self.megabytes * 1e6)


class Lane:
    """A pool of threads with a bounded queue."""

    def __init__(self, threads: int, limits: Limits) -> None:
        """Create the pool, which starts a thread only if it needs one."""
        self.threads, self.limits = ThreadPoolExecutor(threads), limits
        self.waiting = 0

    async def do(self, until: float, work: Callable[[], Found]) -> Found:
        """Run `work` in a thread and return its result.

        Args:
            until: the deadline, on the event loop's clock.
            work: the function to run.

        Raises:
            HTTPException: the queue is full, or the deadline passed.
            RefusedError: `work` raised it.
        """
        if self.waiting >= self.limits.waiting:
            raise HTTPException(429, f"{self.waiting} requests are waiting already", AGAIN)
        self.waiting += 1
        try:
            async with asyncio.timeout_at(until):
                return await asyncio.get_running_loop().run_in_executor(self.threads, work)
        except TimeoutError:
            problem = f"no answer within {self.limits.seconds:g} seconds"
            raise HTTPException(503, problem, AGAIN) from None
        finally:
            self.waiting -= 1


class Body:
    """A request body that is being read."""

    gives_way = False

    def __init__(self, now: float) -> None:
        """Start reading; no bytes have arrived yet."""
        self.start, self.taken = now, 0
        self.clock = asyncio.timeout_at(None)


class Desk:
    """Receives examples within the limits, and schedules their answers."""

    def __init__(self, classifier: Classifier, limits: Limits) -> None:
        """Create the lanes."""
        self.classifier, self.limits = classifier, limits
        self.plain, self.slow = Lane(CORES, limits), Lane(EXPLAINING, limits)
        self.alone = Lane(1, limits)
        self.bodies: set[Body] = set()
        self._lanes = (self.plain, self.slow, self.alone)
        self.held = 0
        self._shown = Thumbnails(limits.thumbnails)

    @property
    def waiting(self) -> int:
        """The number of requests that were accepted and not yet answered."""
        return sum(lane.waiting for lane in self._lanes)

    def close(self) -> None:
        """Cancel the requests whose work has not begun."""
        for lane in self._lanes:
            lane.threads.shutdown(cancel_futures=True)

    def until(self) -> float:
        """Return the deadline of a request that arrives now, on the event loop's clock."""
        return asyncio.get_running_loop().time() + self.limits.seconds

    async def answer(self, data: bytes, heat_map: bool, neighbours: int, until: float) -> Answer:
        """Return the prediction for an example; `until` is the deadline, as in `Lane.do`."""

        def answer() -> Answer:
            return self.classifier.answer(data, heat_map, neighbours)

        def answer_small() -> Answer | None:
            return None if self.classifier.kind.large(data) else answer()

        lane = self.slow if heat_map and self.classifier.explains else self.plain
        try:
            found = await lane.do(until, answer_small)
            if found is None:
                found = await self.alone.do(until, answer)
            return found
        except RefusedError as error:
            raise HTTPException(422, str(error)) from None

    async def thumbnail(self, number: int, until: float) -> Shown:
        """Return the thumbnail of a training example."""
        if found := self._shown.get(number):
            return found

        def show() -> Shown:
            if found := self._shown.get(number):  # another request may have made it
                return found
            data = self.classifier.training_example(number)
            return self._shown.keep(number, self.classifier.kind.show(data, THUMBNAIL))

        try:
            return await self.slow.do(until, show)
        except RefusedError as error:
            raise HTTPException(404, str(error)) from None

    @asynccontextmanager
    async def received(self, request: Request, until: float) -> AsyncIterator[bytes]:
        """Yield the example's bytes: the body itself, or the first file of a form.

        Until the context ends, these bytes count towards `held`.
        """
        form = self._is_form(request)
        body = Body(asyncio.get_running_loop().time())
        try:
            data = await self._read(request, form, body, until)
            if not data:
                raise HTTPException(422, "the file is empty" if form else "the body is empty")
            yield data
        finally:
            self.held -= body.taken

    def _is_form(self, request: Request) -> bool:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        form = kind == "multipart/form-data"
        accepts = self.classifier.kind.accepts
        plain = kind in ("", "application/octet-stream")
        if not (form or plain or any(fnmatch(kind, one) for one in accepts)):
            takes = ", ".join([*accepts, "application/octet-stream"])
            raise HTTPException(415, f"{kind[:100]} is not accepted; send {takes} or a form")
        return form

    async def _read(self, request: Request, form: bool, body: Body, until: float) -> bytes:
        if len(self.bodies) >= self.limits.bodies:
            self._make_way(self._slowness)
        self.bodies.add(body)
        try:
            async with body.clock:
                self._set_clock(body, until)
                if form:
                    return await self._first_file(request, body, until)
                data = bytearray()
                async for piece in self._pieces(request, body, until):
                    data += piece
                return bytes(data)
        except ClientDisconnect:
            raise HTTPException(400, "the sender hung up") from None
        except TimeoutError:
            raise self._late(body, until) from None
        finally:
            self.bodies.discard(body)

    def _set_clock(self, body: Body, until: float) -> None:
        """Set the body's timeout: when its rate falls below the minimum, or at the deadline."""
        if not (body.gives_way or body.clock.expired()):
            longest = max(self.limits.grace, body.taken / self.limits.rate)
            body.clock.reschedule(min(until, body.start + longest))

    def _late(self, body: Body, until: float) -> HTTPException:
        if body.gives_way:
            problem = "too much data is being sent at once, and this body took longest; try again"
            return HTTPException(429, problem, AGAIN)
        if asyncio.get_running_loop().time() >= until:
            problem = f"the body did not arrive within {self.limits.seconds:g} seconds"
        else:
            problem = f"the body arrived at less than {self.limits.rate:g} bytes a second"
        return HTTPException(408, problem)

    def _age(self, body: Body) -> float:
        return max(asyncio.get_running_loop().time() - body.start, 0.001)

    def _slowness(self, body: Body) -> float:
        """Return seconds per byte; a body that has just begun does not count as slow."""
        return self._age(body) / (body.taken + self.limits.rate * self.limits.grace)

    def _make_way(self, badness: Callable[[Body], float]) -> None:
        """Stop reading the body with the highest `badness`."""
        worst = max(self.bodies, key=badness)
        self.bodies.discard(worst)
        self.held -= worst.taken
        worst.taken = 0
        worst.gives_way = True
        if not worst.clock.expired():
            worst.clock.reschedule(0)

    async def _pieces(
        self, request: Request, body: Body, until: float
    ) -> AsyncGenerator[bytes, None]:
        most = int(self.limits.megabytes * 1e6)
        declared = request.headers.get("content-length", "")
        size = int(declared) if declared.isdecimal() else 0
        problem = HTTPException(413, f"too large: at most {self.limits.megabytes:g} MB are taken")
        if size > most:
            raise problem
        async for piece in request.stream():
            if not body.gives_way:
                body.taken += len(piece)
                self.held += len(piece)
            if body.taken > most:
                raise problem
            while self.held > self.limits.held and self.bodies:
                self._make_way(lambda body: body.taken * self._age(body))
            if body.gives_way:
                raise TimeoutError
            self._set_clock(body, until)
            yield piece

    async def _first_file(self, request: Request, body: Body, until: float) -> bytes:
        pieces = self._pieces(request, body, until)
        parser = MultiPartParser(request.headers, pieces, max_files=1, max_fields=10)
        try:
            form = await parser.parse()
        except (MultiPartException, ValueError, KeyError) as error:
            raise HTTPException(400, f"the form cannot be read: {error}") from None
        for value in form.values():
            if isinstance(value, UploadFile):
                return await value.read()
        raise HTTPException(400, "the form has no file")


class Thumbnails:
    """A thread-safe LRU cache of thumbnails, of `most` bytes."""

    def __init__(self, most: int) -> None:
        """Create an empty cache."""
        self._most, self._size = most, 0
        self._kept: OrderedDict[int, Shown] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, number: int) -> Shown | None:
        """Return the thumbnail of training example `number`, if it is cached."""
        with self._lock:
            if found := self._kept.get(number):
                self._kept.move_to_end(number)
            return found

    def keep(self, number: int, shown: Shown) -> Shown:
        """Cache a thumbnail, in place of the least recently used, and return it."""
        with self._lock:
            if number not in self._kept:
                self._kept[number] = shown
                self._size += _size(shown)
            while self._size > self._most:
                self._size -= _size(self._kept.popitem(last=False)[1])
        return shown


def _size(shown: Shown) -> int:
    return len(shown.data) + (len(shown.also.data) if shown.also else 0)
