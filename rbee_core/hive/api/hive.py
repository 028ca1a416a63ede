"""The hive's routes about itself: alive, ready, what it can run, what it answers, and its end."""

import contextlib
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from aiohttp import web

from rbee_core import API_VERSION, __version__, wire
from rbee_core.domain.pool import Pool
from rbee_core.hive.api.workers import describe
from rbee_core.hive.journal import Journal
from rbee_core.hive.resolver import Resolver
from rbee_core.home import Home
from rbee_core.http import openapi
from rbee_core.http.middleware import json_response
from rbee_core.http.routes import TABLE
from rbee_core.http.stream import END, STILL_HERE, EventStream, ReaderGoneError, event_bytes

INTRODUCTION = "The pool manager of one machine. Streams are server-sent events that end with `data: [DONE]`."


class HiveRoutes:
    """One hive's routes about itself.

    `check_catalog` raises what a spawn would raise if the catalog cannot be used; `stop` is called by
    `POST /v1/shutdown`, `reload` by `POST /v1/reload`.
    """

    def __init__(
        self,
        write_timeout_s: float,
        home: Home,
        pool: Pool,
        journal: Journal,
        resolver: Resolver,
        check_catalog: Callable[[], Awaitable[None]],
        stop: Callable[[], None],
        reload: Callable[[], Awaitable[wire.Reloaded]],
    ) -> None:
        self._write_timeout_s = write_timeout_s
        self._home = home
        self._pool = pool
        self._journal = journal
        self._resolver = resolver
        self._check_catalog = check_catalog
        self._stop = stop
        self._reload = reload

    async def health(self, request: web.Request) -> web.Response:
        """Say that the hive is alive, and its version. Needs no key."""
        del request
        return json_response(wire.Health(status="alive", version=__version__, api_version=API_VERSION))

    async def ready(self, request: web.Request) -> web.Response:
        """Say whether a spawn would be taken: goes through the catalog, as a spawn does."""
        del request
        await self._check_catalog()
        closing = self._pool.closing
        answer = wire.Ready(ready=not closing, state="stopping" if closing else "ready")
        return json_response(answer, status=503 if closing else 200)

    async def openapi(self, request: web.Request) -> web.Response:
        """Describe every route of this hive, as OpenAPI 3.1."""
        return json_response(openapi.document(request.app[TABLE], "rbee-hive", __version__, INTRODUCTION))

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Stream what happens to the workers, from a snapshot or from the reader's last event on."""
        stream = EventStream(request, self._write_timeout_s)
        mark = request.headers.get("Last-Event-ID", "")
        with contextlib.suppress(ReaderGoneError):
            await stream.start()
            async with aclosing(self._journal.follow(mark, self._live)) as groups:
                async for group in groups:
                    events = b"".join(event_bytes(told, self._journal.mark(told.number)) for told in group)
                    await stream.write(events or STILL_HERE)
            await stream.write(END)
        return stream.response

    def _live(self) -> list[wire.WorkerInfo]:
        return [describe(worker, self._home) for worker in self._pool.live()]

    async def list_backends(self, request: web.Request) -> web.Response:
        """List every backend, and why it cannot be used if it cannot."""
        del request
        return json_response(wire.BackendList(backends=await self._resolver.backends()))

    async def reload(self, request: web.Request) -> web.Response:
        """Take config.toml again."""
        del request
        return json_response(await self._reload())

    async def shutdown(self, request: web.Request) -> web.Response:
        """Begin to stop the hive and all its workers; the answer names them."""
        del request
        stopped: list[str] = [w.id for w in self._pool.live()]
        self._stop()
        return json_response(wire.StopResponse(stopped=stopped))
