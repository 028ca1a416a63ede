"""Everything the pool can ask of the outside world."""

from dataclasses import dataclass

from rbee_core.domain.worker import Ticket, WorkerId
from rbee_core.errors import RbeeError


@dataclass(frozen=True, slots=True)
class Launch:
    """Start the worker's process; answer with `ChildLaunched` or `LaunchFailed`."""

    worker_id: WorkerId


@dataclass(frozen=True, slots=True)
class Watch:
    """Follow the load of a worker that listens; answer with `LoadProgressed`, then `WorkerLoaded` or `LoadFailed`."""

    worker_id: WorkerId


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask a serving worker whether it is alive; answer with `ProbeAnswered` or `ProbeFailed`."""

    worker_id: WorkerId


@dataclass(frozen=True, slots=True)
class Stop:
    """End the worker's process: ask, terminate, kill. `force` skips the asking. `ChildExited` follows."""

    worker_id: WorkerId
    force: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Tell the holder of `ticket` that `worker_id` can be reached."""

    ticket: Ticket
    worker_id: WorkerId


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell the holder of `ticket` why there is no worker."""

    ticket: Ticket
    error: RbeeError


@dataclass(frozen=True, slots=True)
class Announce:
    """Log that a worker came or went, and tell the plugins."""

    worker_id: WorkerId
    what: str
    ready: bool = False
    gone: bool = False


Instruction = Launch | Watch | Probe | Stop | Answer | Refuse | Announce
