"""The one typed client of our HTTP: keeper, queen and step_defs speak to a hive through it.

Owns connecting, retrying, and turning bytes and foreign exceptions into our structs and errors. It must not decide
what to do with an answer. Synchronous on purpose: its callers do one thing at a time.
"""

import random
import ssl
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, Self, TypeVar
from urllib.parse import quote

import msgspec

from rbee_core import sse, wire
from rbee_core.errors import DeadlineExceeded, HiveUnreachable, RbeeError, RemoteError, StreamBroken, shorten
from rbee_core.settings import Settings

# httpx imports its own command line program, with rich and pygments, wherever those are installed: a third of its
# import time, which every `rbee infer` would wait for. None is Python's mark for "there is no such module".
sys.modules.setdefault("httpx._main", None)  # pyright: ignore[reportArgumentType]

import httpx  # noqa: E402

ATTEMPTS = 3
# Before a hive answers about a model it may have to ask the hub, three times 10 s at most.
HUB_PATIENCE_S = 60.0
PROGRESS_SILENCE_S = 5.0
FIRST_RETRY_DELAY_S = 0.1
JSON_BODY = {"Content-Type": "application/json"}

T = TypeVar("T")


def jittered(delay_s: float) -> float:
    """Return `delay_s` times 0.5 to 1.5, so that many clients do not come back in step."""
    return delay_s * random.uniform(0.5, 1.5)  # noqa: S311  # no secret hangs on it


class HiveLost(HiveUnreachable):
    """Raised when a hive took a request and did not answer it; whether it was carried out is not known."""

    def __init__(self, address: str, error: Exception) -> None:
        hint = "it may have just stopped, or be overloaded: look with `rbee hive status`"
        RbeeError.__init__(self, f"{address} did not answer: {_sentence(error)}", hint=hint)


