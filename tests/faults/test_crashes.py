"""Workers that crash, hang, abort, flood their log or fill the hive's patience: the hive names it and lives on."""

import os
import re
import resource
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from rbee_core import wire
from rbee_core.client import HiveClient
from rbee_core.errors import RemoteError
from rbee_kit.program import Home
from rbee_kit.waiting import eventually

pytestmark = pytest.mark.scripted


@pytest.fixture(autouse=True)
def without_faulthandler(home: Home) -> None:
    """Users have none: its dump would be the last lines of every log here."""
    del home.environment["PYTHONFAULTHANDLER"]


QUICK = {"RBEE_PROBE_INTERVAL_S": "0.2", "RBEE_REQUEST_TIMEOUT_S": "0.5"}


def spawn(client: HiveClient, script: str, **fields: Any) -> str:
    return client.spawn(wire.SpawnRequest(model_ref=f"scripted:{script}", **fields)).worker_id


def in_state(client: HiveClient, worker_id: str, *states: str, within_s: float = 10) -> wire.WorkerInfo:
    eventually(lambda: client.worker(worker_id).state in states, within_s, what=f"{worker_id} is {states}")
    return client.worker(worker_id)


def generate(client: HiveClient, worker_id: str, events: list[wire.StreamEvent], **fields: Any) -> None:
    """Collect the events of one request, for whatever stops them."""
    request = wire.InferenceRequest(prompt="hello", **fields)
    events.extend(client.infer(worker_id, request))


@pytest.mark.parametrize("number", ["SEGV", "ABRT", "KILL"])
def test_a_crash_in_the_middle_of_a_stream_is_said_at_once(number: str, home: Home) -> None:
    client = home.start_hive().client
    worker_id = spawn(client, f"tokens=20;token_ms=100;crash_at_token=5:{number}")  # each token goes out by itself
    in_state(client, worker_id, "idle")
    events: list[wire.StreamEvent] = []
    with pytest.raises(RemoteError) as caught:
        generate(client, worker_id, events)
    assert caught.value.code == "WORKER_CRASHED"
    assert caught.value.details["exit"].startswith(f"SIG{number}")
    assert f"scripted: crashing with SIG{number} at token 5" in caught.value.details["log_tail"]
    assert len(events) == 5
    worker = client.worker(worker_id)
    assert (worker.state, worker.error and worker.error.code) == ("crashed", "WORKER_CRASHED")
    assert client.list_workers() == []
    again = spawn(client, "tokens=1")
    in_state(client, again, "idle")


def test_a_crash_is_said_at_once(home: Home) -> None:
    client = home.start_hive().client
    worker_id = spawn(client, "tokens=inf;token_ms=10")
    process = psutil.Process(in_state(client, worker_id, "idle").pid)
    stream = client.infer(worker_id, wire.InferenceRequest(prompt="hello"))
    next(stream)
    process.kill()
    killed = time.monotonic()
    with pytest.raises(RemoteError):
        list(stream)
    assert time.monotonic() - killed < 10  # and not after the silence that would count as a stall


def test_the_crash_of_one_worker_does_not_disturb_another(home: Home) -> None:
    hive = home.start_hive()
    client, other = hive.client, hive.connect()
    good, bad = spawn(client, "tokens=40;token_ms=10"), spawn(client, "crash_at_token=0:SEGV")
    for worker_id in (good, bad):
        in_state(client, worker_id, "idle")
    stream = client.infer(good, wire.InferenceRequest(prompt="hello"))
    next(stream)
    with pytest.raises(RemoteError):
        generate(other, bad, [])
    rest = list(stream)
    assert rest[-1].done
    assert rest[-1].total_tokens == 40


