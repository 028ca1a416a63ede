"""Where generated text goes: to stdout as it comes, or into memory for --json."""

import sys
from io import FileIO, RawIOBase

from rbee_core.errors import RbeeError


class CannotWrite(RbeeError):
    """Raised when stdout takes no more text, for another reason than that its reader left."""

    def __init__(self, why: str) -> None:
        super().__init__(f"Cannot write to stdout: {why}", hint="free some space, or send the output elsewhere")


def raw_stdout() -> RawIOBase:
    """Return stdout without a buffer, which would be flushed, and could fail, once more when Python exits."""
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]  # it is when the shell closed it
        raise CannotWrite("it is closed")
    return FileIO(sys.stdout.fileno(), "wb", closefd=False)


class TextOut:
    """Writes text to `stream` as UTF-8, at once. Without a `stream` it keeps them instead."""

    def __init__(self, stream: RawIOBase | None) -> None:
        self._stream = stream
        self._kept: list[str] = []
        self._last = ""

    def write(self, text: str) -> None:
        """Write a piece. Raises `BrokenPipeError` when nobody reads any more, `CannotWrite` on other failures."""
        if not text:
            return
        self._last = text
        if self._stream is None:
            self._kept.append(text)
        else:
            # A lone surrogate cannot be written: better a question mark than a lost answer.
            write_all(self._stream, text.encode("utf-8", "replace"))

    def finish(self) -> None:
        """End the last line, so that files and terminals are left tidy."""
        if self._stream is not None and self._last and not self._last.endswith("\n"):
            self._last = "\n"
            write_all(self._stream, b"\n")

    @property
    def text(self) -> str:
        """What was kept."""
        return "".join(self._kept)


def write_all(stream: RawIOBase, data: bytes) -> None:
    """Write all of `data`, however little the system takes at a time."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[stream.write(rest) or 0 :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CannotWrite(error.strerror or str(error)) from error
