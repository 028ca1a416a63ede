"""Where generated text goes: to stdout as it comes, or into memory for --json."""

from typing import BinaryIO


class TextOut:
    """Writes tokens to `stream` as UTF-8, each at once; keeps them too if `keep`. No `stream`: only keeps them."""

    def __init__(self, stream: BinaryIO | None, *, keep: bool = False) -> None:
        self._stream = stream
        self._kept: list[str] | None = [] if keep or stream is None else None
        self._last = ""

    def write(self, text: str) -> None:
        """Write one token. Raises `BrokenPipeError` when nobody reads any more."""
        if not text:
            return
        self._last = text
        if self._kept is not None:
            self._kept.append(text)
        if self._stream is not None:
            # A lone surrogate cannot be written: better a question mark than a lost answer.
            self._stream.write(text.encode("utf-8", "replace"))
            self._stream.flush()

    def finish(self) -> None:
        """End the last line, so that files and terminals are left tidy."""
        if self._stream is not None and self._last and not self._last.endswith("\n"):
            self._stream.write(b"\n")
            self._stream.flush()
            self._last = "\n"

    @property
    def text(self) -> str:
        """What was written, if it was kept."""
        return "".join(self._kept or ())
