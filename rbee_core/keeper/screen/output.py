"""Where generated text goes: to stdout as it comes, or into memory for --json."""

from io import RawIOBase

from rbee_core.streams import CannotWrite


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
