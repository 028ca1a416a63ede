"""Everything that can happen to the pool. `at` is monotonic seconds; the pool has no other clock."""

from typing import Literal

from msgspec import Struct

from rbee_core.domain.limits import Limits
from rbee_core.domain.worker import Demand, Reading, RequestId, Secret, Spot, Ticket, WorkerId
from rbee_core.errors import RbeeError

Until = Literal["bound", "ready", "slot"]


class RequestWanted(Struct, frozen=True, kw_only=True):
    """Somebody wants a worker, up to the moment that `until` names: its address, its model, or one of its slots.

    Exactly one of `demand` and `worker_id` is given. `client` names who asks: clients take turns. `request_id` names a
    request that will generate, and is empty for the others. `queue` says whether it waits while all slots are taken.
    """

    at: float
    ticket: Ticket
    client: str
    demand: Demand | None = None
    worker_id: WorkerId | None = None
    request_id: RequestId = RequestId("")
    until: Until = "slot"
    queue: bool = True

    @property
    def patient(self) -> bool:
        """Whether it waits for what others hold."""
        return self.until == "slot" and self.queue


class Resolved(Struct, frozen=True, kw_only=True):
    """What a demand means on this node: on each device that it leaves open, the backend's first one first.

    What is free there is what the system reports now. `worker_id` and `secret` are used if a worker is launched for it.
    """

    at: float
    demand: Demand
    spots: tuple[Spot, ...]
    worker_id: WorkerId
    secret: Secret


class Unresolvable(Struct, frozen=True):
    """A demand means nothing on this node, or nothing that works."""

    at: float
    demand: Demand
    error: RbeeError


class PinWanted(Struct, frozen=True):
    """Somebody asks to keep this worker, or no longer: a pinned one is stopped neither for room nor for being idle."""

    at: float
    worker_id: WorkerId
    pinned: bool


class SettingsChanged(Struct, frozen=True):
    """The node's owner changed the settings. `others` are the sections of which another worker would be started now.

    "" stands for those who ask for a model without a section. A worker that is there is not what they mean any more.
    """

    at: float
    limits: Limits
    others: frozenset[str] = frozenset()


class KeepWanted(Struct, frozen=True):
    """Somebody asks to keep this worker for so many idle seconds, whatever the settings say; None: as they say."""

    at: float
    worker_id: WorkerId
    idle_s: float | None


class ModelRemovalWanted(Struct, frozen=True):
    """Somebody wants to remove a model's files. Answered at once; no worker for it starts until `ModelRemoved`."""

    at: float
    ticket: Ticket
    reference: str


class ModelRemoved(Struct, frozen=True):
    """The removal that `ticket` was answered for is over, however it went."""

    at: float
    ticket: Ticket


class RetryWanted(Struct, frozen=True):
    """Somebody asks to try a model again now, however often workers for it have failed."""

    at: float
    reference: str


class ModelReplaced(Struct, frozen=True):
    """Other files than this worker has loaded lie in their place, or none."""

    at: float
    worker_id: WorkerId


class TicketDropped(Struct, frozen=True):
    """The holder of `ticket` has gone away, from the queue or from its slot. The worker stays, for others."""

    at: float
    ticket: Ticket


class CancelWanted(Struct, frozen=True):
    """Nobody wants the request of this name any more, whether it waits or runs; with `worker_id`, only there."""

    at: float
    request_id: RequestId
    worker_id: WorkerId | None = None


class ChildLaunched(Struct, frozen=True):
    """The worker's process exists."""

    at: float
    worker_id: WorkerId
    pid: int


class LaunchFailed(Struct, frozen=True):
    """The operating system refused to start the worker's process."""

    at: float
    worker_id: WorkerId
    error: RbeeError


class WorkerBound(Struct, frozen=True):
    """The worker called back: it listens at `url` and begins to load."""

    at: float
    worker_id: WorkerId
    url: str


class LoadProgressed(Struct, frozen=True):
    """The load moved on; `fraction` is 0..1."""

    at: float
    worker_id: WorkerId
    fraction: float
    detail: str


class WorkerLoaded(Struct, frozen=True):
    """The model is loaded; the worker serves."""

    at: float
    worker_id: WorkerId
    slots: int
    context_tokens: int


class LoadFailed(Struct, frozen=True):
    """The load ended with an error; the process is still there and has to be stopped."""

    at: float
    worker_id: WorkerId
    error: RbeeError


class ProbeAnswered(Struct, frozen=True):
    """A serving worker answered its health probe."""

    at: float
    worker_id: WorkerId


class ProbeFailed(Struct, frozen=True):
    """A serving worker did not answer its health probe in time."""

    at: float
    worker_id: WorkerId


class RequestEnded(Struct, frozen=True):
    """The worker is done with the request that `ticket` was granted a slot for, however that went.

    `answered` says that it ended it itself, with its last word: a worker that does so is well. `read` is what it said
    of the prompt, where there was one.
    """

    at: float
    ticket: Ticket
    answered: bool = False
    read: Reading | None = None


class StopWanted(Struct, frozen=True):
    """Somebody asks to stop this worker."""

    at: float
    worker_id: WorkerId
    reason: str


class DrainWanted(Struct, frozen=True):
    """The hive is about to stop: nothing starts any more, what runs may end by itself."""

    at: float


class ShutdownWanted(Struct, frozen=True):
    """The hive is to stop: nothing starts any more, every worker is stopped."""

    at: float


class ChildExited(Struct, frozen=True):
    """The worker's process is gone and reaped. `exit` names code or signal; `log_tail` are its last log lines.

    `unwilling` says that it did not stop when asked and was killed; then `exit` says that.
    """

    at: float
    worker_id: WorkerId
    exit: str
    log_tail: tuple[str, ...]
    unwilling: bool = False


class Tick(Struct, frozen=True):
    """Time passed."""

    at: float


WorkerEvent = (
    ChildLaunched
    | LaunchFailed
    | WorkerBound
    | LoadProgressed
    | WorkerLoaded
    | LoadFailed
    | ProbeAnswered
    | ProbeFailed
    | StopWanted
    | ChildExited
)
"""What concerns one worker, and nothing if that one is not live."""

Event = (
    RequestWanted
    | Resolved
    | Unresolvable
    | TicketDropped
    | CancelWanted
    | RequestEnded
    | ModelRemovalWanted
    | ModelRemoved
    | ModelReplaced
    | RetryWanted
    | WorkerEvent
    | PinWanted
    | KeepWanted
    | SettingsChanged
    | DrainWanted
    | ShutdownWanted
    | Tick
)
