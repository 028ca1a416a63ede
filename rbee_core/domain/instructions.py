"""Everything the pool can ask of the outside world."""

from msgspec import Struct

from rbee_core.domain.worker import Ticket, WorkerId
from rbee_core.errors import RbeeError


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
    """Tell the holder of `ticket` that `worker_id` can be reached."""

    ticket: Ticket
    worker_id: WorkerId


class Refuse(Struct, frozen=True):
    """Tell the holder of `ticket` why there is no worker."""

    ticket: Ticket
    error: RbeeError


class Announce(Struct, frozen=True):
    """Log that a worker came or went, and tell the plugins."""

    worker_id: WorkerId
    what: str
    ready: bool = False
    gone: bool = False


Instruction = Launch | Watch | Probe | Stop | Answer | Refuse | Announce
