"""Clients that leave, stall, or get half a stream: the engine stops, the slot is free, nobody is misled."""

import asyncio
import contextlib
import json
import resource
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator

import psutil
import pytest
from aiohttp import web

from rbee_core import wire
from rbee_core.errors import RemoteError
from rbee_core.http.bind import bind
from rbee_core.http.listen import serving
from rbee_core.http.stream import EventStream, ReaderGoneError
from rbee_kit.program import Hive, Home
from rbee_kit.waiting import eventually

pytestmark = pytest.mark.scripted

FREE_WITHIN_S = 10.0


def spawn(hive: Hive, script: str) -> str:
    worker_id = hive.client.spawn(wire.SpawnRequest(model_ref=f"scripted:{script}")).worker_id
    eventually(lambda: hive.client.worker(worker_id).state == "idle", what="the worker is ready")
    return worker_id


@contextlib.contextmanager
def raw_request(hive: Hive, worker_id: str, *, receive_buffer: int = 0) -> Iterator[socket.socket]:
    """Send an inference request over a bare socket."""
    body = json.dumps({"prompt": "hello"}).encode()
    head = (
        f"POST /v1/workers/{worker_id}/inference HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.socket() as sock:
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(20)
        sock.connect(("127.0.0.1", hive.port))
        sock.sendall(head.encode() + body)
        eventually(lambda: hive.client.worker(worker_id).active == 1, what="the request runs")
        yield sock


def hang_up(sock: socket.socket) -> None:
    """Close with a reset, as a killed client's kernel does."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def is_free(hive: Hive, worker_id: str) -> None:
    """The hive counts no request, and the worker's own slot takes one."""
    eventually(lambda: hive.client.worker(worker_id).active == 0, FREE_WITHIN_S, what="the request is over")

    def taken() -> bool:
        try:
            request = wire.WorkerInference(prompt="again", max_tokens=1, timeout_s=0.01, queue=False)
            next(hive.client.infer(worker_id, request))
        except RemoteError as error:
            return error.code != "ALL_SLOTS_BUSY"
        return True

    eventually(taken, FREE_WITHIN_S, what="the slot is free")


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
def test_a_client_that_leaves_before_the_first_token(reset: bool, home: Home) -> None:
    hive = home.start_hive()
    worker_id = spawn(hive, "prefill_s=60")
    with raw_request(hive, worker_id) as sock:
        hang_up(sock) if reset else sock.close()
        is_free(hive, worker_id)


def test_a_client_that_leaves_in_the_middle(home: Home) -> None:
    hive = home.start_hive()
    worker_id = spawn(hive, "tokens=inf;token_ms=10")
    with raw_request(hive, worker_id) as sock:
        eventually(lambda: b"data: " in sock.recv(4096), what="the stream begins")  # the headers may come alone
        hang_up(sock)
        is_free(hive, worker_id)
    hive.stop()
    assert "Traceback" not in home.log("hive") + home.log(worker_id)


def test_many_clients_that_leave_at_once(home: Home) -> None:
    home.environment["RBEE_SLOTS_PER_WORKER"] = "4"
    hive = home.start_hive()
    worker_id = spawn(hive, "slots=4;tokens=inf;token_ms=10")
    streams = [hive.connect().infer(worker_id, wire.InferenceRequest(prompt="hello")) for _ in range(4)]
    for stream in streams:
        next(stream)
    for stream in streams:
        stream.close()
    is_free(hive, worker_id)
    process = psutil.Process(hive.pid)
    eventually(lambda: len(process.net_connections()) <= 8, what="the connections are closed")


def test_a_client_that_never_reads(home: Home) -> None:
    home.environment["RBEE_WRITE_TIMEOUT_S"] = "0.5"
    hive = home.start_hive()
    process = psutil.Process(hive.pid)
    worker_id = spawn(hive, "tokens=inf")
    before = process.memory_info().rss
    with raw_request(hive, worker_id, receive_buffer=4096):
        eventually(lambda: hive.client.worker(worker_id).active == 0, 15, what="the hive gives up")
        assert process.memory_info().rss - before < 30_000_000
    is_free(hive, worker_id)
    hive.stop()
    assert "Traceback" not in home.log("hive") + home.log(worker_id)


@pytest.mark.parametrize(
    "script",
    [
        "tokens=3",
        "tokens=9;token_ms=100;crash_at_token=3:SEGV",
        "tokens=9;token_ms=100;half_event_at_token=3",
        "tokens=inf;token_ms=10",
    ],
)
def test_every_stream_has_exactly_one_last_word(script: str, home: Home) -> None:
    hive = home.start_hive()
    worker_id = spawn(hive, script)
    with raw_request(hive, worker_id) if "inf" in script else quick_request(hive, worker_id) as sock:
        if "inf" in script:
            hive.client.stop_worker(worker_id)
        data = read_all(sock)
    events = [line.removeprefix(b"data: ") for line in data.split(b"\n") if line.startswith(b"data: ")]
    assert events[-1].strip() == b"[DONE]"
    last_words = [e for e in map(json.loads, events[:-1]) if "done" in e or "error" in e]
    assert len(last_words) == 1
    assert json.loads(events[-2]) == last_words[0]


def test_a_worker_that_dies_within_an_event_is_told_as_a_crash(home: Home) -> None:
    hive = home.start_hive()
    worker_id = spawn(hive, "tokens=9;half_event_at_token=2;token_ms=100")
    with pytest.raises(RemoteError) as caught:
        list(hive.client.infer(worker_id, wire.InferenceRequest(prompt="hello")))
    assert caught.value.code == "WORKER_CRASHED"
    assert "SIGKILL" in caught.value.message


@contextlib.contextmanager
def quick_request(hive: Hive, worker_id: str) -> Iterator[socket.socket]:
    """Send a request that may be over before anybody looks."""
    body = b'{"prompt": "hello"}'
    head = (
        f"POST /v1/workers/{worker_id}/inference HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", hive.port), timeout=20) as sock:
        sock.sendall(head.encode() + body)
        yield sock


