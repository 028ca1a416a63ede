"""Starting a hive process and hearing that it listens. Used for both kinds of hive, imports nothing slow."""

import os
import selectors
import subprocess
import sys
import time
from typing import IO

from rbee_core.errors import InvalidRequest, RbeeError, RemoteError
from rbee_core.home import HiveNote, Home, parse_note
from rbee_core.settings import Settings
from rbee_core.titles import named

KILL_PATIENCE_S = 5.0
LINE_LIMIT_BYTES = 1 << 16


def launch(*options: str, lifeline: bool) -> subprocess.Popen[bytes]:
    """Start `rbee-hive daemon` in a session of its own, so that Ctrl+C reaches only the keeper.

    With a `lifeline`, the hive stops by itself as soon as its stdin is closed, however the keeper ended.
    """
    return subprocess.Popen(
        [sys.executable, "-P", *named("rbee-hive"), "-m", "rbee_core.hive", "daemon", *options],
        stdin=subprocess.PIPE if lifeline else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def await_ready(process: subprocess.Popen[bytes], settings: Settings) -> HiveNote:
    """Return the note that a hive prints when it listens.

    Raises the hive's own error if it prints that instead.
    """
    assert process.stdout is not None
    line = _read_line(process.stdout, settings.worker_start_timeout_s)
    if note := parse_note(line, HiveNote):
        return note
    from rbee_core import wire  # only a hive that did not start is worth the import

    try:
        said = wire.decode(line, wire.ErrorBody)
    except InvalidRequest:
        raise _silent(process, settings) from None
    raise RemoteError.of(said.error)


def _read_line(pipe: IO[bytes], patience_s: float) -> bytes:
    deadline = time.monotonic() + patience_s
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while not line.endswith(b"\n") and len(line) < LINE_LIMIT_BYTES:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                break
            # Not pipe.readline: it would wait past the deadline for the rest of a line.
            chunk = os.read(pipe.fileno(), 4096)
            if not chunk:
                break
            line += chunk
    return line


def _silent(process: subprocess.Popen[bytes], settings: Settings) -> RbeeError:
    try:
        code = process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        what = f"The hive did not start within {settings.worker_start_timeout_s:g} s"
    else:
        what = f"The hive ended while it started ({exit_words(code)})"
    return RbeeError(what, hint=f"look at {Home(settings.home).hive_log}, or run `rbee-hive daemon` to see it")


def exit_words(code: int) -> str:
    """Say how a process ended."""
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def end(process: subprocess.Popen[bytes], patience_s: float) -> None:
    """Wait for a hive that was told to stop; then SIGTERM, then SIGKILL, each bounded. Its workers die with it."""
    for force, bound_s in ((None, patience_s), (process.terminate, KILL_PATIENCE_S), (process.kill, KILL_PATIENCE_S)):
        if force is not None:
            force()
        try:
            process.wait(timeout=bound_s)
        except subprocess.TimeoutExpired:
            continue
        return
