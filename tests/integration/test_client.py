"""Both transports of the client against a real server that misbehaves on command."""

import asyncio
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from rbee_core import wire
from rbee_core.client import ClientTerms, HiveClient, HiveLost, calls
from rbee_core.errors import DeadlineExceeded, HiveUnreachable, RemoteError, StreamBroken
from rbee_core.keeper.interrupt import deadline
from rbee_core.settings import Settings
from tests.support.clients import TRANSPORTS, Client
from tests.support.http_server import Handler, served

TERMS = ClientTerms.of(
    Settings(home=Path("/nowhere"), connect_timeout_s=5, request_timeout_s=5, token_stall_timeout_s=2)
)
REQUEST = wire.InferenceRequest(prompt="Hi", request_id="req-1")
DONE = 'data: {"done":true,"total_tokens":2,"duration_ms":7,"finish_reason":"stop"}\n\n'
TOKENS = 'data: {"token":"Hel","index":0}\n\ndata: {"token":"lo","index":1}\n\n'

transport: type[Client] = HiveClient


@pytest.fixture(params=TRANSPORTS, autouse=True)
def _each_transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `serving` yield a client of each transport in turn."""
    monkeypatch.setattr(sys.modules[__name__], "transport", TRANSPORTS[request.param])


@contextmanager
def serving(handler: Handler, terms: ClientTerms = TERMS) -> Iterator[Client]:
    """Serve every path with `handler`, and yield a client of it."""
    with served(handler) as port, transport("127.0.0.1", port, terms) as client:
        yield client


def streaming(*parts: str, then_wait_s: float = 0, break_off: bool = False) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for part in parts:
            await response.write(part.encode())
        await asyncio.sleep(then_wait_s)  # noqa: TID251
        if break_off and request.transport:
            request.transport.abort()
        return response

    return handler


def answering(body: object, status: int = 200) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status)

    return handler


def events_of(client: Client) -> Iterator[wire.StreamEvent]:
    for group in client.infer_in_groups("worker-1", REQUEST):
        yield from group


def text_of(client: Client) -> str:
    return "".join(event.token or "" for event in events_of(client))


def test_answers_become_structs_and_what_is_new_is_ignored() -> None:
    with serving(answering({"status": "alive", "version": "9", "api_version": "v1", "new": 1})) as client:
        assert client.call(calls.health()) == wire.Health(status="alive", version="9", api_version="v1")


def test_requests_say_what_the_caller_said() -> None:
    seen: list[tuple[str, str, dict[str, str], object]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        seen.append((request.method, request.path, dict(request.query), json.loads(body) if body else None))
        if request.method == "DELETE":
            return web.Response(status=204)
        return web.json_response({"workers": [], "worker_id": "w", "url": "", "state": "loading"})

    with serving(handler) as client:
        client.call(calls.list_workers(model="m", device=0, state="idle"))
        client.call(calls.spawn(wire.SpawnRequest(model_ref="m", context_tokens=5)))
        client.call(calls.cancel("a/b", "req-1"), timeout_s=1)

    assert seen[0] == ("GET", "/v1/workers/list", {"model": "m", "device": "0", "state": "idle"}, None)
    assert seen[1][:2] == ("POST", "/v1/workers/spawn")
    assert seen[1][3] == json.loads(wire.encode(wire.SpawnRequest(model_ref="m", context_tokens=5)))
    assert seen[2][:2] == ("DELETE", "/v1/workers/a/b/inference/req-1")


@pytest.mark.parametrize(("key", "header"), [("s3cret", "Bearer s3cret"), ("", None)])
def test_key_is_sent_if_there_is_one(key: str, header: str | None) -> None:
    seen: list[str | None] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        return web.json_response({"stopped": []})

    with serving(handler, replace(TERMS, api_key=key)) as client:
        client.call(calls.shutdown())

    assert seen == [header]


def test_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving(answering({"stopped": ["worker-1"]})) as client:
        assert client.call(calls.stop_worker("worker-1")).stopped == ["worker-1"]


def test_error_of_the_hive_arrives_unchanged() -> None:
    error = {
        "code": "ALL_SLOTS_BUSY",
        "message": "All slots are busy (1 of 1)",
        "details": {"hint": "wait", "slots": 1},
    }
    with serving(answering({"error": error}, 503)) as client, pytest.raises(RemoteError) as caught:
        client.call(calls.worker("worker-1"))

    said = caught.value
    assert (said.code, said.message, said.hint) == ("ALL_SLOTS_BUSY", "All slots are busy (1 of 1)", "wait")
    assert (said.http_status, said.exit_code, said.details) == (503, 75, {"slots": 1})


@pytest.mark.parametrize(("body", "status"), [("hello", 200), ("hello", 404), ({"workers": 5}, 200), ({}, 500)])
def test_another_program_on_the_port_is_recognised(body: object, status: int) -> None:
    with serving(answering(body, status)) as client, pytest.raises(RemoteError, match="does not speak like a hive"):
        client.call(calls.list_workers())


def test_nobody_there_is_said_after_three_attempts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    started = time.monotonic()

    with transport("127.0.0.1", port, TERMS) as client, pytest.raises(HiveUnreachable) as caught:
        client.call(calls.health())

    assert caught.value.message == f"Cannot connect to 127.0.0.1:{port} after 3 attempts"
    assert time.monotonic() - started >= 0.15  # 100 and 200 ms, times 0.5 to 1.5


def test_what_only_reads_is_asked_again_and_what_changes_is_not() -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.method)
        if len(asked) < 3 or request.method != "GET":
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"workers": []})

    with serving(handler) as client:
        assert client.call(calls.list_workers()).workers == []
        for change in (calls.spawn(wire.SpawnRequest(model_ref="m")), calls.stop_worker("worker-1")):
            with pytest.raises(HiveLost, match="did not answer"):
                client.call(change)

    assert asked == ["GET", "GET", "GET", "POST", "DELETE"]


def test_short_request_has_a_bound() -> None:
    with serving(streaming("", then_wait_s=5)) as client, pytest.raises(HiveUnreachable):
        client.call(calls.health(), attempts=1, timeout_s=0.1)


def test_stream_gives_tokens_and_then_done() -> None:
    with serving(streaming(TOKENS, ": keep-alive\n\n", DONE, "data: [DONE]\n\n")) as client:
        events = list(events_of(client))

    assert [event.token for event in events] == ["Hel", "lo", None]
    assert (events[-1].done, events[-1].total_tokens, events[-1].duration_ms) == (True, 2, 7)


def test_error_in_the_stream_ends_it() -> None:
    error = 'data: {"error":{"code":"WORKER_CRASHED","message":"Worker worker-1 crashed","details":{}}}\n\n'
    seen: list[str] = []
    with serving(streaming(TOKENS, error, "data: [DONE]\n\n")) as client, pytest.raises(RemoteError) as caught:
        seen.extend(event.token or "" for event in events_of(client))

    assert (caught.value.code, caught.value.http_status) == ("WORKER_CRASHED", 502)  # not the stream's 200


def test_error_before_the_stream_is_an_ordinary_one() -> None:
    error = {"code": "WORKER_NOT_FOUND", "message": "No worker", "details": {}}
    with serving(answering({"error": error}, 404)) as client, pytest.raises(RemoteError, match="No worker"):
        text_of(client)


@pytest.mark.parametrize(
    "handler", [streaming(TOKENS), streaming(TOKENS, break_off=True), streaming(TOKENS, "data: {\n")]
)
def test_stream_without_its_last_word_is_broken(handler: Handler) -> None:
    arrived: list[wire.StreamEvent] = []
    with serving(handler) as client, pytest.raises(StreamBroken) as caught:
        arrived.extend(events_of(client))

    assert caught.value.details["tokens"] == 2
    assert [event.token for event in arrived] == ["Hel", "lo"]


def test_stream_that_breaks_after_its_last_word_is_whole() -> None:
    with serving(streaming(TOKENS, DONE, break_off=True)) as client:
        assert text_of(client) == "Hello"


def test_silence_is_not_waited_out() -> None:
    with serving(streaming(TOKENS, then_wait_s=5)) as client, pytest.raises(DeadlineExceeded, match="No sign of life"):
        text_of(client)


def test_keep_alive_is_no_sign_of_progress() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b": keep-alive\n\n")
            await asyncio.sleep(0.05)  # noqa: TID251

    with serving(handler) as client, pytest.raises(DeadlineExceeded):
        text_of(client)


ELSEWHERE = "0.0.0.0"  # leads to this machine, and does not look like it
KEPT_ALIVE = replace(TERMS, token_stall_s=60, line_s=2)


def kept_alive(*, comments: int) -> Handler:
    """Announce a comment every 50 ms, send so many of them between the tokens and the end, and no end without any."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"X-Rbee-Keep-Alive": "0.05"})
        await response.prepare(request)
        await response.write(TOKENS.encode())
        for _ in range(comments):
            await asyncio.sleep(0.05)  # noqa: TID251
            await response.write(b": nothing new\n\n")
        if not comments:
            await asyncio.sleep(60)  # noqa: TID251
        await response.write((DONE + "data: [DONE]\n\n").encode())
        return response

    return handler