class HiveClient:
    """A connection to one hive. Close it, or use it as a context manager; not for more than one thread.

    Every call raises `HiveUnreachable` when nobody answers and `RemoteError` with what the hive answered otherwise.
    """

    def __init__(self, host: str, port: int, settings: Settings) -> None:
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._settings = settings
        self._http = httpx.Client(
            base_url=f"http://{self.address}",
            headers={"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else None,
            timeout=self._timeout(settings.request_timeout_s),
            trust_env=False,
            # Hives speak plain HTTP: an empty context trusts nobody and saves loading the CA certificates.
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def health(self, *, attempts: int = ATTEMPTS, timeout_s: float | None = None) -> wire.Health:
        """Return who answers at the address."""
        return self._get("/v1/health", wire.Health, attempts=attempts, timeout_s=timeout_s)

    def list_workers(
        self,
        *,
        model: str | None = None,
        backend: str | None = None,
        device: int | None = None,
        state: str | None = None,
    ) -> list[wire.WorkerInfo]:
        """Return the live workers, or those that match."""
        wanted = {"model": model, "backend": backend, "device": device, "state": state}
        params = {name: str(value) for name, value in wanted.items() if value is not None}
        return self._get("/v1/workers/list", wire.WorkerList, params=params).workers

    def worker(self, worker_id: str) -> wire.WorkerInfo:
        """Return a worker, also one that has ended."""
        return self._get(_worker_path(worker_id), wire.WorkerInfo)

    def worker_log(self, worker_id: str, offset: int = 0) -> wire.WorkerLog:
        """Return the log lines of a worker from `offset` on."""
        return self._get(f"{_worker_path(worker_id)}/logs", wire.WorkerLog, params={"offset": str(offset)})

    def backends(self) -> list[wire.BackendInfo]:
        """Return the backends of the node."""
        return self._get("/v1/backends/list", wire.BackendList).backends

    def models(self) -> list[wire.ModelInfo]:
        """Return the models in the node's catalog."""
        return self._get("/v1/models/list", wire.ModelList).models

    def show_model(
        self, model: str, *, backend: str | None = None, context_tokens: int | None = None
    ) -> wire.ModelDetails:
        """Return a model that is on the node, and what a worker for it would need."""
        wanted = {"model": model, "backend": backend, "context_tokens": context_tokens}
        params = {name: str(value) for name, value in wanted.items() if value is not None}
        return self._get("/v1/models/show", wire.ModelDetails, params=params, timeout_s=HUB_PATIENCE_S)

    def download(self, request: wire.DownloadRequest) -> wire.DownloadProgress:
        """Have a model on the node: done if it is there, else running, and `follow` tells how it goes on."""
        return self._change("POST", "/v1/models/download", wire.DownloadProgress, HUB_PATIENCE_S, wire.encode(request))

    def follow(self, download_id: str) -> Generator[wire.DownloadProgress]:
        """Yield a download's progress up to done or failed; in a silence, the last one again and again.

        Leaving early cancels nothing: the node goes on.
        """
        while True:
            # A new stream begins with the progress of that moment: so a silence is told from a hive that is gone.
            for progress in self._progress(download_id):
                yield progress
                if progress.state != "running":
                    return
            time.sleep(FIRST_RETRY_DELAY_S)

    def remove_model(self, reference: str) -> wire.RemovedModel:
        """Forget a model and remove its files, if rbee fetched them."""
        path = f"/v1/models/{quote(reference, safe='')}"
        return self._change("DELETE", path, wire.RemovedModel, HUB_PATIENCE_S)

    def spawn(self, request: wire.SpawnRequest) -> wire.SpawnResponse:
        """Return a worker for a model once it listens; it may still be loading."""
        patience_s = self._settings.worker_start_timeout_s + self._settings.shutdown_grace_s
        return self._change("POST", "/v1/workers/spawn", wire.SpawnResponse, patience_s, wire.encode(request))

    def stop_worker(self, worker_id: str) -> list[str]:
        """Stop a worker and return the ids that were stopped."""
        return self._change("DELETE", _worker_path(worker_id), wire.StopResponse, self._stop_patience_s()).stopped

    def shutdown(self) -> list[str]:
        """Stop the hive and return the workers that it stopped."""
        return self._change("POST", "/v1/shutdown", wire.StopResponse, self._stop_patience_s()).stopped

    def cancel(self, worker_id: str, request_id: str, *, timeout_s: float) -> None:
        """Tell a worker that nobody waits for a request any more."""
        path = f"{_worker_path(worker_id)}/inference/{quote(request_id, safe='')}"
        self._send("DELETE", path, attempts=1, timeout_s=timeout_s)

    def infer(self, worker_id: str, request: wire.InferenceRequest) -> Generator[wire.StreamEvent]:
        """Yield the tokens of an inference, then its `done` event. Closing the generator hangs up.

        Raises `RemoteError` for an error before or in the stream, `StreamBroken` for a stream without a terminal
        event, `DeadlineExceeded` when no token came for `token_stall_timeout_s`.
        """
        for group in self.infer_in_groups(worker_id, request):
            yield from group

    def infer_in_groups(self, worker_id: str, request: wire.InferenceRequest) -> Generator[list[wire.StreamEvent]]:
        """Yield the events of `infer`, those together that arrived together."""
        tokens, finished = 0, False
        stall_s = self._settings.token_stall_timeout_s
        path = f"{_worker_path(worker_id)}/inference"
        with self._open_stream("POST", path, stall_s, content=wire.encode(request)) as response:
            try:
                for group in sse.groups(response.iter_raw(), wire.StreamEvent, stall_s):
                    error = group[-1].error
                    if good := group[:-1] if error else group:
                        tokens += sum(event.token is not None for event in good)
                        yield good
                        finished = good[-1].done
                    if error:
                        raise RemoteError.of(error)
            except (httpx.HTTPError, msgspec.MsgspecError, ValueError) as error:
                if finished:
                    return
                if isinstance(error, httpx.ReadTimeout):
                    raise sse.stalled(stall_s) from None
                raise StreamBroken(tokens=tokens, why=_sentence(error)) from error
        if not finished:
            raise StreamBroken(tokens=tokens, why="it ended without a last word")

    def _get(
        self,
        path: str,
        shape: type[T],
        *,
        params: Mapping[str, str] | None = None,
        attempts: int = ATTEMPTS,
        timeout_s: float | None = None,
    ) -> T:
        return self._decode(self._send("GET", path, params=params, attempts=attempts, timeout_s=timeout_s), shape)

    def _change(self, method: str, path: str, shape: type[T], timeout_s: float, body: bytes = b"{}") -> T:
        return self._decode(self._send(method, path, body=body, timeout_s=timeout_s), shape)

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        attempts: int = ATTEMPTS,
        timeout_s: float | None = None,
    ) -> httpx.Response:
        limit = self._settings.request_timeout_s if timeout_s is None else timeout_s
        headers = None if body is None else JSON_BODY
        request = self._http.build_request(
            method, path, params=params, content=body, headers=headers, timeout=self._timeout(limit)
        )
        response = self._retry(lambda: self._http.send(request), attempts, idempotent=method == "GET")
        if response.status_code >= 400:
            self._raise_for(response.status_code, response.content)
        return response

    @contextmanager
    def _open_stream(self, method: str, path: str, stall_s: float, **what: Any) -> Generator[httpx.Response]:
        prepared = self._http.build_request(
            method, path, headers={**JSON_BODY, "Accept-Encoding": "identity"}, timeout=self._timeout(stall_s), **what
        )
        response = self._retry(lambda: self._http.send(prepared, stream=True), ATTEMPTS, idempotent=method == "GET")
        try:
            if response.status_code >= 400:
                self._raise_for(response.status_code, response.read())
            yield response
        finally:
            response.close()

    def _progress(self, download_id: str) -> Generator[wire.DownloadProgress]:
        """Yield what one stream tells; it ends at a silence too."""
        path, query = "/v1/models/download/progress", {"id": download_id}
        try:
            with self._open_stream("GET", path, PROGRESS_SILENCE_S, params=query) as response:
                yield from sse.events(response.iter_raw(), wire.DownloadProgress, self._settings.request_timeout_s)
        except (httpx.ReadTimeout, DeadlineExceeded):
            return
        except (httpx.HTTPError, msgspec.MsgspecError, ValueError) as error:
            raise HiveLost(self.address, error) from error

    def _retry(self, call: Callable[[], httpx.Response], attempts: int, *, idempotent: bool) -> httpx.Response:
        """Call until somebody answers; what may already have been carried out is not sent twice."""
        delay_s = FIRST_RETRY_DELAY_S
        for attempt in range(1, attempts + 1):
            try:
                return call()
            except httpx.TransportError as error:
                unsent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
                if not (unsent or idempotent):
                    raise HiveLost(self.address, error) from error
                if attempt == attempts:
                    raise HiveUnreachable(address=self.address, attempts=attempts) from error
            time.sleep(jittered(delay_s))
            delay_s *= 2
        raise AssertionError("attempts is at least 1")

    def _decode(self, response: httpx.Response, shape: type[T]) -> T:
        try:
            return msgspec.json.decode(response.content, type=shape)
        except msgspec.MsgspecError:
            raise self._stranger(response.status_code) from None

    def _raise_for(self, status: int, content: bytes) -> NoReturn:
        try:
            error = msgspec.json.decode(content, type=wire.ErrorBody).error
        except msgspec.MsgspecError:
            raise self._stranger(status) from None
        raise RemoteError.of(error, status)

    def _stranger(self, status: int) -> RemoteError:
        message = f"What answers at {self.address} (HTTP {status}) does not speak like a hive"
        hint = "another program may be listening there: check host and port"
        return RemoteError(code="INTERNAL", message=message, http_status=status, details={"hint": hint})

    def _timeout(self, whole_s: float) -> httpx.Timeout:
        return httpx.Timeout(whole_s, connect=min(whole_s, self._settings.connect_timeout_s))

    def _stop_patience_s(self) -> float:
        return self._settings.shutdown_grace_s + self._settings.request_timeout_s


def _worker_path(worker_id: str) -> str:
    return f"/v1/workers/{quote(worker_id, safe='')}"


def _sentence(error: Exception) -> str:
    return shorten(str(error) or type(error).__name__)
