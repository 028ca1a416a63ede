"""The supervisor: feeds the pool with what happens and carries out what it decides.

Owns every task that follows a worker, all inside one TaskGroup; what they do is in `processes/following.py`. It decides
nothing about workers: a rule that starts with "if" and a worker's state belongs into `rbee_core.domain.pool`.
"""

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from rbee_core import aio
from rbee_core.backend.manager import PluginHost
from rbee_core.domain import events as ev
from rbee_core.domain import instructions as do
from rbee_core.domain.pool import Pool
from rbee_core.domain.worker import Demand, RequestId, Secret, Ticket, Worker, WorkerId
from rbee_core.errors import InvalidApiKey, RbeeError
from rbee_core.hive.callers import Caller
from rbee_core.hive.journal import Journal
from rbee_core.hive.plugin_calls import PluginCalls
from rbee_core.hive.processes import logs, stop
from rbee_core.hive.processes.following import Following
from rbee_core.hive.processes.launcher import Launcher
from rbee_core.hive.resolver import Resolver
from rbee_core.hive.terms import Care
from rbee_core.hive.worker_client import WorkerClient
from rbee_core.home import Home
from rbee_core.http.middleware import unforeseen

TICK_S = 0.5

log = logging.getLogger(__name__)


class Supervisor:
    """The pool with hands. Public methods belong to the event loop's thread; `run` must be running."""

    def __init__(
        self,
        care: Care,
        home: Home,
        plugins: PluginHost,
        calls: PluginCalls,
        resolver: Resolver,
        launcher: Launcher,
        link: WorkerClient,
        journal: Journal,
    ) -> None:
        self._care = care
        self._home = home
        self._resolver = resolver
        self._launcher = launcher
        self._link = link
        self._journal = journal
        self._callers: dict[Ticket, Caller] = {}
        self._resolving: dict[Demand, asyncio.Task[None]] = {}
        self._canceling: dict[RequestId, set[asyncio.Task[None]]] = {}
        self._tickets = itertools.count(1)
        self._tasks = asyncio.TaskGroup()
        self._following = Following(care.grace_s, home, plugins, calls, launcher, link, self.feed, self._tasks)
        self._quiet = asyncio.Event()
        self.pool = Pool(care.limits)

    async def run(self, stop_wanted: asyncio.Event, force: asyncio.Event) -> list[str]:
        """Supervise until `stop_wanted`; then drain, stop every worker and return their ids.

        `force` cuts the draining and the asking short.
        """
        async with self._tasks:
            ticker = self._tasks.create_task(self._tick())
            await stop_wanted.wait()
            stopped = [w.id for w in self.pool.live()]
            log.info("Shutting down %d worker%s", len(stopped), "" if len(stopped) == 1 else "s")
            forcing = self._tasks.create_task(self._force(force))
            await self._drain(force)
            self.feed(ev.ShutdownWanted(self._now()))
            for resolving in self._resolving.values():
                resolving.cancel()  # a model may be on its way for hours
            while self.pool.live():
                self._quiet.clear()
                await self._quiet.wait()
            ticker.cancel()
            forcing.cancel()
        return list(stopped)

    # For the routes.

    @asynccontextmanager
    async def enter(
        self, client: str, target: Demand | WorkerId, *, until: ev.Until, request_id: str = "", queue: bool = True
    ) -> AsyncGenerator[Caller]:
        """Ask for a worker, up to the moment that `until` names; leaving the block gives back what was got.

        `client` names who asks. With `queue` false, nobody waits for a slot: `AllSlotsBusy` comes at once.
        """
        if isinstance(target, Demand):
            await self.look_after(target)
        with self._ticket() as (ticket, caller):
            demand, worker_id = (target, None) if isinstance(target, Demand) else (None, target)
            wanted = ev.RequestWanted(
                at=self._now(), ticket=ticket, client=client, demand=demand, worker_id=worker_id,
                request_id=RequestId(request_id), until=until, queue=queue,
            )  # fmt: skip
            try:
                self.feed(wanted)
                yield caller
            finally:
                self._leave(ticket, caller)

    def _leave(self, ticket: Ticket, caller: Caller) -> None:
        if caller.afterwards and self.pool.live():
            self._start(self._end_after(ticket, caller.afterwards()))
        else:
            ended = ev.RequestEnded(self._now(), ticket, caller.answered, caller.read)
            self.feed(ended if caller.holds_slot else ev.TicketDropped(self._now(), ticket))

    async def _end_after(self, ticket: Ticket, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        finally:
            self.feed(ev.RequestEnded(self._now(), ticket))

    async def look_after(self, demand: Demand) -> None:
        """Retire the worker that holds `demand` if its model was replaced: it would answer from what lay there."""
        worker = self.pool.holder(demand)
        if worker is not None and not await self._resolver.is_as_loaded(worker.recipe):
            log.info("%s: other files lie at %s now; it takes nobody new", worker.id, worker.recipe.path)
            self.feed(ev.ModelReplaced(self._now(), worker.id))

    async def spawn(self, client: str, demand: Demand) -> Worker:
        """Return a worker that can be reached, starting one if none holds what is wanted."""
        async with self.enter(client, demand, until="bound") as caller:
            return await caller.worker()

    async def cancel(self, request_id: str, worker_id: str | None = None) -> None:
        """End a request, waiting or running; with `worker_id`, only there.

        Returns when its slot is free, or the worker could not be told. One that nobody knows is as good as ended.
        """
        name, where = RequestId(request_id), None if worker_id is None else WorkerId(worker_id)
        self.feed(ev.CancelWanted(self._now(), name, where))
        if canceling := self._canceling.get(name):
            await asyncio.wait(canceling)

    @asynccontextmanager
    async def removal(self, reference: str) -> AsyncGenerator[None]:
        """Keep a model unused while its files are removed. Raises `ModelInUse`."""
        with self._ticket() as (ticket, caller):
            self.feed(ev.ModelRemovalWanted(self._now(), ticket, reference))
            try:
                await caller.allowed()
                yield
            finally:
                self.feed(ev.ModelRemoved(self._now(), ticket))

    @contextmanager
    def _ticket(self) -> Generator[tuple[Ticket, Caller]]:
        ticket, caller = Ticket(next(self._tickets)), Caller()
        self._callers[ticket] = caller
        try:
            yield ticket, caller
        finally:
            del self._callers[ticket]
            caller.close()

    def worker_with(self, secret: str) -> Worker:
        """Return the live worker that was started with `secret`. Raises `InvalidApiKey`, which tells of no worker."""
        said = secret.encode("utf-8", "surrogateescape")
        for worker in self.pool.live():
            if secrets.compare_digest(said, worker.secret.encode()):
                return worker
        raise InvalidApiKey

    def bound(self, worker: Worker, url: str) -> None:
        """Take a worker's callback: it listens at `url`."""
        self.feed(ev.WorkerBound(self._now(), worker.id, url))

    async def stop(self, worker_id: str, reason: str) -> None:
        """Stop one worker and wait until it is gone. Raises `WorkerNotFound`."""
        worker = self.pool.find(worker_id)
        self.feed(ev.StopWanted(self._now(), worker.id, reason))
        await self._following.gone(worker.id)

    def pin(self, worker_id: str, *, pinned: bool) -> Worker:
        """Keep a worker however little room there is and however long it is idle, or no longer. Returns its record.

        Raises `WorkerNotFound`.
        """
        worker = self.pool.find(worker_id)
        self.feed(ev.PinWanted(self._now(), worker.id, pinned))
        return worker

    def keep(self, worker_id: WorkerId, idle_s: float | None) -> None:
        """Keep a worker for so many idle seconds, None for as long as the settings say; one that ended is forgotten."""
        self.feed(ev.KeepWanted(self._now(), worker_id, idle_s))

    def held_back(self) -> list[Worker]:
        """Return the last worker of each model that is not started now because its workers fail."""
        return self.pool.held_back(self._now())

    def retry(self, reference: str) -> list[Worker]:
        """Try a model again from now on, however often it has failed; return those it is no longer held back for."""
        held = [worker for worker in self.held_back() if reference in worker.names]
        self.feed(ev.RetryWanted(self._now(), reference))
        return held

    async def gone(self, worker_id: str, within_s: float) -> Worker | None:
        """Return the worker's record if it ends within `within_s`, None if it lives on."""
        await self._following.gone(WorkerId(worker_id), within_s)
        worker = self.pool.find(worker_id)
        return worker if worker.ended else None

    # Carrying out.

    def feed(self, event: ev.Event) -> None:
        """Give `event` to the pool and carry out what it answers."""
        instructions = self.pool.handle(event)
        self._journal.record(event, instructions, self.pool.find)
        for instruction in instructions:
            self._carry_out(instruction)
        if not self.pool.live():
            self._quiet.set()

    def _carry_out(self, instruction: do.Instruction) -> None:
        match instruction:
            case do.Resolve(demand):
                self._resolving[demand] = self._tasks.create_task(self._resolve(demand))
            case do.Launch(worker_id):
                self._following.launch(self.pool.find(worker_id))
            case do.Watch(worker_id):
                self._start(self._following.watch_load(self.pool.find(worker_id)))
            case do.Probe(worker_id):
                self._start(self._following.probe(self.pool.find(worker_id)))
            case do.Stop(worker_id, force):
                self._start(self._following.stop(self.pool.find(worker_id), force=force))
            case do.Cancel(ticket, worker_id, request_id):
                self._cancel(ticket, self.pool.find(worker_id), request_id)
            case do.Answer() | do.Grant() | do.Refuse() | do.Tell():
                if caller := self._callers.get(instruction.ticket):
                    self._reply(caller, instruction)
            case do.Changed():
                pass  # the journal tells everybody

    def _reply(self, caller: Caller, reply: do.Answer | do.Grant | do.Refuse | do.Tell) -> None:
        match reply:
            case do.Answer(_, worker_id):
                caller.answer(self.pool.find(worker_id) if worker_id else None)
            case do.Grant(_, worker_id):
                caller.answer(self.pool.find(worker_id), slot=True)
            case do.Refuse(_, error):
                caller.refuse(error)
            case do.Tell(_, waiting):
                caller.tell(waiting)

    def _cancel(self, ticket: Ticket, worker: Worker, request_id: RequestId) -> None:
        if caller := self._callers.get(ticket):
            caller.canceled = True
        telling = self._start(self._link.cancel(worker, request_id))
        self._canceling.setdefault(request_id, set()).add(telling)  # one name may run on several workers
        telling.add_done_callback(lambda _: self._told(request_id, telling))

    def _told(self, request_id: RequestId, telling: asyncio.Task[None]) -> None:
        self._canceling[request_id].discard(telling)
        if not self._canceling[request_id]:
            del self._canceling[request_id]

    def _start(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[None]:
        """Follow one worker in a task. A bug in that concerns this worker; the others and the hive go on."""

        async def logged() -> None:
            try:
                await work
            except Exception:
                log.exception("following a worker failed")

        return self._tasks.create_task(logged())

    async def _resolve(self, demand: Demand) -> None:
        outcome = await self._outcome(demand)
        del self._resolving[demand]
        self.feed(outcome)

    async def _outcome(self, demand: Demand) -> ev.Resolved | ev.Unresolvable:
        try:
            found = await self._resolver.resolve(demand)
        except RbeeError as error:
            return ev.Unresolvable(self._now(), demand, error)
        except Exception as error:  # noqa: BLE001  # whoever waits is answered, whatever happens
            return ev.Unresolvable(
                self._now(), demand, unforeseen(f"resolving {demand.reference}", error, self._journal.story())
            )
        return ev.Resolved(
            at=self._now(),
            demand=demand,
            spots=found.spots,
            worker_id=self._launcher.next_id(),
            secret=Secret(secrets.token_urlsafe(32)),
        )

    async def _force(self, force: asyncio.Event) -> None:
        """Once `force` is set, kill: somebody pressed Ctrl+C again."""
        await force.wait()
        self.feed(ev.ShutdownWanted(self._now()))  # before they are gone: nobody may be told that they crashed
        self._following.kill_all()

    async def _drain(self, force: asyncio.Event) -> None:
        """Let requests that somebody still waits for finish, for a part of the grace time."""

        def active() -> int:
            return sum(caller.holds_slot for caller in self._callers.values())

        self.feed(ev.DrainWanted(self._now()))
        if not active():
            return
        log.info("waiting for %d running requests; press Ctrl+C again to stop now", active())
        deadline = self._now() + self._care.grace_s * stop.DRAIN_SHARE
        while active() and self._now() < deadline and not force.is_set():
            await aio.sleep(0.02)

    async def _tick(self) -> None:
        while True:
            await aio.sleep(TICK_S)
            self.feed(ev.Tick(self._now()))
            written = [self._home.worker_log(worker.id) for worker in self.pool.live()]
            with contextlib.suppress(RuntimeError):  # the system gives no more threads: the next tick tries again
                await aio.off_loop(logs.bound_all, written, self._care.log_limit_bytes)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
