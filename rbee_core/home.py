"""RBEE_HOME, where keeper and hive meet: its layout, the lock, and the notes about running processes.

The lock is `flock` on the folder itself, which leaves no file behind and ends with the process. Notes say pid and
start time, because a pid alone may belong to a stranger by the time it is read. All of it reads and writes files, so
on an event loop it is called in a helper thread. Imports little: both programs import it before anything else.
"""

import contextlib
import dataclasses
import errno
import fcntl
import json
import logging
import os
import shutil
import stat
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rbee_core import small_files
from rbee_core.errors import HiveAlreadyRunning, HomeUnusable

if TYPE_CHECKING:
    import psutil

INSTANCE_VARIABLE = "RBEE_INSTANCE"
"""Tags every process that a hive starts, and what that starts in turn."""
INSTANCE_LENGTH = 32
LONGEST_CATALOG_PATH = 500
"""In bytes: SQLite can name no file with 512, and appends to the names of those that it opens."""
_SAME_START_S = 0.005
_READ_AND_WRITE = os.R_OK | os.W_OK | os.X_OK

State = Literal["runs", "halted", "gone"]
_LINUX_STATES: dict[bytes, State] = {b"T": "halted", b"Z": "gone", b"X": "gone"}
_PSUTIL_STATES: dict[str, State] = {"stopped": "halted", "zombie": "gone", "dead": "gone"}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process and no later one: its number, and when it started as the system tells it, in seconds.

    On Linux since the machine's start, because a corrected clock moves any other time that it tells.
    """

    pid: int
    start_time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HiveNote:
    """Where a hive listens. A persistent one leaves it in RBEE_HOME; one that was launched prints it as well."""

    pid: int
    start_time: float
    host: str
    port: int
    version: str = ""

    @classmethod
    def of(cls, process: ProcessId, address: tuple[str, int], version: str) -> "HiveNote":
        """Note a hive that listens there."""
        host, port = address[:2]
        return cls(pid=process.pid, start_time=process.start_time, host=host, port=port, version=version)

    @property
    def process(self) -> ProcessId:
        """The hive."""
        return ProcessId(self.pid, self.start_time)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerNote:
    """A worker's process and the hive that started it. `instance` is that hive's tag."""

    pid: int
    start_time: float
    instance: str
    hive_pid: int
    hive_start_time: float

    @classmethod
    def of(cls, worker: ProcessId, hive: ProcessId, instance: str) -> "WorkerNote":
        """Note a worker of the hive with this tag."""
        return cls(
            pid=worker.pid,
            start_time=worker.start_time,
            instance=instance,
            hive_pid=hive.pid,
            hive_start_time=hive.start_time,
        )

    @property
    def hive(self) -> ProcessId:
        """The hive it belongs to."""
        return ProcessId(self.hive_pid, self.hive_start_time)


Note = TypeVar("Note", HiveNote, WorkerNote)


@dataclass(frozen=True, slots=True)
class Home:
    """The folder and what is where in it."""

    path: Path

    @property
    def catalog_path(self) -> Path:
        """The model catalog."""
        return self.path / "models.db"

    @property
    def models_dir(self) -> Path:
        """Downloaded models."""
        return self.path / "models"

    @property
    def logs_dir(self) -> Path:
        """Logs of hive and workers."""
        return self.path / "logs"

    @property
    def run_dir(self) -> Path:
        """Notes about running processes; empty or gone when nothing runs."""
        return self.path / "run"

    @property
    def prompts_dir(self) -> Path:
        """What workers computed of prompts and left to later ones; there only if the settings allow it."""
        return self.path / "prompts"

    @property
    def hive_log(self) -> Path:
        """What hives log."""
        return self.logs_dir / "hive.log"

    @property
    def hive_note_path(self) -> Path:
        """Where a persistent hive says where it listens."""
        return self.run_dir / "hive.json"

    @property
    def starting_note_path(self) -> Path:
        """Where a persistent hive that does not listen yet says that it is there; its port is 0."""
        return self.run_dir / "starting.json"

    def worker_log(self, worker_id: str) -> Path:
        """What a worker logs."""
        return self.logs_dir / f"{worker_id}.log"

    def worker_note_path(self, worker_id: str) -> Path:
        """Where a worker's process is noted."""
        return self.run_dir / f"{worker_id}.json"

    # Whether it can be used.

    def prepare(self) -> None:
        """Create the folders, private to the user; those that are there stay as they are. Raises `HomeUnusable`."""
        if fault := self.fault():
            raise HomeUnusable(path=str(self.path), why=fault)
        try:
            for folder in (self.path, *self._folders()):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise HomeUnusable(path=str(self.path), why=(error.strerror or str(error)).lower()) from error
        self.check()

    def check(self) -> None:
        """Raise `HomeUnusable` if there is a `fault`."""
        if fault := self.fault():
            raise HomeUnusable(path=str(self.path), why=fault)

    def fault(self) -> str:
        """Return why rbee cannot work here, "" if it can. Looks only; a folder that can be made is no fault."""
        if len(os.fsencode(self.catalog_path)) > LONGEST_CATALOG_PATH:
            return f"its path is longer than {LONGEST_CATALOG_PATH - len('/models.db')} bytes"
        there = self.nearest()
        if not there.is_dir():
            return f"{there} is no folder"
        if not os.access(there, _READ_AND_WRITE):
            return "permission denied" if there == self.path else f"permission denied to make it in {there}"
        if wrong := [p for p in self._folders() if p.exists() and not p.is_dir()]:
            return f"{wrong[0].name} in it is no folder"
        if closed := [p.name for p in self._folders() if p.is_dir() and not os.access(p, _READ_AND_WRITE)]:
            return f"permission denied for {closed[0]} in it"
        return "logs/hive.log in it is no file" if self.hive_log.exists() and not self.hive_log.is_file() else ""

    def nearest(self) -> Path:
        """Return the folder, or the nearest one above it that exists already."""
        return next((p for p in (self.path, *self.path.parents) if os.path.lexists(p)), Path("/"))

    def is_open_to_others(self) -> bool:
        """Return whether other users of this machine can look into it."""
        return self.path.is_dir() and bool(stat.S_IMODE(self.path.stat().st_mode) & 0o077)

    def _folders(self) -> tuple[Path, ...]:
        return (self.logs_dir, self.run_dir, self.models_dir)

    # Who runs on it.

    @contextmanager
    def exclusive(self) -> Generator[None]:
        """Hold the folder for one persistent hive. Raises `HiveAlreadyRunning`."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            note = self.running_hive() or self.starting_hive()
            raise HiveAlreadyRunning(pid=note.pid if note else 0, port=note.port if note else 0) from None
        try:
            yield
        finally:
            os.close(fd)

    def running_hive(self) -> HiveNote | None:
        """Return the note of the persistent hive whose process is alive, whether or not it answers.

        Raises `HomeUnusable` for a note that may not be read: there may well be a hive.
        """
        try:
            note = parse_note(small_files.read(self.hive_note_path)[0], HiveNote)
        except PermissionError as error:
            raise HomeUnusable(path=str(self.path), why=f"{self.hive_note_path.name}: {error.strerror}") from error
        except OSError:
            return None
        return note if note is not None and is_alive(note.process) else None

    def starting_hive(self) -> HiveNote | None:
        """Return the note of a persistent hive that does not listen yet, if its process is alive."""
        note = read_note(self.starting_note_path, HiveNote)
        return note if note is not None and is_alive(note.process) else None

    def live_workers(self) -> frozenset[str]:
        """Return the ids of the workers of hives that are alive, persistent or not."""
        return frozenset(path.stem for path, note in self._worker_notes() if note is not None and is_alive(note.hive))

    def sweep(self) -> int:
        """Kill what dead hives left behind, and remove their notes; return how many processes were killed.

        A hive tags its children with a random instance, which their own children inherit. The tag is what counts: the
        worker itself usually died with its hive, what it had started did not, and a pid may belong to a stranger now.
        """
        tags: set[str] = set()
        for path, note in self._worker_notes():
            if note is None or not is_alive(note.hive):
                _remove(path)
                tags |= {note.instance} if note is not None and len(note.instance) >= INSTANCE_LENGTH else set()
        left = list(_tagged(tags)) if tags else []
        for process in left:
            log.warning("killing process %d, which a dead hive left behind", process.pid)
            _kill(process)
        return len(left)

    def tidy(self) -> None:
        """Remove the folder of notes if nothing is noted any more."""
        with contextlib.suppress(OSError):
            self.run_dir.rmdir()

    def forget_prompts(self) -> None:
        """Remove what workers left of prompts. What cannot be removed is told in the log."""
        if self.prompts_dir.exists():
            shutil.rmtree(self.prompts_dir, onerror=_not_removed)

    def _worker_notes(self) -> list[tuple[Path, WorkerNote | None]]:
        return [(path, read_note(path, WorkerNote)) for path in self.run_dir.glob("worker-*.json")]


def write_note(path: Path, note: HiveNote | WorkerNote) -> None:
    """Write a note whole or not at all, readable by its owner only. Raises `OSError`."""
    path.parent.mkdir(mode=0o700, exist_ok=True)  # another hive on this RBEE_HOME may just have tidied up
    partial = path.with_suffix(".new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK  # whatever stands in its place is not waited for
    file = os.fdopen(os.open(partial, flags, 0o600), "w")
    try:
        with file:
            file.write(as_text(note))
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _remove(path: Path) -> None:
    """Remove what stands where a note would; a folder that holds something is not ours, and harms nobody."""
    try:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("cannot remove %s: %s", path, error.strerror)


def _not_removed(_function: object, path: str, _why: object) -> None:
    log.warning("cannot remove %s", path)


def read_note(path: Path, kind: type[Note]) -> Note | None:
    """Return a note, None if it is missing or means nothing."""
    try:
        return parse_note(small_files.read(path)[0], kind)
    except OSError:
        return None


def as_text(note: HiveNote | WorkerNote) -> str:
    """Return the note as one line of JSON."""
    return json.dumps(dataclasses.asdict(note))


def parse_note(text: bytes, kind: type[Note]) -> Note | None:
    """Return the note that `as_text` made this text of, None if it means nothing."""
    build: Any = kind
    convert: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(kind)}
    try:
        values: Any = json.loads(text)
        note = build(**{name: convert[name](values[name]) for name in convert})
        return note if all(str(value).isprintable() for value in dataclasses.astuple(note)) else None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def identify(pid: int) -> ProcessId:
    """Return what tells this process from a later one with its number. Raises `ProcessLookupError`."""
    if seen := _see(pid):
        return ProcessId(pid, seen[0])
    raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))


def is_alive(process: ProcessId) -> bool:
    """Return whether that very process runs: no later one with its number, and no zombie."""
    return _state(process) in ("runs", "halted")


def is_halted(process: ProcessId) -> bool:
    """Return whether it is stopped by a signal (Ctrl+Z, SIGSTOP), so that it does nothing until it is continued."""
    return _state(process) == "halted"


def _state(process: ProcessId) -> State:
    seen = _see(process.pid)
    return seen[1] if seen and abs(seen[0] - process.start_time) < _SAME_START_S else "gone"


def _see(pid: int) -> tuple[float, State] | None:
    """Return when a process started and how it is, None if there is none."""
    if sys.platform == "linux":
        try:
            after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        return int(after_name[19]) / os.sysconf("SC_CLK_TCK"), _LINUX_STATES.get(after_name[0], "runs")
    import psutil  # here and below: Linux does without, for the sake of a keeper's start

    try:
        process = psutil.Process(pid)
        return process.create_time(), _PSUTIL_STATES.get(process.status(), "runs")
    except (psutil.Error, ValueError, OverflowError):
        return None


def _tagged(tags: set[str]) -> "Iterator[psutil.Process]":
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # gone, or somebody else's
            if process.environ().get(INSTANCE_VARIABLE) in tags:
                yield process


def _kill(process: "psutil.Process") -> None:
    import psutil

    with contextlib.suppress(psutil.Error):
        process.kill()