def read_all(sock: socket.socket) -> bytes:
    """Read up to the end of the response: its last chunk, not a head whose last header ends in a nought."""
    data = b""
    while not data.endswith((b"\r\n0\r\n\r\n", b"data: [DONE]\n\n")) and (chunk := sock.recv(65_536)):
        data += chunk
    return data


def test_slow_headers_do_not_hold_up_others(home: Home) -> None:
    hive = home.start_hive()
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", hive.port)))
            sock.sendall(b"POST /v1/workers/spawn HTTP/1.1\r\nHost:")
        started = time.monotonic()
        assert hive.client.health(attempts=1).status == "alive"
        assert time.monotonic() - started < 10


def test_a_body_that_never_comes_does_not_hold_up_the_end(home: Home) -> None:
    hive = home.start_hive()
    head = (
        "POST /v1/workers/spawn HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        "Content-Length: 100\r\n\r\n{"
    )
    with socket.create_connection(("127.0.0.1", hive.port)) as sock:
        sock.sendall(head.encode())
        assert hive.client.health().status == "alive"
        started = time.monotonic()
        assert hive.stop().exit_code == 0
        assert time.monotonic() - started < 10  # a third of the grace


def test_m7_a_silent_stream_says_that_it_lives(home: Home) -> None:
    home.environment["RBEE_KEEP_ALIVE_S"] = "0.1"
    hive = home.start_hive()
    worker_id = spawn(hive, "prefill_s=600")
    with raw_request(hive, worker_id) as sock:
        data = b""
        while data.count(b": nothing new\n\n") < 3:
            data += sock.recv(4096)
    assert b"X-Rbee-Keep-Alive: 0.1\r\n" in data


def lets_in_again(hive: Hive) -> None:
    def let_in() -> bool:
        try:
            return hive.client.health().status == "alive"
        except RemoteError as error:
            assert error.code == "OVERLOADED"  # noqa: PT017  # it was not raised before
            return False

    eventually(let_in, 20, what="the hive has seen the others leave")


def test_a3_more_connections_than_descriptors_are_one_line_and_no_traceback(
    home: Home, low_fds: Callable[[int], None]
) -> None:
    low_fds(256)
    hive = home.start_hive()
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", hive.port), timeout=20))
        eventually(lambda: "further ones are refused" in home.log("hive"), what="the hive says so")
    lets_in_again(hive)
    assert hive.stop().exit_code == 0
    said = home.log("hive")
    assert "Traceback" not in said + hive.program.stderr
    assert said.count("further ones are refused") == 1


def test_a3_a_worker_is_not_called_crashed_when_the_hive_is_short_of_descriptors(
    home: Home, low_fds: Callable[[int], None]
) -> None:
    low_fds(128)
    hive = home.start_hive()
    worker_id = spawn(hive, "tokens=inf;token_ms=50")
    own = f"/v1/workers/{worker_id}/inference"
    body = b'{"prompt": "hello", "queue": false}'
    head = f"POST {own} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with contextlib.ExitStack() as stack:
        socks = [
            stack.enter_context(socket.create_connection(("127.0.0.1", hive.port), timeout=60)) for _ in range(100)
        ]
        for sock in socks:
            sock.sendall(request)
        statuses = Counter(sock.recv(12).decode() for sock in socks)
    assert statuses == {"HTTP/1.1 200": 1, "HTTP/1.1 503": 99}
    lets_in_again(hive)
    is_free(hive, worker_id)
    eventually(lambda: hive.client.worker(worker_id).state == "idle", what="the worker is idle")
    said = home.log("hive") + hive.program.stderr
    assert "Traceback" not in said
    assert "WORKER_CRASHED" not in said


def test_a3_a_hive_takes_as_many_descriptors_as_it_may(home: Home) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[0]), before[1]))
    try:
        hive = home.start_hive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    soft, hard = resource.prlimit(hive.pid, resource.RLIMIT_NOFILE)
    assert soft == min(hard, 65_536)


