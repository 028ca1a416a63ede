"""A worker as the pool knows it: what it runs, the state it is in, and why it ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

from rbee_core.domain.tuning import UNTUNED, Tuning
from rbee_core.errors import RbeeError

WorkerId = NewType("WorkerId", str)
RequestId = NewType("RequestId", str)
Ticket = NewType("Ticket", int)


class Secret(str):
    """A string that does not show itself in logs and tracebacks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret(…)"


class WorkerState(StrEnum):
    """Where a worker stands. A state never goes back; the last four are ends, each with its own meaning."""

    LAUNCHING = "launching"
    LOADING = "loading"
    IDLE = "idle"
    BUSY = "busy"
    STOPPING = "stopping"
    UNLOADED = "unloaded"
    """Stopped because somebody asked, or because the hive stopped."""
    EVICTED = "evicted"
    """Stopped by the hive to give its memory back."""
    CRASHED = "crashed"
    """Its process ended by itself after it was ready."""
    FAILED = "failed"
    """It never became ready."""


SERVING = frozenset({WorkerState.IDLE, WorkerState.BUSY})
STARTING = frozenset({WorkerState.LAUNCHING, WorkerState.LOADING})
ENDED = frozenset({WorkerState.UNLOADED, WorkerState.EVICTED, WorkerState.CRASHED, WorkerState.FAILED})


class Reason(StrEnum):
    """Why a worker changed its state."""

    WANTED = "wanted"
    """Somebody wanted a model that no worker held."""
    BOUND = "bound"
    """It listens and loads."""
    LOADED = "loaded"
    REQUEST = "request"
    """It was given a request."""
    DONE = "done"
    """Its last request ended."""
    ASKED = "asked to stop"
    MAKE_ROOM = "to make room"
    """Its memory is needed for another model."""
    IDLE = "idle for too long"
    SHUTDOWN = "the hive is shutting down"
    REPLACED = "its model was replaced"
    """Other files lie where those were that it loaded."""
    NOT_LAUNCHED = "could not be launched"
    NOT_LOADED = "could not be loaded"
    STALLED = "made no progress"
    NOT_ANSWERING = "stopped answering"
    EXITED = "its process ended"


@dataclass(frozen=True, slots=True)
class Need:
    """Memory a worker will take, in bytes: `mapped` stays reclaimable (memory-mapped weights), `private` does not."""

    mapped_bytes: int = 0
    private_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """What must be free before it starts."""
        return self.mapped_bytes + self.private_bytes


@dataclass(frozen=True, slots=True)
class Reading:
    """How much of a prompt a worker had computed before, and in half a sentence why not more; "" for no reason."""

    prompt_tokens: int
    cached_tokens: int
    not_cached: str = ""


HOST = "host"
"""The memory of every device that shares the host's."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a client asks for, unresolved. `reference` is canonical, `device` an index of the backend's devices.

    What is None is chosen when the demand is resolved, of the backends that can do what `needs` names: fields of the
    requests to come. `section` names the model's own settings that it was made with,
    "" for none; how long the worker stays is theirs to say, also after they changed.
    """

    reference: str
    backend: str | None = None
    device: int | None = None
    context_tokens: int | None = None
    slots: int | None = None
    tuning: Tuning = UNTUNED
    needs: frozenset[str] = frozenset()
    section: str = ""


@dataclass(frozen=True, slots=True)
class Stay:
    """How long a worker is kept that nobody uses: for `idle_s` seconds, None for as long as any.

    A pinned one is stopped neither for that nor for room.
    """

    idle_s: float | None = None
    pinned: bool = False


Identity = tuple[tuple[str, int, int, int, int], ...]
"""Which version of which files a model is: of each its name, device, inode, size in bytes and mtime in nanoseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A demand resolved: all that a worker is made from. Two equal ones are served by one worker.

    A model is its files, `place` and `identity`, whatever name it was asked for by; `reference` is the first one's.
    `path` is on this node's disk. `memory` is `HOST` for every device that shares the host's, else the device's id.
    `device_index` is the number under which people know the device, one of `device_count`; `environment` what a worker
    on it is started with.
    """

    reference: str = field(compare=False)
    path: str = field(compare=False)
    place: str
    identity: Identity = ()
    format: str
    size_bytes: int
    backend: str
    device: str
    need: Need = field(compare=False)
    memory: str = HOST
    context_tokens: int | None = None
    slots: int = 1
    tuning: Tuning = UNTUNED
    device_index: int = field(default=0, compare=False)
    device_count: int = field(default=1, compare=False)
    environment: Mapping[str, str] = field(default_factory=dict[str, str], compare=False)


@dataclass(frozen=True, slots=True)
class Spot:
    """A device where a demand could be met: the worker it would get there, and what is free in that device's memory."""

    recipe: Recipe
    available_bytes: int


@dataclass(slots=True, kw_only=True)
class Worker:
    """One worker's record. Owned and changed by the pool alone; everybody else reads.

    Times are monotonic seconds: `moved_at` is the last sign that its load goes on, `used_at` the last time that a
    request began or ended, or that its model was loaded. `requests` are those that hold one of its slots, `demands`
    what was resolved to its recipe, and `stay` how long it is kept for those. `pinned` says that somebody asked to
    keep it, and `kept_s` for how many idle seconds, whatever `stay` says. A `retired` one goes when it has nobody.
    `reason` says in words why it stops or ended, `error` where that is an error. If it failed, it is the last of so
    many `failures` of its recipe in a row, and no other one is launched for that before `held_until`. `killed` says
    how, if it did not stop when asked.
    `last_prompt` is that of the last request for text that it ended itself.
    """

    id: WorkerId
    recipe: Recipe
    secret: Secret
    launched_at: float
    moved_at: float = 0.0
    used_at: float = 0.0
    probed_at: float = 0.0
    state: WorkerState = WorkerState.LAUNCHING
    pid: int = 0
    url: str = ""
    loaded: bool = False
    slots: int = 0
    context_tokens: int = 0
    progress: float = 0.0
    detail: str = ""
    failed_probes: int = 0
    pinned: bool = False
    stay: Stay = Stay()
    kept_s: float | None = None
    retired: bool = False
    requests: dict[Ticket, RequestId] = field(default_factory=dict[Ticket, RequestId])
    demands: set[Demand] = field(default_factory=set[Demand])
    end_as: WorkerState | None = None
    reason: str = ""
    error: RbeeError | None = None
    failures: int = 0
    held_until: float = 0.0
    killed: str = ""
    last_prompt: Reading | None = None

    @property
    def kept(self) -> bool:
        """Whether it is stopped neither for being idle nor for room."""
        return self.pinned or self.stay.pinned

    @property
    def names(self) -> set[str]:
        """The references by which its model was asked for."""
        return {self.recipe.reference, *(demand.reference for demand in self.demands)}

    @property
    def serving(self) -> bool:
        """Whether it takes requests."""
        return self.state in SERVING

    @property
    def free_slots(self) -> int:
        """How many more requests it takes now."""
        return max(0, self.slots - len(self.requests)) if self.serving else 0

    @property
    def ended(self) -> bool:
        """Whether its process is gone."""
        return self.state in ENDED
