"""The client for programs that have an event loop, such as a queen over many hives: the calls over aiohttp.

Why not httpx here too: docs/adr/0014.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
import yarl

from rbee_core import aio, sse, tls, wire
from rbee_core.client import calls, rules
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
    read,
)
from rbee_core.client.terms import ClientTerms
from rbee_core.errors import RemoteError

T = TypeVar("T")


class AsyncHiveClient:
    """Connections to one hive. Use as an async context manager, on one event loop; calls may run side by side.

    Every call raises `HiveUnreachable` when nobody answers, `HiveUntrusted` when TLS says no, and `RemoteError` with
    what the hive answered otherwise. A call that is cancelled hangs up.
    """

    def __init__(self, host: str, port: int, terms: ClientTerms, *, https: bool = False) -> None:
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._host = host
        self._terms = terms
        self._https = https
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        trusted = await aio.off_loop(tls.client_context, self._terms.ca_file) if self._https else False
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=trusted),
            headers=rules.headers(self._terms),
            middlewares=(_send_once,),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def call(self, call: Call[T], *, attempts: int = ATTEMPTS, timeout_s: float | None = None) -> T:
        """Carry out `call` and return its answer. `timeout_s` is in place of the call's own patience."""
        whole_s = call.patience.seconds(self._terms) if timeout_s is None else timeout_s
        limits = aiohttp.ClientTimeout(total=whole_s, connect=min(whole_s, self._terms.connect_s))
        trying = Attempts(self.address, call, attempts)
        while True:
            try:
                async with await self._send(call, limits) as response:
                    content = await response.read()
                break
            except (_FailedError, aiohttp.ClientError, TimeoutError) as error:
                delay_s = trying.failed(_cause(error), unsent=_unsent(error))
            await aio.sleep(delay_s)
        return read(self.address, call, response.status, content)

    async def follow(self, download_id: str) -> AsyncGenerator[wire.DownloadProgress]:
        """Yield a download's progress up to done or failed; in a silence, the last one again and again.

        Leaving early cancels nothing: the node goes on.
        """
        call = calls.download_progress(download_id)
        while True:
            try:
                async with self._stream(call, PROGRESS_SILENCE_S) as response:
                    async for group in self._groups(response, call):
                        for progress in group:
                            yield progress
                            if progress.state != "running":
                                return
            except (TimeoutError, sse.Stalled):  # a silence: the next stream begins with where it is
                pass
            except (aiohttp.ClientError, ValueError) as error:
                raise HiveLost(self.address, error) from error
            await aio.sleep(FIRST_RETRY_DELAY_S)

    async def events(self) -> AsyncGenerator[wire.PoolSnapshot | wire.WorkerChanged | wire.SettingsChanged]:
        """Yield the live workers, then each change of a worker's state as it comes, up to the hive's end.

        Another snapshot follows where changes were missed. Raises `HiveLost` when the stream breaks.
        """
        call = calls.events()
        async with self._stream(call, EVENTS_SILENCE_S) as response:
            chunks = response.content.iter_any()
            try:
                async for group in sse.groups_as_they_come(chunks, call.answer, math.inf):
                    for told in group:
                        yield told
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                raise HiveLost(self.address, error) from error

    async def infer_in_groups(
        self, worker_id: str, request: wire.InferenceRequest
    ) -> AsyncGenerator[list[wire.StreamEvent]]:
        """Yield the tokens of an inference, then its `done` event; those together that arrived together.

        Closing the generator hangs up. Raises `RemoteError` for an error before or in the stream, `StreamBroken` for a
        stream without a terminal event, `DeadlineExceeded` when no token came for `token_stall_timeout_s`.
        """
        async with aclosing(self._infer(calls.inference(worker_id, request))) as groups:
            async for group in groups:
                if text := [event for event in group if event.token is not None or event.done]:
                    yield text

    def infer_with_model(self, request: wire.PoolInference) -> AsyncGenerator[list[wire.StreamEvent]]:
        """Yield the events of an inference by whichever worker the hive finds; raises as `infer_in_groups`.

        Among them are those that tell what the request waits for, and one that names the worker.
        """
        return self._infer(calls.inference_with_model(request))

    async def embed(self, request: wire.PoolEmbed) -> list[list[float]]:
        """Return the vector of each text, in their order. Raises as `infer_in_groups`."""
        return rules.vectors([event async for group in self._infer(calls.embed(request)) for event in group])

    async def rerank(self, request: wire.PoolRerank) -> list[float]:
        """Return the score of each document, in their order. Raises as `infer_in_groups`."""
        return rules.scores([event async for group in self._infer(calls.rerank(request)) for event in group])

    async def _infer(self, call: Call[wire.StreamEvent]) -> AsyncGenerator[list[wire.StreamEvent]]:
        reader = InferenceReader(self._terms, self._host)
        async with self._stream(call, call.patience.seconds(self._terms)) as response:
            if named := reader.opened(response.headers):
                yield named
            try:
                async for group in self._groups(response, call, reader.silence_s):
                    if good := reader.take(group):
                        yield good
                    if reader.error:
                        raise RemoteError.of(reader.error)
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                reader.failed(error, silent=isinstance(error, TimeoutError))
        reader.ended()

    def _groups(
        self, response: aiohttp.ClientResponse, call: Call[T], silence_s: float | None = None
    ) -> AsyncIterable[list[T]]:
        chunks = response.content.iter_any()
        heard = chunks if silence_s is None else _heard(aiter(chunks), silence_s)
        return sse.groups_as_they_come(heard, call.answer, call.patience.seconds(self._terms))

    @asynccontextmanager
    async def _stream(self, call: Call[T], silence_s: float) -> AsyncGenerator[aiohttp.ClientResponse]:
        limits = aiohttp.ClientTimeout(total=None, connect=self._terms.connect_s, sock_read=silence_s)
        trying = Attempts(self.address, call, ATTEMPTS)
        while True:
            try:
                response = await self._send(call, limits)
                break
            except (_FailedError, aiohttp.ClientError, TimeoutError) as error:
                delay_s = trying.failed(_cause(error), unsent=_unsent(error))
            await aio.sleep(delay_s)
        async with response:
            if response.status >= 400:
                check_status(self.address, response.status, await self._read(response))
            yield response

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        try:
            return await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise HiveLost(self.address, error) from error

    async def _send(self, call: Call[T], limits: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        assert self._session is not None
        headers = {"Accept-Encoding": "identity"}
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        scheme = "https" if self._https else "http"
        url = yarl.URL(f"{scheme}://{self.address}{call.path}", encoded=True).with_query(call.query or None)
        return await self._session.request(
            call.method, url, data=call.body, headers=headers, timeout=limits, allow_redirects=False
        )


async def _heard(chunks: AsyncIterator[bytes], silence_s: float) -> AsyncGenerator[bytes]:
    """Yield the chunks. Raises `TimeoutError` when none comes for so long."""
    while True:
        async with asyncio.timeout(silence_s):
            chunk = await anext(chunks, b"")
        if not chunk:
            return
        yield chunk


class _FailedError(Exception):
    """Raised in place of aiohttp's own error, so that aiohttp does not send a DELETE a second time by itself."""


async def _send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    try:
        return await handler(request)
    except (aiohttp.ClientError, OSError) as error:
        raise _FailedError from error


def _cause(error: Exception) -> Exception:
    cause = error.__cause__
    return cause if isinstance(error, _FailedError) and isinstance(cause, Exception) else error


def _unsent(error: Exception) -> bool:
    return isinstance(_cause(error), (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError))