def test_m7_a_line_that_was_cut_is_noticed_by_the_missing_comments() -> None:
    with (
        served(kept_alive(comments=0)) as port,
        transport(ELSEWHERE, port, KEPT_ALIVE) as client,
        pytest.raises(StreamBroken, match=r"nothing came from 0\.0\.0\.0 for 2 s") as caught,
    ):
        text_of(client)
    assert caught.value.details["tokens"] == 2


def test_m7_a_stream_that_is_kept_alive_is_waited_for() -> None:
    patient = replace(KEPT_ALIVE, line_s=20)
    with served(kept_alive(comments=6)) as port, transport(ELSEWHERE, port, patient) as client:
        assert text_of(client) == "Hello"


def test_closing_the_stream_hangs_up() -> None:
    gone = threading.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(TOKENS.encode())
                await asyncio.sleep(0.01)  # noqa: TID251
        except ConnectionError:
            gone.set()
            raise

    with serving(handler) as client:
        stream = events_of(client)
        next(stream)
        stream.close()
        assert gone.wait(30)


def test_a_download_is_followed_over_silences_and_breaks_of_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sync", "aio"):
        monkeypatch.setattr(f"rbee_core.client.{module}.PROGRESS_SILENCE_S", 2.0)
    told = [("running", 1), ("running", 2), ("done", 3)]
    asked: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.path_qs)
        state, done = told[len(asked) - 1]
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(f'data: {{"id":"d","reference":"m","state":"{state}","done_bytes":{done}}}\n\n'.encode())
        await asyncio.sleep(30 if len(asked) == 1 else 0)  # noqa: TID251
        return response

    with serving(handler) as client:
        assert [(p.state, p.done_bytes) for p in client.follow("d")] == told
    assert asked == ["/v1/models/download/progress?id=d"] * 3


