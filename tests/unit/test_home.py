"""RBEE_HOME: notes that know a process from a later one with its pid, and a sweep that kills no stranger."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rbee_core import home, small_files
from rbee_core.errors import HiveAlreadyRunning, HomeUnusable
from rbee_core.home import INSTANCE_VARIABLE, HiveNote, Home, ProcessId, WorkerNote
from rbee_kit.waiting import eventually

SLEEP = [sys.executable, "-S", "-c", "import time; print(flush=True); time.sleep(600)"]
INSTANCE = "0123456789abcdef" * 2


@pytest.fixture
def place(tmp_path: Path) -> Home:
    place = Home(tmp_path / "home")
    place.prepare()
    return place


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process that sleeps, in a session of its own, as workers have."""
    started: list[subprocess.Popen[bytes]] = []

    def start_one(instance: str = "", argv: list[str] = SLEEP, **how: Any) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, INSTANCE_VARIABLE: instance}
        process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, start_new_session=True, **how)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def gone_hive() -> ProcessId:
    """Return a hive that no longer runs."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    identity = home.identify(process.pid)
    process.communicate()
    return identity


def hive_note(process: ProcessId, port: int = 7835) -> HiveNote:
    return HiveNote(pid=process.pid, start_time=process.start_time, host="127.0.0.1", port=port, version="1.0")


def write_worker(place: Home, process: "subprocess.Popen[bytes]", hive: ProcessId, **change: Any) -> None:
    """Leave a worker's note, changed as somebody may have left it."""
    note = dataclasses.asdict(WorkerNote.of(home.identify(process.pid), hive, INSTANCE))
    place.worker_note_path("worker-1").write_text(json.dumps(note | change))


def test_everything_is_private(place: Home) -> None:
    for folder in (place.path, place.logs_dir, place.run_dir, place.models_dir):
        assert folder.stat().st_mode & 0o077 == 0
    home.write_note(place.hive_note_path, hive_note(ProcessId(1, 0)))
    assert place.hive_note_path.stat().st_mode & 0o777 == 0o600
    assert not place.is_open_to_others()


@pytest.mark.parametrize("below", ["", "below", "below/it"])
def test_a_file_in_the_place_of_home(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    place = Home(tmp_path / "file" / below)
    assert place.fault() == f"{tmp_path / 'file'} is no folder"
    with pytest.raises(HomeUnusable):
        place.prepare()


def test_a_home_that_can_be_made_has_no_fault(tmp_path: Path) -> None:
    place = Home(tmp_path / "not" / "yet")
    assert place.fault() == ""
    assert not place.path.exists()


@pytest.mark.parametrize(
    ("closed", "fault"),
    [(".", "permission denied"), ("logs", "permission denied for logs in it")],
)
def test_a_closed_folder_is_a_fault(closed: str, fault: str, place: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write everywhere, so the system's answer is played."""
    target = (place.path / closed).resolve()
    monkeypatch.setattr("os.access", lambda path, _: Path(path) != target)
    assert place.fault() == fault
    with pytest.raises(HomeUnusable, match=fault):
        place.prepare()


def test_b11_a_note_that_cannot_be_written_leaves_nothing(place: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_note: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(home, "as_text", full)
    with pytest.raises(OSError, match="No space"):
        home.write_note(place.hive_note_path, hive_note(home.identify(os.getpid())))
    assert list(place.run_dir.iterdir()) == []


def test_a_note_comes_back(place: Home) -> None:
    home.write_note(place.hive_note_path, hive_note(ProcessId(1, 0.5)))
    home.write_note(place.hive_note_path, hive_note(ProcessId(2, 1.5), port=3))
    assert home.read_note(place.hive_note_path, HiveNote) == hive_note(ProcessId(2, 1.5), port=3)
    assert [p.name for p in place.run_dir.iterdir()] == ["hive.json"]


WHERE = '"port": 1, "host": "h", "version": "1"'


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "5", "null", "\x00", '{"pid": 1} x', "[" * 100_000),
        f'{{"pid": "x", "start_time": 0, {WHERE}}}',
        f'{{"pid": 1, "start_time": null, {WHERE}}}',
        '{"pid": 1, "start_time": 0, "port": 1, "host": "h\\u0000", "version": "1"}',
    ],
)
def test_a_note_that_means_nothing_is_none(text: str, place: Home) -> None:
    place.hive_note_path.write_text(text)
    assert home.read_note(place.hive_note_path, HiveNote) is None
    assert place.running_hive() is None


