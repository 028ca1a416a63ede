"""How a long transfer looks: a bar on a terminal, a line now and then elsewhere, nothing when asked to be quiet."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol

from rbee_core.keeper.screen.render import Screen
from rbee_core.keeper.screen.show import size_words

LINE_EVERY_S, LINE_GAP_S = 5.0, 0.5


class Show(Protocol):
    """Takes bytes done and in all, those of the first that came now, and what keeps more from coming.

    Without `fetched` all of `done` but what the first call says came now.
    """

    def __call__(self, done: int, total: int, fetched: int | None = None, trouble: str = "") -> None:
        """Show it."""
        ...


@contextmanager
def showing(screen: Screen, prefix: str) -> Generator[Show]:
    """Yield what shows progress, each line beginning with `prefix`."""
    if screen.silent:
        yield _nothing
    elif screen.is_terminal:
        with _bar(screen, prefix) as show:
            yield show
    else:
        yield Lines(screen, prefix).show


def _nothing(done: int, total: int, fetched: int | None = None, trouble: str = "") -> None:
    """Show nothing."""
    del done, total, fetched, trouble


class Lines:
    """Writes a line each tenth of the way and every few seconds. `clock` is monotonic, in seconds."""

    def __init__(self, screen: Screen, prefix: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._screen = screen
        self._prefix = prefix
        self._clock = clock
        self._started = self._shown_at = clock()
        self._first: int | None = None
        self._tenths = 0
        self._trouble = ""

    def show(self, done: int, total: int, fetched: int | None = None, trouble: str = "") -> None:
        """Write a line if it is time for one, and whenever there is other trouble."""
        tenths, now = done * 10 // total if total else 10, self._clock()
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble:
                self._screen.line(f"{self._prefix}{trouble}")
        if self._first is None or fetched == 0:  # what is read again from the disk says nothing of the line
            self._first, self._started = done, now
        if now - self._shown_at < (LINE_GAP_S if tenths > self._tenths else LINE_EVERY_S):
            return
        self._tenths, self._shown_at = tenths, now
        speed = (done - self._first) / (now - self._started) if now > self._started else 0.0
        share = done / total if total else 1.0
        pace = f", {size_words(round(speed))}/s, {time_words((total - done) / speed)} left" if speed else ""
        self._screen.line(f"{self._prefix}{size_words(done)} of {size_words(total)} ({share:.0%}){pace}")


def time_words(seconds: float) -> str:
    """Return a duration for people: `0.7 s`, `70 s`, `3:05 min`, `2:10 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 6000:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"


@contextmanager
def _bar(screen: Screen, prefix: str) -> Generator[Show]:
    from rich import progress as rich  # 60 ms that only a transfer on a terminal should cost
    from rich.console import Console

    columns = (
        rich.TextColumn(prefix.rstrip(), markup=False),
        rich.BarColumn(),
        rich.TaskProgressColumn(),
        rich.DownloadColumn(),
        rich.TransferSpeedColumn(),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=Console(file=screen.stream), transient=True) as bar:
        task, came = bar.add_task(""), False

        def show(done: int, total: int, fetched: int | None = None, trouble: str = "") -> None:
            nonlocal came
            if not came:  # what is read again from the disk says nothing of the line
                bar.reset(task, completed=done, total=total)
                came = fetched != 0
            bar.update(task, completed=done, total=total)
            if trouble != bar.tasks[0].description:
                bar.update(task, description=trouble)
                if trouble:
                    bar.console.print(f"{prefix}{trouble}", markup=False, highlight=False)

        yield show
