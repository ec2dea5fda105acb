"""Timeouts for idle connections, so that no client can occupy all of them.

uvicorn waits without limit for the rest of a request's header, and counts idle connections towards
its maximum. This module requires a complete header within seconds. If there are too many
connections, it closes the longest idle one of the address that has the most.
"""

import asyncio
import resource
import socket
import struct
from collections import Counter
from typing import ClassVar

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from .desk import Limits

AT_A_TIME = 100  # connections that are accepted before any of them is read
QUEUE = 2048  # connections that the kernel holds until they are accepted


class Connection(H11Protocol):
    """One connection. `silent` has the connections without a complete header, oldest first."""

    limits: ClassVar[Limits]
    silent: ClassVar[dict["Connection", None]]
    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, and close an idle one if there are too many."""
        super().connection_made(transport)
        self._await_header()
        if len(self.connections) > self.limits.connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection and cancel its timers."""
        super().connection_lost(exc)
        self._header_came()
        if self._stalled is not None:
            self._stalled.cancel()

    def data_received(self, data: bytes) -> None:
        """Process the data, and cancel the deadline once a header is complete."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._header_came()

    def on_response_complete(self) -> None:
        """Wait for the next header, even if part of the previous body has not arrived yet."""
        before = self.cycle
        super().on_response_complete()
        if self.cycle is before:  # another header may have been there already
            self._await_header()

    def pause_writing(self) -> None:
        """Start a timeout for a client that does not read its answer."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.limits.seconds, self._drop)

    def resume_writing(self) -> None:
        """Cancel the timeout, because the client reads again."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()

    def _await_header(self) -> None:
        self._header_came()
        self.silent[self] = None
        self._deadline = self.loop.call_later(self.limits.header_seconds, self._too_late)

    def _header_came(self) -> None:
        self.silent.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()

    def _too_late(self) -> None:
        if self.transport.get_write_buffer_size():  # a reply that is still being read
            self._deadline = self.loop.call_later(self.limits.seconds, self._drop)
        else:
            self.transport.abort()

    def _drop(self) -> None:
        """Close the connection, with the replies that the client has not read.

        Otherwise the kernel would keep up to 4 MB of them, and offer them for minutes.
        """
        at_once = struct.pack("ii", 1, 0)  # linger for 0 seconds: the client gets a reset
        self.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, at_once
        )
        self.transport.abort()

    def _make_room(self) -> None:
        """Close the longest idle connection of the address that has the most connections.

        If that address has no idle one, the longest idle one of all is closed.
        """
        addresses = Counter(_address(one) for one in self.connections)
        crowded = addresses.most_common(1)[0][0]
        oldest = next(iter(self.silent))  # this one is among them
        gone = next((one for one in self.silent if _address(one) == crowded), oldest)
        gone._header_came()
        gone.transport.abort()


def _address(connection: object) -> str | None:
    client: tuple[str, int] | None = getattr(connection, "client", None)
    return client[0] if client else None


class Server(uvicorn.Server):
    """uvicorn with `Connection`, on a socket that already listens."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        """Serve `app` within `limits`."""
        own = {"limits": limits, "silent": {}}
        kind = type("Connection", (Connection,), own)
        super().__init__(
            uvicorn.Config(app, http=kind, ws="none", log_level="warning", backlog=AT_A_TIME)
        )
        # The limit of open files may be lower than the connections that `limits` allow.
        most, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 2 * limits.connections + QUEUE
        if most != resource.RLIM_INFINITY and most < wanted:
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections, with a longer kernel queue than uvicorn would set."""
        await super().startup(sockets)
        for one in sockets or []:
            one.listen(QUEUE)
