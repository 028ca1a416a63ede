"""Who waits, at a worker or with a demand that is not met yet, and what each is told that it waits for."""

from collections.abc import Iterator, Sequence

from rbee_core.domain import events as ev
from rbee_core.domain import instructions as do
from rbee_core.domain.limits import Limits
from rbee_core.domain.pending import PendingDemands
from rbee_core.domain.queue import FairQueue
from rbee_core.domain.replies import Replies
from rbee_core.domain.worker import Reason, RequestId, Ticket, Worker, WorkerId, WorkerState
from rbee_core.domain.workers import Workers
from rbee_core.errors import AllSlotsBusy


class Lines(Replies):
    """The lines of the workers, and the demands with which others wait. Decides nothing about a demand."""

    def __init__(self, limits: Limits, workers: Workers) -> None:
        super().__init__()
        self._limits = limits
        self._workers = workers
        self._pending = PendingDemands(limits)
        self._lines: dict[WorkerId, FairQueue] = {}
        self._granted: dict[Ticket, WorkerId] = {}

    def _line_up(self, worker: Worker, request: ev.RequestWanted) -> Iterator[do.Instruction]:
        line = self._lines.setdefault(worker.id, FairQueue())
        if (request.until == "bound" and worker.url) or (request.until == "ready" and worker.serving):
            yield self._answer(request.ticket, worker.id)
            return
        at_once = worker.free_slots > len(line)
        if not at_once and ((worker.serving and not request.queue) or self._waiting() >= self._limits.queue):
            yield self._refuse(request.ticket, self._busy([worker]))
            return
        if request.until == "slot":
            self._pending.passed_at(worker)
        line.push(request)
        yield from self._serve(worker, max(worker.used_at, request.at))

    def _serve(self, worker: Worker, at: float) -> Iterator[do.Instruction]:
        """Grant free slots to those who wait, then say whether the worker is busy."""
        line, client = self._lines.get(worker.id) or FairQueue(), ""
        while line and worker.free_slots:
            request = line.pop()
            client = request.client
            worker.requests[request.ticket] = request.request_id
            self._granted[request.ticket] = worker.id
            self._told.pop(request.ticket, None)
            yield do.Grant(request.ticket, worker.id)
        yield from self._workers.settle(worker, at, client)
        if worker.retired and worker.state is WorkerState.IDLE and not line:
            yield from self._workers.stop(worker, WorkerState.EVICTED, Reason.REPLACED)

    def tell(self) -> Iterator[do.Instruction]:
        """Tell each who waits what for, if that changed since it was told."""
        for request, waiting in self.all_waiting():
            if request.until != "bound" and self._told.get(request.ticket) != waiting:
                self._told[request.ticket] = waiting
                yield do.Tell(request.ticket, waiting)

    def all_waiting(self) -> Iterator[tuple[ev.RequestWanted, do.Waiting]]:
        """Yield everybody who waits, and what for."""
        before: dict[str, int] = {}
        for pending in self._pending:
            ahead = before.get(pending.recipe.memory, 0) if pending.recipe else 0
            for position, request in enumerate(pending.line, ahead + 1):
                yield request, do.Waiting(position, pending.what_for)
            if pending.recipe:
                before[pending.recipe.memory] = ahead + len(pending.line)
        for worker in self._workers.live():
            serving = worker.serving
            for_what, progress = ("a slot", 0.0) if serving else ("the model", worker.progress)
            for position, request in enumerate(self._lines.get(worker.id) or (), 1):
                yield request, do.Waiting(position, for_what, progress)

    def _waiting(self) -> int:
        return sum(len(p.line) for p in self._pending) + sum(map(len, self._lines.values()))

    def _is_taken(self, request_id: RequestId) -> bool:
        lines = (*(pending.line for pending in self._pending), *self._lines.values())
        waiting = (request.request_id for line in lines for request in line)
        return request_id in waiting or any(request_id in w.requests.values() for w in self._workers.live())

    def _busy(self, workers: Sequence[Worker]) -> AllSlotsBusy:
        slots, busy = sum(w.slots for w in workers), sum(len(w.requests) for w in workers)
        return AllSlotsBusy(slots=slots, busy=busy, waiting=self._waiting())
