"""Nothing outlives its hive, however the hive goes and whatever its workers are stuck in."""

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from rbee_core import wire
from rbee_core.errors import RbeeError
from rbee_kit.program import SCRIPTS, Hive, Home
from rbee_kit.waiting import eventually

pytestmark = pytest.mark.scripted

GONE_WITHIN_S = 10.0


def spawn(hive: Hive, script: str) -> psutil.Process:
    """Return the process of a new, ready worker."""
    worker_id = hive.client.spawn(wire.SpawnRequest(model_ref=f"scripted:{script}")).worker_id
    eventually(lambda: hive.client.worker(worker_id).state == "idle", what="the worker is ready")
    return psutil.Process(hive.client.worker(worker_id).pid)


def start_request(hive: Hive, process: psutil.Process) -> None:
    """Send a request to the worker of this process and leave it running."""
    worker = next(w for w in hive.client.list_workers() if w.pid == process.pid)
    stream = hive.connect().infer(worker.worker_id, wire.InferenceRequest(prompt="hello"))
    threading.Thread(target=read, args=(stream,), daemon=True).start()
    eventually(lambda: hive.client.worker(worker.worker_id).active == 1, what="the request runs")


def read(stream: Iterator[wire.StreamEvent]) -> None:
    with contextlib.suppress(RbeeError):
        list(stream)


def guardian_of(home: Home) -> psutil.Process:
    found = running(home, "guardian.py")
    assert len(found) == 1
    return found[0]


def running(home: Home, words: str) -> list[psutil.Process]:
    """Return the processes whose command line contains these words; one may end while we look."""
    found: list[psutil.Process] = []
    for process in home.processes():
        with contextlib.suppress(psutil.Error):
            if words in " ".join(process.cmdline()):
                found.append(process)
    return found


def all_gone(home: Home, within_s: float = GONE_WITHIN_S) -> None:
    eventually(lambda: not home.processes(), within_s, what="no process is left")


def test_idle_workers_die_with_their_hive(home: Home) -> None:
    hive = home.start_hive()
    for tokens in range(1, 4):
        spawn(hive, f"tokens={tokens}")
    hive.kill()
    all_gone(home)


@pytest.mark.parametrize(
    "script", ["prefill_s=60", "tokens=inf;token_ms=10", "hang_at_token=0", "hold_gil=60"],
    ids=["in prefill", "generating", "hanging", "holding the interpreter lock"],
)  # fmt: skip
def test_working_workers_die_with_their_hive(script: str, home: Home) -> None:
    hive = home.start_hive()
    start_request(hive, spawn(hive, script))
    hive.kill()
    all_gone(home)


def test_a_stopped_worker_dies_with_its_hive(home: Home) -> None:
    hive = home.start_hive()
    spawn(hive, "").send_signal(signal.SIGSTOP)
    hive.kill()
    all_gone(home)


def test_a_worker_s_child_dies_with_the_hive(home: Home) -> None:
    hive = home.start_hive()
    spawn(hive, "fork=child;ignore_term=1")
    hive.kill()
    all_gone(home)


def test_a_loading_worker_dies_with_its_hive(home: Home) -> None:
    hive = home.start_hive()
    hive.client.spawn(wire.SpawnRequest(model_ref="scripted:load_hang=1;ignore_term=1"))
    hive.kill()
    all_gone(home)


@pytest.mark.parametrize("delay_ms", range(0, 300, 60))
def test_a_worker_that_is_just_being_started_dies_with_its_hive(delay_ms: int, home: Home) -> None:
    hive = home.start_hive()
    body = json.dumps({"model_ref": "scripted:"})
    home.start("python", "-c", POST, str(hive.port), body)
    deadline = time.monotonic() + delay_ms / 1000
    eventually(lambda: time.monotonic() >= deadline, what="this moment")
    hive.kill()
    all_gone(home)


