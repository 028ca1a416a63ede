"""RBEE_HOME while a hive runs: its folders, the lock, and the notes about running processes.

The lock is `flock` on the folder itself, which leaves no file behind and ends with the process. Notes say pid and
start time, because a pid alone may belong to a stranger by the time it is read.
"""

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from rbee_core.errors import HiveAlreadyRunning
from rbee_core.settings import INSTANCE_VARIABLE, Settings

INSTANCE_LENGTH = 32

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
        raise HiveAlreadyRunning(pid=_number(note.get("pid")), port=_number(note.get("port"))) from None
    try:
        yield
    finally:
        os.close(fd)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


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
    path.parent.mkdir(mode=0o700, exist_ok=True)  # another hive on this RBEE_HOME may just have tidied up
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
    """Kill what dead hives left behind, and remove their notes; return how many processes were killed.

    A hive tags its children with a random instance, which their own children inherit. The tag is what counts: the
    worker itself usually died with its hive, what it had started did not, and a pid may belong to a stranger by now.
    """
    dead: set[str] = set()
    for path in settings.run_dir.glob("worker-*.json"):
        note = read_note(path) or {}
        if not is_alive(note, "hive_"):
            dead.add(str(note.get("instance")))
            path.unlink(missing_ok=True)
    tags = {tag for tag in dead if len(tag) >= INSTANCE_LENGTH}
    left = [p for p in psutil.process_iter() if _instance(p) in tags] if tags else []
    for process in left:
        log.warning("killing process %d, which a dead hive left behind", process.pid)
        with contextlib.suppress(psutil.Error):
            process.kill()
    return len(left)


def _instance(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(INSTANCE_VARIABLE)
    except (psutil.Error, OSError):  # gone, or somebody else's
        return None


def tidy(settings: Settings) -> None:
    """Remove the folder of notes if nothing is noted any more."""
    with contextlib.suppress(OSError):
        settings.run_dir.rmdir()
