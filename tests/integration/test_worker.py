"""A worker process alone: its specification on stdin, a hive that is only a callback route, and its own routes."""

import http.client
import http.server
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from rbee_core import wire
from rbee_kit.program import Home
from rbee_kit.waiting import eventually

pytestmark = pytest.mark.scripted

SECRET = "not-for-argv-or-logs"
TASK = {"prompt": "x", "request_id": "r1"}


class Callback(http.server.BaseHTTPRequestHandler):
    """Takes ready callbacks as a hive does."""

    status = 200
    taken: "queue.Queue[tuple[str, dict[str, Any]]]"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(self.status)
        self.end_headers()
        self.taken.put((f"{self.path} {self.headers['Authorization']}", body))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name it has in the base class
        """Say nothing on stderr."""


@dataclass
class FakeHive:
    url: str
    handler: type[Callback]

    def ready(self) -> tuple[str, dict[str, Any]]:
        """Return the next callback: path with its authorisation, and body."""
        return self.handler.taken.get(timeout=20)


@pytest.fixture
def hive() -> Iterator[FakeHive]:
    class Handler(Callback):
        taken = queue.Queue()

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield FakeHive(f"http://127.0.0.1:{server.server_port}", Handler)
        server.shutdown()
        thread.join()


class Worker:
    """A worker process that this test started, and HTTP to it."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.url = ""

    def open(
        self, method: str, path: str, body: Any = None, secret: str | None = SECRET
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=20)
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        return connection, connection.getresponse()

    def call(self, method: str, path: str, body: Any = None, secret: str | None = SECRET) -> tuple[int, Any]:
        connection, answer = self.open(method, path, body, secret)
        content = answer.read()
        connection.close()
        return answer.status, json.loads(content) if content else None

    def events(self, method: str, path: str, body: Any = None) -> list[Any]:
        """Return every event of a stream; the last one is its end mark."""
        connection, answer = self.open(method, path, body)
        lines = [line.removeprefix(b"data: ").strip() for line in answer if line.startswith(b"data: ")]
        connection.close()
        assert lines[-1] == b"[DONE]"
        return [json.loads(line) for line in lines[:-1]]

    def is_ready(self) -> bool:
        return self.call("GET", "/v1/ready")[1]["ready"]


StartWorker = Callable[..., Worker]


@pytest.fixture
def start(home: Home, hive: FakeHive) -> Iterator[StartWorker]:
    started: list[subprocess.Popen[bytes]] = []

    def start_one(script: str = "", *, wait: bool = True, hive_pid: int = 0, **fields: Any) -> Worker:
        spec = wire.WorkerSpec(
            worker_id="worker-1",
            secret=SECRET,
            hive_url=hive.url,
            hive_pid=hive_pid or os.getpid(),
            reference=f"scripted:{script}",
            path=__file__,
            format="scripted",
            size_bytes=1,
            backend="scripted",
            device="cpu",
            **fields,
        )
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "rbee_core.worker"],
            env=home.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdin is not None
        process.stdin.write(wire.encode(spec) + b"\n")
        process.stdin.flush()
        worker = Worker(process)
        if wait:
            worker.url = hive.ready()[1]["url"]
        return worker

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def test_it_calls_back_with_what_it_is_and_proves_itself(start: StartWorker, hive: FakeHive) -> None:
    worker = start("load_hang=1", wait=False)
    where, body = hive.ready()
    assert where == f"/v1/workers/ready Bearer {SECRET}"
    assert body == {
        "worker_id": "worker-1",
        "url": body["url"],
        "model_ref": "scripted:load_hang=1",
        "backend": "scripted",
        "device": "cpu",
    }
    worker.url = body["url"]
    assert worker.call("GET", "/v1/ready")[0] == 503


def test_the_secret_is_nowhere_to_be_seen(start: StartWorker) -> None:
    worker = start()
    process = psutil.Process(worker.process.pid)
    assert SECRET not in str(process.cmdline()) + str(process.environ())


@pytest.mark.parametrize("secret", [None, "", "wrong", SECRET + "x"])
def test_every_route_but_health_needs_the_secret(secret: str | None, start: StartWorker) -> None:
    worker = start()
    assert worker.call("GET", "/v1/health", secret=secret)[0] == 200
    routes = [
        ("GET", "/v1/ready", None),
        ("GET", "/v1/loading/progress", None),
        ("POST", "/v1/inference", TASK),
        ("DELETE", "/v1/inference/x", None),
        ("POST", "/v1/shutdown", None),
        ("GET", "/v1/none", None),
    ]
    answers = [worker.call(method, path, body, secret) for method, path, body in routes]
    assert {status for status, _ in answers} == {401}
    assert worker.process.poll() is None


def test_the_load_s_progress_is_a_stream_that_ends_in_ready(start: StartWorker) -> None:
    worker = start("load_s=0.5;load_progress=1")
    events = worker.events("GET", "/v1/loading/progress")
    assert [e["state"] for e in events] == ["loading"] * (len(events) - 1) + ["ready"]
    fractions = [e["fraction"] for e in events]
    assert fractions == sorted(fractions)
    assert len(fractions) > 3
    assert (events[-1]["slots"], events[-1]["context_tokens"], events[-1]["accelerator"]) == (1, 4096, "cpu")
    assert worker.is_ready()


def test_a_load_that_fails_is_told_to_all_who_ask(start: StartWorker) -> None:
    worker = start("load_error=it is a poem")
    for _ in range(2):
        last = worker.events("GET", "/v1/loading/progress")[-1]
        assert (last["state"], last["error"]["code"]) == ("failed", "MODEL_LOAD_FAILED")
    status, answer = worker.call("GET", "/v1/ready")
    assert (status, answer["ready"], answer["state"]) == (503, False, "failed")
    status, answer = worker.call("POST", "/v1/inference", TASK)
    assert (status, answer["error"]["code"]) == (503, "WORKER_NOT_READY")


@pytest.mark.parametrize(
    ("script", "request_body", "text", "reason"),
    [
        ("text=one two three", {}, "one two three ", "stop"),
        ("text=one two three", {"max_tokens": 2}, "one two ", "length"),
        ("text=one two three", {"stop": ["tw"]}, "one ", "stop"),
        ("text=one two three", {"stop": ["e t"]}, "on", "stop"),
        ("text=one two three", {"stop": ["four"]}, "one two three ", "stop"),
        ("tokens=0", {}, "", "stop"),
    ],
)
def test_a_generation_ends_in_one_done_event(
    script: str, request_body: dict[str, Any], text: str, reason: str, start: StartWorker
) -> None:
    worker = start(script)
    eventually(worker.is_ready, what="the worker is ready")
    *tokens, done = worker.events("POST", "/v1/inference", TASK | {"prompt": "a b", **request_body})
    assert "".join(t["token"] for t in tokens) == text
    assert [t["index"] for t in tokens] == sorted(t["index"] for t in tokens)
    assert (done["done"], done["finish_reason"], done["prompt_tokens"]) == (True, reason, 2)


def test_a_prompt_that_does_not_fit_names_both_numbers(start: StartWorker) -> None:
    worker = start("context=4")
    eventually(worker.is_ready, what="the worker is ready")
    (error,) = worker.events("POST", "/v1/inference", TASK | {"prompt": "a b c d e"})
    assert error["error"]["code"] == "PROMPT_TOO_LONG"
    assert (error["error"]["details"]["prompt_tokens"], error["error"]["details"]["context_tokens"]) == (5, 4)


def test_a_cancelled_request_ends_in_one_error_event_and_frees_its_slot(start: StartWorker) -> None:
    worker = start("tokens=inf;token_ms=10")
    eventually(worker.is_ready, what="the worker is ready")
    connection, answer = worker.open("POST", "/v1/inference", TASK)
    answer.readline()
    status, refusal = worker.call("POST", "/v1/inference", TASK | {"request_id": "r2"})
    assert (status, refusal["error"]["code"]) == (503, "ALL_SLOTS_BUSY")
    assert worker.call("DELETE", "/v1/inference/r1") == (204, None)
    assert worker.call("DELETE", "/v1/inference/r1") == (204, None)
    lines = [line for line in answer if line.startswith(b"data: ")]
    connection.close()
    assert lines[-1] == b"data: [DONE]\n"
    assert json.loads(lines[-2][6:])["error"]["code"] == "REQUEST_CANCELED"
    assert sum(b'"error"' in line or b'"done"' in line for line in lines) == 1
    assert worker.events("POST", "/v1/inference", TASK | {"max_tokens": 1})[-1]["done"]


def test_a_body_over_the_limit(start: StartWorker) -> None:
    worker = start(body_limit_bytes=1000)
    status, answer = worker.call("POST", "/v1/inference", TASK | {"prompt": "x" * 2000})
    assert (status, answer["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")


def test_shutdown_ends_the_process_and_its_streams(start: StartWorker) -> None:
    worker = start("tokens=inf;token_ms=10")
    eventually(worker.is_ready, what="the worker is ready")
    connection, answer = worker.open("POST", "/v1/inference", TASK)
    answer.readline()
    assert worker.call("POST", "/v1/shutdown") == (200, {"stopped": ["worker-1"], "killed": {}})
    lines = [line for line in answer if line.startswith(b"data: ")]
    connection.close()
    assert json.loads(lines[-2][6:])["error"]["code"] == "SHUTTING_DOWN"
    assert worker.process.wait(30) == 0


def test_shutdown_does_not_wait_for_a_load(start: StartWorker) -> None:
    worker = start("load_hang=1")
    worker.call("POST", "/v1/shutdown")
    assert worker.process.wait(30) == 0


def test_it_leaves_when_its_stdin_ends(start: StartWorker) -> None:
    worker = start("tokens=inf")
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    assert worker.process.wait(30) != 0
    worker.process.stdin = None


def test_it_leaves_when_its_parent_is_not_the_hive_that_it_was_told(start: StartWorker) -> None:
    worker = start(wait=False, hive_pid=1)
    assert worker.process.wait(10) != 0


def test_it_leaves_when_the_hive_does_not_want_it(start: StartWorker, hive: FakeHive) -> None:
    hive.handler.status = 404
    worker = start("load_hang=1", wait=False)
    hive.ready()
    assert worker.process.wait(30) != 0


def test_ctrl_c_is_the_hive_s_to_handle(start: StartWorker) -> None:
    worker = start()
    eventually(worker.is_ready, what="the worker is ready")
    worker.process.send_signal(2)
    assert worker.is_ready()


@pytest.mark.parametrize("line", [b"", b"\n", b"{}\n", b"no json\n"])
def test_without_a_specification_it_leaves(line: bytes, home: Home) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "rbee_core.worker"],
        env=home.environment, input=line, capture_output=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stdout == b""


@pytest.mark.parametrize(
    "body", [{"prompt": "x"}, TASK | {"prompt": ""}, TASK | {"request_id": "../x"}, TASK | {"n": 2}]
)
def test_garbage_is_refused_by_a_worker_too(body: dict[str, Any], start: StartWorker) -> None:
    worker = start()
    eventually(worker.is_ready, what="the worker is ready")
    status, answer = worker.call("POST", "/v1/inference", body)
    assert (status, answer["error"]["code"]) == (400, "INVALID_REQUEST")
