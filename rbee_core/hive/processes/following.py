"""Follows workers' processes: starts them, hears how they load, whether they live, and how they end.

Says what happens as events of the pool. It decides nothing about workers; each of its methods is one instruction.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from rbee_core import aio, wire
from rbee_core.backend import Backend, StopPolicy
from rbee_core.backend.manager import PluginHost
from rbee_core.domain import events as ev
from rbee_core.domain.worker import Worker, WorkerId
from rbee_core.errors import ModelLoadFailed, RbeeError, RemoteError
from rbee_core.hive.plugin_calls import PluginCalls
from rbee_core.hive.processes import logs, stop
from rbee_core.hive.processes.child import Child
from rbee_core.hive.processes.launcher import Launcher
from rbee_core.hive.worker_client import WorkerClient
from rbee_core.home import Home

log = logging.getLogger(__name__)


class Following:
    """The processes of one hive's workers. All methods belong to the event loop's thread."""

    def __init__(
        self,
        grace_s: float,
        home: Home,
        plugins: PluginHost,
        calls: PluginCalls,
        launcher: Launcher,
        link: WorkerClient,
        feed: Callable[[ev.Event], None],
        tasks: asyncio.TaskGroup,
    ) -> None:
        """Tell `feed` what happens, and run what follows a process to its end in `tasks`."""
        self._grace_s = grace_s
        self._home = home
        self._plugins = plugins
        self._calls = calls
        self._launcher = launcher
        self._link = link
        self._feed = feed
        self._tasks = tasks
        self._children: dict[WorkerId, Child] = {}
        self._gone: dict[WorkerId, asyncio.Event] = {}

    def launch(self, worker: Worker) -> None:
        """Start the process of a new worker."""
        try:
            child = self._launcher.launch(worker)
        except OSError as error:
            hint = "see `ulimit -a` and the log"
            failure = RbeeError(f"The worker's process could not be started: {error.strerror}", hint=hint)
            self._feed(ev.LaunchFailed(_now(), worker.id, failure))
            return
        self._children[worker.id] = child
        self._gone[worker.id] = asyncio.Event()
        self._tasks.create_task(self._await_exit(worker, child))
        self._feed(ev.ChildLaunched(_now(), worker.id, child.pid))

    async def _await_exit(self, worker: Worker, child: Child) -> None:
        await self._launcher.follow(worker.id, child)
        log.info("%s: its process %d ended: %s", worker.id, child.pid, child.how())
        tail = await aio.off_loop(logs.tail, self._home.worker_log(worker.id))
        del self._children[worker.id]
        self._feed(ev.ChildExited(_now(), worker.id, child.how(), tail, child.was_unwilling))
        self._gone.pop(worker.id).set()

    async def watch_load(self, worker: Worker) -> None:
        """Hear how the model's load goes on."""
        async for progress in self._link.load_progress(worker):
            if progress.state == "loading":
                self._feed(ev.LoadProgressed(_now(), worker.id, progress.fraction, progress.detail))
            elif progress.state == "failed":
                self._feed(ev.LoadFailed(_now(), worker.id, _load_error(worker, progress)))
            elif error := self._accelerator_error(worker, progress):
                self._feed(ev.LoadFailed(_now(), worker.id, error))
            else:
                self._feed(ev.WorkerLoaded(_now(), worker.id, progress.slots, progress.context_tokens))

    def _accelerator_error(self, worker: Worker, progress: wire.LoadProgress) -> RbeeError | None:
        """Return an error if the model was loaded elsewhere than asked: an engine may fall back without a word."""
        wanted = self._backend(worker).accelerator
        if progress.accelerator == wanted:
            return None
        return RbeeError(
            f"Backend {worker.recipe.backend} loaded the model on {progress.accelerator} instead of {wanted}",
            hint="check the driver; rbee never falls back by itself",
        )

    async def probe(self, worker: Worker) -> None:
        """Ask whether it lives."""
        alive = await self._link.is_alive(worker)
        outcome = ev.ProbeAnswered if alive else ev.ProbeFailed
        self._feed(outcome(_now(), worker.id))

    async def stop(self, worker: Worker, *, force: bool) -> None:
        """End its process, politely if not by `force`."""
        child = self._children.get(worker.id)
        if child is None:
            return

        async def ask(within_s: float) -> None:
            await self._link.ask_to_stop(worker, within_s)

        async def choose(usual: StopPolicy) -> StopPolicy:
            return await self._calls.stop_policy(self._backend(worker), usual)

        usual = stop.AT_ONCE if force else stop.recommended(self._grace_s)
        if child.asked_at is None and not force:
            child.asked_at = _now()
        await stop.stop(child, usual, None if force else choose, ask if worker.url and not force else None)

    def kill_all(self) -> None:
        """End all processes now."""
        for child in list(self._children.values()):
            child.kill()

    async def gone(self, worker_id: WorkerId, within_s: float | None = None) -> None:
        """Wait until its process is gone, if it is not, or `within_s` has passed."""
        if (gone := self._gone.get(worker_id)) is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await gone.wait()

    def _backend(self, worker: Worker) -> Backend:
        return self._plugins.backends()[worker.recipe.backend]


def _now() -> float:
    return asyncio.get_running_loop().time()


def _load_error(worker: Worker, progress: wire.LoadProgress) -> RbeeError:
    if progress.error is None:
        return ModelLoadFailed(reference=worker.recipe.reference, why="the worker does not say why")
    return RemoteError.of(progress.error)
