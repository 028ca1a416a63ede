"""The hive's routes about workers: reading requests, asking the supervisor, shaping answers. Decides nothing."""

import asyncio

from aiohttp import web

from rbee_core import aio, wire
from rbee_core.backend.manager import PluginHost
from rbee_core.domain.worker import ENDED, Demand, Worker, WorkerState
from rbee_core.errors import InvalidApiKey, RbeeError
from rbee_core.hive.api.inference import client_of
from rbee_core.hive.config.models import Models
from rbee_core.hive.processes import logs
from rbee_core.hive.resolver import Resolver
from rbee_core.hive.supervisor import Supervisor
from rbee_core.home import Home
from rbee_core.http.body import read_body
from rbee_core.http.middleware import json_response
from rbee_core.http.routes import read_query


class WorkerRoutes:
    """One hive's routes about workers."""

    def __init__(
        self,
        home: Home,
        supervisor: Supervisor,
        plugins: PluginHost,
        models: Models,
        resolver: Resolver,
    ) -> None:
        self._home = home
        self._supervisor = supervisor
        self._plugins = plugins
        self._models = models
        self._resolver = resolver

    def _describe(self, worker: Worker) -> wire.WorkerInfo:
        return describe(worker, self._home)

    async def list_workers(self, request: web.Request) -> web.Response:
        """List the registry; the query may narrow it by model, backend, device and state.

        Workers that have ended are no part of it: the remembered ones are listed for who asks for a state of theirs.
        """
        wanted = read_query(request, wire.WorkerFilter)
        model = await self._models.name(wanted.model) if wanted.model else None
        filters = {"model": model, "backend": wanted.backend, "device": wanted.device, "state": wanted.state}
        given = {name: value for name, value in filters.items() if value is not None}
        pool = self._supervisor.pool
        candidates = pool.remembered() if wanted.state in ENDED else pool.live()
        found = [self._describe(w) for w in candidates if self._fits(w, given)]
        held = [self._describe(w) for w in self._supervisor.held_back() if self._fits(w, given)]
        return json_response(wire.WorkerList(workers=found, held_back=held))

    def _fits(self, worker: Worker, filters: dict[str, str]) -> bool:
        recipe = worker.recipe
        facts = {
            "model": worker.names,
            "backend": {recipe.backend, self._plugins.backends()[recipe.backend].accelerator},
            "device": {recipe.device, str(recipe.device_index)},
            "state": {_state(worker)},
        }
        return all(value in facts[name] for name, value in filters.items())

    async def spawn(self, request: web.Request) -> web.Response:
        """Have a worker for a model: one that is there, or a new one once it listens."""
        demand = await self._models.demand(await read_body(request, wire.SpawnRequest))
        worker = await self._supervisor.spawn(client_of(request), demand)
        return json_response(
            wire.SpawnResponse(
                worker_id=worker.id,
                url=worker.url,
                state=_state(worker),
                model_ref=worker.recipe.reference,
                backend=worker.recipe.backend,
                device=worker.recipe.device,
                devices=worker.recipe.device_count,
            )
        )

    async def find_worker(self, request: web.Request) -> web.Response:
        """Show the idle worker that would serve such a request now, if there is one; changes nothing."""
        demand = await self._models.demand(await read_body(request, wire.SpawnRequest))
        await self._supervisor.look_after(demand)
        worker = self._supervisor.pool.would_serve(demand) or await self._idle_twin(demand)
        return json_response(wire.FoundWorker(worker=self._describe(worker) if worker else None))

    async def _idle_twin(self, demand: Demand) -> Worker | None:
        """Return an idle worker made from what `demand` means, where nobody has asked in these words before."""
        if not any(w.state is WorkerState.IDLE and w.recipe.reference == demand.reference for w in self._live()):
            return None
        try:
            recipes = [spot.recipe for spot in (await self._resolver.show(demand)).spots]
        except RbeeError:  # whoever asks for more than a look is told
            return None
        return next((w for w in self._live() if w.state is WorkerState.IDLE and w.recipe in recipes), None)

    def _live(self) -> list[Worker]:
        return self._supervisor.pool.live()

    async def worker_ready(self, request: web.Request) -> web.Response:
        """Register a worker that listens. It proves itself with the secret it was given before anything is read."""
        worker = self._supervisor.worker_with(request.headers.get("Authorization", "").removeprefix("Bearer "))
        ready = await read_body(request, wire.WorkerReady)
        if ready.worker_id != worker.id:
            raise InvalidApiKey
        self._supervisor.bound(worker, ready.url)
        return json_response(wire.WorkerRegistered(worker_id=ready.worker_id, state="loading"))

    async def show_worker(self, request: web.Request) -> web.Response:
        """Show one worker, also one that has ended."""
        return json_response(self._describe(self._supervisor.pool.find(request.match_info["worker_id"])))

    async def stop_worker(self, request: web.Request) -> web.Response:
        """Stop one worker; answers once it is gone."""
        worker_id = request.match_info["worker_id"]
        await self._supervisor.stop(worker_id, "asked to stop")
        killed = self._supervisor.pool.find(worker_id).killed
        return json_response(wire.StopResponse(stopped=[worker_id], killed={worker_id: killed} if killed else {}))

    async def pin(self, request: web.Request) -> web.Response:
        """Keep a worker, or keep it no longer; one that has ended stays as it is."""
        worker_id = request.match_info["worker_id"]
        wanted = await read_body(request, wire.PinRequest)
        return json_response(self._describe(self._supervisor.pin(worker_id, pinned=wanted.pinned)))

    async def retry(self, request: web.Request) -> web.Response:
        """Hold a model back no longer because its workers failed; answers with those it was held back for."""
        wanted = await read_body(request, wire.RetryRequest)
        tried = self._supervisor.retry(await self._models.name(wanted.model_ref))
        return json_response(wire.WorkerList(workers=[self._describe(w) for w in tried]))

    async def worker_logs(self, request: web.Request) -> web.Response:
        """Return a worker's log from `offset` on."""
        worker = self._supervisor.pool.find(request.match_info["worker_id"])
        path = self._home.worker_log(worker.id)
        lines, position = await aio.off_loop(logs.read, path, read_query(request, wire.LogQuery).offset)
        return json_response(wire.WorkerLog(worker_id=worker.id, lines=lines, offset=position))


