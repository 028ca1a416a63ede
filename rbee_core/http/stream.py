"""Server-sent events with a deadline on every write."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

from aiohttp import web

from rbee_core import wire

END = b"data: [DONE]\n\n"
KEEP_ALIVE = "X-Rbee-Keep-Alive"
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
    """An SSE response being written. `start` and `write` raise `ReaderGoneError` when nobody reads.

    With `keep_alive_s`, a stream that is silent for so long says `still_here`, a comment unless told otherwise, and its
    headers announce that: a reader then knows a cut line from a long thought. Such a stream is a context, whose end
    ends that.
    """

    def __init__(
        self,
        request: web.Request,
        write_timeout_s: float,
        keep_alive_s: float = 0.0,
        *,
        still_here: Callable[[], bytes] = lambda: STILL_HERE,
        media: str = "text/event-stream",
    ) -> None:
        self._request = request
        self._write_timeout_s = write_timeout_s
        self._keep_alive_s = keep_alive_s
        self._say_still_here = still_here
        self._timer: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None
        self._remark: asyncio.Task[None] | None = None
        self._wrote_at = 0.0
        self.response = web.StreamResponse(
            headers={"Content-Type": media, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )

    def open_by_itself(self) -> None:
        """Send the headers after `keep_alive_s` of silence: until then an error may be all of the answer."""
        if self._keep_alive_s:
            self._timer = asyncio.get_running_loop().call_later(self._keep_alive_s, self._begin)

    def _begin(self) -> None:
        self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        with contextlib.suppress(ReaderGoneError):  # the next write meets it too
            await self.start()
            await self._still_here()

    async def opened(self) -> bool:
        """Return whether headers were sent, or are being sent; after False they are sent by nobody else."""
        if self._opening is not None:
            await self._opening
        elif self._timer is not None and not self.response.prepared:
            self._timer.cancel()
        return self.response.prepared

    async def start(self) -> None:
        """Send the headers, once; after this an error can only be an event."""
        if self.response.prepared:
            return
        if self._timer is not None:
            self._timer.cancel()
        try:
            if self._keep_alive_s:
                self.response.headers[KEEP_ALIVE] = f"{self._keep_alive_s:g}"
            await self.response.prepare(self._request)
        except ConnectionError as error:
            raise ReaderGoneError from error
        if self._keep_alive_s:
            loop = asyncio.get_running_loop()
            self._wrote_at = loop.time()
            self._timer = loop.call_later(self._keep_alive_s, self._look_again, self._keep_alive_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in (self._opening, self._remark):
            if task is not None:
                task.cancel()

    def _look_again(self, every_s: float) -> None:
        """Send a comment if nothing was written for so long, and is not on its way either; then again."""
        loop, transport = asyncio.get_running_loop(), self._request.transport
        if transport is None:
            return
        if loop.time() - self._wrote_at >= every_s and transport.get_write_buffer_size() == 0:
            self._remark = loop.create_task(self._still_here())
        self._timer = loop.call_later(every_s, self._look_again, every_s)

    async def _still_here(self) -> None:
        with contextlib.suppress(ConnectionError):  # the next write meets it too
            await self.response.write(self._say_still_here())

    async def write(self, data: bytes) -> None:
        """Send `data` now."""
        self._wrote_at = asyncio.get_running_loop().time()
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
