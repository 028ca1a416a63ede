"""Log files: the hive's own, and those that workers write into through an inherited descriptor.

A worker's output never passes through a pipe, so nobody can block on it; the hive bounds the files from outside and
escapes control characters when it reads them.
"""

import contextlib
import logging
import logging.handlers
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from rbee_core.home import Home

_CONTROL = (*range(9), *range(10, 32), *range(0x7F, 0xA0), 0x2028, 0x2029)
# Made now: the codec is imported at its first use, which a process that is short of descriptors cannot do.
_VISIBLE = {code: chr(code).encode("unicode_escape").decode() for code in _CONTROL}
READ_LIMIT = 1 << 20


def escape(text: str) -> str:
    """Return one line of text with its control characters made visible."""
    return text.translate(_VISIBLE)


class EscapingFormatter(logging.Formatter):
    """Formats a record so that no message can forge a line or move a terminal's cursor; tracebacks keep their lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text, each line escaped."""
        return "\n".join(escape(line) for line in super().format(record).split("\n"))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """Return the message as one line."""
        return escape(super().formatMessage(record))


def start_logging(path: Path, limit_bytes: int, *, to_stderr: bool) -> None:
    """Send this process's log to `path`, and to stderr too if asked."""
    formatter = EscapingFormatter("%(asctime)s %(levelname)s %(message)s")
    handlers: list[logging.Handler] = [
        logging.handlers.RotatingFileHandler(path, maxBytes=limit_bytes, backupCount=2, encoding="utf-8", delay=True)
    ]
    if to_stderr:
        handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a log that cannot be written must not write tracebacks to stderr instead


def bound(path: Path, limit_bytes: int) -> None:
    """Keep the last half of an over-long log. Writers append, so that truncation does not confuse them."""
    try:
        size = path.stat().st_size
        if size <= limit_bytes:
            return
        with path.open("r+b") as file:
            file.seek(size - limit_bytes // 2)
            rest = file.read(limit_bytes // 2)
            file.truncate(0)
        with path.open("ab") as file:
            file.write(b"[earlier lines were dropped]\n" + rest.partition(b"\n")[2])
    except OSError as error:
        logging.getLogger(__name__).warning("cannot bound %s: %s", path, error.strerror)


def bound_all(paths: Iterable[Path], limit_bytes: int) -> None:
    """Bound each of these logs."""
    for path in paths:
        bound(path, limit_bytes)


def prune(home: Home, kept: int) -> None:
    """Remove the oldest logs of ended workers beyond `kept`. Another hive may do the same at the same time."""
    live = home.live_workers()
    ages: list[tuple[float, Path]] = []
    for path in home.logs_dir.glob("worker-*.log"):
        with contextlib.suppress(OSError):  # gone, or not ours to judge
            ages += [] if path.stem in live else [(path.stat().st_mtime, path)]
    for _, path in sorted(ages, reverse=True)[kept:]:
        with contextlib.suppress(OSError):
            path.unlink()


def read(path: Path, offset: int) -> tuple[list[str], int]:
    """Return the whole lines from byte `offset` on, escaped, and the offset to continue from."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(offset if offset <= size else 0)
            start = file.tell()
            data = file.read(READ_LIMIT)
    except FileNotFoundError:
        return [], 0
    whole = data.rfind(b"\n") + 1 or (len(data) if len(data) == READ_LIMIT else 0)
    text = data[:whole].decode("utf-8", "replace")
    lines = text.removesuffix("\n").split("\n") if whole else []
    return [escape(line.rstrip("\r")) for line in lines], start + whole


def tail(path: Path, lines: int = 20) -> tuple[str, ...]:
    """Return the last lines, escaped and each of a bearable length."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 64_000))
            data = file.read()
    except OSError:  # gone, or the system is short of something: the end of a process is told without it
        return ()
    last = data.decode("utf-8", "replace").splitlines()[-lines:]
    return tuple(escape(line)[:500] for line in last if line.strip())
