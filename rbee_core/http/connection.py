"""One connection of a server: aiohttp's with our envelope around its own refusals, or one that is refused outright."""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError, RawRequestMessage

from rbee_core import wire
from rbee_core.errors import InvalidRequest, RbeeError
from rbee_core.http.middleware import error_response, http_error, unforeseen

REFUSAL_S = 1.0

log = logging.getLogger(__name__)


class Connection(web.RequestHandler):
    """A connection as aiohttp serves it, but for what is no HTTP: that is one line in the log and an answer of ours."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Take what came. A body that breaks off being HTTP ends whoever reads it: aiohttp would let him wait."""
        super().data_received(data)
        request = self._current_request
        if request is None or not self._messages or isinstance(self._messages[-1][0], RawRequestMessage):
            return
        if request.content.is_eof():  # what is broken is the next request
            return
        error = self._messages.pop()[0]
        why = str(getattr(error, "message", ""))
        request.content.set_exception(web.RequestPayloadError(_one_line(why)))
        request.content.feed_eof()
        self.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what no middleware saw; closes the connection."""
        answer = error_response(_unseen(request, status, exc, message))
        answer.force_close()
        return answer

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer; what aiohttp itself refused before a middleware was asked gets the envelope."""
        if isinstance(resp, web.HTTPException):
            resp = http_error(request, resp)
        return await super().finish_response(request, resp, start_time)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log that this connection failed: for what a client sent, one line."""
        error = kw.get("exc_info")
        if isinstance(error, (HttpProcessingError, web.RequestPayloadError)):
            log.info("a connection ended: %s", _one_line(str(error)))
        else:
            super().log_exception(*args, **kw)


class Refusal(asyncio.Protocol):
    """A connection that only hears `error`: once it has said something, else its client would lose the answer.

    `over` is called when it is closed, by its client or after a second.
    """

    def __init__(self, error: RbeeError, over: Callable[[], None]) -> None:
        self._error = error
        self._over = over
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request, for a moment."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._deadline = asyncio.get_running_loop().call_later(REFUSAL_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Answer the first bytes, whatever they ask, and read on: closing would take the answer back."""
        del data
        if self._answered or self._transport is None:
            return
        self._answered = True
        body, status = wire.encode(self._error.body()), HTTPStatus(self._error.http_status)
        head = (
            f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "Retry-After: 1\r\nConnection: close\r\n\r\n"
        )
        self._transport.write(head.encode() + body)
        self._transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the next one in."""
        del exc
        if self._deadline is not None:
            self._deadline.cancel()
        self._over()


def _unseen(request: web.BaseRequest, status: int, error: BaseException | None, message: str | None) -> RbeeError:
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        why = _one_line(message or str(error))
        log.info("no HTTP from %s: %s", request.remote, why)
        refusal = InvalidRequest(f"This is no HTTP request: {why}")
        refusal.http_status = status
        return refusal
    return unforeseen("a connection", error if isinstance(error, Exception) else RuntimeError(message), told=False)


def _one_line(text: str) -> str:
    """Return the first line of what aiohttp's parser says, which goes on with what it was sent."""
    return text.strip().partition("\n")[0].rstrip(":")[:200]
