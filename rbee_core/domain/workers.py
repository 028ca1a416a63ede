"""The registry of workers and each one's life, from its launch to its end.

Says `Changed` for every change of a state, and knows nothing of who waits for a worker: see `requests`.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import assert_never

from rbee_core.domain import events as ev
from rbee_core.domain import instructions as do
from rbee_core.domain.limits import Limits
from rbee_core.domain.worker import Demand, Reason, Recipe, Stay, Worker, WorkerId, WorkerState
from rbee_core.errors import LoadingTimeout, RbeeError, WorkerCrashed, WorkerNotFound

REMEMBERED = 64
PROBES_BEFORE_KILL = 3


DEMANDS_KEPT = 64
"""Of one worker: a client may say in any number of ways what comes to the same."""


class Workers:
    """The registry. Ended workers are remembered, the last `REMEMBERED` of them, but are not part of it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._live: dict[WorkerId, Worker] = {}
        self._ended: OrderedDict[WorkerId, Worker] = OrderedDict()

    def take(self, limits: Limits) -> None:
        """Heed other limits from now on."""
        self._limits = limits

    def mean(self, demand: Demand, worker: Worker) -> None:
        """Note that `worker`, and no other one, is what `demand` comes to."""
        for other in self.live():
            other.demands.discard(demand)
            if other is worker:
                if len(worker.demands) >= DEMANDS_KEPT:
                    worker.demands.discard(_spare(worker.demands))
                worker.demands.add(demand)
            self.keep(other)

    def keep(self, worker: Worker) -> None:
        """Say anew how long a worker stays: of several models' settings that it serves, as long as any wants it."""
        known = self._limits.stays
        stays = [known[d.section] for d in worker.demands if d.section in known] or [Stay()]
        longest = max(self._limits.idle_s if stay.idle_s is None else stay.idle_s for stay in stays)
        worker.stay = Stay(longest, any(stay.pinned for stay in stays))

    def live(self) -> list[Worker]:
        """Return the workers in the registry, oldest first."""
        return list(self._live.values())

    def remembered(self) -> list[Worker]:
        """Return the workers that have ended, as far as they are remembered, oldest first."""
        return list(self._ended.values())

    def find(self, worker_id: str) -> Worker:
        """Return a live or remembered worker. Raises `WorkerNotFound`."""
        key = WorkerId(worker_id)
        worker = self._live.get(key) or self._ended.get(key)
        if worker is None:
            raise WorkerNotFound(worker_id=worker_id)
        return worker

    def handle(self, event: ev.WorkerEvent) -> Iterator[do.Instruction]:  # noqa: C901, PLR0911  # one flat table
        """Take in what happened to one worker; nothing if it is not live."""
        worker = self._live.get(event.worker_id)
        if worker is None:
            return iter(())
        match event:
            case ev.ChildLaunched():
                worker.pid = event.pid
                return iter(())
            case ev.LaunchFailed():
                return self._end(worker, WorkerState.FAILED, Reason.NOT_LAUNCHED, error=event.error)
            case ev.WorkerBound():
                return self._bound(worker, event)
            case ev.LoadProgressed():
                return self._progressed(worker, event)
            case ev.WorkerLoaded():
                return self._loaded(worker, event)
            case ev.LoadFailed():
                return self._give_up(worker, Reason.NOT_LOADED, event.error)
            case ev.ProbeAnswered():
                worker.failed_probes = 0
                return iter(())
            case ev.ProbeFailed():
                return self._probe_failed(worker)
            case ev.StopWanted():
                return self.stop(worker, WorkerState.UNLOADED, Reason.ASKED, event.reason)
            case ev.ChildExited():
                return self._exited(worker, event)
            case _:
                assert_never(event)

    # Starting.

    def launch(self, event: ev.Resolved, recipe: Recipe, for_whom: str) -> Iterator[do.Instruction]:
        """Enter a new worker into the registry."""
        worker = Worker(id=event.worker_id, recipe=recipe, secret=event.secret, launched_at=event.at)
        self._live[worker.id] = worker
        yield do.Changed(worker.id, None, worker.state, Reason.WANTED, for_whom)
        yield do.Launch(worker.id)

    def _bound(self, worker: Worker, event: ev.WorkerBound) -> Iterator[do.Instruction]:
        if worker.state is not WorkerState.LAUNCHING:
            return
        worker.url, worker.moved_at = event.url, event.at
        yield _change(worker, WorkerState.LOADING, Reason.BOUND)
        yield do.Watch(worker.id)

    def _progressed(self, worker: Worker, event: ev.LoadProgressed) -> Iterator[do.Instruction]:
        if worker.state is WorkerState.LOADING:
            worker.moved_at, worker.progress, worker.detail = event.at, event.fraction, event.detail
        return iter(())

    def _loaded(self, worker: Worker, event: ev.WorkerLoaded) -> Iterator[do.Instruction]:
        if worker.state is not WorkerState.LOADING:
            return
        asked = worker.recipe.slots
        fewer = f"{asked} slots were asked for, its engine has {event.slots}" if asked > event.slots else ""
        worker.loaded, worker.progress, worker.detail = True, 1.0, fewer
        worker.slots, worker.context_tokens = max(1, event.slots), event.context_tokens
        worker.used_at = worker.probed_at = event.at
        yield _change(worker, WorkerState.IDLE, Reason.LOADED)

    def _give_up(self, worker: Worker, reason: Reason, error: RbeeError) -> Iterator[do.Instruction]:
        """Stop a worker that will never be ready."""
        if worker.state in (WorkerState.LAUNCHING, WorkerState.LOADING):
            yield from self.stop(worker, WorkerState.FAILED, reason, error=error)

    # Serving.

    def settle(self, worker: Worker, at: float, for_whom: str = "") -> Iterator[do.Instruction]:
        """Say idle or busy, after `worker.requests` changed."""
        worker.used_at = at
        state = WorkerState.BUSY if worker.requests else WorkerState.IDLE
        if worker.serving and worker.state is not state:
            reason = Reason.REQUEST if worker.requests else Reason.DONE
            yield _change(worker, state, reason, for_whom)

    def _probe_failed(self, worker: Worker) -> Iterator[do.Instruction]:
        worker.failed_probes += 1
        if worker.serving and worker.failed_probes >= PROBES_BEFORE_KILL:
            error = WorkerCrashed(worker_id=worker.id, exit="it stopped answering")
            reason = Reason.NOT_ANSWERING
            yield from self.stop(worker, WorkerState.CRASHED, reason, "it stopped answering", error=error, force=True)

    # Ending.

    def stop(
        self,
        worker: Worker,
        end_as: WorkerState,
        reason: Reason,
        words: str = "",
        *,
        for_whom: str = "",
        error: RbeeError | None = None,
        force: bool = False,
    ) -> Iterator[do.Instruction]:
        """Begin to end a worker, once. `words` say why where `reason` does not say it all."""
        if worker.state is WorkerState.STOPPING:
            return
        worker.end_as, worker.error = end_as, error
        worker.reason = words or (error.message if error else reason.value)
        yield _change(worker, WorkerState.STOPPING, reason, for_whom)
        yield do.Stop(worker.id, force)

    def _exited(self, worker: Worker, event: ev.ChildExited) -> Iterator[do.Instruction]:
        if worker.end_as is not None:
            worker.killed = event.exit if event.unwilling else ""
            words = "; ".join(filter(None, (worker.reason, worker.killed)))
            yield from self._end(worker, worker.end_as, Reason.EXITED, words=words, error=worker.error)
            return
        crash = WorkerCrashed(worker_id=worker.id, exit=event.exit, log_tail=event.log_tail)
        end_as = WorkerState.CRASHED if worker.serving else WorkerState.FAILED
        yield from self._end(worker, end_as, Reason.EXITED, words=event.exit, error=crash)

    def _end(
        self, worker: Worker, end_as: WorkerState, reason: Reason, *, words: str = "", error: RbeeError | None
    ) -> Iterator[do.Instruction]:
        """Take the worker out of the registry and remember it."""
        worker.error = error
        worker.reason = words or reason.value
        worker.requests.clear()
        del self._live[worker.id]
        self._ended[worker.id] = worker
        while len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)
        yield _change(worker, end_as, reason)

    # Time.

    def tick(self, at: float) -> Iterator[do.Instruction]:
        """Look at every limit that time can pass."""
        for worker in self.live():
            yield from self._overdue(worker, at)
            if worker.serving and at - worker.probed_at >= self._limits.probe_every_s:
                worker.probed_at = at
                yield do.Probe(worker.id)

    def _overdue(self, worker: Worker, at: float) -> Iterator[do.Instruction]:
        launching, loading, idle = at - worker.launched_at, at - worker.moved_at, at - worker.used_at
        match worker.state:
            case WorkerState.LAUNCHING if launching >= self._limits.worker_start_s:
                late = LoadingTimeout(worker_id=worker.id, progress=0, waited_s=launching)
                yield from self._give_up(worker, Reason.STALLED, late)
            case WorkerState.LOADING if loading >= self._limits.load_stall_s:
                late = LoadingTimeout(worker_id=worker.id, progress=worker.progress, waited_s=loading)
                yield from self._give_up(worker, Reason.STALLED, late)
            case WorkerState.IDLE if idle >= self._idle_s(worker) and not worker.kept:
                yield from self.stop(worker, WorkerState.EVICTED, Reason.IDLE, f"idle for {idle:.0f} s")
            case _:
                pass

    def _idle_s(self, worker: Worker) -> float:
        limits = (worker.kept_s, worker.stay.idle_s, self._limits.idle_s)
        return next(limit for limit in limits if limit is not None)


def _change(worker: Worker, after: WorkerState, reason: Reason, for_whom: str = "") -> do.Changed:
    before, worker.state = worker.state, after
    return do.Changed(worker.id, before, after, reason, for_whom)


def _spare(demands: set[Demand]) -> Demand:
    """Return one of which nothing else is lost than that it will be resolved again: others name its model likewise."""
    named = Counter((demand.reference, demand.section) for demand in demands)
    return max(demands, key=lambda demand: named[demand.reference, demand.section])