@pytest.mark.parametrize("named", ["its own", "nobody's"])
def test_a4_c15_a_callback_without_its_secret_is_refused_unread(named: str, home: Home) -> None:
    hive = home.start_hive()
    worker_id = spawn(hive, "tokens=1") if named == "its own" else "worker-000000"
    head = (
        "POST /v1/workers/ready HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        "Authorization: Bearer guessed\r\nContent-Length: 2000000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", hive.port), timeout=20) as sock:
        sock.sendall(head.encode() + json.dumps({"worker_id": worker_id}).encode())  # the rest never comes
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 401")
    assert worker_id.encode() not in answer


def test_one_large_write_to_a_client_that_never_reads_has_a_deadline() -> None:
    async def write() -> float:
        gave_up: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        async def handler(request: web.Request) -> web.StreamResponse:
            stream = EventStream(request, write_timeout_s=0.3)
            await stream.start()
            began = time.monotonic()
            with pytest.raises(ReaderGoneError):
                await stream.write(bytes(64 * 1024 * 1024))
            gave_up.set_result(time.monotonic() - began)
            return stream.response

        app = web.Application()
        app.router.add_get("/", handler)
        async with serving(app, bind("127.0.0.1", 0)) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            try:
                async with asyncio.timeout(5):
                    return await gave_up
            finally:
                writer.transport.abort()

    assert 0.2 < asyncio.run(write()) < 5


def test_c16_who_never_reads_holds_a_slot_no_longer_than_the_write_timeout(home: Home) -> None:
    home.environment["RBEE_WRITE_TIMEOUT_S"] = "1"
    hive = home.start_hive()
    worker_id = spawn(hive, "tokens=inf;token_ms=1")
    body = b'{"prompt": "hello"}'
    head = f"POST /v1/workers/{worker_id}/inference HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", hive.port))
        deaf.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        eventually(lambda: hive.client.worker(worker_id).state == "busy", what="it has the slot")
        eventually(lambda: hive.client.worker(worker_id).state == "idle", 60, what="the slot is free again")
