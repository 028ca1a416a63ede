"""Stopping a hive: politely, with work in flight, impatiently, and with workers that do not want to go."""

import os
import pty
import signal
import threading
import time
from pathlib import Path
from typing import cast

import psutil
import pytest

from rbee_core import wire
from rbee_core.errors import RbeeError, RemoteError
from rbee_kit.program import SCRIPTS, Hive, Home, Program, Result
from rbee_kit.waiting import eventually

pytestmark = pytest.mark.scripted


def spawn(hive: Hive, script: str = "") -> str:
    worker_id = hive.client.spawn(wire.SpawnRequest(model_ref=f"scripted:{script}")).worker_id
    eventually(lambda: hive.client.worker(worker_id).state == "idle", what="the worker is ready")
    return worker_id


class Request(threading.Thread):
    """One request in flight, read by its own thread."""

    def __init__(self, hive: Hive, worker_id: str) -> None:
        super().__init__(daemon=True)
        self._stream = hive.connect().infer(worker_id, wire.InferenceRequest(prompt="hello"))
        self.events: list[wire.StreamEvent] = []
        self.error: RbeeError | None = None
        self.start()
        eventually(lambda: self.events, what="the first token")

    def run(self) -> None:
        try:
            for event in self._stream:
                self.events.append(event)
        except RbeeError as error:
            self.error = error


def ends_within(hive: Hive, limit_s: float) -> Result:
    """Wait for the hive's end, which must come in time."""
    started = time.monotonic()
    result = hive.program.finish(limit_s + 10)
    assert time.monotonic() - started < limit_s
    return result


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_hive_and_workers_in_order(number: signal.Signals, home: Home) -> None:
    hive = home.start_hive()
    for tokens in range(1, 4):
        spawn(hive, f"tokens={tokens}")
    hive.program.signal(number)
    result = ends_within(hive, 10)
    assert result.exit_code == 0
    assert "Shut down 3 workers." in result.stderr
    assert home.processes() == []
    assert [name for name in home.files() if name.startswith("run/") or name.endswith((".new", "-wal"))] == []
    assert "Traceback" not in home.log("hive")


def test_workers_are_asked_before_they_are_told(home: Home) -> None:
    hive = home.start_hive()
    worker_id = spawn(hive)
    hive.stop()
    assert "scripted: asked to stop" in home.log(worker_id)
    assert "scripted: told to terminate" not in home.log(worker_id)


def test_who_does_not_go_when_asked_is_told_then_killed(home: Home) -> None:
    home.environment["RBEE_SHUTDOWN_GRACE_S"] = "2"
    hive = home.start_hive()
    told, killed = spawn(hive, "ignore_shutdown=1"), spawn(hive, "ignore_shutdown=1;ignore_term=1")
    hive.program.signal(signal.SIGTERM)
    assert ends_within(hive, 10).exit_code == 0
    assert "scripted: told to terminate" in home.log(told)
    assert "scripted: asked to stop" in home.log(killed)
    assert home.processes() == []


def test_all_workers_are_stopped_at_the_same_time(home: Home) -> None:
    home.environment["RBEE_SHUTDOWN_GRACE_S"] = "2"
    hive = home.start_hive()
    for tokens in range(1, 4):
        spawn(hive, f"ignore_shutdown=1;ignore_term=1;tokens={tokens}")
    hive.program.signal(signal.SIGTERM)
    ends_within(hive, 10)


def test_a_request_that_is_nearly_done_may_finish(home: Home) -> None:
    hive = home.start_hive()
    request = Request(hive, spawn(hive, "tokens=30;token_ms=20"))
    result = hive.stop()
    request.join(30)
    assert request.error is None
    assert request.events[-1].done
    assert request.events[-1].total_tokens == 30
    assert result.exit_code == 0


def test_an_endless_request_gets_its_terminal_event(home: Home) -> None:
    home.environment["RBEE_SHUTDOWN_GRACE_S"] = "3"
    hive = home.start_hive()
    request = Request(hive, spawn(hive, "tokens=inf;token_ms=20"))
    hive.program.signal(signal.SIGTERM)
    ends_within(hive, 10)
    request.join(30)
    assert isinstance(request.error, RemoteError)
    assert request.error.code == "SHUTTING_DOWN"
    assert "Traceback" not in home.log("hive")


