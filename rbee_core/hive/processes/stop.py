"""Stopping a worker so that it cannot fail: asked, told, killed, all within the grace time, whatever a plugin says."""

import asyncio
from collections.abc import Awaitable, Callable

from rbee_core.backend import StopPolicy
from rbee_core.hive.processes.child import Child

# How the grace time is spent: on requests that run, then on a worker that was asked, then on one that was told.
DRAIN_SHARE, ASK_SHARE, TERMINATE_SHARE = 0.3, 0.5, 0.2
AT_ONCE = StopPolicy(ask_s=0.0, terminate_s=0.0)

# Asks the worker to stop, taking no longer than the seconds it is given.
Ask = Callable[[float], Awaitable[None]]

# Asks a plugin for its policy; gets the usual one.
Choose = Callable[[StopPolicy], Awaitable[StopPolicy]]


def recommended(grace_s: float) -> StopPolicy:
    """Return how patient to be with one worker where the hive has `grace_s` seconds for its whole end."""
    return StopPolicy(ask_s=grace_s * ASK_SHARE, terminate_s=grace_s * TERMINATE_SHARE)


def bounded(policy: object, usual: StopPolicy) -> StopPolicy:
    """Return a plugin's `policy`, shortened to what `usual` takes in all. Raises `ValueError` for what is none."""
    if not isinstance(policy, StopPolicy):
        raise ValueError(f"{policy!r} is no StopPolicy")  # noqa: TRY004  # one error for all that is wrong with it
    times = (policy.ask_s, policy.terminate_s)
    if not all(isinstance(s, int | float) and s >= 0 for s in times):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"{policy!r} must have seconds, 0 or more")  # NaN is not either
    limit_s = usual.ask_s + usual.terminate_s
    ask_s, terminate_s = (min(s, limit_s) for s in times)
    factor = limit_s / max(limit_s, ask_s + terminate_s, 1e-9)
    return StopPolicy(ask_s=ask_s * factor, terminate_s=terminate_s * factor)


async def stop(child: Child, usual: StopPolicy, choose: Choose | None, ask: Ask | None) -> None:
    """End `child`'s group and reap it, in the time that `usual` takes in all: choosing and asking are a part of it.

    Whatever is raised meanwhile, and if it is cancelled, the group is killed at once.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        policy = usual if choose is None else await _chosen(usual, choose)
        if ask is not None:
            await ask(max(0.0, began + policy.ask_s - loop.time()))
        left_s = max(0.0, began + policy.ask_s - loop.time())
        await child.end(left_s if ask else 0.0, policy.terminate_s)
    finally:
        child.kill()


async def _chosen(usual: StopPolicy, choose: Choose) -> StopPolicy:
    try:
        async with asyncio.timeout(usual.ask_s / 2):
            return await choose(usual)
    except TimeoutError:
        return usual