POST = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
try:
    connection.request("POST", "/v1/workers/spawn", sys.argv[2], {"Content-Type": "application/json"})
    connection.getresponse()
except OSError:
    pass
"""


def test_a_dead_guardian_is_replaced_and_the_new_one_knows_all(home: Home) -> None:
    hive = home.start_hive()
    spawn(hive, "fork=child")
    first = guardian_of(home)
    first.kill()
    eventually(lambda: [p for p in running(home, "guardian.py") if p != first], 10, what="another guardian")
    guardian = guardian_of(home)
    eventually(lambda: "starting another" in home.log("hive"), what="a line in the log")
    eventually(lambda: guardian.status() == psutil.STATUS_SLEEPING, what="the new guardian reads")
    hive.kill()
    all_gone(home)


def test_what_survives_hive_and_guardian_is_swept_by_the_next_hive(home: Home) -> None:
    hive = home.start_hive()
    spawn(hive, "fork=child")
    hive.program.signal(signal.SIGSTOP)  # so that it does not replace the guardian in between
    guardian_of(home).kill()
    hive.kill()
    left = eventually(lambda: running(home, "time.sleep"), what="the grandchild")
    assert len(left) == 1
    next_hive = home.start_hive()
    eventually(lambda: not left[0].is_running() or left[0].status() == psutil.STATUS_ZOMBIE, what="the sweep")
    assert next_hive.stop().exit_code == 0
    all_gone(home)


def test_a_child_in_a_session_of_its_own_is_swept_by_the_next_hive(home: Home) -> None:
    hive = home.start_hive()
    spawn(hive, "fork=setsid")
    hive.kill()
    home.start_hive().stop()
    all_gone(home)


def test_a_killed_hive_does_not_keep_the_next_one_from_starting(home: Home) -> None:
    hive = home.start_hive()
    spawn(hive, "")
    hive.kill()
    following = home.start_hive()
    assert following.client.list_workers() == []
    assert following.stop().exit_code == 0
    assert [name for name in home.files() if name.startswith("run/")] == []


def test_of_many_hives_started_at_once_one_runs(home: Home) -> None:
    programs = [home.start("rbee-hive", "daemon", "--port", "0") for _ in range(5)]
    eventually(lambda: sum(p.running() for p in programs) == 1, 20, what="four have given up")
    refused = [p.finish() for p in programs if not p.running()]
    assert {r.exit_code for r in refused} == {1}
    assert all("A hive is already" in r.stderr for r in refused), [r.stderr for r in refused]
    (winner,) = [p for p in programs if p.running()]
    eventually(lambda: (home.hive_note() or {}).get("pid") == winner.pid, what="the note")
    winner.signal(signal.SIGTERM)
    assert winner.finish(10).exit_code == 0


def test_a_note_with_a_stranger_s_pid_harms_nobody(home: Home) -> None:
    hive = home.start_hive()
    worker = spawn(hive, "")
    note_path = next((home.path / "run").glob("worker-*.json"))
    note = json.loads(note_path.read_text())
    assert note["pid"] == worker.pid
    hive.kill()
    all_gone(home)
    stranger = home.start("python", "-c", "import time; time.sleep(600)")
    (home.path / "run").mkdir(exist_ok=True)
    note_path.write_text(json.dumps(note | {"pid": stranger.pid}))
    home.start_hive().stop()
    assert stranger.running()


def test_c17_a_hive_whose_starter_is_gone_ends_and_calls_it_no_bug(home: Home) -> None:
    argv = [str(SCRIPTS / "rbee-hive"), "daemon", "--detached", "--port", "0"]
    nobody_reads = "import os, subprocess, sys; r, w = os.pipe(); os.close(r); "
    ended = home.python(f"{nobody_reads}sys.exit(subprocess.run({argv!r}, stdout=w).returncode)")
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert "whoever started this hive is gone" in home.log("hive")
    assert "bug" not in home.log("hive")
    assert [name for name in home.files() if name.startswith("run/")] == []
