"""RBEE_HOME while a hive runs: its folders, the lock, and the notes about running processes.

The lock is `flock` on the folder itself, which leaves no file behind and ends with the process. Notes say pid and
start time, because a pid alone may belong to a stranger by the time it is read.
"""

import contextlib
import fcntl
import json
import logging
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from rbee_core.errors import HiveAlreadyRunning
from rbee_core.hive.spare import INSTANCE_VARIABLE
from rbee_core.settings import Settings

log = logging.getLogger(__name__)


@contextmanager
def exclusive(settings: Settings) -> Generator[None]:
    """Hold RBEE_HOME for one persistent hive. Raises `HiveAlreadyRunning`."""
    fd = os.open(settings.home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        note = read_note(hive_note(settings)) or {}
        raise HiveAlreadyRunning(pid=int(note.get("pid", 0)), port=int(note.get("port", 0))) from None
    try:
        yield
    finally:
        os.close(fd)


def hive_note(settings: Settings) -> Path:
    """Where the persistent hive notes its address."""
    return settings.run_dir / "hive.json"


def worker_note(settings: Settings, worker_id: str) -> Path:
    """Where a hive notes a worker's process."""
    return settings.run_dir / f"{worker_id}.json"


def identity(pid: int) -> dict[str, Any]:
    """Return what tells a process from a later one with the same pid."""
    return {"pid": pid, "start_time": psutil.Process(pid).create_time()}


def is_alive(note: dict[str, Any], prefix: str = "") -> bool:
    """Return whether the process of a note still runs, and is that process."""
    try:
        process = psutil.Process(int(note[f"{prefix}pid"]))
        same = abs(process.create_time() - float(note[f"{prefix}start_time"])) < 0.1
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


def write_note(path: Path, note: dict[str, Any]) -> None:
    """Write a note whole or not at all, readable by its owner only."""
    partial = path.with_suffix(".new")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(note, file)
    partial.replace(path)


def read_note(path: Path) -> dict[str, Any] | None:
    """Return a note, None if it is missing or unreadable."""
    try:
        note = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) else None  # pyright: ignore[reportUnknownVariableType]


def sweep(settings: Settings) -> int:
    """Kill workers that a dead hive left behind, and remove its notes; return how many were killed.

    A process is killed only if pid, start time and the instance tag in its environment all match the note.
    """
    killed = 0
    for path in settings.run_dir.glob("worker-*.json"):
        note = read_note(path)
        if note is not None and is_alive(note, "hive_"):
            continue
        if note is not None and is_alive(note) and _carries(int(note["pid"]), str(note.get("instance"))):
            log.warning("killing worker process %s, which a dead hive left behind", note["pid"])
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(int(note["pid"]), signal.SIGKILL)
                killed += 1
        path.unlink(missing_ok=True)
    return killed


def _carries(pid: int, instance: str) -> bool:
    try:
        return psutil.Process(pid).environ().get(INSTANCE_VARIABLE) == instance
    except psutil.Error:
        return False


def tidy(settings: Settings) -> None:
    """Remove the folder of notes if nothing is noted any more."""
    with contextlib.suppress(OSError):
        settings.run_dir.rmdir()
