"""Listening: one way to start an aiohttp server, with the limits that its defaults lack."""

import errno
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiohttp import web

from rbee_core.errors import AddressUnusable


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to `host` and `port`; port 0 lets the kernel choose. Raises `AddressUnusable`."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, proto)
    except OSError as error:
        raise AddressUnusable(host=host, port=port, why=error.strerror or str(error)) from error
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(512)
    except OSError as error:
        sock.close()
        why = "the port is in use" if error.errno == errno.EADDRINUSE else os.strerror(error.errno or 0)
        raise AddressUnusable(host=host, port=port, why=why) from error
    return sock


@asynccontextmanager
async def serving(app: web.Application, sock: socket.socket) -> AsyncGenerator[int]:
    """Serve `app` on `sock` for the length of the context, which gets the port.

    A client that leaves cancels its handler at once, also while nothing is being written; idle connections are closed
    after 30 s, which bounds slow headers too.
    """
    runner = web.AppRunner(
        app, handler_cancellation=True, keepalive_timeout=30, access_log=None, shutdown_timeout=1.0
    )  # fmt: skip
    await runner.setup()
    try:
        await web.SockSite(runner, sock).start()
        yield sock.getsockname()[1]
    finally:
        await runner.cleanup()
