"""Server-sent events with a deadline on every write."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from rbee_core import wire

END = b"data: [DONE]\n\n"
STILL_HERE = b": nothing new\n\n"
_NEVER_BLOCKS_BYTES = 16 * 1024  # asyncio lets a writer wait from 64 KiB of unsent bytes on


def event_bytes(event: Any, mark: str = "") -> bytes:
    """Return one event; JSON escapes every line break, so that text can never forge one.

    A browser says `mark` when it comes back, in the header Last-Event-ID.
    """
    identity = b"id: " + mark.encode() + b"\n" if mark else b""
    return identity + b"data: " + wire.encode(event) + b"\n\n"


class ReaderGoneError(Exception):
    """Raised when a client has left, or takes nothing for the whole write timeout: aiohttp would wait for ever."""


class EventStream:
    """An SSE response being written. `start` and `write` raise `ReaderGoneError` when nobody reads."""

    def __init__(self, request: web.Request, write_timeout_s: float) -> None:
        self._request = request
        self._write_timeout_s = write_timeout_s
        self.response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )

    async def start(self) -> None:
        """Send the headers, once; after this an error can only be an event."""
        if self.response.prepared:
            return
        try:
            await self.response.prepare(self._request)
        except ConnectionError as error:
            raise ReaderGoneError from error

    async def write(self, data: bytes) -> None:
        """Send `data` now."""
        transport = self._request.transport
        try:
            if transport is None or (transport.get_write_buffer_size() == 0 and len(data) <= _NEVER_BLOCKS_BYTES):
                await self.response.write(data)  # a deadline would only cost time for every token
            else:
                async with asyncio.timeout(self._write_timeout_s):
                    await self.response.write(data)
        except ConnectionResetError:
            raise ReaderGoneError from None
        except TimeoutError:
            if transport is not None:
                transport.abort()
            raise ReaderGoneError from None


async def send_events(request: web.Request, events: AsyncIterator[Any], write_timeout_s: float) -> web.StreamResponse:
    """Send every event, then the end mark."""
    stream = EventStream(request, write_timeout_s)
    with contextlib.suppress(ReaderGoneError):
        await stream.start()
        async for event in events:
            await stream.write(event_bytes(event))
        await stream.write(END)
    return stream.response
