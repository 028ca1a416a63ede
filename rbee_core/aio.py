"""The few asyncio tools the rest may use: sleeping, and calling blocking code off the loop."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def sleep(delay_s: float) -> None:
    """Wait `delay_s` seconds of monotonic time."""
    await asyncio.sleep(delay_s)  # noqa: TID251


async def off_loop(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking `function` in a helper thread. Never start a process in it: a child dies with its thread."""
    return await asyncio.to_thread(function, *args, **kwargs)
