"""Everything that can happen to the pool. `at` is monotonic seconds; the pool has no other clock."""

from dataclasses import dataclass, field

from rbee_core.domain.worker import Need, RequestId, Ticket, Wanted, WorkerId
from rbee_core.errors import RbeeError


@dataclass(frozen=True, slots=True)
class WorkerWanted:
    """Somebody asks for a worker. `worker_id` and `secret` are used if a new one is launched."""

    at: float
    ticket: Ticket
    wanted: Wanted
    need: Need
    available_bytes: int
    worker_id: WorkerId
    secret: str = field(repr=False)
    host_memory: bool = True


@dataclass(frozen=True, slots=True)
class TicketDropped:
    """The one who held `ticket` has gone away; the worker it waited for stays for others, or for the idle limit."""

    at: float
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class ChildLaunched:
    """The worker's process exists."""

    at: float
    worker_id: WorkerId
    pid: int


@dataclass(frozen=True, slots=True)
class LaunchFailed:
    """The operating system refused to start the worker's process."""

    at: float
    worker_id: WorkerId
    error: RbeeError


@dataclass(frozen=True, slots=True)
class WorkerBound:
    """The worker called back: it listens at `url` and begins to load."""

    at: float
    worker_id: WorkerId
    url: str


@dataclass(frozen=True, slots=True)
class LoadProgressed:
    """The load moved on; `fraction` is 0..1."""

    at: float
    worker_id: WorkerId
    fraction: float
    detail: str


@dataclass(frozen=True, slots=True)
class WorkerLoaded:
    """The model is loaded; the worker serves."""

    at: float
    worker_id: WorkerId
    slots: int
    context_tokens: int


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The load ended with an error; the process is still there and has to be stopped."""

    at: float
    worker_id: WorkerId
    error: RbeeError


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """A serving worker answered its health probe."""

    at: float
    worker_id: WorkerId


@dataclass(frozen=True, slots=True)
class ProbeFailed:
    """A serving worker did not answer its health probe in time."""

    at: float
    worker_id: WorkerId


@dataclass(frozen=True, slots=True)
class RequestStarted:
    """An inference request is about to be sent to the worker."""

    at: float
    worker_id: WorkerId
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """That request is over, however it went."""

    at: float
    worker_id: WorkerId
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class StopWanted:
    """Somebody asks to stop this worker."""

    at: float
    worker_id: WorkerId
    reason: str


@dataclass(frozen=True, slots=True)
class ShutdownWanted:
    """The hive is to stop: nothing starts any more, every worker is stopped."""

    at: float


@dataclass(frozen=True, slots=True)
class ChildExited:
    """The worker's process is gone and reaped. `exit` names code or signal; `log_tail` are its last log lines."""

    at: float
    worker_id: WorkerId
    exit: str
    log_tail: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tick:
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
    | ShutdownWanted
    | ChildExited
    | Tick
)
