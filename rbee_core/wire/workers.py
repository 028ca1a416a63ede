"""Shapes of workers: their states, how they are asked for, and what the hive and a worker tell each other."""

from typing import Annotated, Literal

from msgspec import Meta, field

from rbee_core.domain.tuning import Tuning
from rbee_core.wire.base import ErrorObject, Lenient, ModelText, Strict

WorkerStateName = Literal["loading", "idle", "busy", "stopping", "unloaded", "evicted", "crashed", "failed"]


class Health(Lenient):
    """`GET /v1/health`: the only route that needs no key."""

    status: str
    version: str
    api_version: str


class Ready(Lenient):
    """`GET /v1/ready`. For a worker, `state` is loading, ready or failed; `error` says why it failed."""

    ready: bool
    state: str = "ready"
    error: ErrorObject | None = None


class LoadProgress(Lenient):
    """One event of a worker's `GET /v1/loading/progress`; the last one has state ready or failed."""

    state: Literal["loading", "ready", "failed"]
    fraction: float = 0.0
    detail: str = ""
    slots: int = 0
    context_tokens: int = 0
    accelerator: str = ""
    error: ErrorObject | None = None


class LastPrompt(Lenient):
    """`cached_tokens` of a prompt were computed for an earlier request; `not_cached` says why it was not more."""

    prompt_tokens: int
    cached_tokens: int
    not_cached: str = ""


class WorkerInfo(Lenient):
    """A worker as the hive knows it. `progress` is the loaded fraction, `idle_s` the time since its last request.

    A `pinned` one is stopped neither for room nor for being idle. One that failed says how many have by now, one after
    the other (`failures`), and for how long no other one is started for its model (`held_back_s`). `last_prompt`
    is that of the last request for text that it ended.
    """

    worker_id: str
    model_ref: str
    backend: str
    device: str
    state: WorkerStateName
    url: str = ""
    pid: int = 0
    slots: int = 0
    active: int = 0
    context_tokens: int = 0
    reserved_bytes: int = 0
    progress: float = 0.0
    detail: str = ""
    idle_s: float = 0.0
    reason: str = ""
    error: ErrorObject | None = None
    log_path: str = ""
    failures: int = 0
    held_back_s: float = 0.0
    pinned: bool = False
    last_prompt: LastPrompt | None = None


class WorkerFilter(Strict):
    """The query of `GET /v1/workers/list`. `backend` is a name or an accelerator, `device` an id or an index."""

    model: ModelText | None = None
    backend: Annotated[str, Meta(max_length=64)] | None = None
    device: Annotated[str, Meta(max_length=64)] | None = None
    state: WorkerStateName | None = None


class WorkerList(Lenient):
    """`GET /v1/workers/list`. `held_back` has the last worker of each model that is not started for a while."""

    workers: list[WorkerInfo]
    held_back: list[WorkerInfo] = field(default_factory=list[WorkerInfo])


class RetryRequest(Strict):
    """`POST /v1/workers/retry`."""

    model_ref: ModelText


class PinRequest(Strict):
    """`POST /v1/workers/{id}/pin`: whether to keep it, or to keep it no longer."""

    pinned: bool


class PoolSnapshot(Lenient, tag_field="event", tag="snapshot"):
    """The first event of `GET /v1/events`, and the next one for a reader that fell too far behind.

    `workers` are the live ones after change `number`; `missed` changes before it were not told.
    """

    number: int
    at_unix: float
    workers: list[WorkerInfo]
    missed: int = 0


class WorkerChanged(Lenient, tag_field="event", tag="changed"):
    """Every further event of `GET /v1/events`: a worker's state changed, and `worker` is what it is since.

    Changes are numbered without a gap. `before` is None for a new worker; `launching` comes before `loading`.
    `for_whom` names the client or the model that caused it, where one did.
    """

    number: int
    at_unix: float
    worker_id: str
    before: WorkerStateName | Literal["launching"] | None
    after: WorkerStateName | Literal["launching"]
    reason: str
    worker: WorkerInfo
    for_whom: str = ""


class Reloaded(Lenient):
    """`POST /v1/reload`: which settings changed, and which of config.toml's count from the next start on only.

    One of a model's is called ``model.NAME``, an alias ``models.NAME``.
    """

    changed: list[str]
    needs_restart: list[str]