@pytest.mark.parametrize(
    ("script", "state", "words"),
    [
        ("exit_before_ready=3", "failed", "exit code 3"),
        ("load_abort=1", "failed", "SIGABRT"),
        ("load_error=no tensors", "failed", "no tensors"),
    ],
)
def test_a_load_that_ends_badly_is_a_failed_worker(script: str, state: str, words: str, home: Home) -> None:
    client = home.start_hive().client
    worker_id = spawn(client, script)
    worker = in_state(client, worker_id, state)
    assert worker.error is not None
    assert words in worker.reason + worker.error.message
    assert client.list_workers() == []
    assert client.health(attempts=1).status == "alive"


def test_an_aborted_load_keeps_its_last_words(home: Home) -> None:
    client = home.start_hive().client
    worker = in_state(client, spawn(client, "load_abort=1"), "failed")
    assert worker.error is not None
    assert "scripted: the load aborts" in worker.error.details["log_tail"]


def test_a_load_without_progress_times_out(home: Home) -> None:
    home.environment["RBEE_LOAD_STALL_TIMEOUT_S"] = "1"
    home.environment["RBEE_SHUTDOWN_GRACE_S"] = "1"
    client = home.start_hive().client
    worker = in_state(client, spawn(client, "load_hang=1"), "failed")
    assert worker.error is not None
    assert worker.error.code == "LOADING_TIMEOUT"
    assert "load_stall_timeout_s" in worker.error.details["hint"]


def test_a_slow_load_with_progress_does_not(home: Home) -> None:
    home.environment["RBEE_LOAD_STALL_TIMEOUT_S"] = "1"
    client = home.start_hive().client
    in_state(client, spawn(client, "load_s=3;load_progress=1"), "idle")


@pytest.mark.parametrize("how", ["stopped", "gil"])
def test_a_worker_that_stops_answering_is_killed(how: str, home: Home) -> None:
    home.environment |= QUICK
    client = home.start_hive().client
    worker_id = spawn(client, f"tokens=inf;token_ms=10;hold_gil={60 if how == 'gil' else 0}")
    process = psutil.Process(in_state(client, worker_id, "idle").pid)
    stream = client.infer(worker_id, wire.InferenceRequest(prompt="hello"))
    if how == "stopped":
        next(stream)
        process.send_signal(signal.SIGSTOP)
    with pytest.raises(RemoteError) as caught:
        list(stream)
    assert caught.value.code == "WORKER_CRASHED"
    assert in_state(client, worker_id, "crashed").reason == "it stopped answering"
    assert not process.is_running()


def test_a_token_that_never_comes_has_a_deadline(home: Home) -> None:
    home.environment["RBEE_TOKEN_STALL_TIMEOUT_S"] = "0.5"
    hive = home.start_hive()
    home.environment["RBEE_TOKEN_STALL_TIMEOUT_S"] = "30"
    client = hive.connect()
    worker_id = spawn(client, "tokens=9;hang_at_token=3")
    in_state(client, worker_id, "idle")
    events: list[wire.StreamEvent] = []
    with pytest.raises(RemoteError, match=r"gave no sign of life for 0\.5 s") as caught:
        generate(client, worker_id, events)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert len(events) == 3


def test_n1_a_prompt_that_is_being_read_is_no_silence(home: Home) -> None:
    home.environment["RBEE_TOKEN_STALL_TIMEOUT_S"] = "2"
    hive = home.start_hive()
    home.environment["RBEE_TOKEN_STALL_TIMEOUT_S"] = "30"
    client = hive.connect()
    wanted = wire.PoolInference(model_ref="scripted:prefill_s=5;prefill_progress=1;tokens=3", prompt="hello")
    events = [event for group in client.infer_with_model(wanted) for event in group]
    assert events[-1].done
    read = [event.prompt.share for event in events if event.prompt]
    assert read
    assert read == sorted(read)


