"""What a server bears from its clients: slow, silent, broken and too many of them; raw bytes on loopback."""

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from rbee_core import aio, wire
from rbee_core.http.bind import bind
from rbee_core.http.body import read_body
from rbee_core.http.listen import Limits, serving
from rbee_core.http.middleware import access, envelope
from rbee_core.http.routes import Route, Scope, application
from rbee_core.http.stream import EventStream, ReaderGoneError

HEAD = b"POST /take HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /fine HTTP/1.1\r\nHost: 127.0.0.1\r\n"
NEVER_S = 600.0
BODY = b'{"prompt": "hi"}'


class Owner:
    async def fine(self, request: web.Request) -> web.Response:
        return web.json_response({})

    async def take(self, request: web.Request) -> web.Response:
        return web.json_response({"prompt": (await read_body(request, wire.InferenceRequest)).prompt})


ROWS = [
    Route(method="GET", path="/fine", handler=Owner.fine, scope=Scope.READ, summary=""),
    Route(method="POST", path="/take", handler=Owner.take, scope=Scope.INFER, summary=""),
]
Talk = Callable[[int], Awaitable[None]]


def at_a_server(
    talk: Talk, *, connections: int = 512, headers_s: float = NEVER_S, body_s: float = NEVER_S, key: str = ""
) -> None:
    """Serve while `talk` has the port."""

    async def run() -> None:
        doors = [envelope(1000), access(key=key)]
        app = application(ROWS, [Owner()], middlewares=doors, body_limit_bytes=1000, read_timeout_s=body_s)
        limits = Limits(connections=connections, read_timeout_s=headers_s)
        async with serving(app, bind("127.0.0.1", 0), limits) as port, asyncio.timeout(30):
            await talk(port)

    asyncio.run(run())


async def answer_to(port: int, *parts: bytes) -> bytes:
    """Send the parts, each in a packet of its own, and return everything up to the server's end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await aio.sleep(0.02)  # so that they do not arrive as one
    try:
        return await reader.read()
    finally:
        writer.close()


def told(answer: bytes) -> tuple[int, dict[str, Any]]:
    """Return an answer's status and error."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


def check(parts: list[bytes], status: int, code: str, **how: Any) -> str:
    """Send the parts; they must be refused like that, and the connection closed. Returns the message."""
    messages: list[str] = []

    async def talk(port: int) -> None:
        found, error = told(await answer_to(port, *parts))
        assert (found, error["code"]) == (status, code)
        messages.append(error["message"])

    at_a_server(talk, **how)
    return messages[0]


@pytest.mark.parametrize(
    "parts",
    [[HEAD + b"Content-Length: 900\r\n\r\n", b'{"prom'], [CHUNKED, b"6\r\n{\"prom\r\n"], [CHUNKED]],
    ids=["length", "chunk", "no chunk"],
)  # fmt: skip
def test_a4_a_body_that_does_not_come_has_a_deadline(parts: list[bytes]) -> None:
    assert "0.2 s" in check(parts, 408, "DEADLINE_EXCEEDED", body_s=0.2)


def test_a4_a_bad_chunk_is_refused_when_it_comes() -> None:
    assert "no HTTP" in check([CHUNKED, b"6\r\n{\"prom\r\n", b"zz\r\n"], 400, "INVALID_REQUEST")  # fmt: skip


def test_a4_a_body_that_is_too_long_is_refused_before_it_comes() -> None:
    assert "1000 bytes" in check([HEAD + b"Content-Length: 3000000\r\n\r\n"], 413, "PAYLOAD_TOO_LARGE")


def test_a4_a_key_is_asked_for_before_the_body() -> None:
    check([HEAD + b"Content-Length: 900\r\n\r\n", b"{"], 401, "INVALID_API_KEY", key="k" * 32)


def test_a4_headers_that_do_not_come_have_a_deadline() -> None:
    async def talk(port: int) -> None:
        assert await answer_to(port, b"GET /fine HT") == b""

    at_a_server(talk, headers_s=0.2)


def test_a4_one_connection_too_many_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    async def talk(port: int) -> None:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for _ in range(3):
            answer = await answer_to(port, GET + b"\r\n")
            assert told(answer)[0] == 503
            assert told(answer)[1]["code"] == "OVERLOADED"
            assert b"Retry-After: 1" in answer
        idle[0][1].close()
        while b" 200 OK" not in await answer_to(port, GET + b"Connection: close\r\n\r\n"):
            pass  # the server sees the end of a connection in its own time
        idle[1][1].close()

    with caplog.at_level(logging.INFO):
        at_a_server(talk, connections=2)
    assert [r.getMessage() for r in caplog.records].count("2 connections are open, further ones are refused") == 1


