"""Whoever waits at the pool's one door: what it is told meanwhile, and the one answer that it gets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from copy import copy
from typing import Any

from rbee_core.domain.instructions import Waiting
from rbee_core.domain.worker import Reading, Worker
from rbee_core.errors import RbeeError

MOMENT_S = 0.25
"""Who is answered sooner is not told that it waits; who waits is not told more often."""

REMIND_S = 10.0
"""After so long without news the last ones are told again, so that a long wait is not taken for a dead connection."""


class Caller:
    """The holder of one ticket. All methods belong to the event loop's thread.

    `afterwards` is what has to be done before its slot is free, once it has left. `canceled` is set once somebody said
    that nobody wants its request any more. `answered` says that its worker has ended it itself, and `read` is what that
    said of the prompt.
    """

    def __init__(self) -> None:
        self._answer: asyncio.Future[Worker | None] = asyncio.get_running_loop().create_future()
        self._news: Waiting | None = None
        self._moved = asyncio.Event()
        self.holds_slot = self.answered = self.canceled = False
        self.read: Reading | None = None
        self.afterwards: Callable[[], Coroutine[Any, Any, None]] | None = None

    def tell(self, waiting: Waiting) -> None:
        """Say what it waits for now."""
        self._news = waiting
        self._moved.set()

    def answer(self, worker: Worker | None, *, slot: bool = False) -> None:
        """Give it what it asked for; with `slot`, a slot of that worker too."""
        self.holds_slot = slot
        if not self._answer.done():
            self._answer.set_result(worker)
        self._moved.set()

    def refuse(self, error: RbeeError) -> None:
        """Say no. Many may be refused with one error: each raises its own copy."""
        if not self._answer.done():
            self._answer.set_exception(copy(error))
        self._moved.set()

    async def waits(self) -> AsyncIterator[Waiting]:
        """Yield what it waits for, once that takes a moment, and whenever it changes; ends when it is answered."""
        await self._moment()
        while not self._answer.done():
            self._moved.clear()
            if self._news is not None:
                yield self._news
            await self._moment()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REMIND_S):
                    await self._moved.wait()

    async def worker(self) -> Worker:
        """Wait for the worker. Raises what it is refused with."""
        worker = await self._answer
        assert worker is not None
        return worker

    async def allowed(self) -> None:
        """Wait until what needs no worker may begin. Raises what it is refused with."""
        await self._answer

    def close(self) -> None:
        """Want no answer any more."""
        if not self._answer.cancel() and not self._answer.cancelled():
            self._answer.exception()  # nobody may have asked for it

    async def _moment(self) -> None:
        await asyncio.wait([self._answer], timeout=MOMENT_S)