class SettingsChanged(Reloaded, tag_field="event", tag="settings"):
    """An event of `GET /v1/events`: the hive read config.toml again. Numbered as the changes of workers are."""

    number: int
    at_unix: float


class SpawnRequest(Strict):
    """`POST /v1/workers/spawn`. `device` is an index of the backend's devices; without it, the one with most room.

    `slots` is how many requests it is to serve at a time; a backend that computes one at a time refuses more. `needs`
    names fields of the requests to come, such as ``grammar``: only a backend that knows them is chosen.
    """

    model_ref: ModelText
    backend: Annotated[str, Meta(max_length=64)] | None = None
    device: Annotated[int, Meta(ge=0, le=1023)] | None = None
    context_tokens: Annotated[int, Meta(ge=1, le=1 << 24)] | None = None
    slots: Annotated[int, Meta(ge=1, le=64)] | None = None
    tuning: Tuning = Tuning()
    needs: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=64)] = []


class SpawnResponse(Lenient):
    """Its answer, once the worker listens: `state` is loading, or idle or busy for one that was there.

    `device` is one of `devices` that the backend has.
    """

    worker_id: str
    url: str
    state: WorkerStateName
    model_ref: str = ""
    backend: str = ""
    device: str = ""
    devices: int = 1


class WorkerReady(Strict):
    """`POST /v1/workers/ready`: a worker reports that it listens. Authenticated by the worker's own secret."""

    worker_id: Annotated[str, Meta(max_length=64)]
    url: Annotated[str, Meta(max_length=256)]
    model_ref: Annotated[str, Meta(max_length=4096)]
    backend: Annotated[str, Meta(max_length=64)]
    device: Annotated[str, Meta(max_length=64)]


class WorkerRegistered(Lenient):
    """Its answer: the hive waits for the load now."""

    worker_id: str
    state: WorkerStateName


class LogQuery(Strict):
    """The query of `GET /v1/workers/{id}/logs`: from which byte on."""

    offset: Annotated[int, Meta(ge=0, lt=10**15)] = 0


class WorkerLog(Lenient):
    """`GET /v1/workers/{id}/logs`: decoded, control characters escaped. `offset` continues from here."""

    worker_id: str
    lines: list[str]
    offset: int


class StopResponse(Lenient):
    """`DELETE /v1/workers/{id}` and `POST /v1/shutdown`: which workers were stopped.

    `killed` says of each that did not stop when asked how it was killed, where the answer comes after its end.
    """

    stopped: list[str]
    killed: dict[str, str] = field(default_factory=dict[str, str])


class DeviceInfo(Lenient):
    """A device of a backend. Sizes in bytes, None where unknown."""

    id: str
    name: str
    total_bytes: int | None = None
    free_bytes: int | None = None


class BackendInfo(Lenient):
    """`GET /v1/backends/list`: one backend, and why it cannot be used if it cannot."""

    name: str
    accelerator: str
    available: bool
    formats: list[str]
    capabilities: list[str]
    devices: list[DeviceInfo]
    reason: str = ""
    hint: str = ""


class BackendList(Lenient):
    """`GET /v1/backends/list`."""

    backends: list[BackendInfo]


class OnDisk(Strict):
    """Where a worker may leave what it computed of prompts: the words of the contract's `OnDisk`."""

    folder: str
    limit_bytes: int
    within_s: float
    model: str


class WorkerSpec(Strict):
    """What the hive writes to a worker's stdin, one line: it never appears in argv, environment or logs.

    What it says of the model are the words of the recipe, and of `LocalModel`.
    """

    worker_id: str
    secret: str
    hive_url: str
    hive_pid: int
    reference: str
    path: str
    format: str
    size_bytes: int
    backend: str
    device: str
    environment: dict[str, str] = {}
    slots: int = 1
    context_tokens: int | None = None
    threads: int | None = None
    tuning: Tuning = Tuning()
    on_disk: OnDisk | None = None
    body_limit_bytes: int = 2 << 20
    write_timeout_s: float = 30.0
    connect_timeout_s: float = 5.0