def test_nothing_new_is_taken_while_requests_finish(home: Home) -> None:
    hive = home.start_hive()
    worker_id = spawn(hive, "tokens=100;token_ms=20")
    request = Request(hive, worker_id)
    hive.program.signal(signal.SIGTERM)
    eventually(lambda: "waiting for 1 running requests" in home.log("hive"), what="the hive drains")
    for refused in (
        lambda: hive.client.spawn(wire.SpawnRequest(model_ref="scripted:tokens=5")),
        lambda: next(hive.client.infer(worker_id, wire.InferenceRequest(prompt="hello"))),
    ):
        with pytest.raises(RemoteError) as caught:
            refused()
        assert (caught.value.code, caught.value.http_status) == ("SHUTTING_DOWN", 503)
    assert hive.program.finish(10).exit_code == 0
    request.join(30)
    assert request.events[-1].done


@pytest.mark.parametrize("script", ["tokens=inf;token_ms=20", "tokens=inf;token_ms=20;ignore_shutdown=1;ignore_term=1"])
def test_a_second_signal_ends_it_now(script: str, home: Home) -> None:
    hive = home.start_hive()
    request = Request(hive, spawn(hive, script))
    hive.program.signal(signal.SIGINT)
    eventually(lambda: "press Ctrl+C again" in home.log("hive"), what="the hive waits")
    hive.program.signal(signal.SIGINT)
    ends_within(hive, 10)
    assert home.processes() == []
    request.join(30)
    assert request.error is not None
    assert request.error.code == "SHUTTING_DOWN"  # C1: it did not crash


def test_a_stop_during_the_load_does_not_wait_for_it(home: Home) -> None:
    hive = home.start_hive()
    hive.client.spawn(wire.SpawnRequest(model_ref="scripted:load_hang=1;load_progress=1"))
    hive.program.signal(signal.SIGTERM)
    ends_within(hive, 10)


def test_a_worker_that_is_stopped_while_it_generates_ends_the_stream(home: Home) -> None:
    hive = home.start_hive()
    worker_id = spawn(hive, "tokens=inf;token_ms=20")
    request = Request(hive, worker_id)
    sent = time.monotonic()
    hive.client.stop_worker(worker_id)
    assert time.monotonic() - sent < 10
    request.join(30)
    assert request.error is not None
    assert request.error.code == "SHUTTING_DOWN"


def test_a_worker_killed_while_the_hive_stops_does_not_confuse_it(home: Home) -> None:
    hive = home.start_hive()
    worker_id = spawn(hive, "ignore_shutdown=1;ignore_term=1")
    process = psutil.Process(hive.client.worker(worker_id).pid)
    hive.program.signal(signal.SIGTERM)
    eventually(lambda: "scripted: asked to stop" in home.log(worker_id), what="the worker was asked")
    process.kill()
    assert hive.program.finish(5).exit_code == 0


BROKEN_PLUGIN = """
import os, time
from rbee_core.backend import StopPolicy, hookimpl
from rbee_scripted import ScriptedBackend

class Broken(ScriptedBackend):
    name = "broken"

    def stop_policy(self, recommended):
        return eval(os.environ["STOP_POLICY"])

@hookimpl
def rbee_register_backends(register):
    register(Broken())
"""
METADATA = "Metadata-Version: 2.1\nName: rbee-broken\nVersion: 1.0\n"