def test_a_command_s_deadline_is_no_silence_of_a_download() -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        response = web.StreamResponse()
        await response.prepare(request)
        state = "running" if len(asked) == 1 else "done"
        await response.write(f'data: {{"id":"d","reference":"m","state":"{state}"}}\n\n'.encode())
        await asyncio.sleep(60)  # noqa: TID251
        return response

    with (
        served(handler) as port,
        HiveClient("127.0.0.1", port, TERMS) as client,
        pytest.raises(DeadlineExceeded, match="deadline of 1 s"),
        deadline(1),
    ):
        list(client.follow("d"))
    assert len(asked) == 1


def test_named_calls_of_the_blocking_client_unpack_their_answers() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response({"workers": [], "stopped": ["worker-1"], "backends": [], "models": []})

    with served(handler) as port, HiveClient("127.0.0.1", port, TERMS) as client:
        assert client.list_workers() == client.backends() == client.models() == []
        assert client.stop_worker("worker-1") == client.shutdown() == ["worker-1"]


SNAPSHOT = 'data: {"event":"snapshot","number":0,"at_unix":1.0,"workers":[]}\n\n'
LOADING = '{"worker_id":"w","model_ref":"m","backend":"b","device":"cpu","state":"loading"}'
CHANGED = (
    'data: {"event":"changed","number":1,"at_unix":2.0,"worker_id":"w","before":null,"after":"launching",'
    f'"reason":"wanted","worker":{LOADING}}}\n\n'
)


def test_events_are_a_snapshot_then_changes_up_to_the_end() -> None:
    with serving(streaming(SNAPSHOT, ": nothing new\n\n", CHANGED, "data: [DONE]\n\n")) as client:
        snapshot, changed = client.events()
    assert isinstance(snapshot, wire.PoolSnapshot)
    assert isinstance(changed, wire.WorkerChanged)
    assert (snapshot.workers, changed.after, changed.worker.state) == ([], "launching", "loading")


@pytest.mark.parametrize("handler", [streaming(SNAPSHOT, break_off=True), streaming(SNAPSHOT, "data: {}\n\n")])
def test_events_that_break_off_are_a_lost_hive(handler: Handler) -> None:
    with serving(handler) as client, pytest.raises(HiveLost):
        list(client.events())
