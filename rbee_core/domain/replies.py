"""What those who wait are told in the end: an answer or a refusal, and after it nothing more."""

from collections.abc import Iterable, Iterator

from rbee_core.domain import events as ev
from rbee_core.domain import instructions as do
from rbee_core.domain.queue import FairQueue
from rbee_core.domain.worker import Ticket, Worker, WorkerId
from rbee_core.errors import RbeeError


class Replies:
    """Replies to tickets; `_told` is what each was last told that it waits for, until its reply."""

    def __init__(self) -> None:
        self._told: dict[Ticket, do.Waiting] = {}

    def _answer(self, ticket: Ticket, worker_id: WorkerId | None) -> do.Answer:
        self._told.pop(ticket, None)
        return do.Answer(ticket, worker_id)

    def _answer_those(self, line: FairQueue, until: ev.Until, worker: Worker) -> Iterator[do.Instruction]:
        for request in [r for r in line if r.until == until]:
            line.remove(request.ticket)
            yield self._answer(request.ticket, worker.id)

    def _refuse(self, ticket: Ticket, error: RbeeError) -> do.Refuse:
        self._told.pop(ticket, None)
        return do.Refuse(ticket, error)

    def _refuse_those(
        self, line: FairQueue, requests: Iterable[ev.RequestWanted], error: RbeeError
    ) -> Iterator[do.Instruction]:
        for request in requests:
            line.remove(request.ticket)
            yield self._refuse(request.ticket, error)

    def _refuse_all(self, line: FairQueue, error: RbeeError) -> Iterator[do.Instruction]:
        return self._refuse_those(line, list(line), error)
