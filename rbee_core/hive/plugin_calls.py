"""Calling plugins from the hive: never on the event loop, each call with a deadline, what comes back checked.

Owns the threads that a stranger's code and the drivers below it run in. One that hangs fails the request that needed
it, by name; everybody else goes on.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from rbee_core import aio
from rbee_core.backend import Backend, Device, Estimate, LoadOptions, LocalModel, StopPolicy
from rbee_core.backend.choice import Candidate, ask, too_late
from rbee_core.backend.manager import PluginHost
from rbee_core.errors import PluginFailed, PluginTimeout, RbeeError
from rbee_core.hive.processes.stop import bounded

T = TypeVar("T")

CALLS_AT_A_TIME = 4
"""Of one backend; a driver that hangs can take no more threads than that."""

STOP_POLICY_S = 1.0

log = logging.getLogger(__name__)


class PluginCalls:
    """Everything that the hive asks of plugins' code. All methods belong to the event loop's thread."""

    def __init__(self, plugins: PluginHost, limit_s: float) -> None:
        self._plugins = plugins
        self._limit_s = limit_s
        self._lanes: defaultdict[str, aio.Lane] = defaultdict(lambda: aio.Lane("plugin", CALLS_AT_A_TIME))
        self._listeners: defaultdict[str, aio.Lane] = defaultdict(lambda: aio.Lane("plugin-hook", 1))

    async def ask(self, backends: Sequence[Backend]) -> list[Candidate]:
        """Ask all of `backends` at once what they can do here; in their order. Never raises: see `Candidate.late`."""
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(self._ask(backend)) for backend in backends]
        return [task.result() for task in asked]

    async def _ask(self, backend: Backend) -> Candidate:
        try:
            return await self._call(backend, "availability and devices", self._limit_s, ask, backend)
        except PluginTimeout as late:
            log.warning("%s", late)
            return too_late(backend, late)

    async def estimate(self, backend: Backend, model: LocalModel, options: LoadOptions) -> Estimate:
        """Return what `model` will need. Raises `ModelLoadFailed`, `PluginFailed`, `PluginTimeout`."""
        return await self._call(backend, "estimate", self._limit_s, _estimate, backend, model, options)

    async def environment(self, backend: Backend, device: Device) -> Mapping[str, str]:
        """Return the variables of a worker on `device`. Raises `PluginFailed`, `PluginTimeout`."""
        return await self._call(backend, "environment", self._limit_s, _environment, backend, device)

    async def stop_policy(self, backend: Backend, recommended: StopPolicy) -> StopPolicy:
        """Return the backend's stop policy within the recommended time, or that one if it has none. Never raises."""
        try:
            return await self._call(backend, "stop policy", STOP_POLICY_S, _stop_policy, backend, recommended)
        except RbeeError as error:
            log.warning("the recommended stop policy holds: %s", error)
            return recommended

    async def tell(self, hook: str, **arguments: Any) -> None:
        """Call every plugin's `hook`, such as ``rbee_worker_ready``. Never raises.

        One plugin hears what is told in the order in which it is told. One that raises or takes too long is dropped.
        """
        async with asyncio.TaskGroup() as tasks:
            for plugin, listener in self._plugins.listeners(hook):
                tasks.create_task(self._tell(hook, plugin, listener, arguments))

    async def _tell(self, hook: str, plugin: str, listener: Callable[..., object], arguments: dict[str, Any]) -> None:
        try:
            await self._listeners[plugin].call(self._limit_s, _guarded, f"hook of plugin {plugin}", listener, arguments)
        except aio.DeadlinePassed:
            self._plugins.drop(plugin, TimeoutError(f"its hook did not return within {self._limit_s:g} s"))
        except RbeeError as error:  # its own kind of failure, or one of ours that it raised
            self._plugins.drop(plugin, error.__cause__ or error)
        except RuntimeError as error:  # the system gives no more threads
            log.warning("plugin %s was not told of %s: %s", plugin, hook, error)

    async def _call(self, backend: Backend, what: str, limit_s: float, function: Callable[..., T], *args: Any) -> T:
        try:
            return await self._lanes[backend.name].call(
                limit_s, _guarded, f"{what} of {backend.name}", function, {}, *args
            )
        except aio.DeadlinePassed:
            raise PluginTimeout(plugin=backend.name, what=what, waited_s=limit_s) from None


def _guarded(what: str, function: Callable[..., T], named: dict[str, Any], *args: Any) -> T:
    """Call `function`; whatever it raises that is no error of ours becomes `PluginFailed`."""
    try:
        return function(*args, **named)
    except RbeeError:
        raise
    except BaseException as error:  # it may leave, or end a generator: nothing of that is for our loop
        log.exception("%s failed", what)
        raise PluginFailed(what=what, error=error) from error


def _estimate(backend: Backend, model: LocalModel, options: LoadOptions) -> Estimate:
    found = cast("object", backend.estimate(model, options))
    if not isinstance(found, Estimate):
        raise TypeError(f"it returned {found!r}")
    if not 0 <= found.mapped_bytes <= found.total_bytes:
        raise ValueError(f"{found.mapped_bytes} mapped bytes of {found.total_bytes}")
    return found


def _environment(backend: Backend, device: Device) -> Mapping[str, str]:
    found: dict[Any, Any] = dict(backend.environment(device))
    if wrong := [k for k, v in found.items() if not (isinstance(k, str) and isinstance(v, str))]:
        raise TypeError(f"{wrong[0]!r} or its value is no text")
    return found


def _stop_policy(backend: Backend, recommended: StopPolicy) -> StopPolicy:
    return bounded(backend.stop_policy(recommended), recommended)
