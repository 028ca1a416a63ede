"""Every JSON shape that crosses a process border, as strict typed structs: here those of workers and of inference.

Owns shapes and ranges; `base` has what they are made of, `models` those of models. Decoding is strict: unknown keys,
NaN, infinities, depth bombs, lone surrogates and trailing data are refused.
"""

# pyright: reportUnusedImport=false

from typing import Annotated, Literal

from msgspec import Meta, field

from rbee_core.domain import sampling
from rbee_core.wire.base import (
    ErrorBody,
    ErrorObject,
    Lenient,
    ModelText,
    RequestId,
    Seconds,
    Strict,
    build,
    check,
    decode,
    encode,
    to_builtins,
)
from rbee_core.wire.models import (
    DownloadCancel,
    DownloadList,
    DownloadProgress,
    DownloadQuery,
    DownloadRequest,
    ModelDetails,
    ModelInfo,
    ModelList,
    ModelQuery,
    RemovedModel,
)

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


class WorkerInfo(Lenient):
    """A worker as the hive knows it. `progress` is the loaded fraction, `idle_s` the time since its last request."""

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


class WorkerFilter(Strict):
    """The query of `GET /v1/workers/list`. `backend` is a name or an accelerator, `device` an id or an index."""

    model: ModelText | None = None
    backend: Annotated[str, Meta(max_length=64)] | None = None
    device: Annotated[str, Meta(max_length=64)] | None = None
    state: WorkerStateName | None = None


class WorkerList(Lenient):
    """`GET /v1/workers/list`."""

    workers: list[WorkerInfo]


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


class SpawnRequest(Strict):
    """`POST /v1/workers/spawn`. `device` is an index of the backend's devices."""

    model_ref: ModelText
    backend: Annotated[str, Meta(max_length=64)] | None = None
    device: Annotated[int, Meta(ge=0, le=1023)] | None = None
    context_tokens: Annotated[int, Meta(ge=1, le=1 << 24)] | None = None


class SpawnResponse(Lenient):
    """Its answer, once the worker listens: `state` is loading, or idle or busy for one that was there."""

    worker_id: str
    url: str
    state: WorkerStateName
    model_ref: str = ""
    backend: str = ""
    device: str = ""


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
    """`DELETE /v1/workers/{id}` and `POST /v1/shutdown`: which workers were stopped."""

    stopped: list[str]


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
    body_limit_bytes: int = 2 << 20
    write_timeout_s: float = 30.0
    connect_timeout_s: float = 5.0


class ChatMessage(Strict):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class TextWanted(Strict):
    """What to generate: exactly one of `prompt` and `messages`. `max_tokens` None means as the context allows."""

    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=1024)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=1 << 24)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] = sampling.TEMPERATURE
    top_k: Annotated[int, Meta(ge=0, le=1 << 20)] = sampling.TOP_K
    top_p: Annotated[float, Meta(ge=0, le=1)] = sampling.TOP_P
    min_p: Annotated[float, Meta(ge=0, le=1)] = sampling.MIN_P
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] = sampling.REPEAT_PENALTY
    seed: Annotated[int, Meta(ge=0, lt=1 << 32)] | None = None
    stop: Annotated[list[Annotated[str, Meta(min_length=1, max_length=256)]], Meta(max_length=16)] = []
    timeout_s: Seconds | None = None

    def __post_init__(self) -> None:
        """Check what single fields cannot say."""
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give exactly one of prompt and messages")
        if self.prompt is not None and not self.prompt.strip():
            raise ValueError("the prompt is empty")
        if self.messages is not None and not any(m.content.strip() for m in self.messages):
            raise ValueError("all messages are empty")


class InferenceRequest(TextWanted):
    """What a client asks for. The hive names a request that has no `request_id`."""

    request_id: RequestId | None = None


class WorkerTask(TextWanted, kw_only=True):
    """A worker's `POST /v1/inference`: the same from its hive, which has named it."""

    request_id: RequestId


class WorkerInference(InferenceRequest):
    """`POST /v1/workers/{id}/inference`: with `queue` false, a refusal comes at once when all slots are busy."""

    queue: bool = True


class PoolInference(InferenceRequest, kw_only=True):
    """`POST /v1/inference`: a request for a model. The hive finds a worker, or starts one, and waits for a slot."""

    model_ref: ModelText
    backend: Annotated[str, Meta(max_length=64)] | None = None
    device: Annotated[int, Meta(ge=0, le=1023)] | None = None
    context_tokens: Annotated[int, Meta(ge=1, le=1 << 24)] | None = None
    queue: bool = True


class FoundWorker(Lenient):
    """`POST /v1/workers/find`: the idle worker that would serve such a request now, if there is one."""

    worker: WorkerInfo | None


class Waiting(Lenient):
    """What a request waits for, and its place among those who wait for the same, from 1.

    `progress` is the loaded fraction where it waits for the model.
    """

    position: int
    for_what: str = field(name="for")
    progress: float = 0.0


class WaitingEvent(Lenient):
    """An event of a stream that was opened before there was a slot; comes again when the wait changes."""

    waiting: Waiting


class WorkerEvent(Lenient):
    """Follows the last `WaitingEvent`: which worker answers. Without a wait, the header `X-Rbee-Worker` says so."""

    worker_id: str


class ReadPrompt(Lenient):
    """How many tokens of the prompt are read, and how many it has."""

    done: int
    total: int

    @property
    def share(self) -> float:
        """Which part is read, 0..1."""
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0


class PromptEvent(Lenient):
    """While a long prompt is read: how far. A few a second at most, all before the first token."""

    prompt: ReadPrompt


class TokenEvent(Lenient):
    """One token of an inference stream."""

    token: str
    index: int


class DoneEvent(Lenient):
    """The terminal event of a stream that went well. `duration_ms` is wall time in the worker."""

    done: bool
    total_tokens: int
    duration_ms: int
    finish_reason: str
    prompt_tokens: int = 0
    first_token_ms: int = 0


class StreamEvent(Lenient):
    """Any event of an inference stream, for clients: exactly one of the kinds is filled in."""

    token: str | None = None
    index: int = 0
    done: bool = False
    total_tokens: int = 0
    duration_ms: int = 0
    finish_reason: str = ""
    prompt_tokens: int = 0
    first_token_ms: int = 0
    error: ErrorObject | None = None
    waiting: Waiting | None = None
    worker_id: str = ""
    prompt: ReadPrompt | None = None
