"""A small HTTP server in a thread, for tests of clients."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextmanager
def served(handler: Handler, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve every path of 127.0.0.1 with `handler`, and yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        stop, loop = asyncio.Event(), asyncio.new_event_loop()

        async def serve() -> None:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", handler)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            await web.SockSite(runner, sock, ssl_context=tls).start()
            await stop.wait()
            await runner.cleanup()

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()
        try:
            yield sock.getsockname()[1]
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()
