"""Ctrl+C and SIGTERM: the first asks the command to end in good order, the second ends it at once."""

import os
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from rbee_core.edge import Interrupted
from rbee_core.errors import DeadlineExceeded

# How long after the deadline the keeper itself gives up: the worker, which knows more, is to speak first.
DEADLINE_SLACK_S = 0.25


class Interrupts:
    """What a signal does while a command runs. `at_once` is called before the process leaves on a second one."""

    def __init__(self) -> None:
        self.at_once: Callable[[], None] = lambda: None
        self._seen = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raise `Interrupted`, or leave."""
        del frame
        if self._seen:
            self.at_once()
            os._exit(128 + number)
        self._seen = True
        raise Interrupted(number)


@contextmanager
def interrupts() -> Generator[Interrupts]:
    """Turn SIGINT and SIGTERM into `Interrupted` inside the block."""
    state = Interrupts()
    before = [(number, signal.signal(number, state.handle)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield state
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def deadline_passed(timeout_s: float) -> DeadlineExceeded:
    """Return the error of a command that took longer than it was given."""
    return DeadlineExceeded(f"The deadline of {timeout_s:g} s has passed", hint="give a larger --timeout")


def disarm() -> None:
    """See to it that no deadline raises any more: it has passed, and what has to be ended is being ended."""
    signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def deadline(timeout_s: float | None, started: float | None = None) -> Generator[None]:
    """Raise `DeadlineExceeded` in the block, wherever it waits, once `timeout_s` has passed since `started`.

    `started` is in seconds of the monotonic clock; without it, the time begins now.
    """
    if timeout_s is None:
        yield
        return

    def expire(number: int, frame: FrameType | None) -> NoReturn:
        del number, frame
        raise deadline_passed(timeout_s)

    before = signal.signal(signal.SIGALRM, expire)
    spent_s = 0.0 if started is None else time.monotonic() - started
    left_s = timeout_s + DEADLINE_SLACK_S - spent_s
    signal.setitimer(signal.ITIMER_REAL, max(left_s, 0.001))
    try:
        yield
    finally:
        disarm()
        signal.signal(signal.SIGALRM, before)
