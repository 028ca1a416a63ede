"""Listening: one way to serve an aiohttp application, with the limits that its own sites lack.

Connections are accepted here and not by asyncio: its accept loop sets the backlog anew, and reports a shortage of
descriptors as often as the backlog is long.
"""

import asyncio
import contextlib
import logging
import math
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp import web

from rbee_core.descriptors import affordable
from rbee_core.errors import Overloaded
from rbee_core.http.connection import Connection, Refusal

SEND_BUFFER_BYTES = 64 << 10  # else megabytes fit between us and a client that never reads
ACCEPTED_AT_ONCE = 64
RETRY_S = 0.5
QUIET_S = 60.0
LINGERING_S = 2.0  # for the rest of a body that nobody wants: else its sender would lose the answer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server bears from its clients.

    `read_timeout_s` is for a request's headers, and for an idle connection; `write_timeout_s` for a client that takes
    nothing of what was sent.
    """

    connections: int = 512
    read_timeout_s: float = 30.0
    write_timeout_s: float = 30.0


@asynccontextmanager
async def serving(
    app: web.Application,
    sock: socket.socket,
    limits: Limits = Limits(),  # frozen
    besides: Sequence[socket.socket] = (),
) -> AsyncGenerator[int]:
    """Serve `app` on `sock`, which listens, for the length of the context, which gets the port.

    It is served on those `besides` in the same way; all are closed at the end. A client that leaves cancels its handler
    at once, also while nothing is being written.
    """
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    assert runner.server is not None
    doors = [_Door(each, runner.server, limits) for each in (sock, *besides)]
    try:
        for door in doors:
            door.open()
        yield sock.getsockname()[1]
    finally:
        for door in doors:
            door.close()
        await runner.cleanup()


class _Door:
    """Accepts what comes in on one socket, up to what can be afforded, and tells the rest so."""

    def __init__(self, sock: socket.socket, server: web.Server, limits: Limits) -> None:
        self._sock = sock
        self._server = server
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._how: dict[str, Any] = {
            "keepalive_timeout": limits.read_timeout_s,
            "lingering_time": LINGERING_S,
            "access_log": None,
            "auto_decompress": False,
        }
        self._afford = affordable(limits.connections)
        self._arriving: set[asyncio.Task[None]] = set()
        self._refused = 0
        self._quiet_until = 0.0
        self._closed = False

    def open(self) -> None:
        """Begin to accept, or go on."""
        if not self._closed:
            self._sock.setblocking(False)
            self._loop.add_reader(self._sock, self._accept)

    def close(self) -> None:
        """Accept nobody any more; who is in stays."""
        self._loop.remove_reader(self._sock)
        self._closed = True
        self._sock.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            if self._refused >= self._afford.refusals:  # the others wait in the backlog for their turn
                self._loop.remove_reader(self._sock)
                return
            try:
                connection, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._trouble(f"no connection can be taken: {error.strerror}")
                self._loop.remove_reader(self._sock)
                self._loop.call_later(RETRY_S, self.open)
                return
            self._admit(connection)

    def _admit(self, connection: socket.socket) -> None:
        served = self._afford.connections
        if len(self._server.connections) + len(self._arriving) < served:
            self._take(connection, self._served)
            return
        self._trouble(f"{served} connections are open, further ones are refused")
        self._refused += 1
        self._take(connection, partial(Refusal, too_many(served, self._limits.connections), self._refusal_over))

    def _trouble(self, what: str) -> None:
        """Say it, once a minute: as many as want in at such a time, so many lines would it be."""
        now = self._loop.time()
        if now >= self._quiet_until:
            log.warning("%s", what)
            self._quiet_until = now + QUIET_S

    def _refusal_over(self) -> None:
        self._refused -= 1
        self.open()

    def _take(self, connection: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
        bound_sending(connection, self._limits.write_timeout_s)

        async def take() -> None:
            await self._loop.connect_accepted_socket(protocol, connection)

        task = self._loop.create_task(take())
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    def _served(self) -> Connection:
        return Connection(self._server, loop=self._loop, **self._how)


def too_many(served: int, wanted: int) -> Overloaded:
    """Return what those are told who come when `served` connections are open; `wanted` is what the settings allow."""
    if served < wanted:
        return Overloaded(
            f"{served} connections are open, which is all that this process has file descriptors for",
            hint="try again in a moment, or raise its limit of open files (`ulimit -n`)",
        )
    hint = "try again in a moment, or raise connections_at_once"
    return Overloaded(f"{served} connections are open, and no more are served at a time", hint=hint)


def bound_sending(connection: socket.socket, write_timeout_s: float) -> None:
    """Have the kernel hold little for a client, and drop one that takes nothing for `write_timeout_s`.

    The kernel sees what no program can: whether anything that was sent was taken.
    """
    connection.setblocking(False)
    with contextlib.suppress(OSError):  # a client that has left already is seen when it is read from
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if sys.platform == "linux":
            limit_ms = min(math.ceil(write_timeout_s * 1000), 2**31 - 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)
