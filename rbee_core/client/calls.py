"""Every call of a hive's API as data. What a call is lives here alone; both transports carry it out as it stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from rbee_core import wire
from rbee_core.client.terms import ClientTerms

# Before a hive answers about a model it may have to ask the hub, which has 30 s, 45 s at most.
HUB_PATIENCE_S = 60.0

T = TypeVar("T")


class Patience(Enum):
    """For how long an answer, or the next event of a stream, is waited for."""

    SHORT = "the hive knows at once"
    HUB = "the hive may ask a hub first"
    START = "a worker's process starts, and another may have to end for it"
    STOP = "workers end"
    TOKEN = "a token is computed"  # noqa: S105  # none of the secret kind

    def seconds(self, terms: ClientTerms) -> float:
        """Return it as a number."""
        match self:
            case Patience.SHORT:
                return terms.request_s
            case Patience.HUB:
                return HUB_PATIENCE_S
            case Patience.START:
                return terms.worker_start_s + terms.grace_s
            case Patience.STOP:
                return terms.grace_s + terms.request_s
            case Patience.TOKEN:
                return terms.token_stall_s


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request. `answer` is the shape of what comes back: of the body, or of each event of a stream."""

    method: str
    path: str
    answer: type[T]
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes | None = None
    patience: Patience = Patience.SHORT

    @property
    def idempotent(self) -> bool:
        """Whether it may be sent again when nobody knows if it was carried out."""
        return self.method == "GET"


def events() -> Call[wire.PoolSnapshot | wire.WorkerChanged | wire.SettingsChanged]:
    """A stream: the live workers, then each change of a worker's state, up to the hive's end."""
    told: Any = wire.PoolSnapshot | wire.WorkerChanged | wire.SettingsChanged  # to be read as one or the other
    return Call("GET", "/v1/events", told)


def health() -> Call[wire.Health]:
    """Who answers at the address."""
    return Call("GET", "/v1/health", wire.Health)


def list_workers(
    *, model: str | None = None, backend: str | None = None, device: int | None = None, state: str | None = None
) -> Call[wire.WorkerList]:
    """The live workers, or those that match."""
    query = _query(model=model, backend=backend, device=device, state=state)
    return Call("GET", "/v1/workers/list", wire.WorkerList, query)


def worker(worker_id: str) -> Call[wire.WorkerInfo]:
    """A worker, also one that has ended."""
    return Call("GET", _worker_path(worker_id), wire.WorkerInfo)


def worker_log(worker_id: str, offset: int) -> Call[wire.WorkerLog]:
    """The log lines of a worker from `offset` on."""
    return Call("GET", f"{_worker_path(worker_id)}/logs", wire.WorkerLog, _query(offset=offset))


def backends() -> Call[wire.BackendList]:
    """The backends of the node."""
    return Call("GET", "/v1/backends/list", wire.BackendList)


def models() -> Call[wire.ModelList]:
    """The models in the node's catalog."""
    return Call("GET", "/v1/models/list", wire.ModelList)


def show_model(model: str, *, backend: str | None, context_tokens: int | None) -> Call[wire.ModelDetails]:
    """A model that is on the node, and what a worker for it would need."""
    query = _query(model=model, backend=backend, context_tokens=context_tokens)
    return Call("GET", "/v1/models/show", wire.ModelDetails, query, patience=Patience.HUB)


def download(request: wire.DownloadRequest) -> Call[wire.DownloadProgress]:
    """Have a model on the node: done if it is there, else running."""
    return _change("POST", "/v1/models/download", wire.DownloadProgress, request, Patience.HUB)


def download_progress(download_id: str) -> Call[wire.DownloadProgress]:
    """A stream: how far a download is, now and whenever it moves."""
    return Call("GET", "/v1/models/download/progress", wire.DownloadProgress, _query(id=download_id))


def downloads() -> Call[wire.DownloadList]:
    """The downloads that run or wait."""
    return Call("GET", "/v1/models/downloads", wire.DownloadList)


def cancel_download(model: str) -> Call[wire.DownloadProgress]:
    """End a download."""
    request = wire.DownloadCancel(model_ref=model)
    return _change("POST", "/v1/models/download/cancel", wire.DownloadProgress, request)


