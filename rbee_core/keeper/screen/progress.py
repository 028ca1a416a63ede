"""How a long transfer looks: a bar on a terminal, a line now and then elsewhere, nothing when asked to be quiet."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rbee_core.keeper.screen.render import Screen
from rbee_core.keeper.screen.show import size_words

LINE_EVERY_S, LINE_GAP_S = 5.0, 0.5

# Takes bytes done and bytes in all.
Show = Callable[[int, int], None]


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


def _nothing(done: int, total: int) -> None:
    """Show nothing."""
    del done, total


class Lines:
    """Writes a line each tenth of the way and every few seconds. `clock` is monotonic, in seconds."""

    def __init__(self, screen: Screen, prefix: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._screen = screen
        self._prefix = prefix
        self._clock = clock
        self._started = self._shown_at = clock()
        self._first: int | None = None
        self._tenths = 0

    def show(self, done: int, total: int) -> None:
        """Write a line if it is time for one."""
        if self._first is None:
            self._first = done
        tenths, now = done * 10 // total if total else 10, self._clock()
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
        task = bar.add_task("")
        yield lambda done, total: bar.update(task, completed=done, total=total)
