"""Everything that can happen to the pool. `at` is monotonic seconds; the pool has no other clock."""

from msgspec import Struct

from rbee_core.domain.worker import Need, RequestId, Secret, Ticket, Wanted, WorkerId
from rbee_core.errors import RbeeError


class WorkerWanted(Struct, frozen=True):
    """Somebody asks for a worker. `worker_id` and `secret` are used if a new one is launched."""

    at: float
    ticket: Ticket
    wanted: Wanted
    need: Need
    available_bytes: int
    worker_id: WorkerId
    secret: Secret
    host_memory: bool = True


class TicketDropped(Struct, frozen=True):
    """The one who held `ticket` has gone away; the worker it waited for stays for others, or for the idle limit."""

    at: float
    ticket: Ticket


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


class RequestStarted(Struct, frozen=True):
    """An inference request is about to be sent to the worker."""

    at: float
    worker_id: WorkerId
    request_id: RequestId


class RequestEnded(Struct, frozen=True):
    """That request is over, however it went."""

    at: float
    worker_id: WorkerId
    request_id: RequestId


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
    """The worker's process is gone and reaped. `exit` names code or signal; `log_tail` are its last log lines."""

    at: float
    worker_id: WorkerId
    exit: str
    log_tail: tuple[str, ...]


class Tick(Struct, frozen=True):
    """Time passed."""

    at: float


Event = (
    WorkerWanted
    | TicketDropped
    | ChildLaunched
    | LaunchFailed
    | WorkerBound
    | LoadProgressed
    | WorkerLoaded
    | LoadFailed
    | ProbeAnswered
    | ProbeFailed
    | RequestStarted
    | RequestEnded
    | StopWanted
    | DrainWanted
    | ShutdownWanted
    | ChildExited
    | Tick
)
