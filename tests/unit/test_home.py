"""RBEE_HOME: notes that know a process from a later one with its pid, and a sweep that kills no stranger."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rbee_core import home
from rbee_core.errors import HiveAlreadyRunning, HomeUnusable
from rbee_core.hive.main import prepare
from rbee_core.settings import INSTANCE_VARIABLE, Settings

SLEEP = [sys.executable, "-S", "-c", "import time; print(flush=True); time.sleep(600)"]
INSTANCE = "0123456789abcdef" * 2


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(home=tmp_path / "home")
    prepare(settings)
    return settings


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process that sleeps, in a session of its own, as workers have."""
    started: list[subprocess.Popen[bytes]] = []

    def start_one(instance: str = "", argv: list[str] = SLEEP) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, INSTANCE_VARIABLE: instance}
        process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, start_new_session=True)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def gone_hive() -> dict[str, Any]:
    """Return the identity of a hive that no longer runs."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    identity = home.identity(process.pid)
    process.communicate()
    return {f"hive_{key}": value for key, value in identity.items()}


def note_of(process: "subprocess.Popen[bytes]", hive: dict[str, Any], instance: str = INSTANCE) -> dict[str, Any]:
    return home.identity(process.pid) | {"instance": instance} | hive


def test_everything_is_private(settings: Settings) -> None:
    for folder in (settings.home, settings.logs_dir, settings.run_dir, settings.models_dir):
        assert folder.stat().st_mode & 0o077 == 0
    home.write_note(home.hive_note(settings), {"pid": 1})
    assert home.hive_note(settings).stat().st_mode & 0o777 == 0o600


def test_a_file_in_the_place_of_home(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeUnusable):
        prepare(Settings(home=tmp_path / "file"))
    with pytest.raises(HomeUnusable):
        prepare(Settings(home=tmp_path / "file" / "below"))


def test_a_note_comes_back(settings: Settings) -> None:
    path = home.hive_note(settings)
    home.write_note(path, {"pid": 1})
    home.write_note(path, {"pid": 2, "port": 3})
    assert home.read_note(path) == {"pid": 2, "port": 3}
    assert [p.name for p in settings.run_dir.iterdir()] == ["hive.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "null", "\x00", '{"pid": 1} x'])
def test_an_unreadable_note_is_none(text: str, settings: Settings) -> None:
    home.hive_note(settings).write_text(text)
    assert home.read_note(home.hive_note(settings)) is None


def test_a_missing_note_is_none(settings: Settings) -> None:
    assert home.read_note(home.hive_note(settings)) is None


def test_alive_means_the_same_process() -> None:
    me = home.identity(os.getpid())
    assert home.is_alive(me)
    assert not home.is_alive(me | {"start_time": me["start_time"] - 60})


@pytest.mark.parametrize(
    "note",
    [{}, {"pid": 1}, {"pid": "x", "start_time": 0}, {"pid": None, "start_time": None}, {"pid": -1, "start_time": 0}],
)
def test_a_note_that_names_nobody_is_not_alive(note: dict[str, Any]) -> None:
    assert not home.is_alive(note)


def test_a_zombie_is_not_alive(start: Start) -> None:
    process = start(argv=[sys.executable, "-S", "-c", "print()"])
    note = home.identity(process.pid)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not home.is_alive(note)


def test_the_lock_is_exclusive_and_names_its_holder(settings: Settings) -> None:
    with home.exclusive(settings):
        home.write_note(home.hive_note(settings), {"pid": 12, "port": 34})
        with pytest.raises(HiveAlreadyRunning, match="pid 12, port 34"), home.exclusive(settings):
            pass
    with home.exclusive(settings):
        pass


def test_a_lock_whose_holder_has_not_written_a_note_yet(settings: Settings) -> None:
    with home.exclusive(settings), pytest.raises(HiveAlreadyRunning), home.exclusive(settings):
        pass


@pytest.mark.parametrize("text", ['{"pid": null, "port": []}', '{"pid": "x"}', "garbage"])
def test_a_lock_beside_a_spoiled_note(text: str, settings: Settings) -> None:
    home.hive_note(settings).write_text(text)
    with home.exclusive(settings), pytest.raises(HiveAlreadyRunning), home.exclusive(settings):
        pass


def test_the_sweep_kills_what_a_dead_hive_left(settings: Settings, start: Start) -> None:
    worker = start(INSTANCE)
    home.write_note(home.worker_note(settings, "worker-1"), note_of(worker, gone_hive()))
    assert home.sweep(settings) == 1
    assert worker.wait(5) == -9
    assert list(settings.run_dir.iterdir()) == []


def test_the_sweep_reaches_the_children_of_a_dead_worker(settings: Settings, start: Start) -> None:
    """The kernel kills a worker together with its hive, but not the worker's own children."""
    worker, child = start(INSTANCE), start(INSTANCE)
    home.write_note(home.worker_note(settings, "worker-1"), note_of(worker, gone_hive()))
    worker.kill()
    worker.wait()
    assert home.sweep(settings) == 1
    assert child.wait(5) == -9


def test_the_sweep_leaves_the_workers_of_a_living_hive(settings: Settings, start: Start) -> None:
    worker = start(INSTANCE)
    me = {f"hive_{key}": value for key, value in home.identity(os.getpid()).items()}
    home.write_note(home.worker_note(settings, "worker-1"), note_of(worker, me))
    assert home.sweep(settings) == 0
    assert worker.poll() is None
    assert home.worker_note(settings, "worker-1").exists()


@pytest.mark.parametrize(
    "change",
    [{}, {"start_time": 1.0}, {"instance": ""}, {"instance": None}, {"instance": []}],
    ids=["this pid", "recycled pid", "no instance", "null instance", "list"],
)
def test_the_sweep_kills_no_stranger(change: dict[str, Any], settings: Settings, start: Start) -> None:
    stranger = start("")
    home.write_note(home.worker_note(settings, "worker-1"), note_of(stranger, gone_hive()) | change)
    assert home.sweep(settings) == 0
    assert stranger.poll() is None
    assert list(settings.run_dir.iterdir()) == []


def test_the_sweep_removes_notes_that_say_nothing(settings: Settings) -> None:
    home.worker_note(settings, "worker-1").write_text("garbage")
    home.worker_note(settings, "worker-2").write_text('{"pid": "x", "instance": []}')
    assert home.sweep(settings) == 0
    home.tidy(settings)
    assert not settings.run_dir.exists()


def test_tidying_keeps_a_folder_that_is_in_use(settings: Settings) -> None:
    home.write_note(home.hive_note(settings), {"pid": 1})
    home.tidy(settings)
    assert settings.run_dir.exists()
