"""Drives the real programs as a user does: console scripts, signals, files. Computes no expectation of its own."""

import contextlib
import ctypes
import functools
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from rbee_core import settings
from rbee_core.client import ClientTerms, HiveClient
from rbee_kit import oracle
from rbee_kit.waiting import eventually

SCRIPTS = Path(sysconfig.get_path("scripts"))
PATIENCE_S = 60.0
PR_CAPBSET_DROP = 24
FILE_OVERRIDES = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


@dataclass(frozen=True)
class Result:
    """How a program ended. `duration_s` counts from its start, or from the last signal that it was sent."""

    exit_code: int
    stdout: str
    stderr: str
    duration_s: float

    @property
    def why(self) -> str:
        """The sentence that says why it failed."""
        return sentence(self.stderr)


class Program:
    """One running program. Its output goes to files, so that no pipe can hold anything up."""

    def __init__(self, argv: list[str], environment: Mapping[str, str], folder: Path, stdin: bytes | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.iterdir()))
        self._stdout, self._stderr = folder / f"{number}.stdout", folder / f"{number}.stderr"
        self._since = time.monotonic()
        self._ended: Result | None = None
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self._process = subprocess.Popen(
                argv,
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=out,
                stderr=err,
                preexec_fn=as_ordinary_user,  # noqa: PLW1509  # takes no lock and allocates nothing
            )
        if stdin is not None:
            self._process.communicate(stdin, timeout=PATIENCE_S)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._stdout.read_text(encoding="utf-8", errors="replace")

    @property
    def stderr(self) -> str:
        """What it has said so far."""
        return self._stderr.read_text(encoding="utf-8", errors="replace")

    def running(self) -> bool:
        """Return whether it still runs."""
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process alone."""
        self._since = time.monotonic()
        self._process.send_signal(number)

    def finish(self, timeout_s: float = PATIENCE_S) -> Result:
        """Wait for its end."""
        code = self._process.wait(timeout_s)
        if self._ended is None:
            self._ended = Result(code, self.stdout, self.stderr, time.monotonic() - self._since)
        return self._ended

    def close(self) -> None:
        """Make sure that it is gone and reaped."""
        if self.running():
            self._process.kill()
        self._process.wait()


class Hive:
    """A hive in the foreground of a terminal of its own."""

    def __init__(self, home: "Home", program: Program) -> None:
        self.home = home
        self.program = program

    @property
    def pid(self) -> int:
        """Its process."""
        return self.program.pid

    @property
    def note(self) -> dict[str, Any]:
        """What it says of itself in RBEE_HOME."""
        return self.home.hive_note() or {}

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.note["port"]

    @functools.cached_property
    def client(self) -> HiveClient:
        """A connection to it."""
        return self.connect()

    def connect(self) -> HiveClient:
        """Return another connection, for another thread; closed with the home."""
        in_force = settings.load(self.home.environment)
        return self.home.cleanup.enter_context(HiveClient("127.0.0.1", self.port, ClientTerms.of(in_force)))

    def stop(self) -> Result:
        """Stop it politely."""
        self.program.signal(signal.SIGTERM)
        return self.program.finish()

    def kill(self) -> Result:
        """Kill it."""
        self.program.signal(signal.SIGKILL)
        return self.program.finish()


class Home:
    """An RBEE_HOME of a test, and whoever is started on it."""

    def __init__(self, folder: Path, tag: str) -> None:
        self.folder = folder
        self.path = folder / "rbee-home"
        self.tag = tag
        self.cleanup = contextlib.ExitStack()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RBEE_", "PYTEST_", "PYTHON"))}
        if "PYTHONPATH" in os.environ:  # where a plugin may be that is not installed
            kept["PYTHONPATH"] = os.environ["PYTHONPATH"]
        self._passed: dict[Path, int] = {}
        self.environment = kept | {
            "HOME": str(folder / "user-home"),
            "RBEE_HOME": str(self.path),
            "PYTHONFAULTHANDLER": "1",
            # llama.cpp's threads spin while they wait: with more of them than free cores, a token takes seconds.
            "RBEE_THREADS": "1",
            oracle.TAG_VARIABLE: tag,
        }

    def use_plugins_in(self, folder: Path) -> None:
        """Let programs find plugins in `folder`, before those named earlier."""
        earlier = self.environment.get("PYTHONPATH", "")
        if str(folder) in earlier.split(os.pathsep):
            return
        self.environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), earlier]))

    def start(self, name: str, *arguments: str, stdin: bytes | None = None) -> Program:
        """Start one of the console scripts."""
        return self._start([str(SCRIPTS / name), *arguments], stdin)

    def _start(self, argv: list[str], stdin: bytes | None = None) -> Program:
        program = Program(argv, self.environment, self.folder / "output", stdin)
        self.cleanup.callback(program.close)
        return program

    def python(self, code: str) -> Result:
        """Run a line of Python in a process of its own."""
        return self._start([sys.executable, "-P", "-c", code]).finish()

    def rbee(self, *arguments: str, stdin: bytes | None = None, timeout_s: float = PATIENCE_S) -> Result:
        """Run `rbee` to its end."""
        return self.start("rbee", *arguments, stdin=stdin).finish(timeout_s)

    def start_hive(self, *options: str) -> Hive:
        """Start a hive on a free port and wait until it listens."""
        hive = Hive(self, self.start("rbee-hive", "daemon", "--port", "0", *options))
        eventually(
            lambda: hive.note.get("pid") == hive.pid or not hive.program.running(), PATIENCE_S, what="the hive's note"
        )
        assert hive.program.running(), hive.program.stderr
        return hive

    def hive_note(self) -> dict[str, Any] | None:
        """Return the note of the hive that runs here, None if none does."""
        try:
            return json.loads((self.path / "run" / "hive.json").read_text())
        except (OSError, ValueError):
            return None

    def log(self, name: str) -> str:
        """Return the log of the hive, or of a worker."""
        return (self.path / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def pass_over_logs(self) -> None:
        """Have `worker_logs` begin here: what workers have logged so far was said to others."""
        self._passed = {path: path.stat().st_size for path in self._worker_logs()}

    def worker_logs(self) -> list[str]:
        """Return what each worker has logged, the one that said something last at the end."""
        logs = [(path, path.read_bytes()) for path in self._worker_logs()]
        return [data[self._passed.get(path, 0) :].decode("utf-8", "replace") for path, data in logs]

    def _worker_logs(self) -> list[Path]:
        return sorted((self.path / "logs").glob("worker-*.log"), key=lambda path: path.stat().st_mtime)

    def files(self) -> list[str]:
        """Return every file, relative to RBEE_HOME."""
        return sorted(str(p.relative_to(self.path)) for p in self.path.rglob("*") if not p.is_dir())

    def processes(self) -> list[psutil.Process]:
        """Return what runs on behalf of this home."""
        return oracle.processes(self.tag)

    def close(self) -> None:
        """End everything that was started, in reverse order."""
        self.cleanup.close()


def sentence(stderr: str) -> str:
    """Return the line of a program's output that says what went wrong; without one, the last."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ") or "✗ " in line]
    return next(iter([*said, *lines[-1:]]), "it said nothing")


def as_ordinary_user() -> None:
    """Give up root's power over file permissions, which users do not have; runs between fork and exec."""
    if os.geteuid() == 0 and sys.platform == "linux":
        libc = ctypes.CDLL(None)
        for capability in FILE_OVERRIDES:
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
