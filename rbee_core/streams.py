"""The standard streams of a program, made fit for use whatever its caller did to them.

One that was closed gets its descriptor back, on /dev/null: else the next file that is opened would become stdout, and
a message would be written into the catalog. What is said on stderr is never worth a failure; what is printed on stdout
is the answer, so that a failure to write it is an error with a sentence. What a stream's encoding does not know is
written in other characters.
"""

import codecs
import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import TYPE_CHECKING

from rbee_core.errors import RbeeError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDOUT, STDERR = 1, 2
SPELT = "rbee-spelt"
"""The error handler that spells what an encoding does not know."""
PLAIN = {"✓": "ok", "✗": "x", "→": "->", "…": "...", "—": "-", "·": "-", "�": "?"}


class CannotWrite(RbeeError):
    """Raised when stdout takes no more text, for another reason than that its reader left."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"Cannot write to stdout: {why}", hint="have it go to a terminal, a pipe or a file on a disk with room"
        )


class Answers(FileIO):
    """Stdout: raises `CannotWrite` for whatever it does not take, but `BrokenPipeError` when its reader left."""

    def __init__(self, *, closed: bool) -> None:
        super().__init__(STDOUT, "w", closefd=False)
        self.was_closed = closed

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write some of `data`."""
        if self.was_closed:
            raise CannotWrite("it is closed")
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            raise
        except OSError as error:
            raise CannotWrite(error.strerror or str(error)) from error


class Remarks(FileIO):
    """Stderr: what cannot be written is lost, and nobody fails for it."""

    def __init__(self) -> None:
        super().__init__(STDERR, "w", closefd=False)

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write all of `data`, or let it go."""
        try:
            return super().write(data) or 0
        except OSError:
            return memoryview(data).nbytes


def prepare() -> None:
    """Make `sys.stdout` and `sys.stderr` fit for use. For programs, before they open anything else."""
    codecs.register_error(SPELT, _spell)
    occupy()
    said, told = sys.stdout, sys.stderr  # None for one that was closed
    # Stdin stays None when it was closed: there is nothing to read, and whoever asks says so.
    sys.stdout = sys.__stdout__ = _text(Answers(closed=said is None), said)
    sys.stderr = sys.__stderr__ = _text(Remarks(), told)


def occupy() -> None:
    """Open /dev/null on those of the descriptors 0, 1 and 2 that are closed."""
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > STDERR:
            os.close(fd)
            return
        os.set_inheritable(fd, True)


def let_go() -> None:
    """Say what the streams still hold, so that nothing is lost and Python's own end finds nothing to fail on."""
    if sys.__stderr__ is not None:  # a remark without the end of its line; this one never fails
        sys.__stderr__.flush()
    stdout = sys.__stdout__  # Click may have put something of its own in front of it
    if stdout is None:
        return
    try:
        stdout.flush()
    except (OSError, RbeeError):
        fd = os.open(os.devnull, os.O_WRONLY)
        os.dup2(fd, STDOUT)
        os.close(fd)
        if isinstance(raw := getattr(stdout.buffer, "raw", None), Answers):
            raw.was_closed = False


def raw_stdout() -> FileIO:
    """Return stdout without a buffer. Raises `CannotWrite` if it was closed."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if sys.stdout is None or (isinstance(raw, Answers) and raw.was_closed):  # pyright: ignore[reportUnnecessaryComparison]
        raise CannotWrite("it is closed")
    return raw if isinstance(raw, Answers) else FileIO(sys.stdout.fileno(), "wb", closefd=False)


def _text(raw: FileIO, before: object) -> TextIOWrapper:
    encoding: str = getattr(before, "encoding", None) or "utf-8"
    terminal = raw.isatty()
    return TextIOWrapper(
        BufferedWriter(raw), encoding, SPELT, line_buffering=terminal or raw.fileno() == STDERR, write_through=terminal
    )


def _spell(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unknown = error.object[error.start : error.end]
    spelt = "".join(PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in unknown)
    return spelt, error.end
