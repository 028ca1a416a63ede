"""The pool's one door: who wants a worker, what each waits for, and what is decided for it.

A ticket is in exactly one place: with a pending demand, in a worker's line, or holding a slot. It leaves the first two
with exactly one `Answer`, `Grant` or `Refuse`, unless its holder left before; while it waits it is told what for.
"""

from collections.abc import Iterable, Iterator, Sequence

from rbee_core.domain import events as ev
from rbee_core.domain import instructions as do
from rbee_core.domain.eviction import awaited, cheapest, victims
from rbee_core.domain.failures import Failures, held_back
from rbee_core.domain.limits import Limits
from rbee_core.domain.lines import Lines
from rbee_core.domain.pending import Pending
from rbee_core.domain.placement import roomiest, sharing, shortage
from rbee_core.domain.queue import FairQueue
from rbee_core.domain.worker import (
    STARTING,
    Demand,
    Reason,
    Recipe,
    Spot,
    Ticket,
    Worker,
    WorkerId,
    WorkerState,
)
from rbee_core.domain.workers import Workers
from rbee_core.errors import (
    InvalidRequest,
    ModelInUse,
    RequestCanceled,
    ShuttingDown,
    WorkerNotFound,
    WorkerNotReady,
)


class Requests(Lines):
    """Everybody who waits for a worker or holds a slot of one."""

    def __init__(self, limits: Limits, workers: Workers) -> None:
        super().__init__(limits, workers)
        self._removals: dict[Ticket, str] = {}
        self.failures = Failures(limits)
        self.closing = False

    def take(self, limits: Limits) -> None:
        """Heed other limits from now on."""
        self._limits = self.failures.limits = self._pending.limits = limits

    def holder(self, demand: Demand) -> Worker | None:
        """Return the live worker that `demand` was last resolved to."""
        live = self._workers.live()
        return next((w for w in live if demand in w.demands and w.state is not WorkerState.STOPPING), None)

    # Coming and going.

    def want(self, event: ev.RequestWanted) -> Iterator[do.Instruction]:
        """Take a request in. What is known already is decided now; an unknown demand is resolved first."""
        if self.closing:
            yield self._refuse(event.ticket, ShuttingDown(who="hive"))
        elif event.request_id and self._is_taken(event.request_id):
            running = f"A request named {event.request_id} is running"
            yield self._refuse(event.ticket, InvalidRequest(running, hint="leave request_id out to get a new one"))
        elif event.worker_id is not None:
            yield from self._want_worker(event, event.worker_id)
        elif event.demand is not None:
            yield from self._want_model(event, event.demand)

    def _want_worker(self, event: ev.RequestWanted, worker_id: WorkerId) -> Iterator[do.Instruction]:
        try:
            worker = self._workers.find(worker_id)
        except WorkerNotFound as error:
            yield self._refuse(event.ticket, error)
            return
        if worker.serving or (event.queue and worker.state in STARTING):
            yield from self._line_up(worker, event)
        else:
            yield self._refuse(event.ticket, WorkerNotReady(worker_id=worker.id, state=worker.state))

    def _want_model(self, event: ev.RequestWanted, demand: Demand) -> Iterator[do.Instruction]:
        pending = self._pending.find(demand)
        worker = self.holder(demand) if event.until == "slot" else None
        if worker and not (pending and pending.recipe) and not self._pending.reserve(worker):
            yield from self._line_up(worker, event)
            return
        if self._waiting() >= self._limits.queue:
            yield self._refuse(event.ticket, self._busy(self._workers.live()))
            return
        pending = pending or self._pending.add(demand)
        pending.line.push(event)
        if pending.recipe is None:
            if demand.reference not in self._removals.values():
                yield from pending.resolve()
        elif not (pending.making_room or event.patient):
            pending.stale = True  # it cannot wait for what the others wait for: decide anew
            for memory in pending.memories:
                yield from self._pending.look_again(memory)

    def leave(self, ticket: Ticket, at: float) -> Iterator[do.Instruction]:
        """Let go of a ticket, wherever it is."""
        self._told.pop(ticket, None)
        if worker_id := self._granted.pop(ticket, None):
            worker = self._workers.find(worker_id)
            del worker.requests[ticket]
            yield from self._serve(worker, at)
        else:
            yield from self._leave_line(ticket)

    def _leave_line(self, ticket: Ticket) -> Iterator[do.Instruction]:
        for line in self._lines.values():
            line.remove(ticket)
        for pending in self._pending:
            if pending.line.remove(ticket) and not pending.line and not pending.resolving:
                yield from self._pending.drop(pending)

    def cancel(self, event: ev.CancelWanted) -> Iterator[do.Instruction]:
        """End the request of that name: one that waits is refused, one that runs is its worker's to end."""
        workers = [w for w in self._workers.live() if event.worker_id in (None, w.id)]
        lines = [self._lines[w.id] for w in workers if w.id in self._lines]
        if event.worker_id is None:
            lines += [p.line for p in self._pending]
        for request in [r for line in lines for r in line if r.request_id == event.request_id]:
            yield self._refuse(request.ticket, RequestCanceled())
            yield from self._leave_line(request.ticket)
        for worker in workers:
            tickets = [ticket for ticket, name in worker.requests.items() if name == event.request_id]
            yield from (do.Cancel(ticket, worker.id, event.request_id) for ticket in tickets)

    def ended(self, event: ev.RequestEnded) -> Iterator[do.Instruction]:
        """Let go of a slot whose request the worker is done with."""
        if event.answered and (worker_id := self._granted.get(event.ticket)):
            worker = self._workers.find(worker_id)
            self.failures.did_well(worker.recipe)
            worker.last_prompt = event.read or worker.last_prompt
        return self.leave(event.ticket, event.at)

    def close(self) -> Iterator[do.Instruction]:
        """Refuse all who wait, now and from now on. Who holds a slot keeps it."""
        self.closing = True
        for line in [*self._pending.clear(), *self._lines.values()]:
            yield from self._refuse_all(line, ShuttingDown(who="hive"))

    # Deciding.

    def unresolvable(self, event: ev.Unresolvable) -> Iterator[do.Instruction]:
        """Refuse all who wait with a demand that cannot be met here."""
        if pending := self._pending.find(event.demand):
            yield from self._refuse_all(pending.line, event.error)
            yield from self._pending.drop(pending)

    def resolved(self, event: ev.Resolved) -> Iterator[do.Instruction]:
        """Decide what becomes of a demand now that it is resolved."""
        pending = self._pending.find(event.demand)
        if pending is None:  # the hive began to close
            return
        promised = pending.recipe.memory if pending.recipe and pending.making_room else None
        memories = dict.fromkeys([*pending.memories, *(spot.recipe.memory for spot in event.spots)])
        pending.resolving = False
        if pending.line:
            pending.memories, pending.awaited, pending.making_room = tuple(memories), frozenset(), False
            yield from self._decide(pending, event)
        if not pending.line:  # all are served or refused, or left meanwhile
            yield from self._pending.drop(pending)
        elif promised and not (pending.making_room and pending.recipe and pending.recipe.memory == promised):
            yield from self._pending.memory_changed(promised)  # what was kept for it is not
        for memory in memories:
            yield from self._pending.look_again(memory)

    def _decide(self, pending: Pending, event: ev.Resolved) -> Iterator[do.Instruction]:
        """Decide, in this order.

        1. The hive is closing: everybody was refused, and nothing comes here.
        2. A worker with an equal recipe is live and not stopping, on whichever of the devices: line up there, for its
           address, its model or a slot; but for a slot wait on, if an earlier demand that waits for its end is due.
        3. Its workers failed on each device: come back in time, or refuse. One on which they failed is left out.
        4. It fits beside what is promised to earlier demands: launch, on the device with most free memory.
        5. It fits once idle workers are stopped and those that are stopping are gone: stop them, on the device where
           least has to go, and come back then.
        6. It would fit if busy and starting workers were gone: who queues for a slot waits for that.
        7. Refuse, with both numbers.
        """
        workers = self._workers.live()
        failed, well = self.failures.sort(event.spots, event.at)
        pending.held_until = min((worker.held_until for worker in failed), default=None)
        spots = [self._pending.left(pending, spot) for spot in well]
        if worker := self._twin(event.spots):  # 2
            yield from self._move(pending, worker)
        elif not well:  # 3
            yield from self._hold_back(pending, failed, event.at)
        elif spot := roomiest(spots, workers):  # 4
            yield from self._launch(pending, event, spot.recipe)
        elif found := cheapest(spots, workers, victims):  # 5
            yield from self._make_room(pending, *found)
        else:
            may_wait = self._may_wait(pending, well)  # 6
            hopeless = [r for r in pending.line if not (may_wait and r.patient)]
            yield from self._refuse_those(pending.line, hopeless, shortage(spots, workers))  # 7

    def _hold_back(self, pending: Pending, failed: Sequence[Worker], at: float) -> Iterator[do.Instruction]:
        """Let who waits wait for the next launch, unless that is far; it takes no room meanwhile."""
        pending.recipe, pending.memories = None, ()
        error = held_back(pending.demand.reference, min(failed, key=lambda worker: worker.held_until), at)
        hopeless = [r for r in pending.line if not r.queue or all(map(self.failures.is_refused, failed))]
        yield from self._refuse_those(pending.line, hopeless, error)

    def _launch(self, pending: Pending, event: ev.Resolved, recipe: Recipe) -> Iterator[do.Instruction]:
        for other in self._pending.earlier(pending, recipe.memory):
            other.passed += 1
        yield from self._workers.launch(event, recipe, for_whom=next(iter(pending.line)).client)
        yield from self._move(pending, self._workers.find(event.worker_id), launched=True)

    def _make_room(self, pending: Pending, spot: Spot, to_stop: Iterable[WorkerId]) -> Iterator[do.Instruction]:
        recipe = pending.recipe = spot.recipe
        for worker in map(self._workers.find, to_stop):
            whom, reason = recipe.reference, Reason.MAKE_ROOM
            yield from self._workers.stop(worker, WorkerState.EVICTED, reason, f"{reason} for {whom}", for_whom=whom)
        stopping = [w for w in sharing(recipe.memory, self._workers.live()) if w.state is WorkerState.STOPPING]
        pending.making_room, pending.awaited = True, frozenset(w.id for w in stopping)

    def _may_wait(self, pending: Pending, spots: Sequence[Spot]) -> bool:
        """Whether it is worth waiting for what others hold. Who waits in one memory goes on waiting there.

        Else one that is due could be sent from a memory where nobody new comes in any more to one where they do.
        """
        workers, memory = self._workers.live(), pending.recipe and pending.recipe.memory
        here = [spot for spot in spots if spot.recipe.memory == memory]
        found = cheapest(here, workers, awaited) or cheapest(spots, workers, awaited)
        if found is None:
            return False
        pending.recipe, pending.awaited = found[0].recipe, frozenset(found[1])
        return True

    def _move(self, pending: Pending, worker: Worker, *, launched: bool = False) -> Iterator[do.Instruction]:
        """Line up at a worker all who wait with a demand.

        But who wants a slot of one that is not new waits on, if an earlier demand is due that waits for its end.
        """
        pending.recipe = worker.recipe
        earlier = self._pending.earlier(pending, worker.recipe.memory)
        wait_on = not launched and self._pending.reserve(worker, earlier)
        self._workers.mean(pending.demand, worker)
        line, pending.line = pending.line, FairQueue()
        for request in line:
            if not wait_on or request.until != "slot":
                yield from self._line_up(worker, request)
            elif request.queue:
                pending.line.push(request)
            else:
                yield self._refuse(request.ticket, self._busy([worker]))

    def _twin(self, spots: Sequence[Spot]) -> Worker | None:
        """Return the worker that holds the same already, rather one with a free slot."""
        recipes = [spot.recipe for spot in spots]
        twins = [w for w in self._workers.live() if w.recipe in recipes and w.state is not WorkerState.STOPPING]
        return max(twins, key=lambda worker: worker.free_slots > 0, default=None)

    # What becomes of workers.

    def heard(self, change: do.Changed, at: float) -> Iterator[do.Instruction]:
        """Take in that a worker's state changed, for those who wait for it or for its end."""
        worker = self._workers.find(change.worker_id)
        line = self._lines.get(worker.id) or FairQueue()
        match change.after:
            case WorkerState.LOADING:
                yield from self._answer_those(line, "bound", worker)
            case WorkerState.IDLE:
                yield from self._answer_those(line, "ready", worker)
                yield from self._serve(worker, at)
                yield from self._refuse_those(line, [r for r in line if not r.queue], self._busy([worker]))
                if worker.state is WorkerState.IDLE:
                    yield from self._pending.memory_changed(worker.recipe.memory)
            case WorkerState.STOPPING:
                yield from self._refuse_all(line, worker.error or ShuttingDown(who="worker"))
            case WorkerState.LAUNCHING | WorkerState.BUSY:
                pass
            case WorkerState.UNLOADED | WorkerState.EVICTED | WorkerState.CRASHED | WorkerState.FAILED:
                yield from self._refuse_all(line, worker.error or ShuttingDown(who="worker"))
                self._lines.pop(worker.id, None)
                self._granted = {t: w for t, w in self._granted.items() if w != worker.id}
                self.failures.heard(change, worker, at)
                yield from self._pending.ended(worker)

    def memory_changed(self, memory: str) -> Iterator[do.Instruction]:
        """Let those who wait for room in `memory` look again."""
        return self._pending.memory_changed(memory)

    def replaced(self, event: ev.ModelReplaced) -> Iterator[do.Instruction]:
        """Let nobody new come to a worker whose files are others now; who is there, or waits there, is served."""
        worker = next((w for w in self._workers.live() if w.id == event.worker_id), None)
        if worker is not None:
            worker.retired = True
            worker.demands.clear()
            yield from self._serve(worker, worker.used_at)

    def retry(self, event: ev.RetryWanted) -> Iterator[do.Instruction]:
        """Hold nothing against a model any more; who waits for its next worker need not."""
        self.failures.forget(event.reference)
        return self.come_back(float("inf"))

    def come_back(self, at: float) -> Iterator[do.Instruction]:
        """Look again at what was held back until `at`."""
        return self._pending.come_back(at)

    # Removing a model: nobody may begin to use what is being removed.

    def want_removal(self, event: ev.ModelRemovalWanted) -> Iterator[do.Instruction]:
        """Allow to remove a model's files, unless somebody holds it or waits for it."""
        workers = [w.id for w in self._workers.live() if event.reference in w.names]
        users: list[str] = [*workers]
        if any(p.demand.reference == event.reference for p in self._pending):
            users.append("a request that waits for it")
        if event.reference in self._removals.values():
            users.append("another removal")
        if self.closing:
            yield self._refuse(event.ticket, ShuttingDown(who="hive"))
        elif users:
            stop = f"rbee workers shutdown {' '.join(workers)}" if workers else ""
            yield self._refuse(event.ticket, ModelInUse(reference=event.reference, users=users, ended_by=stop))
        else:
            self._removals[event.ticket] = event.reference
            yield self._answer(event.ticket, None)

    def removed(self, ticket: Ticket) -> Iterator[do.Instruction]:
        """Let those go on who waited until a removal was over."""
        reference = self._removals.pop(ticket, None)
        for pending in self._pending:
            if pending.demand.reference == reference:
                yield from pending.resolve()