@pytest.mark.parametrize("how", ["leaves", "waits for a second"])
def test_a2_a_worker_is_not_idle_while_its_engine_is_inside_a_request_that_nobody_reads(how: str, home: Home) -> None:
    client = home.start_hive().client
    worker_id = spawn(client, "tokens=12;token_ms=400;ignore_cancel=1")
    in_state(client, worker_id, "idle")
    wanted = wire.InferenceRequest(prompt="hello", timeout_s=1.0 if how == "waits for a second" else None)
    stream = client.infer(worker_id, wanted)
    next(stream)
    if how == "leaves":
        stream.close()
    else:
        with pytest.raises(RemoteError):
            list(stream)
    in_state(client, worker_id, "idle", within_s=60)
    at_once = wire.WorkerInference(prompt="hello", max_tokens=1, queue=False)
    assert list(client.infer(worker_id, at_once))[-1].done


def test_a_request_s_own_deadline(home: Home) -> None:
    client = home.start_hive().client
    worker_id = spawn(client, "tokens=inf;token_ms=20")
    in_state(client, worker_id, "idle")
    with pytest.raises(RemoteError) as caught:
        generate(client, worker_id, [], timeout_s=0.3)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    in_state(client, worker_id, "idle")


def test_a_flood_on_stderr_is_bounded_and_blocks_nobody(home: Home) -> None:
    home.environment["RBEE_LOG_LIMIT_BYTES"] = "1000000"
    hive = home.start_hive()
    client, process = hive.client, psutil.Process(hive.pid)
    before = process.memory_info().rss
    worker_id = spawn(client, "spam_stderr=100000000;huge_line=10000000;bad_utf8=1;tokens=5")
    worker = in_state(client, worker_id, "idle", within_s=30)
    log = Path(worker.log_path)
    eventually(lambda: log.stat().st_size <= 1_000_000, what="the log is bounded")
    events: list[wire.StreamEvent] = []
    generate(client, worker_id, events)
    assert events[-1].done
    assert process.memory_info().rss - before < 30_000_000


def test_a_child_that_outlives_its_worker_holds_nothing_up(home: Home) -> None:
    client = home.start_hive().client
    worker_id = spawn(client, "fork=child")
    in_state(client, worker_id, "idle")
    started = time.monotonic()
    client.stop_worker(worker_id)
    assert time.monotonic() - started < 10  # a third of the grace
    eventually(lambda: not any("sleep(" in " ".join(p.cmdline()) for p in home.processes()), what="the child is gone")


def test_n18_a_worker_that_ignores_every_request_to_end_is_killed_by_us(home: Home) -> None:
    home.environment["RBEE_SHUTDOWN_GRACE_S"] = "1"
    client = home.start_hive().client
    worker_id = spawn(client, "ignore_term=1;ignore_shutdown=1")
    process = psutil.Process(in_state(client, worker_id, "idle").pid)
    started = time.monotonic()
    ended = home.rbee("workers", "shutdown", worker_id)
    assert time.monotonic() - started < 20  # and not after the usual grace
    assert not process.is_running()
    killed = "killed by the hive after 1 s: it did not stop when asked"  # M9
    assert ended.stdout == f"Shut down {worker_id} ({killed})\n"
    worker = client.worker(worker_id)
    assert (worker.state, worker.reason) == ("unloaded", f"asked to stop; {killed}")
    assert f"{worker_id}: its process {process.pid} ended: {killed}" in home.log("hive")
    assert "out of memory" not in home.log("hive")


def test_n8_logs_tell_what_was_loaded_and_how_each_request_went(home: Home) -> None:
    client = home.start_hive().client
    worker_id = spawn(client, "tokens=3")
    worker = in_state(client, worker_id, "idle")
    generate(client, worker_id, [], request_id="mine")
    lines = Path(worker.log_path).read_text(encoding="utf-8").splitlines()
    assert f"{worker_id}: loading scripted:tokens=3" in lines[0]
    assert "with scripted on cpu" in lines[1]
    told = f"scripted:tokens=3 on {worker_id}: stop, 1 prompt and 3 generated tokens, first token after"
    eventually(lambda: told in home.log("hive"), what="the request's line")
    assert "request mine of " in home.log("hive")


