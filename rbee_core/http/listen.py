"""Listening: one way to start an aiohttp server, with the limits that its defaults lack."""

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiohttp import web


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
