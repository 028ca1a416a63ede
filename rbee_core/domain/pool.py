"""The pool of one hive: which workers there are, who waits for one, and what to do next.

Knows no asyncio, process, socket or clock: `Pool.handle` takes an event and returns instructions;
`rbee_core.hive.supervisor` carries them out and feeds back what happened. Two parts: `workers` is the registry and each
worker's life, `requests` is everybody who wants one. What the first does, the second hears as `Changed`, like
everybody else.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

from rbee_core.domain import events as ev
from rbee_core.domain import instructions as do
from rbee_core.domain.limits import Limits
from rbee_core.domain.requests import Requests
from rbee_core.domain.worker import Demand, Reason, Worker, WorkerState
from rbee_core.domain.workers import REMEMBERED, Workers

__all__ = ["REMEMBERED", "Limits", "Pool"]


class Pool:
    """Workers and requests, and their rules.

    `handle` is the only door that changes state. Reading is free (`live`, `find`, `would_serve`), but a read that
    decides a change belongs in here. Ended workers are remembered, the last `REMEMBERED` of them, so that "what
    happened to it?" has an answer; they are not part of the registry.
    """

    def __init__(self, limits: Limits) -> None:
        self._workers = Workers(limits)
        self._requests = Requests(limits, self._workers)

    def __repr__(self) -> str:
        states = ", ".join(f"{w.id} {w.state}" for w in self.live())
        return f"<Pool {'closing, ' if self.closing else ''}{states or 'empty'}>"

    @property
    def closing(self) -> bool:
        """Whether nothing starts any more."""
        return self._requests.closing

    def live(self) -> list[Worker]:
        """Return the workers in the registry, oldest first."""
        return self._workers.live()

    def remembered(self) -> list[Worker]:
        """Return the workers that have ended, as far as they are remembered, oldest first."""
        return self._workers.remembered()

    def find(self, worker_id: str) -> Worker:
        """Return a live or remembered worker. Raises `WorkerNotFound`."""
        return self._workers.find(worker_id)

    def holder(self, demand: Demand) -> Worker | None:
        """Return the live worker that `demand` was last resolved to."""
        return self._requests.holder(demand)

    def would_serve(self, demand: Demand) -> Worker | None:
        """Return the idle worker that a request for `demand` would get now, for display."""
        worker = self._requests.holder(demand)
        return worker if worker and worker.state is WorkerState.IDLE else None

    def waiting(self) -> Counter[str]:
        """Return how many requests wait for each model, by its reference."""
        waiting = (request for request, _ in self._requests.all_waiting())
        return Counter(
            r.demand.reference if r.demand else self.find(r.worker_id or "").recipe.reference for r in waiting
        )

    def held_back(self, at: float) -> list[Worker]:
        """Return the last worker of each recipe that is held back at this time because its workers fail."""
        return self._requests.failures.held_back(at)

    def handle(self, event: ev.Event) -> list[do.Instruction]:
        """Take in what happened and return what to do about it, in order."""
        return [*self._heard(self._handle(event), event.at), *self._requests.tell()]

    def _heard(self, instructions: Iterable[do.Instruction], at: float) -> Iterator[do.Instruction]:
        """Let the requests hear of every change, once all that led to it is done."""
        for instruction in list(instructions):
            yield instruction
            if isinstance(instruction, do.Changed):
                yield from self._heard(self._requests.heard(instruction, at), at)

    def _handle(self, event: ev.Event) -> Iterator[do.Instruction]:  # noqa: C901, PLR0911, PLR0912  # one flat table
        match event:
            case ev.RequestWanted():
                return self._requests.want(event)
            case ev.Resolved():
                return self._requests.resolved(event)
            case ev.Unresolvable():
                return self._requests.unresolvable(event)
            case ev.TicketDropped():
                return self._requests.leave(event.ticket, event.at)
            case ev.CancelWanted():
                return self._requests.cancel(event)
            case ev.RequestEnded():
                return self._requests.ended(event)
            case ev.RetryWanted():
                return self._requests.retry(event)
            case ev.ModelRemovalWanted():
                return self._requests.want_removal(event)
            case ev.ModelRemoved():
                return self._requests.removed(event.ticket)
            case ev.ModelReplaced():
                return self._requests.replaced(event)
            case ev.Tick():
                return chain(self._workers.tick(event.at), self._requests.come_back(event.at))
            case ev.DrainWanted():
                return self._requests.close()
            case ev.ShutdownWanted():
                return self._shutdown()
            case ev.PinWanted():
                return self._pin(event)
            case ev.KeepWanted():
                return self._keep(event)
            case ev.SettingsChanged():
                return self._take(event)
            case _:
                return self._workers.handle(event)

    def _shutdown(self) -> Iterator[do.Instruction]:
        yield from self._requests.close()
        for worker in self.live():
            yield from self._workers.stop(worker, WorkerState.UNLOADED, Reason.SHUTDOWN)

    def _pin(self, event: ev.PinWanted) -> Iterator[do.Instruction]:
        if worker := next((w for w in self.live() if w.id == event.worker_id), None):
            worker.pinned = event.pinned
            yield from self._requests.memory_changed(worker.recipe.memory)

    def _keep(self, event: ev.KeepWanted) -> Iterator[do.Instruction]:
        if worker := next((w for w in self.live() if w.id == event.worker_id), None):
            worker.kept_s = event.idle_s
        return iter(())

    def _take(self, event: ev.SettingsChanged) -> Iterator[do.Instruction]:
        """Heed other limits from now on. Who waits or is served goes on with what was meant when it came."""
        self._workers.take(event.limits)
        self._requests.take(event.limits)
        for worker in self.live():
            worker.demands = {d for d in worker.demands if d.section not in event.others}
            self._workers.keep(worker)
        for memory in dict.fromkeys(worker.recipe.memory for worker in self.live()):
            yield from self._requests.memory_changed(memory)
