"""The few asyncio tools the rest may use: sleeping, and calling blocking code off the loop."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")


async def sleep(delay_s: float) -> None:
    """Wait `delay_s` seconds of monotonic time."""
    await asyncio.sleep(delay_s)  # noqa: TID251


async def off_loop(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking `function` in a helper thread. Never start a process in it: a child dies with its thread.

    The threads are few and shared by all: for what blocks for a moment. What may take long has a `Lane` of its own.
    """
    return await asyncio.to_thread(function, *args, **kwargs)


async def to_the_end(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do as `off_loop`, for a change that is not to be left half done: a cancellation waits until it has ended."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))  # noqa: TID251
    try:
        return await asyncio.shield(work)  # noqa: TID251
    except asyncio.CancelledError:
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # nobody is left to hear of it
        raise


class DeadlinePassed(Exception):
    """Raised when a call in a `Lane` did not end in time."""


class Lane:
    """Runs blocking calls that may take long or hang, at most `width` at a time, each with a deadline.

    The threads are the lane's own and nothing waits for them: one that hangs holds up neither the default executor nor
    the end of the program. It keeps its place in the lane until it returns, so a lane full of hanging calls lets each
    further one wait for its deadline, and no thread is added. All methods belong to the event loop's thread.
    """

    def __init__(self, name: str, width: int) -> None:
        self._name = name
        self._places = asyncio.Semaphore(width)

    async def call(self, limit_s: float | None, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `function` returns, or raise what it raises; `DeadlinePassed` after `limit_s` seconds.

        None is for a function that bounds each of its own waits and ends when it is told to.
        Never start a process in it: a child dies with its thread.
        """
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[tuple[T | None, BaseException | None]] = loop.create_future()

        def work() -> None:
            try:
                ended: tuple[T | None, BaseException | None] = (function(*args, **kwargs), None)
            except BaseException as error:  # noqa: BLE001  # raised again by the caller
                ended = (None, error)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._end, outcome, ended)

        try:
            async with asyncio.timeout(limit_s):
                await self._places.acquire()
                self._start(work)
                value, error = await outcome
        except TimeoutError:
            raise DeadlinePassed from None
        if error is not None:
            raise error
        return cast("T", value)

    def _start(self, work: Callable[[], None]) -> None:
        try:
            threading.Thread(target=work, name=self._name, daemon=True).start()
        except RuntimeError:  # the system gives no more threads
            self._places.release()
            raise

    def _end(self, outcome: "asyncio.Future[T]", ended: T) -> None:
        self._places.release()
        if not outcome.done():
            outcome.set_result(ended)
