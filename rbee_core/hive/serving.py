"""Relaying one inference stream from a worker to a client, so that it always ends in exactly one terminal event.

Bytes are passed on unread but for the end mark: what a token costs here is paid for every token of every request.
"""

import contextlib

import aiohttp
import msgspec
from aiohttp import web

from rbee_core import wire
from rbee_core.domain.worker import Worker
from rbee_core.errors import DeadlineExceeded, RbeeError, RemoteError, WorkerCrashed
from rbee_core.hive.supervisor import Supervisor
from rbee_core.hive.worker_client import WorkerClient
from rbee_core.http.middleware import error_response
from rbee_core.http.stream import END, EventStream, ReaderGoneError, event_bytes
from rbee_core.settings import Settings

CRASH_SETTLE_S = 2.0


class Relay:
    """Relays for one hive."""

    def __init__(self, settings: Settings, supervisor: Supervisor, link: WorkerClient) -> None:
        self._settings = settings
        self._supervisor = supervisor
        self._link = link

    async def run(self, request: web.Request, worker_id: str, wanted: wire.InferenceRequest) -> web.StreamResponse:
        """Serve one request on one worker. The worker's own refusals pass through unchanged."""
        request_id = wanted.request_id or ""
        worker = self._supervisor.begin(worker_id, request_id)
        stream = EventStream(request, self._settings.write_timeout_s)
        try:
            return await self._relay(worker, wanted, stream)
        except ReaderGoneError:
            return stream.response
        except RbeeError as error:
            return await _finish(stream, error)
        finally:
            self._supervisor.end(worker_id, request_id)

    async def cancel(self, worker: Worker, request_id: str) -> None:
        """Tell the worker that nobody wants this request any more."""
        await self._link.cancel(worker, request_id)

    async def _relay(self, worker: Worker, wanted: wire.InferenceRequest, stream: EventStream) -> web.StreamResponse:
        timeout = aiohttp.ClientTimeout(
            total=None, connect=self._settings.connect_timeout_s, sock_read=self._settings.token_stall_timeout_s
        )
        url, body = f"{worker.url}/v1/inference", wire.encode(wanted)
        try:
            session = self._link.session
            async with session.post(url, data=body, headers=self._link.headers(worker), timeout=timeout) as answer:
                if answer.status != 200:
                    raise await _refusal(answer)
                await stream.start()
                if await _pass_on(answer, stream):
                    return stream.response
        except TimeoutError as error:
            limit_s = self._settings.token_stall_timeout_s
            hint = "a slow machine needs a larger token_stall_timeout_s"
            raise DeadlineExceeded(f"Worker {worker.id} sent no token for {limit_s:g} s", hint=hint) from error
        except aiohttp.ClientError as error:
            raise await self._why_it_broke(worker) from error
        raise await self._why_it_broke(worker)

    async def _why_it_broke(self, worker: Worker) -> RbeeError:
        """Return the error for a stream that ended early, waiting a moment for the worker's exit to be seen."""
        ended = await self._supervisor.gone(worker.id, CRASH_SETTLE_S)
        if ended is None or not ended.error:
            reason = ended.reason if ended else "its connection broke"
            return WorkerCrashed(worker_id=worker.id, exit=reason)
        known = ended.error
        return RemoteError(code=known["code"], message=known["message"], http_status=502, details=known["details"])


async def _pass_on(answer: aiohttp.ClientResponse, stream: EventStream) -> bool:
    """Copy the stream; return whether its end mark came."""
    tail = b""
    async for chunk in answer.content.iter_any():
        await stream.write(chunk)
        tail = (tail + chunk)[-len(END) :]
    return tail == END


async def _refusal(answer: aiohttp.ClientResponse) -> RbeeError:
    try:
        body = msgspec.json.decode(await answer.read(), type=wire.ErrorBody).error
    except msgspec.MsgspecError:
        return RbeeError(f"The worker answered with status {answer.status}")
    return RemoteError(code=body.code, message=body.message, http_status=answer.status, details=body.details)


async def _finish(stream: EventStream, error: RbeeError) -> web.StreamResponse:
    """Say `error` in whichever form is still possible."""
    if not stream.response.prepared:
        return error_response(error)
    with contextlib.suppress(ReaderGoneError):
        await stream.write(event_bytes(error.body()) + END)
    return stream.response
