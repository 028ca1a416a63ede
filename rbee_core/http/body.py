"""Reading a request's body as a struct: within its limits of size and time, and whatever is sent."""

import asyncio
from typing import TypeVar

from aiohttp import HttpVersion11, web

from rbee_core import wire
from rbee_core.errors import DeadlineExceeded, InvalidRequest
from rbee_core.http.routes import READ_TIMEOUT_S

T = TypeVar("T")


async def read_body(request: web.Request, shape: type[T]) -> T:
    """Return the request's JSON body as `shape`. Raises what `read_bytes` does, and `InvalidRequest` for any other."""
    return wire.decode(await read_bytes(request), shape)


async def read_bytes(request: web.Request) -> bytes:
    """Return the request's body.

    Raises `InvalidRequest` whatever is wrong with it, `DeadlineExceeded` if it does not come in time, and aiohttp's own
    exception for a body over the limit.
    """
    if request.content_length is None and not request.body_exists:
        raise InvalidRequest("The request has no body", hint="send JSON")
    await _invite(request)
    limit_s = request.app[READ_TIMEOUT_S]
    try:
        async with asyncio.timeout(limit_s):
            return await request.read()
    except TimeoutError:
        hint = "send it faster, or raise read_timeout_s"
        raise DeadlineExceeded(f"The request's body was not whole after {limit_s:g} s", hint=hint) from None
    except web.RequestPayloadError as error:
        raise InvalidRequest(f"The request's body is no HTTP: {error}") from None


async def _invite(request: web.Request) -> None:
    """Let a client send its body that asked first: not before its key and the length have been looked at."""
    if request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