def describe(worker: Worker, home: Home) -> wire.WorkerInfo:
    """Return a worker as the wire shows it."""
    idle, now = worker.state is WorkerState.IDLE, asyncio.get_running_loop().time()
    return wire.WorkerInfo(
        worker_id=worker.id,
        model_ref=worker.recipe.reference,
        backend=worker.recipe.backend,
        device=worker.recipe.device,
        state=_state(worker),
        url=worker.url,
        pid=worker.pid,
        slots=worker.slots,
        active=len(worker.requests),
        context_tokens=worker.context_tokens,
        reserved_bytes=worker.recipe.need.total_bytes,
        progress=worker.progress,
        detail=worker.detail,
        idle_s=round(now - worker.used_at, 3) if idle else 0.0,
        reason=worker.reason,
        error=wire.ErrorObject.of(worker.error) if worker.error else None,
        log_path=str(home.worker_log(worker.id)),
        failures=worker.failures,
        held_back_s=round(max(0.0, worker.held_until - now), 3),
        pinned=worker.kept,
        last_prompt=_last_prompt(worker),
    )


def _last_prompt(worker: Worker) -> wire.LastPrompt | None:
    read = worker.last_prompt
    return wire.LastPrompt(read.prompt_tokens, read.cached_tokens, read.not_cached) if read else None


def _state(worker: Worker) -> wire.WorkerStateName:
    """Return the state as the wire names it: a worker that is being launched is loading to everybody else."""
    return "loading" if worker.state is WorkerState.LAUNCHING else worker.state.value
