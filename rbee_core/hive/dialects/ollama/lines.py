"""Answers in lines, whose headers are held back for a moment so that a refusal can have its own status."""

import contextlib
from collections.abc import Awaitable, Callable

from aiohttp import web
from msgspec import Struct

from rbee_core import wire
from rbee_core.dialects.ollama.errors import error_body
from rbee_core.dialects.ollama.work import NDJSON, STILL_HERE
from rbee_core.http.middleware import as_told
from rbee_core.http.stream import EventStream, ReaderGoneError

Write = Callable[[bytes], Awaitable[None]]


class Pace(Struct, frozen=True):
    """How long a write may take, and after which silence a stream says that it lives; both in seconds."""

    write_timeout_s: float
    keep_alive_s: float


async def answer_in_lines(
    request: web.Request, pace: Pace, tell: Callable[[Write], Awaitable[None]]
) -> web.StreamResponse:
    """Answer with the lines that `tell` writes. What it raises is the answer, or the last line of a begun one."""
    stream = EventStream(
        request, pace.write_timeout_s, pace.keep_alive_s, still_here=lambda: STILL_HERE, media=NDJSON
    )  # fmt: skip

    async def write(data: bytes) -> None:
        if not await stream.opened():
            await stream.start()
        await stream.write(data)

    with stream, contextlib.suppress(ReaderGoneError):
        stream.open_by_itself()
        try:
            await tell(write)
        except ReaderGoneError:
            raise
        except Exception as error:
            if not await stream.opened():
                raise
            await stream.write(wire.encode(error_body(as_told(request, error))) + b"\n")
    return stream.response
