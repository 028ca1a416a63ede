"""The hive's HTTP routes: reading requests, asking the supervisor, shaping answers. Decides nothing."""

import asyncio
import contextlib
import secrets

import msgspec
from aiohttp import web

from rbee_core import API_VERSION, __version__, aio, wire
from rbee_core.backend import Backend
from rbee_core.backend.manager import PluginHost
from rbee_core.domain.worker import Worker, WorkerState
from rbee_core.errors import InvalidRequest, RbeeError
from rbee_core.hive.api.models import ModelRoutes
from rbee_core.hive.processes import logs
from rbee_core.hive.processes.start import worker_log
from rbee_core.hive.resolver import Placer
from rbee_core.hive.serving import Serving
from rbee_core.hive.supervisor import Supervisor
from rbee_core.http.middleware import OPEN_PATHS, envelope, guard, json_response
from rbee_core.http.stream import EventStream, ReaderGoneError, read_body
from rbee_core.settings import Settings

WORKER_READY = "/v1/workers/ready"
"""A worker does not have the hive's key: it proves itself with its own secret, which the route checks."""


class HiveRoutes:
    """One hive's routes. `stop_wanted` is set by `POST /v1/shutdown`."""

    def __init__(
        self,
        settings: Settings,
        supervisor: Supervisor,
        serving: Serving,
        plugins: PluginHost,
        placer: Placer,
        models: ModelRoutes,
        stop_wanted: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._supervisor = supervisor
        self._serving = serving
        self._plugins = plugins
        self._placer = placer
        self._models = models
        self._stop_wanted = stop_wanted

    def app(self) -> web.Application:
        """Build the application."""
        settings = self._settings
        names = [settings.host, *settings.allowed_hosts.split(",")]
        doorman = guard(names=names, api_key=settings.api_key, open_paths=OPEN_PATHS | {WORKER_READY})
        app = web.Application(
            middlewares=[envelope(settings.body_limit_bytes), doorman],
            client_max_size=settings.body_limit_bytes,
        )
        app.add_routes(
            [
                web.get("/v1/health", self.health),
                web.get("/v1/ready", self.ready),
                web.get("/v1/workers/list", self.list_workers),
                web.post("/v1/workers/spawn", self.spawn),
                web.post(WORKER_READY, self.worker_ready),
                web.get("/v1/workers/{worker_id}", self.show_worker),
                web.delete("/v1/workers/{worker_id}", self.stop_worker),
                web.get("/v1/workers/{worker_id}/logs", self.worker_logs),
                web.post("/v1/workers/{worker_id}/inference", self.inference),
                web.delete("/v1/workers/{worker_id}/inference/{request_id}", self.cancel),
                web.get("/v1/backends/list", self.list_backends),
                web.post("/v1/shutdown", self.shutdown),
            ]
        )
        app.add_routes(self._models.routes())
        return app

    async def health(self, request: web.Request) -> web.Response:
        """Say that the hive is alive, and its version. Needs no key."""
        del request
        return json_response(wire.Health(status="alive", version=__version__, api_version=API_VERSION))

    async def ready(self, request: web.Request) -> web.Response:
        """Say whether a spawn would be taken: goes through the catalog, as a spawn does."""
        del request
        await self._models.check()
        closing = self._supervisor.pool.closing
        answer = wire.Ready(ready=not closing, state="stopping" if closing else "ready")
        return json_response(answer, status=503 if closing else 200)

    async def list_workers(self, request: web.Request) -> web.Response:
        """List the registry; the query may narrow it by model, backend, device and state."""
        wanted = {k: v for k, v in request.query.items() if k in ("model", "backend", "device", "state") and v}
        if "model" in wanted:
            wanted["model"] = self._models.canonical(wanted["model"])
        found = [self._describe(w) for w in self._supervisor.pool.live()]
        return json_response(wire.WorkerList(workers=[w for w in found if self._fits(w, wanted)]))

    def _fits(self, worker: wire.WorkerInfo, wanted: dict[str, str]) -> bool:
        backend = self._plugins.backends()[worker.backend]
        facts = {
            "model": {worker.model_ref},
            "backend": {worker.backend, backend.accelerator},
            "device": {worker.device, *_indices(backend, worker.device)},
            "state": {worker.state},
        }
        return all(value in facts[key] for key, value in wanted.items())

    async def spawn(self, request: web.Request) -> web.Response:
        """Have a worker for a model: one that is there, or a new one once it listens."""
        worker = await self._supervisor.spawn(await read_body(request, wire.SpawnRequest))
        return json_response(
            wire.SpawnResponse(
                worker_id=worker.id,
                url=worker.url,
                state=_state(worker),
                model_ref=worker.wanted.model_ref,
                backend=worker.wanted.backend,
                device=worker.wanted.device,
            )
        )

    async def worker_ready(self, request: web.Request) -> web.Response:
        """Register a worker that listens. The worker proves itself with the secret it was given."""
        ready = await read_body(request, wire.WorkerReady)
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self._supervisor.bound(ready, key)
        return json_response({"worker_id": ready.worker_id, "state": "loading"})

    async def show_worker(self, request: web.Request) -> web.Response:
        """Show one worker, also one that has ended."""
        return json_response(self._describe(self._supervisor.pool.find(request.match_info["worker_id"])))

    async def stop_worker(self, request: web.Request) -> web.Response:
        """Stop one worker; answers once it is gone."""
        worker_id = request.match_info["worker_id"]
        await self._supervisor.stop(worker_id, "asked to stop")
        return json_response(wire.StopResponse(stopped=[worker_id]))

    async def worker_logs(self, request: web.Request) -> web.Response:
        """Return a worker's log from `offset` on."""
        worker = self._supervisor.pool.find(request.match_info["worker_id"])
        offset = request.query.get("offset", "0")
        if not (offset.isascii() and offset.isdigit() and len(offset) < 16):
            raise InvalidRequest("offset must be a number of bytes, 0 or more")
        path = worker_log(self._settings.logs_dir, worker.id)
        lines, position = await aio.off_loop(logs.read, path, int(offset))
        return json_response(wire.WorkerLog(worker_id=worker.id, lines=lines, offset=position))

    async def inference(self, request: web.Request) -> web.StreamResponse:
        """Generate on one worker, streaming."""
        wanted = await read_body(request, wire.InferenceRequest)
        wanted = msgspec.structs.replace(wanted, request_id=wanted.request_id or secrets.token_hex(8))
        stream = EventStream(request, self._settings.write_timeout_s)
        with contextlib.suppress(ReaderGoneError):
            async with self._serving.open(request.match_info["worker_id"], wanted) as answer:
                await stream.start()
                async for events in answer.raw():
                    await stream.write(events)
        return stream.response

    async def cancel(self, request: web.Request) -> web.Response:
        """End a request. Idempotent."""
        worker = self._supervisor.pool.find(request.match_info["worker_id"])
        request_id = wire.check(request.match_info["request_id"], wire.RequestId)
        if not worker.ended:
            await self._serving.cancel(worker, request_id)
        return web.Response(status=204)

    async def list_backends(self, request: web.Request) -> web.Response:
        """List every backend, and why it cannot be used if it cannot."""
        del request
        return json_response(wire.BackendList(backends=await aio.off_loop(self._placer.describe_all)))

    async def shutdown(self, request: web.Request) -> web.Response:
        """Begin to stop the hive and all its workers; the answer names them."""
        del request
        stopped = [w.id for w in self._supervisor.pool.live()]
        self._stop_wanted.set()
        return json_response(wire.StopResponse(stopped=list(stopped)))

    def _describe(self, worker: Worker) -> wire.WorkerInfo:
        idle = worker.state is WorkerState.IDLE
        return wire.WorkerInfo(
            worker_id=worker.id,
            model_ref=worker.wanted.model_ref,
            backend=worker.wanted.backend,
            device=worker.wanted.device,
            state=_state(worker),
            url=worker.url,
            pid=worker.pid,
            slots=worker.slots,
            active=len(worker.requests),
            context_tokens=worker.context_tokens,
            reserved_bytes=worker.need.total_bytes,
            progress=worker.progress,
            detail=worker.detail,
            idle_s=round(asyncio.get_running_loop().time() - worker.since, 3) if idle else 0.0,
            reason=worker.reason,
            error=wire.ErrorObject.of(worker.error) if worker.error else None,
            log_path=str(worker_log(self._settings.logs_dir, worker.id)),
        )


def _state(worker: Worker) -> wire.WorkerStateName:
    """Return the state as the wire names it: a worker that is being launched is loading to everybody else."""
    return "loading" if worker.state is WorkerState.LAUNCHING else worker.state.value


def _indices(backend: Backend, device_id: str) -> list[str]:
    try:
        return [str(i) for i, d in enumerate(backend.devices()) if d.id == device_id]
    except RbeeError:
        return []
