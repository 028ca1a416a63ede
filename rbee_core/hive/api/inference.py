"""The hive's routes that compute: for a model, whoever serves it, or on one worker. Our own format, streamed."""

import contextlib
import secrets

import msgspec
from aiohttp import web

from rbee_core import wire
from rbee_core.domain.instructions import Waiting
from rbee_core.domain.worker import Demand, WorkerId
from rbee_core.errors import RbeeError
from rbee_core.hive.config.models import ForModel, Models
from rbee_core.hive.serving import Serving, Task, last_word, log_request
from rbee_core.hive.supervisor import Supervisor
from rbee_core.http.body import read_body
from rbee_core.http.middleware import as_told
from rbee_core.http.stream import EventStream, ReaderGoneError, event_bytes

CLIENT, WORKER = "X-Rbee-Client", "X-Rbee-Worker"
CLIENT_LIMIT = 64

Wanted = wire.WorkerInference | wire.WorkerEmbed | wire.WorkerRerank | ForModel


class InferenceRoutes:
    """One hive's routes that generate."""

    def __init__(
        self,
        write_timeout_s: float,
        keep_alive_s: float,
        supervisor: Supervisor,
        serving: Serving,
        models: Models,
    ) -> None:
        self._write_timeout_s = write_timeout_s
        self._keep_alive_s = keep_alive_s
        self._supervisor = supervisor
        self._serving = serving
        self._models = models

    async def for_model(self, request: web.Request) -> web.StreamResponse:
        """Generate with a model: on a worker that holds it, or on one that is started for it."""
        return await self._for_model(request, await read_body(request, wire.PoolInference))

    async def on_worker(self, request: web.Request) -> web.StreamResponse:
        """Generate on one worker."""
        return await self._stream(request, _worker_id(request), await read_body(request, wire.WorkerInference))

    async def embed(self, request: web.Request) -> web.StreamResponse:
        """Make vectors with a model."""
        return await self._for_model(request, await read_body(request, wire.PoolEmbed))

    async def embed_on_worker(self, request: web.Request) -> web.StreamResponse:
        """Make vectors on one worker."""
        return await self._stream(request, _worker_id(request), await read_body(request, wire.WorkerEmbed))

    async def score(self, request: web.Request) -> web.StreamResponse:
        """Score documents with a model."""
        return await self._for_model(request, await read_body(request, wire.PoolRerank))

    async def score_on_worker(self, request: web.Request) -> web.StreamResponse:
        """Score documents on one worker."""
        return await self._stream(request, _worker_id(request), await read_body(request, wire.WorkerRerank))

    async def cancel(self, request: web.Request) -> web.Response:
        """End a request, waiting or running. Idempotent."""
        await self._serving.cancel(request.match_info["request_id"])
        return web.Response(status=204)

    async def cancel_on_worker(self, request: web.Request) -> web.Response:
        """End a request that waits or runs at one worker. Idempotent."""
        worker = self._supervisor.pool.find(request.match_info["worker_id"])
        await self._serving.cancel(request.match_info["request_id"], worker.id)
        return web.Response(status=204)

    async def _for_model(self, request: web.Request, wanted: ForModel) -> web.StreamResponse:
        wanted.request_id = wanted.request_id or secrets.token_hex(8)
        try:
            demand = await self._models.demand(wanted)
        except RbeeError as error:
            log_request(wanted.request_id, client_of(request), wanted.model_ref, f"refused, {error.code}")
            raise
        return await self._stream(request, demand, wanted)

    async def _stream(self, request: web.Request, target: Demand | WorkerId, wanted: Wanted) -> web.StreamResponse:
        wanted.request_id = wanted.request_id or secrets.token_hex(8)
        task = msgspec.convert(wanted, _task_of(wanted), from_attributes=True)
        if isinstance(wanted, wire.PoolInference) and isinstance(task, wire.WorkerTask):
            task.system_prompt = self._models.own(wanted.model_ref).system_prompt
        stream = EventStream(request, self._write_timeout_s, self._keep_alive_s)

        async def tell(waiting: Waiting) -> None:
            told = wire.Waiting(position=waiting.position, for_what=waiting.for_what, progress=waiting.progress)
            await stream.start()
            await stream.write(event_bytes(wire.WaitingEvent(waiting=told)))

        with stream, contextlib.suppress(ReaderGoneError):
            try:
                client = client_of(request)
                async with self._serving.open(client, target, task, queue=wanted.queue, tell=tell) as answer:
                    if stream.response.prepared:
                        await stream.write(event_bytes(wire.WorkerEvent(worker_id=answer.worker.id)))
                    else:
                        stream.response.headers[WORKER] = answer.worker.id
                        await stream.start()
                    async for events in answer.raw():
                        await stream.write(events)
            except ReaderGoneError:
                raise
            except Exception as error:
                if not stream.response.prepared:
                    raise
                await stream.write(last_word(as_told(request, error)))
        return stream.response


def _task_of(wanted: Wanted) -> type[Task]:
    if isinstance(wanted, wire.WorkerEmbed):
        return wire.EmbedTask
    return wire.RerankTask if isinstance(wanted, wire.WorkerRerank) else wire.WorkerTask


def _worker_id(request: web.Request) -> WorkerId:
    return WorkerId(request.match_info["worker_id"])


def client_of(request: web.Request) -> str:
    """Return who asks, for taking turns: the address, and what it calls itself where several share one."""
    name = request.headers.get(CLIENT, "")
    known = name if name.isascii() and name.isprintable() else ""
    return f"{request.remote} {known[:CLIENT_LIMIT]}".rstrip()
