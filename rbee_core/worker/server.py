"""The worker's HTTP routes (spec of the wire: docs/reference/http.md). Every route but health needs the secret."""

import asyncio
import contextlib
from contextlib import aclosing

from aiohttp import web

from rbee_core import API_VERSION, __version__, wire
from rbee_core.errors import AllSlotsBusy, NotSupported, PromptTooLong, RequestCanceled, ShuttingDown, WorkerNotReady
from rbee_core.http.body import read_body
from rbee_core.http.middleware import access, envelope, json_response
from rbee_core.http.routes import Route, Scope, application
from rbee_core.http.stream import END, EventStream, ReaderGoneError, event_bytes, send_events
from rbee_core.worker.engine import EngineHost
from rbee_core.worker.jobs import Job, Task


class WorkerServer:
    """One worker's routes over its engine host. `stop_wanted` is set by `POST /v1/shutdown`."""

    def __init__(self, spec: wire.WorkerSpec, host: EngineHost, stop_wanted: asyncio.Event) -> None:
        self._spec = spec
        self._host = host
        self._stop_wanted = stop_wanted

    def app(self) -> web.Application:
        """Build the application. The worker's secret is the one key to it, and its hive has that."""
        limit = self._spec.body_limit_bytes
        return application(
            TABLE, [self], middlewares=[envelope(limit), access(key=self._spec.secret)], body_limit_bytes=limit
        )

    async def health(self, request: web.Request) -> web.Response:
        """Say that the process is alive."""
        del request
        return json_response(wire.Health(status="alive", version=__version__, api_version=API_VERSION))

    async def ready(self, request: web.Request) -> web.Response:
        """Say whether the model is loaded."""
        del request
        progress = self._host.progress
        ready = progress.state == "ready"
        answer = wire.Ready(ready=ready, state=progress.state, error=progress.error)
        return json_response(answer, status=200 if ready else 503)

    async def loading_progress(self, request: web.Request) -> web.StreamResponse:
        """Stream the load's progress up to its end."""
        return await send_events(request, self._host.watch(), self._spec.write_timeout_s)

    async def inference(self, request: web.Request) -> web.StreamResponse:
        """Generate: token events, one terminal event, the end mark."""
        return await self._answer(request, await read_body(request, wire.WorkerTask))

    async def count(self, request: web.Request) -> web.StreamResponse:
        """Count the tokens of a prompt, in the same way."""
        return await self._answer(request, await read_body(request, wire.CountTask))

    async def embed(self, request: web.Request) -> web.StreamResponse:
        """Make vectors of texts, in the same way."""
        return await self._answer(request, await read_body(request, wire.EmbedTask))

    async def rerank(self, request: web.Request) -> web.StreamResponse:
        """Score documents, in the same way."""
        return await self._answer(request, await read_body(request, wire.RerankTask))

    async def _answer(self, request: web.Request, task: Task) -> web.StreamResponse:
        await self._host.room()
        generation = self._host.start(task, self._spec.worker_id)
        stream = EventStream(request, self._spec.write_timeout_s)
        try:
            with contextlib.suppress(ReaderGoneError):
                await stream.start()
                await _send(generation, stream)
        finally:
            generation.stop(RequestCanceled())
        return stream.response

    async def cancel(self, request: web.Request) -> web.Response:
        """End a request, and answer once its slot is free. Idempotent: an unknown one is as good as ended."""
        self._host.cancel(request.match_info["request_id"])
        await self._host.over(request.match_info["request_id"])
        return web.Response(status=204)

    async def shutdown(self, request: web.Request) -> web.Response:
        """Begin to stop; the process ends once its streams have had their terminal events."""
        del request
        self._stop_wanted.set()
        return json_response(wire.StopResponse(stopped=[self._spec.worker_id]))


async def _send(generation: Job, stream: EventStream) -> None:
    last = b""
    async with aclosing(generation.batches()) as batches:
        async for batch in batches:
            last = END if generation.over else b""  # with the last word: who has read that may leave at once
            await stream.write(b"".join(map(event_bytes, batch)) + last)
    if not last:
        await stream.write(END)


TABLE = (
    Route(
        method="GET",
        path="/v1/health",
        handler=WorkerServer.health,
        scope=Scope.OPEN,
        summary="that the process is alive",
        answers={200: wire.Health},
    ),
    Route(
        method="GET",
        path="/v1/ready",
        handler=WorkerServer.ready,
        scope=Scope.READ,
        summary="200 when the model is loaded, else 503 with the state",
        answers={200: wire.Ready, 503: wire.Ready},
    ),
    Route(
        method="GET",
        path="/v1/loading/progress",
        handler=WorkerServer.loading_progress,
        scope=Scope.READ,
        summary="the load's progress, up to ready or failed",
        events=(wire.LoadProgress,),
    ),
    Route(
        method="POST",
        path="/v1/inference",
        handler=WorkerServer.inference,
        scope=Scope.INFER,
        summary="generates text",
        body=wire.WorkerTask,
        events=(wire.PromptEvent, wire.TokenEvent, wire.DoneEvent, wire.ErrorBody),
        errors=(WorkerNotReady, AllSlotsBusy, PromptTooLong, ShuttingDown),
    ),
    Route(
        method="POST",
        path="/v1/count",
        handler=WorkerServer.count,
        scope=Scope.INFER,
        summary="counts the tokens that the prompt of such a request has, and generates nothing",
        body=wire.CountTask,
        events=(wire.DoneEvent, wire.ErrorBody),
        errors=(WorkerNotReady, AllSlotsBusy, NotSupported, ShuttingDown),
    ),
    Route(
        method="POST",
        path="/v1/embed",
        handler=WorkerServer.embed,
        scope=Scope.INFER,
        summary="makes vectors of texts",
        body=wire.EmbedTask,
        events=(wire.VectorEvent, wire.DoneEvent, wire.ErrorBody),
        errors=(WorkerNotReady, AllSlotsBusy, PromptTooLong, ShuttingDown),
    ),
    Route(
        method="POST",
        path="/v1/rerank",
        handler=WorkerServer.rerank,
        scope=Scope.INFER,
        summary="scores how well documents answer a query",
        body=wire.RerankTask,
        events=(wire.ScoreEvent, wire.DoneEvent, wire.ErrorBody),
        errors=(WorkerNotReady, AllSlotsBusy, PromptTooLong, ShuttingDown),
    ),
    Route(
        method="DELETE",
        path="/v1/inference/{request_id}",
        handler=WorkerServer.cancel,
        scope=Scope.INFER,
        summary="ends a request, whether or not it still runs; answers once its slot is free",
        parameters={"request_id": wire.RequestId},
        answers={204: None},
    ),
    Route(
        method="POST",
        path="/v1/shutdown",
        handler=WorkerServer.shutdown,
        scope=Scope.ADMIN,
        summary="begins to stop",
        answers={200: wire.StopResponse},
    ),
)
