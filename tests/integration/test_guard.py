"""The guardian from the hive's side: it is replaced when it dies, also where the system refuses that at first."""

import asyncio
import errno
import logging
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from rbee_core import aio
from rbee_core.hive.processes import guard as guards
from rbee_core.hive.processes.child import Child
from rbee_core.hive.processes.guard import Guard
from rbee_core.hive.processes.start import start_process

SLEEP = ["sleep", "600"]


def refusing(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system lack descriptors for so many starts."""
    refusals = iter(range(times))

    def start(*arguments: Any) -> Any:
        if next(refusals, None) is not None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return start_process(*arguments)

    monkeypatch.setattr(guards, "start_process", start)


async def replaced(guard: Guard, dead: int) -> None:
    async with asyncio.timeout(20):
        while guard.pid in (0, dead):
            await aio.sleep(0.02)


def test_a_guardian_that_cannot_be_replaced_at_once_is_tried_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guards, "RESTART_DELAY_S", 0.01)

    async def scenario() -> None:
        guard = Guard(os.environ, tmp_path / "log")
        guard.start()
        async with asyncio.TaskGroup() as tasks:
            guarding = tasks.create_task(guard.keep())
            refusing(2, monkeypatch)
            first = guard.pid
            os.kill(first, signal.SIGKILL)
            await replaced(guard, first)
            guarding.cancel()
        await guard.release()

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())

    assert caplog.text.count("no guardian can be started (Too many open files)") == 2


def test_groups_that_come_and_go_without_a_guardian_are_known_to_the_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        guard = Guard(os.environ, tmp_path / "log")
        kept, gone = (Child(start_process(SLEEP, os.environ, tmp_path / "log")) for _ in range(2))
        guard.add(gone.pid)
        guard.add(kept.pid)
        await gone.end(0, 0)
        guard.remove(gone.pid)
        guard.start()
        await guard.release()
        async with asyncio.timeout(20):
            await kept.wait()
        assert kept.exit == -signal.SIGKILL

    asyncio.run(scenario())


def test_a_process_that_cannot_be_watched_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def scenario() -> None:
        process = start_process(SLEEP, os.environ, tmp_path / "log")
        with pytest.raises(OSError, match="Too many open files"):
            Child(process)
        assert process.returncode == -signal.SIGKILL
        assert not psutil.pid_exists(process.pid)

    monkeypatch.setattr(os, "pidfd_open", refuse)
    asyncio.run(scenario())


def test_what_is_written_to_a_process_that_has_ended_is_refused_as_the_system_would(tmp_path: Path) -> None:
    async def scenario() -> None:
        child = Child(start_process(SLEEP, os.environ, tmp_path / "log"))
        await child.end(0, 0)
        with pytest.raises(BrokenPipeError):
            child.write(b"too late")

    asyncio.run(scenario())