def test_a_missing_note_is_none(place: Home) -> None:
    assert home.read_note(place.hive_note_path, HiveNote) is None
    assert place.running_hive() is None


def test_a_living_hive_is_found_by_its_note(place: Home) -> None:
    note = hive_note(home.identify(os.getpid()))
    home.write_note(place.hive_note_path, note)
    assert place.running_hive() == note


def test_a_note_that_may_not_be_read_is_no_sign_that_there_is_no_hive(
    place: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(small_files, "read", refuse)
    with pytest.raises(HomeUnusable, match=r"hive\.json: Permission denied"):
        place.running_hive()


def test_alive_means_the_same_process(place: Home) -> None:
    me = home.identify(os.getpid())
    later = dataclasses.replace(me, start_time=me.start_time - 60)
    assert home.is_alive(me)
    assert not home.is_halted(me)
    assert not home.is_alive(later)
    home.write_note(place.hive_note_path, hive_note(later))
    assert place.running_hive() is None


@pytest.mark.parametrize("pid", [-1, 4_194_305, 99_999_999_999_999_999_999])
def test_a_number_that_no_process_has_is_not_alive(pid: int) -> None:
    assert not home.is_alive(ProcessId(pid, 0))


def test_there_is_nothing_to_tell_of_a_process_that_is_gone() -> None:
    with pytest.raises(ProcessLookupError):
        home.identify(gone_hive().pid)


@pytest.mark.parametrize("name", ["x", "a ) b (", ") Z 1 2 3"])
def test_a_process_may_have_any_name(name: str, start: Start, tmp_path: Path) -> None:
    link = tmp_path / name
    link.symlink_to("/bin/sh")
    process = start(argv=[str(link), "-c", "echo; read line"], stdin=subprocess.PIPE)
    assert home.is_alive(home.identify(process.pid))


def test_a_clock_that_is_set_right_makes_nobody_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system counts from its start, neither the clock nor what psutil makes of it matters."""
    me = home.identify(os.getpid())
    monkeypatch.setattr(psutil, "boot_time", lambda: 0.0)
    assert home.is_alive(me)
    if sys.platform == "linux":
        assert 0 < me.start_time < time.clock_gettime(time.CLOCK_BOOTTIME)


def test_a_zombie_is_not_alive(start: Start) -> None:
    process = start(argv=[sys.executable, "-S", "-c", "print()"])
    identity = home.identify(process.pid)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not home.is_alive(identity)


def test_a_halted_process_is_alive(start: Start) -> None:
    process = start()
    identity = home.identify(process.pid)
    process.send_signal(signal.SIGSTOP)
    eventually(lambda: home.is_halted(identity), what="it is halted")
    assert home.is_alive(identity)


def test_the_lock_is_exclusive_and_names_its_holder(place: Home) -> None:
    with place.exclusive():
        home.write_note(place.hive_note_path, hive_note(home.identify(os.getpid()), port=34))
        with pytest.raises(HiveAlreadyRunning, match=f"pid {os.getpid()}, port 34"), place.exclusive():
            pass
    with place.exclusive():
        pass


@pytest.mark.parametrize("text", ["", '{"pid": null, "port": []}', '{"pid": "x"}', "garbage"])
def test_a_lock_whose_holder_has_left_no_note_that_helps(text: str, place: Home) -> None:
    if text:
        place.hive_note_path.write_text(text)
    with place.exclusive(), pytest.raises(HiveAlreadyRunning, match="just starting or stopping"), place.exclusive():
        pass


def test_the_sweep_kills_what_a_dead_hive_left(place: Home, start: Start) -> None:
    worker = start(INSTANCE)
    write_worker(place, worker, gone_hive())
    assert place.sweep() == 1
    assert worker.wait(5) == -9
    assert list(place.run_dir.iterdir()) == []


def test_the_sweep_reaches_the_children_of_a_dead_worker(place: Home, start: Start) -> None:
    """The kernel kills a worker together with its hive, but not the worker's own children."""
    worker, child = start(INSTANCE), start(INSTANCE)
    write_worker(place, worker, gone_hive())
    worker.kill()
    worker.wait()
    assert place.sweep() == 1
    assert child.wait(5) == -9


def test_the_sweep_leaves_the_workers_of_a_living_hive(place: Home, start: Start) -> None:
    worker = start(INSTANCE)
    write_worker(place, worker, home.identify(os.getpid()))
    assert place.sweep() == 0
    assert worker.poll() is None
    assert place.live_workers() == {"worker-1"}


def test_the_workers_of_a_dead_hive_are_not_live(place: Home, start: Start) -> None:
    write_worker(place, start(INSTANCE), gone_hive())
    assert place.live_workers() == frozenset()


@pytest.mark.parametrize(
    "change",
    [{}, {"start_time": 1.0}, {"instance": ""}, {"instance": None}, {"instance": []}],
    ids=["this pid", "recycled pid", "no instance", "null instance", "list"],
)
def test_the_sweep_kills_no_stranger(change: dict[str, Any], place: Home, start: Start) -> None:
    stranger = start("")
    write_worker(place, stranger, gone_hive(), **change)
    assert place.sweep() == 0
    assert stranger.poll() is None
    assert list(place.run_dir.iterdir()) == []


def test_the_sweep_removes_notes_that_say_nothing(place: Home) -> None:
    place.worker_note_path("worker-1").write_text("garbage")
    place.worker_note_path("worker-2").write_text('{"pid": "x", "instance": []}')
    assert place.sweep() == 0
    place.tidy()
    assert not place.run_dir.exists()


def test_b7_a_pipe_in_the_place_of_a_note_holds_nobody_up(place: Home) -> None:
    os.mkfifo(place.hive_note_path)
    os.mkfifo(place.worker_note_path("worker-z"))
    assert place.running_hive() is None
    assert place.sweep() == 0
    assert not place.worker_note_path("worker-z").exists()
    home.write_note(place.hive_note_path, hive_note(ProcessId(1, 0)))
    assert home.read_note(place.hive_note_path, HiveNote) is not None


def test_b7_a_pipe_in_the_place_of_an_unfinished_note_is_a_refusal(place: Home) -> None:
    os.mkfifo(place.hive_note_path.with_suffix(".new"))
    with pytest.raises(OSError, match="No such device"):
        home.write_note(place.hive_note_path, hive_note(ProcessId(1, 0)))


def test_c9_folders_in_the_place_of_notes_harm_nobody(place: Home) -> None:
    place.worker_note_path("worker-1").mkdir()
    (place.worker_note_path("worker-2") / "full").mkdir(parents=True)
    assert place.sweep() == 0
    assert not place.worker_note_path("worker-1").exists()


@pytest.mark.parametrize("below", ["logs", "run", "models"])
def test_c18_a_file_in_the_place_of_a_folder_is_a_fault(below: str, tmp_path: Path) -> None:
    (tmp_path / below).write_text("")
    assert Home(tmp_path).fault() == f"{below} in it is no folder"


def test_c9_a_folder_in_the_place_of_the_log_is_a_fault(place: Home) -> None:
    place.hive_log.mkdir()
    assert place.fault() == "logs/hive.log in it is no file"


def test_c8_a_path_that_the_catalog_could_not_have_is_a_fault(tmp_path: Path) -> None:
    place = Home(tmp_path / ("x" * 200) / ("y" * 200) / ("z" * 200))
    assert place.fault() == "its path is longer than 490 bytes"
    with pytest.raises(HomeUnusable):
        place.prepare()
    assert not any(tmp_path.iterdir())


def test_tidying_keeps_a_folder_that_is_in_use(place: Home) -> None:
    home.write_note(place.hive_note_path, hive_note(ProcessId(1, 0)))
    place.tidy()
    assert place.run_dir.exists()
