"""A hive over real HTTP, with scripted workers: spawning, listing, logs, stopping, and what it refuses."""

import http.client
import json
import os
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from rbee_core import wire
from rbee_core.client import HiveClient
from rbee_core.errors import RemoteError
from rbee_kit.program import Hive, Home
from rbee_kit.waiting import eventually

pytestmark = pytest.mark.scripted

Case = tuple[str, str, bytes | None, Mapping[str, str], int]


@pytest.fixture
def hive(home: Home) -> Hive:
    return home.start_hive()


@pytest.fixture
def client(hive: Hive) -> HiveClient:
    return hive.client


def call(
    hive: Hive, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    """Return status and JSON of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", hive.port, timeout=30)
    try:
        default = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, body, {**default, **(headers or {})})
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content else None
    finally:
        connection.close()


def spawn(client: HiveClient, script: str = "", **options: Any) -> str:
    return client.spawn(wire.SpawnRequest(model_ref=f"scripted:{script}", **options)).worker_id


def ready(client: HiveClient, worker_id: str) -> wire.WorkerInfo:
    """Wait until a worker has loaded."""
    eventually(lambda: client.worker(worker_id).state not in ("loading", "stopping"), what="the worker is ready")
    return client.worker(worker_id)


def infer(client: HiveClient, worker_id: str, **fields: Any) -> Iterator[wire.StreamEvent]:
    return client.infer(worker_id, wire.WorkerInference(prompt="hello", **fields))


def worker_processes(home: Home) -> list[psutil.Process]:
    return [p for p in home.processes() if "llm-worker-rbee" in " ".join(p.cmdline())]


def test_m1_every_process_carries_its_name(home: Home, hive: Hive, client: HiveClient) -> None:
    worker = ready(client, spawn(client, "tokens=2"))
    [guardian] = [p for p in home.processes() if p.pid not in (hive.pid, worker.pid)]
    shown = {pid: " ".join(psutil.Process(pid).cmdline()).rstrip() for pid in (hive.pid, worker.pid, guardian.pid)}
    assert shown[hive.pid].startswith("rbee-hive daemon --")
    assert shown[worker.pid] == f"llm-worker-rbee tokens=2 cpu {worker.worker_id}"
    assert "rbee-guardian" in shown[guardian.pid]
    assert guardian.name() == "rbee-guardian"
    assert psutil.Process(hive.pid).environ()["RBEE_HOME"] == str(home.path)  # by it, processes are found


def test_health_and_readiness(hive: Hive) -> None:
    assert call(hive, "GET", "/v1/health")[1] == {"status": "alive", "version": "0.1.0", "api_version": "v1"}
    assert call(hive, "GET", "/v1/ready") == (200, {"ready": True, "state": "ready", "error": None})


def test_m4_of_two_cards_the_one_with_room(home: Home) -> None:
    home.environment["SCRIPTED_CARDS"] = "300,900"
    hive = home.start_hive()
    client = hive.client
    first = client.spawn(wire.SpawnRequest(model_ref="scripted:need_mb=700;load_hang=1"))
    assert (first.device, first.devices) == ("card:1", 2), "where most is free"
    second = client.spawn(wire.SpawnRequest(model_ref="scripted:need_mb=250"))
    assert second.device == "card:0", "the first one is about to take what it needs"
    twin = client.spawn(wire.SpawnRequest(model_ref="scripted:need_mb=250"))
    assert twin.worker_id == second.worker_id
    ready(client, second.worker_id)
    with pytest.raises(RemoteError, match=r"need 650 MB, have 300 MB$") as caught:
        client.spawn(wire.SpawnRequest(model_ref="scripted:need_mb=650", device=0))
    assert caught.value.code == "VRAM_EXHAUSTED"
    with pytest.raises(RemoteError, match="need 950 MB, have 300 MB on the roomiest of 2 devices"):
        client.spawn(wire.SpawnRequest(model_ref="scripted:need_mb=950"))


def test_a_worker_that_is_pinned_makes_no_room_until_it_is_pinned_no_longer(home: Home) -> None:
    home.environment["SCRIPTED_CARDS"] = "300"
    client = home.start_hive().client
    kept = spawn(client, "need_mb=250")
    ready(client, kept)
    pinned = home.rbee("workers", "pin", kept, "worker-none")
    assert (pinned.stdout, pinned.exit_code) == (f"{kept} is kept\n", 1)
    assert "No worker worker-none on this hive" in pinned.stderr
    assert client.worker(kept).pinned
    with pytest.raises(RemoteError, match="need 400 MB, have 300 MB"):
        spawn(client, "need_mb=400")
    assert client.worker(kept).state == "idle"
    assert home.rbee("workers", "unpin", kept).stdout == f"{kept} is kept no longer\n"
    with pytest.raises(RemoteError, match="need 400 MB, have 300 MB"):  # for the card's driver has not noticed
        spawn(client, "need_mb=400")
    assert client.worker(kept).state == "evicted"


def test_a_worker_from_spawn_to_stop(home: Home, client: HiveClient) -> None:
    answer = client.spawn(wire.SpawnRequest(model_ref="scripted:tokens=3;text=one two three"))
    assert answer.state in ("loading", "idle")
    assert answer.url.startswith("http://127.0.0.1:")
    worker = ready(client, answer.worker_id)
    assert (worker.state, worker.backend, worker.device, worker.slots) == ("idle", "scripted", "cpu", 1)
    assert [w.worker_id for w in client.list_workers()] == [worker.worker_id]

    events = list(infer(client, worker.worker_id))
    assert "".join(e.token or "" for e in events) == "one two three "
    assert [e.done for e in events] == [False, False, False, True]
    assert (events[-1].total_tokens, events[-1].finish_reason, events[-1].prompt_tokens) == (3, "stop", 1)

    process = psutil.Process(worker.pid)
    assert client.stop_worker(worker.worker_id) == [worker.worker_id]
    assert not process.is_running()
    assert client.list_workers() == []
    ended = client.worker(worker.worker_id)
    assert (ended.state, ended.reason, ended.error) == ("unloaded", "asked to stop", None)
    assert worker_processes(home) == []


def test_concurrent_spawns_share_one_process(home: Home, hive: Hive, client: HiveClient) -> None:
    body = json.dumps({"model_ref": "scripted:load_s=0.5"}).encode()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: call(hive, "POST", "/v1/workers/spawn", body), range(20)))
    assert {status for status, _ in answers} == {200}
    assert len({answer["worker_id"] for _, answer in answers}) == 1
    assert len(worker_processes(home)) == 1
    assert len(client.list_workers()) == 1


def test_another_model_gets_another_worker_and_an_equal_one_the_same(client: HiveClient) -> None:
    first, second = spawn(client, "tokens=1"), spawn(client, "tokens=2")
    assert first != second
    assert spawn(client, "tokens=1") == first


def test_listing_can_be_narrowed(client: HiveClient) -> None:
    one, other = spawn(client, "tokens=1"), spawn(client, "tokens=2")
    for worker_id in (one, other):
        ready(client, worker_id)

    def listed(**wanted: Any) -> set[str]:
        return {w.worker_id for w in client.list_workers(**wanted)}

    assert listed(model="scripted:tokens=1") == {one}
    assert listed(backend="scripted") == listed(backend="cpu") == listed(device=0) == {one, other}
    assert listed(state="idle") == {one, other}
    assert (
        listed(model="scripted:tokens=9") == listed(backend="mlx") == listed(device=1) == listed(state="busy") == set()
    )


def test_logs_are_escaped_and_continue(client: HiveClient) -> None:
    worker_id = spawn(client, "bad_utf8=1")
    ready(client, worker_id)
    log = client.worker_log(worker_id)
    assert "scripted: ���( \\x1b[31m no text" in log.lines
    assert client.worker_log(worker_id, log.offset).lines == []


def test_a_failed_load_says_why_and_the_hive_lives_on(client: HiveClient) -> None:
    worker = ready(client, spawn(client, "load_error=it is a poem"))
    assert worker.state == "failed"
    assert worker.error is not None
    assert worker.error.code == "MODEL_LOAD_FAILED"
    assert "it is a poem" in worker.error.message
    assert client.health().status == "alive"


def test_an_endless_reason_of_a_failed_load_does_not_hurt_the_hive(client: HiveClient) -> None:
    worker = ready(client, spawn(client, f"load_error={'x' * 900}"))
    assert worker.state == "failed"


def test_slots_are_limited_and_a_refusal_passes_through(home: Home) -> None:
    home.environment["RBEE_SLOTS_PER_WORKER"] = "2"
    client = home.start_hive().client
    worker_id = spawn(client, "slots=2;tokens=inf;token_ms=20")
    ready(client, worker_id)
    streams = [infer(client, worker_id, request_id=f"r{n}") for n in range(2)]
    for stream in streams:
        next(stream)
    assert client.worker(worker_id).active == 2
    with pytest.raises(RemoteError) as caught:
        next(infer(client, worker_id, queue=False))
    assert (caught.value.code, caught.value.http_status) == ("ALL_SLOTS_BUSY", 503)
    assert caught.value.details["slots"] == 2
    for number, stream in enumerate(streams):
        client.cancel(worker_id, f"r{number}", timeout_s=5)
        with pytest.raises(RemoteError, match="cancelled"):
            list(stream)
    eventually(lambda: client.worker(worker_id).state == "idle", what="the slots are free")


def test_two_requests_of_one_name_are_not_confused(home: Home) -> None:
    home.environment["RBEE_SLOTS_PER_WORKER"] = "2"
    client = home.start_hive().client
    worker_id = spawn(client, "slots=2;tokens=inf;token_ms=20")
    ready(client, worker_id)
    first = infer(client, worker_id, request_id="same")
    next(first)
    with pytest.raises(RemoteError) as caught:
        next(infer(client, worker_id, request_id="same"))
    assert caught.value.code == "INVALID_REQUEST"
    assert client.worker(worker_id).active == 1
    client.cancel(worker_id, "same", timeout_s=5)


def test_cancelling_what_does_not_run_is_fine(client: HiveClient) -> None:
    worker_id = spawn(client)
    ready(client, worker_id)
    client.cancel(worker_id, "nobody", timeout_s=5)


def test_a_worker_that_is_loading_takes_no_request(client: HiveClient) -> None:
    worker_id = spawn(client, "load_hang=1")
    with pytest.raises(RemoteError) as caught:
        next(infer(client, worker_id, queue=False))
    assert caught.value.code == "WORKER_NOT_READY"


def test_memory_that_is_not_there_is_refused_before_anything_starts(home: Home, client: HiveClient) -> None:
    with pytest.raises(RemoteError) as caught:
        spawn(client, "need_mb=999000000")
    assert (caught.value.code, caught.value.http_status) == ("INSUFFICIENT_RAM", 507)
    assert worker_processes(home) == []


def test_an_idle_worker_is_evicted(home: Home) -> None:
    client = home.start_hive("--idle-timeout-s", "0.3").client
    worker_id = spawn(client)
    eventually(lambda: client.worker(worker_id).state == "evicted", what="the worker is evicted")
    assert client.worker(worker_id).reason.startswith("idle for")
    assert worker_processes(home) == []
    assert spawn(client) != worker_id


def test_shutdown_over_http_names_the_workers(hive: Hive, client: HiveClient) -> None:
    worker_id = spawn(client)
    assert client.shutdown() == [worker_id]
    assert hive.program.finish(10).exit_code == 0


def test_with_a_key_everything_but_health_is_guarded_and_workers_still_start(home: Home) -> None:
    key = "0123456789abcdef0123456789abcdef"
    home.environment["RBEE_API_KEY"] = key
    hive = home.start_hive()
    assert call(hive, "GET", "/v1/health")[0] == 200
    for method, path in [("GET", "/v1/workers/list"), ("POST", "/v1/shutdown"), ("GET", "/v1/none")]:
        status, answer = call(hive, method, path)
        assert (status, answer["error"]["code"]) == (401, "INVALID_API_KEY")
    client = hive.client
    worker = ready(client, spawn(client, "tokens=2"))
    assert worker.state == "idle"
    assert len(list(infer(client, worker.worker_id))) == 3
    process = psutil.Process(worker.pid)
    assert key not in str(process.environ()) + str(process.cmdline())
    logs = [p.read_text() for p in (home.path / "logs").iterdir()]
    assert key not in "".join(logs)


def test_an_address_that_others_reach_needs_a_key(home: Home) -> None:
    result = home.start("rbee-hive", "daemon", "--host", "0.0.0.0", "--port", "0").finish(10)
    assert result.exit_code == 2
    assert "without an API key" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_port_in_use_is_said_at_once(home: Home, hive: Hive, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = Home(tmp_path_factory.mktemp("other"), home.tag)
    result = other.start("rbee-hive", "daemon", "--port", str(hive.port)).finish(10)
    other.close()
    assert result.exit_code == 1
    assert f"Cannot listen on 127.0.0.1:{hive.port}: the port is in use" in result.stderr


def test_a_second_hive_on_one_home_is_refused_with_pid_and_port(home: Home, hive: Hive) -> None:
    result = home.start("rbee-hive", "daemon", "--port", "0").finish(10)
    assert result.exit_code == 1
    assert f"pid {hive.pid}, port {hive.port}" in result.stderr


JSON = {"Content-Type": "application/json"}
INFERENCE = "/v1/workers/{id}/inference"
BODIES = ("/v1/workers/spawn", "/v1/workers/find", "/v1/inference", "/v1/models/download", INFERENCE)
DEEP = b"[" * 100_000

REFUSED: list[Case] = [
    ("GET", "/nowhere", None, {}, 404),
    ("GET", "/v1/none", None, {}, 404),
    ("GET", "/v1/workers/worker-none", None, {}, 404),
    ("GET", "/v1/workers/%2e%2e%2fhive/logs", None, {}, 404),
    ("GET", "/v1/workers/%00/logs", None, {}, 404),
    ("GET", "/v1/workers/" + "x" * 4000, None, {}, 404),
    ("GET", "/v1/workers/worker-none/logs", None, {}, 404),
    ("DELETE", "/v1/workers/worker-none", None, {}, 404),
    ("POST", "/v1/workers/worker-none/inference", b'{"prompt": "x"}', {}, 404),
    ("DELETE", "/v1/workers/worker-none/inference/r1", None, {}, 404),
    ("DELETE", "/v1/workers/{id}/inference/..%2F..%2Fv1%2Fshutdown", None, {}, 400),
    ("PUT", "/v1/workers/list", b"{}", {}, 405),
    ("GET", "/v1/shutdown", None, {}, 405),
    ("GET", "/v1/workers/{id}/logs?offset=-1", None, {}, 400),
    ("GET", "/v1/workers/{id}/logs?offset=x", None, {}, 400),
    ("GET", "/v1/workers/{id}/logs?offset=" + "9" * 50, None, {}, 400),
    ("GET", "/v1/workers/list?model=%00", None, {}, 400),
    ("GET", "/v1/workers/list?model=nonsense", None, {}, 400),
    ("POST", "/v1/workers/spawn", b'{"model_ref": "x"}', {"Content-Type": "text/plain"}, 415),
    ("POST", "/v1/shutdown", b"x=1", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ("POST", "/v1/workers/spawn", b" " * (3 << 20), {}, 413),
    ("POST", INFERENCE, b'{"prompt": "' + b"x" * (3 << 20) + b'"}', {}, 413),
    ("POST", "/v1/workers/spawn", b"", {}, 400),
    ("POST", "/v1/workers/spawn", b"{", {}, 400),
    ("POST", "/v1/workers/spawn", DEEP, {}, 400),
    ("POST", "/v1/workers/spawn", b"\xff\xfe", {}, 400),
    ("POST", "/v1/workers/spawn", b'{"model_ref": "scripted:", "device": 7}', {}, 400),
    ("POST", "/v1/workers/spawn", b'{"model_ref": "scripted:", "backend": "quantum"}', {}, 400),
    ("POST", "/v1/workers/spawn", b'{"model_ref": "scripted:no_such_knob=1"}', {}, 400),
    ("POST", "/v1/workers/spawn", b'{"model_ref": "nobody:knows"}', {}, 400),
    ("POST", "/v1/workers/spawn", b'{"model_ref": "\\u0000"}', {}, 400),
    ("POST", "/v1/workers/spawn", b'{"model_ref": "/no/such/file.gguf"}', {}, 404),
    ("POST", "/v1/workers/spawn", b'{"model_ref": "/dev/zero"}', {}, 400),
    ("POST", "/v1/workers/spawn", b'{"model_ref": "x", "extra_args": ["--log-file=/x"]}', {}, 400),
    ("POST", "/v1/workers/ready", b"{}", {}, 401),
    (
        "POST", "/v1/workers/ready",
        b'{"worker_id": "worker-none", "url": "u", "model_ref": "m", "backend": "b", "device": "d"}', {}, 401,
    ),
    (
        "POST", "/v1/workers/ready",
        b'{"worker_id": "{id}", "url": "http://evil", "model_ref": "m", "backend": "b", "device": "d"}',
        {"Authorization": "Bearer wrong"}, 401,
    ),
    ("POST", INFERENCE, b"[]", {}, 400),
    ("POST", INFERENCE, b'{"prompt": ""}', {}, 400),
    ("POST", INFERENCE, b'{"prompt": "x", "temperature": NaN}', {}, 400),
    ("POST", INFERENCE, b'{"prompt": "x", "temperature": 1e999}', {}, 400),
    ("POST", INFERENCE, b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}", {}, 400),
    ("POST", INFERENCE, b'{"prompt": "\\ud800"}', {}, 400),
    ("POST", INFERENCE, b'{"prompt": "x", "n_discard": -1}', {}, 400),
    ("POST", INFERENCE, b'{"prompt": "x"} trailing', {}, 400),
    *(("POST", path, b"garbage", {"Content-Encoding": "gzip"}, 415) for path in BODIES),  # B5, C4
    *(("POST", path, b'{"a": 1, "a": 2}', {}, 400) for path in BODIES),  # C3
    ("GET", "/v1/models/show?model=smollm2&context_tokens=000000000001" + "9" * 5000, None, {}, 400),  # B5
    ("GET", "/v1/models/show?model=smollm2&context_tokens=0000000000019999999999", None, {}, 400),
    ("GET", "/v1/models/show?model=%FF", None, {}, 400),
    ("DELETE", "/v1/models/%FF", None, {}, 400),
    ("GET", "/v1/health", None, {"Host": "evil.example"}, 403),
    ("GET", "/v1/health", None, {"Origin": "http://evil.example"}, 403),
    ("GET", "/v1/health", None, {"Origin": "http://["}, 403),
]  # fmt: skip


def test_whatever_is_sent_is_refused_in_the_envelope_and_never_with_a_traceback(
    home: Home, hive: Hive, client: HiveClient
) -> None:
    worker_id = spawn(client)
    ready(client, worker_id)
    wrong: list[str] = []
    for method, path, body, headers, expected in REFUSED:
        sent = body.replace(b"{id}", worker_id.encode()) if body else body
        status, answer = call(hive, method, path.replace("{id}", worker_id), sent, headers)
        if status != expected or not answer["error"]["code"] or not answer["error"]["message"]:
            wrong.append(f"{method} {path[:60]} {(body or b'')[:60]!r}: {status} instead of {expected}: {answer}")
    assert wrong == []
    assert client.worker(worker_id).state == "idle"
    assert hive.stop().exit_code == 0
    assert "Traceback" not in home.log("hive") + home.log(worker_id)


@pytest.mark.parametrize("method", ["DELETE", "GET", "POST"])
def test_c14_a_hive_does_not_tell_where_it_was_started(method: str, hive: Hive) -> None:
    path, body = {
        "DELETE": ("/v1/models/x/../y.gguf", None),
        "GET": ("/v1/models/show?model=y.gguf", None),
        "POST": ("/v1/workers/spawn", b'{"model_ref": "./y.gguf"}'),
    }[method]
    status, answer = call(hive, method, path, body, {})
    assert (status, answer["error"]["code"]) == (400, "INVALID_REQUEST")
    assert os.path.realpath(f"/proc/{hive.pid}/cwd") not in json.dumps(answer)


def test_every_route_that_changes_something_is_a_post_or_delete(hive: Hive) -> None:
    for path in ("/v1/workers/spawn", "/v1/workers/ready", "/v1/shutdown"):
        assert call(hive, "GET", path)[0] in (404, 405)


def test_a_reload_signal_does_not_kill_the_hive_unnoticed(hive: Hive, client: HiveClient) -> None:
    spawn(client)
    hive.program.signal(signal.SIGWINCH)
    assert client.health().status == "alive"
