"""Makes things ready beside the requests: what takes too long is given up, and goes on to its end behind the others.

Nothing can end native code from outside. So what goes on is counted, waited for or not: while that are `AT_ONCE`,
nobody begins anything new, and whoever wants to waits for one of them to end.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from rbee_core.backend import CancelToken
from rbee_core.errors import InvalidRequest, Overloaded

PATIENCE_S = 5.0
"""How long something may take to be made ready, and how long to wait for its turn."""
AT_ONCE = 2
_LOOK_S = 0.1
_NICENESS = 10  # the texts that are being generated come first

T = TypeVar("T")


class Aside(Generic[T]):
    """Makes things of one kind. `drop` lets go of one that nobody waited for."""

    def __init__(self, drop: Callable[[T], None]) -> None:
        self._drop = drop
        self._turns = threading.BoundedSemaphore(AT_ONCE)
        self._left: list[threading.Thread] = []
        self._change = threading.Lock()

    def make(self, what: str, work: Callable[[], T], cancel: CancelToken) -> T | None:
        """Return what `work` returns, or raise what it raises; None once cancelled. `what` is for a sentence.

        Raises `InvalidRequest` if it takes longer than `PATIENCE_S`, and `Overloaded` if it cannot begin for as long.
        """
        if not self._has_turn(what, cancel):
            return None
        until = time.monotonic() + PATIENCE_S
        making = _Making(work, self._drop, self._turns.release)
        while not making.ended.wait(_LOOK_S):
            if cancel.is_set() or time.monotonic() > until:
                break
        if making.leave():
            return making.result()
        with self._change:
            self._left = [thread for thread in self._left if thread.is_alive()] + [making.thread]
        if cancel.is_set():
            return None
        raise InvalidRequest(f"The {what} took longer than {PATIENCE_S:g} s to be made ready")

    def close(self) -> None:
        """Wait for what was given up: it looks at the model."""
        with self._change:
            left = list(self._left)
        for thread in left:
            thread.join()

    def _has_turn(self, what: str, cancel: CancelToken) -> bool:
        """Take a turn, which ends with what is made in it; whether there is one, which is not so once cancelled."""
        until = time.monotonic() + PATIENCE_S
        while not cancel.is_set():
            if self._turns.acquire(timeout=_LOOK_S):
                return True
            if time.monotonic() > until:
                why = f"{AT_ONCE} are being made already, and none was ready within {PATIENCE_S:g} s"
                raise Overloaded(f"No other {what} can be made ready now: {why}", hint="try again in a moment")
        return False


class _Making(Generic[T]):
    def __init__(self, work: Callable[[], T], drop: Callable[[T], None], at_end: Callable[[], None]) -> None:
        self._work = work
        self._drop = drop
        self._at_end = at_end
        self._made: list[T] = []
        self._error: BaseException | None = None
        self._wanted = True
        self._change = threading.Lock()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, name="aside", daemon=True)
        try:
            self.thread.start()
        except RuntimeError as error:  # the system gives no more threads
            at_end()
            raise Overloaded.by_system(error) from error

    def _run(self) -> None:
        try:
            _step_back()
            made = self._work()
        except BaseException as error:  # noqa: BLE001  # raised again by who waits
            self._error = error
        else:
            with self._change:
                self._made.append(made)
                if not self._wanted:
                    self._drop(made)
        finally:
            self._at_end()
            self.ended.set()

    def leave(self) -> bool:
        """Wait no longer; whether there is a result, which is the caller's now."""
        with self._change:
            self._wanted = False
            return bool(self._made) or self._error is not None

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._made[0]


def _step_back() -> None:
    """Let the other threads of this process go first, where a thread has a priority of its own."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