def test_what_was_guessed_ahead_is_told_up_to_a_stop_string_among_it(home: Home) -> None:
    client = home.start_hive().client
    worker_id = spawn(client, "guesses=3;text=one two three four five six seven eight nine ten")
    in_state(client, worker_id, "idle")
    events = list(client.infer(worker_id, wire.InferenceRequest(prompt="x", stop=["seven"])))
    text, done = "".join(event.token or "" for event in events), events[-1]
    assert text == "one two three four five six "
    assert (done.total_tokens, done.drafted_tokens, done.accepted_tokens) == (7, 8, 5)
    told = "7 generated tokens (5 of 8 guesses right), first token after"
    eventually(lambda: told in home.log("hive"), what="the request's line")


def test_n8_a_request_that_is_refused_has_its_line_too(home: Home) -> None:
    client = home.start_hive().client
    worker_id = spawn(client, "tokens=inf;token_ms=20")
    in_state(client, worker_id, "idle")
    stream = client.infer(worker_id, wire.WorkerInference(prompt="hello", request_id="first"))
    next(stream)
    refused = {
        "busy": wire.PoolInference(prompt="x", model_ref="scripted:tokens=inf;token_ms=20", queue=False),
        "absent": wire.PoolInference(prompt="x", model_ref="scripted:load_error=it is damaged"),
        "nonsense": wire.PoolInference(prompt="x", model_ref="scripted:nonsense=1"),
        "nowhere": wire.PoolInference(prompt="x", model_ref="nobody:knows/it"),
    }
    for name, request in refused.items():
        request.request_id = name
        with pytest.raises(RemoteError):
            list(client.infer_with_model(request))
    stream.close()
    for line in (
        r"request busy of 127.0.0.1 \S+: scripted:tokens=inf;token_ms=20: refused, ALL_SLOTS_BUSY",
        r"request absent of 127.0.0.1 \S+: scripted:load_error=it is damaged: refused, MODEL_LOAD_FAILED",
        r"request nonsense of 127.0.0.1 \S+: scripted:nonsense=1: refused, INVALID_REQUEST",
        r"request nowhere of 127.0.0.1 \S+: nobody:knows/it: refused, \w+",
        rf"request first of 127.0.0.1 \S+: scripted:tokens=inf;token_ms=20 on {worker_id}: not read to its end",
    ):
        eventually(lambda line=line: re.search(line, home.log("hive")), what=line)


def test_c1_a_client_of_a_worker_that_is_stopped_is_told_so(home: Home) -> None:
    home.environment["RBEE_SHUTDOWN_GRACE_S"] = "1"
    client = home.start_hive().client
    worker_id = spawn(client, "tokens=9;hang_at_token=1")
    in_state(client, worker_id, "idle")
    stream = client.infer(worker_id, wire.InferenceRequest(prompt="hello"))
    next(stream)
    client.stop_worker(worker_id)
    with pytest.raises(RemoteError) as caught:
        list(stream)
    assert caught.value.code == "SHUTTING_DOWN"
    assert "asked to stop" in caught.value.message


def test_many_workers_come_and_go_without_a_trace_in_the_hive(home: Home) -> None:
    home.environment["RBEE_LOG_FILES_KEPT"] = "5"
    hive = home.start_hive()
    client, process = hive.client, psutil.Process(hive.pid)

    def cycle(number: int) -> None:
        crash = "crash_at_token=0:KILL" if number % 4 == 3 else ""
        worker_id = spawn(client, f"tokens={number + 1};{crash}")  # a model of its own: one that crashes is held back
        in_state(client, worker_id, "idle")
        if crash:
            with pytest.raises(RemoteError):
                generate(client, worker_id, [])
        else:
            client.stop_worker(worker_id)

    def state() -> tuple[int, int, int]:
        return process.num_fds(), process.num_threads(), process.memory_info().rss

    cycles = int(os.environ.get("RBEE_TEST_CYCLES", "24"))
    for number in range(8):
        cycle(number)
    fds, threads, rss = state()
    for number in range(8, 8 + cycles):
        cycle(number)
    fds_after, threads_after, rss_after = state()
    assert fds_after <= fds + 2
    assert threads_after <= threads + 1
    assert rss_after - rss < 4_000_000 + 40_000 * cycles


