"""The few asyncio tools the rest may use: sleeping, and calling blocking code off the loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def sleep(delay_s: float) -> None:
    """Wait `delay_s` seconds of monotonic time."""
    await asyncio.sleep(delay_s)  # noqa: TID251


async def off_loop(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking `function` in a helper thread. Never start a process in it: a child dies with its thread.

    The threads are few and shared by all: for what blocks for a moment. What may take long has `Threads` of its own.
    """
    return await asyncio.to_thread(function, *args, **kwargs)


class Threads:
    """Helper threads for one kind of slow work, `count` at the most: what waits for one keeps nobody else waiting."""

    def __init__(self, name: str, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking `function`, as soon as a thread is free."""
        call = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)
