"""Everything the pool can ask of the outside world."""

from typing import Literal

from msgspec import Struct

from rbee_core.domain.worker import Demand, Reason, RequestId, Ticket, WorkerId, WorkerState
from rbee_core.errors import RbeeError


class Resolve(Struct, frozen=True):
    """Find out what `demand` means here, fetching its model if needed; answer with `Resolved` or `Unresolvable`.

    Never asked for twice at once for one demand. What it finds is used for this one decision.
    """

    demand: Demand


class Launch(Struct, frozen=True):
    """Start the worker's process; answer with `ChildLaunched` or `LaunchFailed`."""

    worker_id: WorkerId


class Watch(Struct, frozen=True):
    """Follow the load of a worker that listens; answer with `LoadProgressed`, then `WorkerLoaded` or `LoadFailed`."""

    worker_id: WorkerId


class Probe(Struct, frozen=True):
    """Ask a serving worker whether it is alive; answer with `ProbeAnswered` or `ProbeFailed`."""

    worker_id: WorkerId


class Stop(Struct, frozen=True):
    """End the worker's process: ask, terminate, kill. `force` skips the asking. `ChildExited` follows."""

    worker_id: WorkerId
    force: bool = False


class Answer(Struct, frozen=True):
    """Tell the holder of `ticket` that `worker_id` is as far as it wanted; None for a removal that may begin."""

    ticket: Ticket
    worker_id: WorkerId | None = None


class Grant(Struct, frozen=True):
    """Tell the holder of `ticket` that a slot of `worker_id` is its own.

    It holds the slot until `RequestEnded` or `TicketDropped`.
    """

    ticket: Ticket
    worker_id: WorkerId


class Waiting(Struct, frozen=True):
    """What a ticket waits for, and its place among those who wait for the same, from 1.

    `progress` is the loaded fraction, 0..1, where it waits for the model. A restart waits for its time: the last worker
    failed a moment ago.
    """

    position: int
    for_what: Literal["a slot", "the model", "memory", "a restart"]
    progress: float = 0.0


class Cancel(Struct, frozen=True):
    """Have the worker end the request that holds a slot with `ticket`; its stream says so, and the slot comes back."""

    ticket: Ticket
    worker_id: WorkerId
    request_id: RequestId


class Tell(Struct, frozen=True):
    """Tell the holder of `ticket` how its waiting goes. Said again when that changes."""

    ticket: Ticket
    waiting: Waiting


class Refuse(Struct, frozen=True):
    """Tell the holder of `ticket` why not. The error may be told to many: who raises it raises a copy."""

    ticket: Ticket
    error: RbeeError


class Changed(Struct, frozen=True):
    """Make known that a worker's state changed; `before` is None for a new worker.

    `for_whom` names the client or the model that caused it, where one did. The worker's record holds the rest.
    """

    worker_id: WorkerId
    before: WorkerState | None
    after: WorkerState
    reason: Reason
    for_whom: str = ""


Instruction = Resolve | Launch | Watch | Probe | Stop | Answer | Grant | Cancel | Tell | Refuse | Changed
