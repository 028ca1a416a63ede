"""What a hive is told from outside: by signals, by a route, by the end of whoever it belongs to."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

from rbee_core.errors import RbeeError

log = logging.getLogger("rbee.hive")


class Unwanted(Exception):
    """Raised when a hive is told to stop while it is still being built."""


class Orders:
    """What a hive is told from outside, also while it is still being built. For the event loop's thread."""

    def __init__(self, told: Callable[[], None] = lambda: None) -> None:
        """Call `told` when it is told to stop for the first time."""
        self.stop_wanted, self.force = asyncio.Event(), asyncio.Event()
        self._reload_wanted = asyncio.Event()
        self._told = told
        self._building: asyncio.Timeout | None = None

    @asynccontextmanager
    async def heeded(self) -> AsyncGenerator[None]:
        """Leave the block with `Unwanted`, whatever it waits for, as soon as the hive is to stop."""
        try:
            async with asyncio.timeout(0 if self.stop_wanted.is_set() else None) as self._building:
                yield
        except TimeoutError:
            if self._building is None or not self._building.expired():
                raise
            raise Unwanted from None
        finally:
            self._building = None

    def reload(self) -> None:
        """Have it take its settings again, once it is built."""
        self._reload_wanted.set()

    async def reloading(self, reload: Callable[[], Awaitable[object]]) -> None:
        """Call `reload` whenever that is wanted; what is wrong with the settings is in the log then."""
        while await self._reload_wanted.wait():
            self._reload_wanted.clear()
            try:
                await reload()
            except RbeeError:
                pass
            except Exception:
                log.exception("taking the settings again failed")

    def stop(self) -> None:
        """Have it stop politely; one that is still being built is given up."""
        if not self.stop_wanted.is_set():
            self.stop_wanted.set()
            self._told()
        if self._building is not None and not self._building.expired():
            self._building.reschedule(asyncio.get_running_loop().time())

    def stop_now(self) -> None:
        """Have it stop at once, whatever it does."""
        self.force.set()
        self.stop()


@contextmanager
def signals(orders: Orders) -> Generator[None]:
    """Stop politely at the first signal, at once at the second.

    SIGHUP says that the terminal is gone, where there is one; a hive without takes its settings again, as daemons do.
    One that belongs to a keeper ignores it (see `main`).
    """
    loop = asyncio.get_running_loop()

    def caught(number: signal.Signals) -> None:
        again = orders.stop_wanted.is_set()
        log.info("got %s%s", number.name, ", stopping now" if again else "")
        (orders.stop_now if again else orders.stop)()

    stops = (signal.SIGTERM, signal.SIGINT)
    actions: dict[signal.Signals, Callable[[], None]] = {number: partial(caught, number) for number in stops}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        actions[signal.SIGHUP] = partial(caught, signal.SIGHUP) if _has_terminal() else orders.reload
    for number, action in actions.items():
        loop.add_signal_handler(number, action)
    try:
        yield
    finally:
        for number in actions:
            loop.remove_signal_handler(number)


def _has_terminal() -> bool:
    """Whether this process has a terminal whose end it would be told of."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


@contextmanager
def lifeline(orders: Orders) -> Generator[None]:
    """Stop when the process at the other end of stdin is gone."""
    loop, fd = asyncio.get_running_loop(), sys.stdin.fileno()

    def readable() -> None:
        if not os.read(fd, 4096):
            loop.remove_reader(fd)
            orders.stop()

    loop.add_reader(fd, readable)
    try:
        yield
    finally:
        loop.remove_reader(fd)