def remove_model(reference: str) -> Call[wire.RemovedModel]:
    """Forget a model and remove its files, if rbee fetched them."""
    return _change("DELETE", f"/v1/models/{quote(reference, safe='')}", wire.RemovedModel, patience=Patience.HUB)


def spawn(request: wire.SpawnRequest) -> Call[wire.SpawnResponse]:
    """A worker for a model once it listens; it may still be loading."""
    return _change("POST", "/v1/workers/spawn", wire.SpawnResponse, request, Patience.START)


def find_worker(request: wire.SpawnRequest) -> Call[wire.FoundWorker]:
    """The idle worker that would serve such a request now, if there is one."""
    return _change("POST", "/v1/workers/find", wire.FoundWorker, request)


def retry(model: str) -> Call[wire.WorkerList]:
    """Try a model again whose workers failed."""
    return _change("POST", "/v1/workers/retry", wire.WorkerList, wire.RetryRequest(model_ref=model))


def pin(worker_id: str, *, pinned: bool) -> Call[wire.WorkerInfo]:
    """Keep a worker however little room there is and however long it is idle, or no longer."""
    return _change("POST", f"{_worker_path(worker_id)}/pin", wire.WorkerInfo, wire.PinRequest(pinned=pinned))


def stop_worker(worker_id: str) -> Call[wire.StopResponse]:
    """Stop a worker."""
    return _change("DELETE", _worker_path(worker_id), wire.StopResponse, patience=Patience.STOP)


def shutdown() -> Call[wire.StopResponse]:
    """Stop the hive and its workers."""
    return _change("POST", "/v1/shutdown", wire.StopResponse, patience=Patience.STOP)


def reload() -> Call[wire.Reloaded]:
    """Have the hive read its config.toml again."""
    return _change("POST", "/v1/reload", wire.Reloaded)


def inference(worker_id: str, request: wire.InferenceRequest) -> Call[wire.StreamEvent]:
    """A stream: the tokens, then the `done` event or an error."""
    return _change("POST", f"{_worker_path(worker_id)}/inference", wire.StreamEvent, request, Patience.TOKEN)


def inference_with_model(request: wire.PoolInference) -> Call[wire.StreamEvent]:
    """A stream like that of `inference`, by whichever worker the hive finds or starts."""
    return _change("POST", "/v1/inference", wire.StreamEvent, request, Patience.TOKEN)


def cancel_request(request_id: str) -> Call[None]:
    """Tell the hive that nobody waits for a request any more, wherever it waits or runs."""
    return Call("DELETE", f"/v1/inference/{quote(request_id, safe='')}", type(None))


def embed(request: wire.PoolEmbed) -> Call[wire.StreamEvent]:
    """A stream: the vectors of texts, then the `done` event or an error, by whichever worker the hive finds."""
    return _change("POST", "/v1/embed", wire.StreamEvent, request, Patience.TOKEN)


def embed_on_worker(worker_id: str, request: wire.WorkerEmbed) -> Call[wire.StreamEvent]:
    """The same by one worker."""
    return _change("POST", f"{_worker_path(worker_id)}/embed", wire.StreamEvent, request, Patience.TOKEN)


def rerank(request: wire.PoolRerank) -> Call[wire.StreamEvent]:
    """A stream: the scores of documents, then the `done` event or an error, by whichever worker the hive finds."""
    return _change("POST", "/v1/score", wire.StreamEvent, request, Patience.TOKEN)


def rerank_on_worker(worker_id: str, request: wire.WorkerRerank) -> Call[wire.StreamEvent]:
    """The same by one worker."""
    return _change("POST", f"{_worker_path(worker_id)}/score", wire.StreamEvent, request, Patience.TOKEN)


def cancel(worker_id: str, request_id: str) -> Call[None]:
    """Tell a worker that nobody waits for a request any more."""
    return Call("DELETE", f"{_worker_path(worker_id)}/inference/{quote(request_id, safe='')}", type(None))


def _change(
    method: str, path: str, answer: type[T], request: object = None, patience: Patience = Patience.SHORT
) -> Call[T]:
    body = b"{}" if request is None else wire.encode(request)
    return Call(method, path, answer, body=body, patience=patience)


def _query(**values: str | int | None) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}


def _worker_path(worker_id: str) -> str:
    return f"/v1/workers/{quote(worker_id, safe='')}"
