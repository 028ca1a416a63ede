"""The hive's route for Prometheus: what was counted, and how things stand."""

from typing import Annotated, Literal

import psutil
from aiohttp import web
from msgspec import Meta

from rbee_core import aio, wire
from rbee_core.domain.pool import Pool
from rbee_core.hive.metrics import exposition
from rbee_core.hive.metrics.now import look
from rbee_core.hive.metrics.numbers import Numbers
from rbee_core.http.routes import read_query
from rbee_core.models.downloads import Downloads

TEXT = "text/plain; version=0.0.4; charset=utf-8"


class MetricsQuery(wire.Strict):
    """The query of `GET /metrics`. With `aliases`, what vLLM has too is there under its names as well."""

    aliases: Annotated[Literal["vllm"] | None, Meta(description="more names")] = None


class MetricsRoutes:
    """One hive's numbers."""

    def __init__(self, numbers: Numbers, pool: Pool, downloads: Downloads) -> None:
        self._numbers = numbers
        self._pool = pool
        self._downloads = downloads

    async def metrics(self, request: web.Request) -> web.Response:
        """Tell all numbers, as Prometheus reads them."""
        wanted = read_query(request, MetricsQuery)
        host = await aio.off_loop(psutil.virtual_memory)
        memory = {"total": host.total, "available": host.available}
        now = look(
            self._pool.live(),
            self._pool.waiting(),
            memory,
            self._numbers.name,
            self._numbers.known,
            self._downloads.received_bytes,
        )
        text = await aio.off_loop(exposition.text, self._numbers.copy(), now, vllm=wanted.aliases == "vllm")
        return web.Response(body=text, headers={"Content-Type": TEXT})