def test_a4_those_who_are_refused_and_silent_hold_up_nobody_for_long() -> None:
    async def talk(port: int) -> None:
        _, idle = await asyncio.open_connection("127.0.0.1", port)
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        assert told(await answer_to(port, GET + b"\r\n"))[0] == 503
        for _, writer in [*silent, (None, idle)]:
            writer.close()

    at_a_server(talk, connections=1)


@pytest.mark.parametrize("sent_bytes", [100_000, 1_000_000])
def test_c16_a_client_that_never_reads_is_dropped_whatever_fits_between(sent_bytes: int) -> None:
    async def run() -> None:
        over = asyncio.Event()

        async def handler(request: web.Request) -> web.StreamResponse:
            stream = EventStream(request, 0.3)
            try:
                await stream.start()
                for _ in range(sent_bytes // 1000):
                    await stream.write(bytes(1000))
                await asyncio.Event().wait()
            except ReaderGoneError:
                pass
            finally:
                over.set()
            return stream.response

        app = web.Application()
        app.router.add_get("/", handler)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            async with serving(app, bind("127.0.0.1", 0), Limits(write_timeout_s=0.3)) as port, asyncio.timeout(30):
                loop = asyncio.get_running_loop()
                await loop.sock_connect(client, ("127.0.0.1", port))
                await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                await over.wait()

    asyncio.run(run())


def test_a_stream_that_is_not_silent_says_nothing_beside_its_events() -> None:
    async def run() -> bytes:
        async def handler(request: web.Request) -> web.StreamResponse:
            with EventStream(request, NEVER_S, keep_alive_s=NEVER_S) as stream:
                await stream.start()
                for event in (b"data: 1\n\n", b"data: 2\n\n"):
                    await aio.sleep(0.01)  # time for what might come between
                    await stream.write(event)
            return stream.response

        app = web.Application()
        app.router.add_get("/", handler)
        async with serving(app, bind("127.0.0.1", 0)) as port, asyncio.timeout(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
            answer = await reader.read()
            writer.close()
        return answer.partition(b"\r\n\r\n")[2]

    assert asyncio.run(run()) == b"data: 1\n\ndata: 2\n\n"


def test_c7_so_many_may_wait_to_be_accepted() -> None:
    async def run() -> None:
        sock = bind("127.0.0.1", 0)
        async with serving(web.Application(), sock):
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)
            assert int.from_bytes(info[28:32], "little") == min(512, most)  # a listening socket's backlog

    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    asyncio.run(run())


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ([b"NONSENSE\r\n\r\n"], 400, "INVALID_REQUEST"),
        ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], 400, "INVALID_REQUEST"),
        ([GET + b"Host: 127.0.0.1\r\n\r\n"], 400, "INVALID_REQUEST"),
        ([GET + b"X: " + b"x" * 70_000 + b"\r\n\r\n"], 400, "INVALID_REQUEST"),
        ([HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"], 400, "INVALID_REQUEST"),
        ([CHUNKED + b"zz\r\n"], 400, "INVALID_REQUEST"),
    ],
)
def test_b9_what_is_no_http_is_one_line_in_the_log(
    parts: list[bytes], status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        message = check(parts, status, code)
    ours = [r for r in caplog.records if r.name != "asyncio"]
    assert len(ours) == 1
    assert ours[0].exc_info is None
    assert "\n" not in ours[0].getMessage() + message


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate", "x"])
def test_b5_c4_an_encoded_body_is_refused(encoding: str) -> None:
    head = HEAD + b"Connection: close\r\nContent-Encoding: " + encoding.encode()
    message = check([head + b"\r\nContent-Length: 7\r\n\r\ngarbage"], 415, "UNSUPPORTED_MEDIA_TYPE")
    assert encoding in message


@pytest.mark.parametrize("path", [b"/take", b"/nowhere"])
def test_c4_what_is_expected_in_vain_is_told_in_the_envelope(path: bytes) -> None:
    head = HEAD.replace(b"/take", path) + b"Connection: close\r\nExpect: foo\r\nContent-Length: 16\r\n\r\n"
    check([head + BODY], 417, "INVALID_REQUEST")


def test_a4_a_client_that_asks_first_is_told_to_send_only_if_its_body_is_wanted() -> None:
    asks = b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 16\r\n"

    async def talk(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + asks + b"Authorization: Bearer k\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(BODY)
        assert (await reader.read()).endswith(b'{"prompt": "hi"}')
        writer.close()
        refused = await answer_to(port, HEAD + asks + b"\r\n")
        assert told(refused)[0] == 401

    at_a_server(talk, key="k")


def test_c5_a_wrong_method_has_a_code_of_its_own() -> None:
    check([GET.replace(b"GET", b"PUT") + b"Connection: close\r\n\r\n"], 405, "METHOD_NOT_ALLOWED")
