"""How progress looks to a person: lines on stderr, so that stdout holds nothing but the generated text."""

import os
import sys
from collections.abc import Mapping
from typing import TextIO

from rbee_core.errors import RbeeError, shorten

GREEN, RED, DIM, PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[0m"
# Dots come with every poll at first; later only every so often, or a slow load would fill the screen.
EAGER_DOTS, LATER_DOT_EVERY, FRACTION_STEP = 10, 8, 0.1


def wants_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether `stream` is a terminal whose owner did not ask for plain text (https://no-color.org)."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


class Screen:
    """Writes progress lines. A silent screen writes nothing but failures; a mute one not even those."""

    def __init__(self, stream: TextIO, *, colour: bool = False, silent: bool = False, mute: bool = False) -> None:
        self._stream = stream
        self._colour = colour
        self._silent = silent or mute
        self._mute = mute
        self._open = False
        self._dots = 0
        self._shown = 0.0
        self._tenths = 0

    @property
    def silent(self) -> bool:
        """Whether progress is not wanted."""
        return self._silent

    @property
    def stream(self) -> TextIO:
        """Where it is written."""
        return self._stream

    @property
    def is_terminal(self) -> bool:
        """Whether somebody watches, and lines can be written over."""
        return self._stream.isatty() and os.environ.get("TERM") != "dumb"

    def line(self, text: str) -> None:
        """Write one line of progress."""
        if not self._silent:
            self._write(f"{self._paint(text)}\n")

    def start(self, text: str) -> None:
        """Write the beginning of a line that `tick` and `end` continue."""
        if not self._silent:
            self._open, self._dots, self._shown, self._tenths = True, 0, 0.0, 0
            self._write(text)

    def tick(self, fraction: float = 0.0) -> None:
        """Show that something is still awaited; when that takes long, also which `fraction` is done."""
        self._dots += 1
        if not self._open:
            return
        if self._dots <= EAGER_DOTS or self._dots % LATER_DOT_EVERY == 0:
            self._write(".")
        if self._dots > EAGER_DOTS and fraction >= self._shown + FRACTION_STEP:
            self._shown = fraction
            self._write(f"{fraction:.0%}")

    def fraction(self, text: str, share: float) -> None:
        """Show each tenth of the way on a line that begins with `text`; `end` ends it."""
        if not self._open:
            self.start(text)
        tenths = int(share * 10)
        if self._open and tenths > self._tenths:
            self._tenths = tenths
            self._write(f" {tenths * 10}%")

    def end(self, text: str) -> None:
        """Finish the line that `start` began."""
        if self._open:
            self._open = False
            self._write(f"{self._paint(text)}\n")

    def failure(self, where: str, error: RbeeError, log_path: str) -> None:
        """Write what went wrong and in which phase, what to do, and where to read more."""
        if self._mute:
            return
        self.end("")
        self._write(self._paint(f"{where}✗ {error.message}\n" if where else f"error: {error.message}\n"))
        if error.hint:
            self._write(f"hint: {error.hint}\n")
        if log_path:
            self._write(f"log: {shorten(log_path, 4096)}\n")

    def _paint(self, text: str) -> str:
        if not self._colour:
            return text
        return text.replace("✓", f"{GREEN}✓{PLAIN}").replace("✗", f"{RED}✗{PLAIN}")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def screen_for(*, json: bool, quiet: bool) -> Screen:
    """Return the screen for `rbee infer`: with --json, errors too are part of the object on stdout."""
    return Screen(sys.stderr, colour=wants_colour(sys.stderr, os.environ), silent=quiet, mute=json)
