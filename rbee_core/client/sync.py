"""The blocking client, for programs that do one thing at a time: the calls over httpx."""

import math
import ssl
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Self, TypeVar

from rbee_core import sse, tls, wire
from rbee_core.client import calls
from rbee_core.client.calls import Call
from rbee_core.client.rules import (
    ATTEMPTS,
    EVENTS_SILENCE_S,
    FIRST_RETRY_DELAY_S,
    PROGRESS_SILENCE_S,
    Attempts,
    HiveLost,
    InferenceReader,
    check_status,
    headers,
    read,
    scores,
    vectors,
)
from rbee_core.client.terms import ClientTerms
from rbee_core.errors import RemoteError

# httpx imports its own command line program, with rich and pygments, wherever those are installed: a third of its
# import time, which every `rbee infer` would wait for. None is Python's mark for "there is no such module".
sys.modules.setdefault("httpx._main", None)  # pyright: ignore[reportArgumentType]

import httpx  # noqa: E402

T = TypeVar("T")


class HiveClient:
    """A connection to one hive. Close it, or use it as a context manager; not for more than one thread.

    Every call raises `HiveUnreachable` when nobody answers, `HiveUntrusted` when TLS says no, and `RemoteError` with
    what the hive answered otherwise.
    """

    def __init__(self, host: str, port: int, terms: ClientTerms, *, https: bool = False) -> None:
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._host = host
        self._terms = terms
        self._https = https
        self._port = port
        self._http = httpx.Client(
            base_url=f"{'https' if https else 'http'}://{self.address}",
            headers=headers(terms),
            timeout=self._timeout(terms.request_s),
            trust_env=False,
            # For plain HTTP, an empty context saves reading every authority's certificate.
            verify=tls.client_context(terms.ca_file) if https else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def another(self) -> "HiveClient":
        """Return another connection to the same hive, for another thread."""
        return HiveClient(self._host, self._port, self._terms, https=self._https)

    def call(self, call: Call[T], *, attempts: int = ATTEMPTS, timeout_s: float | None = None) -> T:
        """Carry out `call` and return its answer. `timeout_s` is in place of the call's own patience."""
        request = self._request(call, call.patience.seconds(self._terms) if timeout_s is None else timeout_s)
        response = self._heard(call, lambda: self._http.send(request), attempts)
        return read(self.address, call, response.status_code, response.content)

    def health(self, *, attempts: int = ATTEMPTS, timeout_s: float | None = None) -> wire.Health:
        """Return who answers at the address."""
        return self.call(calls.health(), attempts=attempts, timeout_s=timeout_s)

    def list_workers(
        self,
        *,
        model: str | None = None,
        backend: str | None = None,
        device: int | None = None,
        state: str | None = None,
    ) -> list[wire.WorkerInfo]:
        """Return the live workers, or those that match; with a `state` that ends a worker, the remembered ones."""
        return self.call(calls.list_workers(model=model, backend=backend, device=device, state=state)).workers

    def held_back(self) -> list[wire.WorkerInfo]:
        """Return the last worker of each model that is not started for a while because its workers fail."""
        return self.call(calls.list_workers()).held_back

    def retry(self, model: str) -> list[wire.WorkerInfo]:
        """Have a model tried again however often its workers failed; return those it was held back for."""
        return self.call(calls.retry(model)).workers

    def find_worker(self, request: wire.SpawnRequest) -> wire.WorkerInfo | None:
        """Return the idle worker that would serve such a request now."""
        return self.call(calls.find_worker(request)).worker

    def worker(self, worker_id: str) -> wire.WorkerInfo:
        """Return a worker, also one that has ended."""
        return self.call(calls.worker(worker_id))

    def worker_log(self, worker_id: str, offset: int = 0) -> wire.WorkerLog:
        """Return the log lines of a worker from `offset` on."""
        return self.call(calls.worker_log(worker_id, offset))

    def backends(self) -> list[wire.BackendInfo]:
        """Return the backends of the node."""
        return self.call(calls.backends()).backends

    def models(self) -> list[wire.ModelInfo]:
        """Return the models in the node's catalog."""
        return self.call(calls.models()).models

    def show_model(
        self, model: str, *, backend: str | None = None, context_tokens: int | None = None
    ) -> wire.ModelDetails:
        """Return a model that is on the node, and what a worker for it would need."""
        return self.call(calls.show_model(model, backend=backend, context_tokens=context_tokens))

    def download(self, request: wire.DownloadRequest) -> wire.DownloadProgress:
        """Have a model on the node: done if it is there, else running, and `follow` tells how it goes on."""
        return self.call(calls.download(request))

    def downloads(self) -> list[wire.DownloadProgress]:
        """Return the downloads that run or wait their turn."""
        return self.call(calls.downloads()).downloads

    def cancel_download(self, model: str) -> wire.DownloadProgress:
        """End the download of a model, whoever asked for it; what was fetched is kept."""
        return self.call(calls.cancel_download(model))

    def follow(self, download_id: str) -> Generator[wire.DownloadProgress]:
        """Yield a download's progress up to done or failed; in a silence, the last one again and again.

        Leaving early cancels nothing: the node goes on.
        """
        while True:
            # A new stream begins with the progress of that moment: so a silence is told from a hive that is gone.
            for progress in self._progress(calls.download_progress(download_id)):
                yield progress
                if progress.state != "running":
                    return
            time.sleep(FIRST_RETRY_DELAY_S)

    def remove_model(self, reference: str) -> wire.RemovedModel:
        """Forget a model and remove its files, if rbee fetched them."""
        return self.call(calls.remove_model(reference))

    def events(self) -> Generator[wire.PoolSnapshot | wire.WorkerChanged | wire.SettingsChanged]:
        """Yield the live workers, then each change of a worker's state as it comes, up to the hive's end.

        Another snapshot follows where changes were missed. Raises `HiveLost` when the stream breaks.
        """
        call = calls.events()
        with self._stream(call, EVENTS_SILENCE_S) as response:
            try:
                yield from sse.events(response.iter_raw(), call.answer, math.inf)
            except (httpx.HTTPError, ValueError) as error:
                raise HiveLost(self.address, error) from error

    def spawn(self, request: wire.SpawnRequest) -> wire.SpawnResponse:
        """Return a worker for a model once it listens; it may still be loading."""
        return self.call(calls.spawn(request))

    def stop_worker(self, worker_id: str) -> list[str]:
        """Stop a worker and return the ids that were stopped."""
        return self.call(calls.stop_worker(worker_id)).stopped

    def shutdown(self) -> list[str]:
        """Stop the hive and return the workers that it stopped."""
        return self.call(calls.shutdown()).stopped

    def cancel_request(self, request_id: str, *, timeout_s: float) -> None:
        """Tell the hive that nobody waits for a request any more, wherever it waits or runs."""
        self.call(calls.cancel_request(request_id), attempts=1, timeout_s=timeout_s)

    def cancel(self, worker_id: str, request_id: str, *, timeout_s: float) -> None:
        """Tell a worker that nobody waits for a request any more."""
        self.call(calls.cancel(worker_id, request_id), attempts=1, timeout_s=timeout_s)

    def infer(self, worker_id: str, request: wire.InferenceRequest) -> Generator[wire.StreamEvent]:
        """Yield the tokens of an inference on one worker, then its `done` event. Closing the generator hangs up.

        Raises `RemoteError` for an error before or in the stream, `StreamBroken` for a stream without a terminal
        event, `DeadlineExceeded` when no token came for `token_stall_timeout_s`.
        """
        for group in self.infer_in_groups(worker_id, request):
            yield from group

    def infer_in_groups(self, worker_id: str, request: wire.InferenceRequest) -> Generator[list[wire.StreamEvent]]:
        """Yield the events of `infer`, those together that arrived together."""
        for group in self._infer(calls.inference(worker_id, request)):
            if text := [event for event in group if event.token is not None or event.done]:
                yield text

    def infer_with_model(self, request: wire.PoolInference) -> Generator[list[wire.StreamEvent]]:
        """Yield the events of an inference by whichever worker the hive finds, those together that arrived together.

        Among them are those that tell what the request waits for, and one that names the worker. Raises as `infer`.
        """
        return self._infer(calls.inference_with_model(request))

    def embed(self, request: wire.PoolEmbed) -> list[list[float]]:
        """Return the vector of each text, in their order. Raises as `infer`."""
        return vectors(event for group in self._infer(calls.embed(request)) for event in group)

    def rerank(self, request: wire.PoolRerank) -> list[float]:
        """Return the score of each document, in their order. Raises as `infer`."""
        return scores(event for group in self._infer(calls.rerank(request)) for event in group)

    def _infer(self, call: Call[wire.StreamEvent]) -> Generator[list[wire.StreamEvent]]:
        reader, stall_s = InferenceReader(self._terms, self._host), call.patience.seconds(self._terms)
        with self._stream(call, stall_s) as response:
            named = reader.opened(response.headers)
            if reader.silence_s is not None:  # httpx looks here for each part of a request anew
                response.request.extensions["timeout"]["read"] = min(stall_s, reader.silence_s)
            if named:
                yield named
            try:
                for group in sse.groups(response.iter_raw(), call.answer, stall_s):
                    if good := reader.take(group):
                        yield good
                    if reader.error:
                        raise RemoteError.of(reader.error)
            except (httpx.HTTPError, ValueError) as error:
                reader.failed(error, silent=isinstance(error, httpx.ReadTimeout))
        reader.ended()

    def _progress(self, call: Call[wire.DownloadProgress]) -> Generator[wire.DownloadProgress]:
        """Yield what one stream tells; it ends at a silence too."""
        try:
            with self._stream(call, PROGRESS_SILENCE_S) as response:
                yield from sse.events(response.iter_raw(), call.answer, call.patience.seconds(self._terms))
        except (httpx.ReadTimeout, sse.Stalled):
            return
        except (httpx.HTTPError, ValueError) as error:
            raise HiveLost(self.address, error) from error

    @contextmanager
    def _stream(self, call: Call[T], silence_s: float) -> Generator[httpx.Response]:
        request = self._request(call, silence_s)
        request.headers["Accept-Encoding"] = "identity"
        response = self._heard(call, lambda: self._http.send(request, stream=True), ATTEMPTS)
        try:
            if response.status_code >= 400:
                check_status(self.address, response.status_code, self._read(response))
            yield response
        finally:
            response.close()

    def _read(self, response: httpx.Response) -> bytes:
        try:
            return response.read()
        except httpx.HTTPError as error:
            raise HiveLost(self.address, error) from error

    def _heard(self, call: Call[T], send: Callable[[], httpx.Response], attempts: int) -> httpx.Response:
        """Send until somebody answers."""
        trying = Attempts(self.address, call, attempts)
        while True:
            try:
                return send()
            except httpx.TransportError as error:
                delay_s = trying.failed(error, unsent=isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)))
            time.sleep(delay_s)

    def _request(self, call: Call[T], limit_s: float) -> httpx.Request:
        headers = None if call.body is None else {"Content-Type": "application/json"}
        return self._http.build_request(
            call.method, call.path, params=call.query or None, content=call.body, headers=headers,
            timeout=self._timeout(limit_s),
        )  # fmt: skip

    def _timeout(self, whole_s: float) -> httpx.Timeout:
        return httpx.Timeout(whole_s, connect=min(whole_s, self._terms.connect_s))
