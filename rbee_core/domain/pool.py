"""The pool of one hive: which workers there are, what state each is in, and what to do next.

Owns the worker registry, in memory. Knows no asyncio, process, socket or clock: `Pool.handle` takes an event and
returns instructions; `rbee_core.hive.supervisor` carries them out and feeds back what happened.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

from rbee_core.domain import events as ev
from rbee_core.domain import instructions as do
from rbee_core.domain.placement import free_bytes
from rbee_core.domain.worker import Ticket, Wanted, Worker, WorkerId, WorkerState
from rbee_core.errors import (
    InsufficientRam,
    LoadingTimeout,
    RbeeError,
    ShuttingDown,
    VramExhausted,
    WorkerCrashed,
    WorkerNotFound,
)

REMEMBERED = 64
PROBES_BEFORE_KILL = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """The pool's time limits, in seconds."""

    worker_start_s: float = 30.0
    load_stall_s: float = 300.0
    idle_s: float = 300.0
    probe_every_s: float = 30.0


class Pool:
    """The worker registry and its rules.

    `handle` is the only door that changes state. Reading is free (`live`, `find`), but a read that decides a change
    belongs in here. Ended workers are remembered, the last `REMEMBERED` of them, so that "what happened to it?" has an
    answer; they are not part of the registry.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._live: dict[WorkerId, Worker] = {}
        self._ended: OrderedDict[WorkerId, Worker] = OrderedDict()
        self._probed_at: dict[WorkerId, float] = {}
        self.closing = False

    def __repr__(self) -> str:
        states = ", ".join(f"{w.id} {w.state}" for w in self.live())
        return f"<Pool {'closing, ' if self.closing else ''}{states or 'empty'}>"

    def live(self) -> list[Worker]:
        """Return the workers in the registry, oldest first."""
        return list(self._live.values())

    def find(self, worker_id: str) -> Worker:
        """Return a live or remembered worker. Raises `WorkerNotFound`."""
        key = WorkerId(worker_id)
        worker = self._live.get(key) or self._ended.get(key)
        if worker is None:
            raise WorkerNotFound(worker_id=worker_id)
        return worker

    def handle(self, event: ev.Event) -> list[do.Instruction]:
        """Take in what happened and return what to do about it, in order."""
        return list(self._handle(event))

    def _handle(self, event: ev.Event) -> Iterator[do.Instruction]:
        match event:
            case ev.WorkerWanted():
                return self._want(event)
            case ev.TicketDropped():
                return self._drop(event.ticket)
            case ev.Tick():
                return self._tick(event.at)
            case ev.DrainWanted():
                self.closing = True
                return iter(())
            case ev.ShutdownWanted():
                return self._shutdown()
            case _:
                worker = self._live.get(event.worker_id)
                return iter(()) if worker is None else self._of_worker(worker, event)

    def _of_worker(self, worker: Worker, event: "_WorkerEvent") -> Iterator[do.Instruction]:  # noqa: C901, PLR0911  # one flat table
        match event:
            case ev.ChildLaunched():
                worker.pid = event.pid
                return iter(())
            case ev.LaunchFailed():
                return self._end(worker, WorkerState.FAILED, "could not be launched", event.error)
            case ev.WorkerBound():
                return self._bound(worker, event)
            case ev.LoadProgressed():
                return self._progressed(worker, event)
            case ev.WorkerLoaded():
                return self._loaded(worker, event)
            case ev.LoadFailed():
                return self._give_up(worker, event.error)
            case ev.ProbeAnswered():
                worker.failed_probes = 0
                return iter(())
            case ev.ProbeFailed():
                return self._probe_failed(worker)
            case ev.RequestStarted() | ev.RequestEnded():
                return self._request(worker, event)
            case ev.StopWanted():
                return self._stop(worker, WorkerState.UNLOADED, event.reason)
            case ev.ChildExited():
                return self._exited(worker, event)
            case _:
                assert_never(event)

    # Spawning: one worker for equal wants, however many ask.

    def _want(self, event: ev.WorkerWanted) -> Iterator[do.Instruction]:
        if self.closing:
            yield do.Refuse(event.ticket, ShuttingDown(who="hive"))
            return
        if worker := self._holder(event.wanted):
            if worker.url:
                yield do.Answer(event.ticket, worker.id)
            else:
                worker.tickets.append(event.ticket)
            return
        free = free_bytes(event.available_bytes, self._live.values())
        if event.need.total_bytes > free:
            shortage = InsufficientRam if event.host_memory else VramExhausted
            yield do.Refuse(event.ticket, shortage(need_bytes=event.need.total_bytes, have_bytes=free))
            return
        worker = Worker(
            event.worker_id, event.wanted, event.need, event.secret, WorkerState.LAUNCHING, event.at,
            tickets=[event.ticket],
        )  # fmt: skip
        self._live[worker.id] = worker
        yield do.Announce(worker.id, f"launching for {event.wanted.model_ref} on {event.wanted.device}")
        yield do.Launch(worker.id)

    def _holder(self, wanted: Wanted) -> Worker | None:
        """Return a live worker that holds what is wanted, an idle one first."""
        holders = [w for w in self._live.values() if w.wanted == wanted and w.state is not WorkerState.STOPPING]
        return min(holders, key=lambda w: w.state is not WorkerState.IDLE, default=None)

    def _drop(self, ticket: Ticket) -> Iterator[do.Instruction]:
        for worker in self._live.values():
            if ticket in worker.tickets:
                worker.tickets.remove(ticket)
        return iter(())

    # Loading.

    def _bound(self, worker: Worker, event: ev.WorkerBound) -> Iterator[do.Instruction]:
        if worker.state is not WorkerState.LAUNCHING:
            return
        worker.state, worker.url, worker.since = WorkerState.LOADING, event.url, event.at
        yield do.Announce(worker.id, f"registered at {event.url}")
        for ticket in worker.tickets:
            yield do.Answer(ticket, worker.id)
        worker.tickets.clear()
        yield do.Watch(worker.id)

    def _progressed(self, worker: Worker, event: ev.LoadProgressed) -> Iterator[do.Instruction]:
        if worker.state is WorkerState.LOADING:
            worker.since, worker.progress, worker.detail = event.at, event.fraction, event.detail
        return iter(())

    def _loaded(self, worker: Worker, event: ev.WorkerLoaded) -> Iterator[do.Instruction]:
        if worker.state is not WorkerState.LOADING:
            return
        worker.state, worker.since, worker.progress, worker.detail = WorkerState.IDLE, event.at, 1.0, ""
        worker.slots, worker.context_tokens = event.slots, event.context_tokens
        self._probed_at[worker.id] = event.at
        yield do.Announce(worker.id, f"ready with {event.slots} slots of {event.context_tokens} tokens", ready=True)

    def _give_up(self, worker: Worker, error: RbeeError) -> Iterator[do.Instruction]:
        """Stop a worker that will never be ready."""
        if worker.state not in (WorkerState.LAUNCHING, WorkerState.LOADING):
            return
        yield from self._refuse_waiting(worker, error)
        worker.error = error
        yield from self._stop(worker, WorkerState.FAILED, error.message)

    # Serving.

    def _request(self, worker: Worker, event: ev.RequestStarted | ev.RequestEnded) -> Iterator[do.Instruction]:
        if isinstance(event, ev.RequestEnded):
            worker.requests.discard(event.request_id)
        elif worker.serving:
            worker.requests.add(event.request_id)
        if worker.serving:
            worker.state = WorkerState.BUSY if worker.requests else WorkerState.IDLE
            worker.since = event.at
        return iter(())

    def _probe_failed(self, worker: Worker) -> Iterator[do.Instruction]:
        worker.failed_probes += 1
        if worker.serving and worker.failed_probes >= PROBES_BEFORE_KILL:
            worker.error = WorkerCrashed(worker_id=worker.id, exit="it stopped answering")
            yield from self._stop(worker, WorkerState.CRASHED, "it stopped answering", force=True)

    # Ending.

    def _stop(
        self, worker: Worker, end_as: WorkerState, reason: str, *, force: bool = False
    ) -> Iterator[do.Instruction]:
        if worker.state is WorkerState.STOPPING:
            return
        yield from self._refuse_waiting(worker, ShuttingDown(who="worker"))
        worker.state, worker.end_as, worker.reason = WorkerState.STOPPING, end_as, reason
        yield do.Announce(worker.id, f"stopping: {reason}")
        yield do.Stop(worker.id, force)

    def _exited(self, worker: Worker, event: ev.ChildExited) -> Iterator[do.Instruction]:
        if worker.end_as is not None:
            yield from self._end(worker, worker.end_as, worker.reason, None)
            return
        crash = WorkerCrashed(worker_id=worker.id, exit=event.exit, log_tail=event.log_tail)
        end_as = WorkerState.CRASHED if worker.serving else WorkerState.FAILED
        yield from self._end(worker, end_as, event.exit, crash)

    def _end(
        self, worker: Worker, end_as: WorkerState, reason: str, error: RbeeError | None
    ) -> Iterator[do.Instruction]:
        """Take the worker out of the registry and remember it."""
        if error is not None:
            worker.error = error
            yield from self._refuse_waiting(worker, error)
        worker.state, worker.reason = end_as, reason
        worker.requests.clear()
        del self._live[worker.id]
        self._probed_at.pop(worker.id, None)
        self._ended[worker.id] = worker
        while len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)
        yield do.Announce(worker.id, f"{end_as}: {reason}", gone=True)

    def _refuse_waiting(self, worker: Worker, error: RbeeError) -> Iterator[do.Instruction]:
        for ticket in worker.tickets:
            yield do.Refuse(ticket, error)
        worker.tickets.clear()

    def _shutdown(self) -> Iterator[do.Instruction]:
        self.closing = True
        for worker in self.live():
            yield from self._stop(worker, WorkerState.UNLOADED, "the hive is shutting down")

    # Time.

    def _tick(self, at: float) -> Iterator[do.Instruction]:
        for worker in self.live():
            waited = at - worker.since
            if worker.state is WorkerState.LAUNCHING and waited >= self._limits.worker_start_s:
                yield from self._give_up(worker, LoadingTimeout(worker_id=worker.id, progress=0, waited_s=waited))
            elif worker.state is WorkerState.LOADING and waited >= self._limits.load_stall_s:
                timeout = LoadingTimeout(worker_id=worker.id, progress=worker.progress, waited_s=waited)
                yield from self._give_up(worker, timeout)
            elif worker.state is WorkerState.IDLE and waited >= self._limits.idle_s:
                yield from self._stop(worker, WorkerState.EVICTED, f"idle for {waited:.0f} s")
            elif worker.serving and at - self._probed_at[worker.id] >= self._limits.probe_every_s:
                self._probed_at[worker.id] = at
                yield do.Probe(worker.id)


_WorkerEvent = (
    ev.ChildLaunched
    | ev.LaunchFailed
    | ev.WorkerBound
    | ev.LoadProgressed
    | ev.WorkerLoaded
    | ev.LoadFailed
    | ev.ProbeAnswered
    | ev.ProbeFailed
    | ev.RequestStarted
    | ev.RequestEnded
    | ev.StopWanted
    | ev.ChildExited
)
