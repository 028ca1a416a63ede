"""The only way in which tests wait."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
POLL_S = 0.02


def eventually(check: Callable[[], T], within_s: float = 10.0, *, what: str = "") -> T:
    """Return what `check` returns once that counts as true; fail if it does not within `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while not (answer := check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what or getattr(check, '__name__', check)}: {answer!r}")
        time.sleep(POLL_S)
    return answer
