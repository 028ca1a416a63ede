"""One request in a slot: the engine's thread produces, the handler of its HTTP consumes.

Owns what lies between the two threads: the events that wait, the deadline, the end.
"""

import asyncio
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from rbee_core import wire
from rbee_core.backend import Engine
from rbee_core.errors import DeadlineExceeded, PluginFailed, RbeeError, RequestCanceled

TOGETHER_S = 0.04
MANY_STREAMS = 4
"""From so many on, they send half as often: each has its tokens more rarely too."""

log = logging.getLogger(__name__)

Task = wire.WorkerTask | wire.CountTask | wire.EmbedTask | wire.RerankTask


def next_beat(now_s: float, streams: int) -> float:
    """Return when streams send next: all of them at the same moments, so that three processes wake once for all."""
    every_s = TOGETHER_S * (1 if streams < MANY_STREAMS else 2)
    return (now_s // every_s + 1) * every_s


class Job(ABC):
    """One request in a slot: the engine thread produces, the HTTP handler consumes.

    A token that comes after a pause goes out at once. Those that follow closely go out together, at the next beat: on a
    machine whose cores all compute, waking three processes for every token would cost a tenth of the speed. `streams`
    says how many such requests there are. What waits is bounded by the context: an engine yields no more tokens than
    fit into it.
    """

    def __init__(self, request: Task, loop: asyncio.AbstractEventLoop, streams: Callable[[], int] = lambda: 1) -> None:
        self._streams = streams
        self.request = request
        self.cancel = threading.Event()
        self._why: RbeeError = RequestCanceled()
        self._loop = loop
        self._events: deque[Any] = deque()
        self._reader_waits = False
        self._moved = asyncio.Event()
        self._ended = False
        self._started = self._prompt_told_at = time.monotonic()

    @property
    def over(self) -> bool:
        """Whether all of its events were taken, the terminal one too."""
        return self._ended and not self._events

    def stop(self, why: RbeeError) -> None:
        """End the request; its stream ends with `why` as its terminal event."""
        if not self.cancel.is_set():
            self._why = why
            self.cancel.set()

    async def batches(self) -> AsyncGenerator[list[Any]]:
        """Yield its events, a few at a time; the last of all is the terminal one: a `DoneEvent` or an error body.

        Closing this iterator, or cancelling it, ends the request.
        """
        timeout_s = self.request.timeout_s
        deadline = None if timeout_s is None else self._loop.time() + timeout_s
        try:
            while not self._ended:
                await self._wait(deadline)
                yield self._take()
                await self._pause()
            if self._events:
                yield self._take()
        except TimeoutError:
            passed = DeadlineExceeded(f"The request's deadline of {timeout_s:g} s passed")
            yield self._take() if self._ended else [*self._take(), passed.body()]
            self.stop(passed)
            await self._over()
        finally:
            self.stop(RequestCanceled())

    async def _wait(self, deadline: float | None) -> None:
        """Wait until there is an event. Raises `TimeoutError` at the deadline."""
        if deadline is not None and self._loop.time() >= deadline:
            raise TimeoutError
        # In this order, as the engine thread first adds an event and then looks whether somebody waits.
        self._reader_waits = True
        while not self._events:
            self._moved.clear()
            async with asyncio.timeout_at(deadline):
                await self._moved.wait()
        self._reader_waits = False

    async def _over(self) -> None:
        """Wait until the slot is free: a stream that has ended says so."""
        while not self._ended:
            self._moved.clear()
            await self._moved.wait()

    async def _pause(self) -> None:
        """Give the engine time for more events, but none after the last."""
        self._moved.clear()
        if not self._ended:
            timer = self._loop.call_at(next_beat(self._loop.time(), self._streams()), self._moved.set)
            await self._moved.wait()
            timer.cancel()

    def _take(self) -> list[Any]:
        return [self._events.popleft() for _ in range(len(self._events))]

    def run(self, engine: Engine) -> Any:
        """Send what comes, in the engine thread; return the terminal event, for `finish`."""
        try:
            return self._produce(engine)
        except RbeeError as error:
            return error.body()
        except BaseException as error:  # a panic of Rust, say: who reads would wait for ever
            log.exception("the engine failed in request %s", self.request.request_id)
            return PluginFailed(what="engine", error=error).body()

    def finish(self, event: Any) -> None:
        """Send the terminal event. Who reads it may ask again at once: the slot must be free by then."""
        self._events.append(event)
        self._ended = True
        self._moved.set()

    def _send(self, event: Any) -> None:
        self._events.append(event)
        if self._reader_waits:
            self._loop.call_soon_threadsafe(self._moved.set)

    @abstractmethod
    def _produce(self, engine: Engine) -> wire.DoneEvent:
        """Send what the engine yields, in its thread; return how that ended, or raise why it did not."""

    def _elapsed_ms(self) -> int:
        return round((time.monotonic() - self._started) * 1000)


def close(events: Iterator[Any]) -> None:
    """Let a generator run its cleanup now rather than when it is collected."""
    if end := getattr(events, "close", None):
        end()
