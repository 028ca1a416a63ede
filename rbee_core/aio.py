"""The few asyncio tools the rest may use: running a program, sleeping, and calling blocking code off the loop."""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 32
LEAVE_S = 0.5
"""So long the end of a program waits for what its threads are at."""
CHANGE_S = 5.0


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a program as `asyncio.run` does, whose end waits `LEAVE_S` at most for a thread that is stuck.

    A file, a lock or a name server that does not answer holds its thread for as long as it likes, and asyncio would
    wait for that. Covered is whatever is called by `off_loop`, and what the loop itself has threads for.
    """
    with asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(Threads())
        return runner.run(main)


async def sleep(delay_s: float) -> None:
    """Wait `delay_s` seconds of monotonic time."""
    await asyncio.sleep(delay_s)  # noqa: TID251


async def off_loop(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking `function` in a helper thread. Never start a process in it: a child dies with its thread.

    The threads are few and shared by all: for what blocks for a moment. What may take long has a `Lane` of its own.
    """
    return await asyncio.to_thread(function, *args, **kwargs)


async def to_the_end(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do as `off_loop`, for a change that is not to be left half done: a cancellation waits until it has ended.

    It waits for `CHANGE_S`: what takes longer is held up by something that nobody here can end.
    """
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))  # noqa: TID251
    try:
        return await asyncio.shield(work)  # noqa: TID251
    except asyncio.CancelledError:
        await asyncio.wait([work], timeout=CHANGE_S)
        if work.done() and not work.cancelled():
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


class Threads(ThreadPoolExecutor):
    """An executor whose threads are waited for a moment when it is shut down, and then left to the process's end."""

    def __init__(self) -> None:
        super().__init__(max_workers=1)  # it starts no thread of its own
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._ours: list[threading.Thread] = []
        self._idle = 0  # threads that wait for a call
        self._unclaimed = 0  # calls that wait for a thread
        self._change = threading.Lock()
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Have `fn` called by the next free thread."""
        future: Future[T] = Future()

        def call() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:  # noqa: BLE001  # raised again by who waits for it
                    future.set_exception(error)

        with self._change:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self._unclaimed >= self._idle and len(self._ours) < THREADS:
                self._begin()
            self._unclaimed += 1
            self._calls.put(call)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and wait `LEAVE_S` at most for those that run."""
        del cancel_futures  # those that wait for a thread are run as long as there is time
        with self._change:
            self._closed = True
            for _ in self._ours:
                self._calls.put(None)
        until = time.monotonic() + (LEAVE_S if wait else 0.0)
        for thread in self._ours:
            thread.join(max(0.0, until - time.monotonic()))

    def _begin(self) -> None:
        thread = threading.Thread(target=self._work, name=f"off-loop-{len(self._ours)}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._ours:  # the system gives no more threads: else one of those there are will come to it
                raise
        else:
            self._ours.append(thread)
            self._idle += 1

    def _work(self) -> None:
        while call := self._calls.get():
            with self._change:
                self._idle -= 1
                self._unclaimed -= 1
            call()
            del call  # it would keep what it was called with until the next one
            with self._change:
                self._idle += 1