@pytest.mark.parametrize(
    "policy",
    [
        "None",
        "1 / 0",
        "StopPolicy(float('inf'), float('inf'))",
        "StopPolicy(0.1, float('inf'))",
        "StopPolicy(-1, -1)",
        "StopPolicy(float('nan'), float('nan'))",
        "StopPolicy('soon', 'later')",
    ],
)
def test_a_broken_stop_policy_holds_up_nothing(policy: str, home: Home, tmp_path: Path) -> None:
    info = tmp_path / "rbee_broken-1.0.dist-info"
    info.mkdir()
    (tmp_path / "rbee_broken.py").write_text(BROKEN_PLUGIN)
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text("[rbee]\nbroken = rbee_broken\n")
    home.use_plugins_in(tmp_path)
    home.environment |= {"STOP_POLICY": policy, "RBEE_SHUTDOWN_GRACE_S": "1"}
    hive = home.start_hive()
    reference = "scripted:ignore_shutdown=1;ignore_term=1"
    for tokens in range(2):
        hive.client.spawn(wire.SpawnRequest(model_ref=f"{reference};tokens={tokens}", backend="broken"))
    worker_id = hive.client.list_workers()[0].worker_id
    assert hive.client.stop_worker(worker_id) == [worker_id]
    hive.program.signal(signal.SIGTERM)
    assert hive.program.finish(30).exit_code == 0
    assert home.processes() == []


def test_asking_a_worker_that_does_not_hear_is_a_part_of_the_grace_time(home: Home) -> None:
    home.environment |= {"RBEE_SHUTDOWN_GRACE_S": "1", "RBEE_CONNECT_TIMEOUT_S": "3600"}
    hive = home.start_hive()
    psutil.Process(hive.client.worker(spawn(hive)).pid).suspend()
    hive.program.signal(signal.SIGTERM)
    assert hive.program.finish(30).exit_code == 0
    assert home.processes() == []


def test_m3_a_closed_terminal_drains_and_stops_a_hive_in_the_foreground(home: Home) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(SCRIPTS / "rbee-hive", ["rbee-hive", "daemon", "--port", "0"], home.environment)
    eventually(lambda: (home.hive_note() or {}).get("pid") == pid, what="the hive's note")
    hive = Hive(home, cast("Program", None))  # a child of ours that no program started
    request = Request(hive, spawn(hive, "tokens=10;token_ms=50"))
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    request.join(10)
    assert os.waitstatus_to_exitcode(status) == 0
    assert (request.error, request.events[-1].done) == (None, True)
    assert "got SIGHUP" in home.log("hive")


def test_m3_a_closed_terminal_is_nothing_to_a_hive_in_the_background(home: Home) -> None:
    assert home.rbee("hive", "start", "--port", "0").exit_code == 0
    pid = (home.hive_note() or {})["pid"]
    os.kill(pid, signal.SIGHUP)
    assert home.rbee("hive", "status").exit_code == 0
    assert home.rbee("hive", "stop").exit_code == 0


def test_m6_a_shutdown_is_said_when_it_begins_and_when_it_is_over(home: Home) -> None:
    hive = home.start_hive()
    ids = [spawn(hive, f"tokens={tokens}") for tokens in (1, 2)]
    ended = home.rbee("workers", "shutdown", "--all")
    assert ended.stderr == "Shutting down 2 workers\nShut down 2 workers\n"
    assert ended.stdout.split() == ["Shut", "down", ids[0], "Shut", "down", ids[1]]
    spawn(hive)
    stderr = hive.stop().stderr
    assert stderr.index("Shutting down 1 worker\n") < stderr.index("Shut down 1 worker.")


HELD_UP = """
import time
from rbee_core.home import Home

Home.tidy = lambda self: time.sleep(3600)  # as a disk may do that does not answer
"""


def test_b7_a_hive_that_something_holds_up_ends_nevertheless(home: Home, tmp_path: Path) -> None:
    info = tmp_path / "rbee_held_up-1.0.dist-info"
    info.mkdir()
    (tmp_path / "rbee_held_up.py").write_text(HELD_UP)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rbee-held-up\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rbee]\nheld-up = rbee_held_up\n")
    home.use_plugins_in(tmp_path)
    home.environment["RBEE_SHUTDOWN_GRACE_S"] = "0.5"
    hive = home.start_hive()
    spawn(hive)
    hive.program.signal(signal.SIGTERM)
    assert hive.program.finish(60).exit_code == 1
    assert "did not get to its end within 5.5 s" in home.log("hive")
    eventually(lambda: home.processes() == [], what="its workers are gone too")