def test_hostile_plugins_do_not_hurt_the_hive(home: Home, tmp_path: Path) -> None:
    """What a backend does in the hive itself: it raises, or fails a load with a text of a megabyte."""
    write_plugin(tmp_path)
    home.use_plugins_in(tmp_path)
    home.environment["RBEE_SHUTDOWN_GRACE_S"] = "2"
    hive = home.start_hive()
    client = hive.client
    with pytest.raises(RemoteError, match="ZeroDivisionError"):
        spawn(client, "", backend="bad-environment")
    assert client.list_workers() == []

    loud = spawn(client, "tokens=1", backend="loud")
    worker = in_state(client, loud, "failed")
    assert worker.error is not None
    assert len(worker.error.message) < 2000

    stubborn = spawn(client, "tokens=2", backend="bad-policy")
    in_state(client, stubborn, "idle")
    client.stop_worker(stubborn)
    assert client.health(attempts=1).status == "alive"
    assert hive.stop().exit_code == 0


PLUGIN = """
from rbee_core.backend import hookimpl
from rbee_scripted import ScriptedBackend

class BadEnvironment(ScriptedBackend):
    name = "bad-environment"
    def environment(self, device):
        return 1 / 0

class Loud(ScriptedBackend):
    name = "loud"
    def load(self, model, device, options, progress):
        raise RuntimeError("x" * 1_000_000)

class BadPolicy(ScriptedBackend):
    name = "bad-policy"
    def stop_policy(self, recommended):
        raise RuntimeError("no policy")

@hookimpl
def rbee_register_backends(register):
    for backend in (BadEnvironment(), Loud(), BadPolicy()):
        register(backend)
"""


def write_plugin(folder: Path) -> None:
    (folder / "rbee_hostile.py").write_text(PLUGIN)
    metadata = folder / "rbee_hostile-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: rbee-hostile\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[rbee]\nhostile = rbee_hostile\n")


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process are Linux's")
def test_short_of_file_descriptors_a_spawn_is_refused_at_any_point(home: Home) -> None:
    hive = home.start_hive()
    client = hive.client
    client.stop_worker(spawn(client, "tokens=1"))  # the plugins are loaded
    before = resource.prlimit(hive.pid, resource.RLIMIT_NOFILE)
    taken = psutil.Process(hive.pid).num_fds()
    refusals: list[RemoteError] = []
    worker_id = ""
    while not worker_id:
        resource.prlimit(hive.pid, resource.RLIMIT_NOFILE, (taken + len(refusals), before[1]))
        try:
            worker_id = spawn(client, "tokens=1")
        except RemoteError as error:
            refusals.append(error)
            resource.prlimit(hive.pid, resource.RLIMIT_NOFILE, before)
            assert client.list_workers() == []
    resource.prlimit(hive.pid, resource.RLIMIT_NOFILE, before)
    in_state(client, worker_id, "idle")
    assert len(refusals) > 2
    assert all(str(error) for error in refusals)
    hive.stop()
    assert "Traceback" not in home.log("hive")


def test_n7_health_is_red_after_a_crash_until_the_model_is_served_again(home: Home) -> None:
    client = home.start_hive().client
    first = spawn(client, "tokens=1")
    os.kill(in_state(client, first, "idle").pid, signal.SIGKILL)
    in_state(client, first, "crashed")
    ill = home.rbee("workers", "health")
    assert ill.exit_code == 1
    assert [line.split()[:3] for line in ill.stdout.splitlines()[1:]] == [[first, "ill", "crashed"]]
    in_state(client, spawn(client, "tokens=1"), "idle")
    assert home.rbee("workers", "health").exit_code == 0
