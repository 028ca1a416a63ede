"""The pool under arbitrary histories: whatever order events come in, its promises hold."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rbee_core.domain import events as ev
from rbee_core.domain import instructions as do
from rbee_core.domain.pending import Pending
from rbee_core.domain.placement import free_bytes
from rbee_core.domain.pool import REMEMBERED, Limits, Pool
from rbee_core.domain.worker import (
    ENDED,
    HOST,
    STARTING,
    Demand,
    Need,
    Reason,
    Recipe,
    RequestId,
    Spot,
    Ticket,
    Worker,
    WorkerId,
    WorkerState,
)
from rbee_core.errors import RbeeError
from tests.support.pools import URL, demand, recipe, resolved_on, wants, wants_worker

LIMITS = Limits(
    worker_start_s=30, load_stall_s=60, idle_s=100, probe_every_s=20, queue=8, overtakes=2, failures_in_a_row=3,
    restart_delay_s=1, quarantine_s=60,
)  # fmt: skip
RANK = {"launching": 0, "loading": 1, "idle": 2, "busy": 2, "stopping": 3}
MEMORIES = {HOST: 600, "cuda:1": 450, "cuda:2": 350}
MODELS = {
    "a": Need(150, 100), "b": Need(250, 150), "c": Need(200, 100), "d": Need(700, 200), "e": Need(100, 100),
    "f": Need(0, 300),
}  # fmt: skip
ON_CARDS = "ef"
"""Models of a backend that has the two cards, where the others have the host's memory; each may name card 1."""
PICK = st.integers(0, 5)


def open_devices(wanted: Demand) -> list[int]:
    if wanted.device is None:
        return [1, 2] if wanted.reference[-1] in ON_CARDS else [0]
    return [wanted.device]


class World:
    """Carries out what the pool says, as the supervisor would, with dictionaries for an operating system."""

    def __init__(self) -> None:
        self.processes: dict[WorkerId, Worker] = {}
        self.strangers = dict.fromkeys(MEMORIES, 0)
        self.resolving: list[Demand] = []
        self.to_launch: list[WorkerId] = []
        self.asked_to_stop: set[WorkerId] = set()
        self.waiting: dict[Ticket, str] = {}
        self.granted: dict[Ticket, WorkerId] = {}
        self.removing: list[Ticket] = []
        self.settled: set[Ticket] = set()

    def available(self, memory: str) -> int:
        """Return what the system reports as free: what is mapped in the host's memory looks reclaimable."""
        here = [w.recipe.need for w in self.processes.values() if w.recipe.memory == memory and w.loaded]
        held = sum(n.private_bytes if memory == HOST else n.total_bytes for n in here)
        return MEMORIES[memory] - self.strangers[memory] - held

    def carry_out(self, instructions: Sequence[do.Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case do.Resolve(wanted):
                    assert wanted not in self.resolving, "a demand is resolved once at a time"
                    self.resolving.append(wanted)
                case do.Launch(worker_id):
                    self.to_launch.append(worker_id)
                case do.Stop(worker_id):
                    assert worker_id not in self.asked_to_stop, "a worker is stopped once"
                    self.asked_to_stop.add(worker_id)
                case do.Answer(ticket) | do.Refuse(ticket) | do.Grant(ticket):
                    assert ticket not in self.settled, "a ticket is settled once"
                    assert ticket in self.waiting, "who has left is not answered"
                    self.settled.add(ticket)
                    del self.waiting[ticket]
                    if isinstance(instruction, do.Grant):
                        self.granted[ticket] = instruction.worker_id
                case do.Cancel(ticket, worker_id):
                    assert self.granted[ticket] == worker_id, "a worker ends what it runs"
                case do.Tell(ticket, waiting):
                    assert ticket in self.waiting, "who does not wait is not told that it does"
                    assert waiting.position >= 1
                case do.Watch() | do.Probe() | do.Changed():
                    pass


class PoolMachine(RuleBasedStateMachine):
    """Time is virtual and only moves forward; a process exists from Launch to ChildExited."""

    @initialize()
    def begin(self) -> None:
        self.pool = Pool(LIMITS)
        self.world = World()
        self.now = self.last_tick = 0.0
        self.count = 0
        self.ranks: dict[WorkerId, int] = {}
        self.failed: dict[Recipe, list[float]] = {}
        self.joined: dict[Ticket, int] = {}
        self.overtaken: Counter[tuple[WorkerId, str, str]] = Counter()

    # Every event goes through here: what an event may do is checked against the state before it.

    def feed(self, event: ev.Event) -> None:
        closing, pending, live = self.pool.closing, self.pending(), self.pool.live()
        states = {w.id: (w.state, w.pinned) for w in live}
        lines = {w.id: self.line(w) for w in live}
        instructions = self.pool.handle(event)
        for launch in (i for i in instructions if isinstance(i, do.Launch)):
            assert not closing, "nothing starts after shutdown"
            assert isinstance(event, ev.Resolved)
            self.check_launch(event, self.pool.find(launch.worker_id), pending, live)
            assert not self.is_held(self.pool.find(launch.worker_id).recipe), "it is held back"
        evicted = [i.worker_id for i in instructions if isinstance(i, do.Changed) and i.reason is Reason.MAKE_ROOM]
        if evicted:
            assert isinstance(event, ev.Resolved)
            assert all(states[w] == (WorkerState.IDLE, False) for w in evicted), "only idle ones that are not pinned"
            (memory,) = {self.pool.find(w).recipe.memory for w in evicted}
            (need,) = (s.recipe.need.total_bytes for s in event.spots if s.recipe.memory == memory)
            stay = [w for w in self.pool.live() if w.state is not WorkerState.STOPPING]
            assert need <= self.unclaimed(memory, stay), "nobody stops in vain"
            assert all(
                s.recipe.need.total_bytes > self.unclaimed(s.recipe.memory, live) - self.promised(s, event, pending)
                for s in event.spots
                if not self.is_held(s.recipe)
            ), "nobody stops where another device has room"
        self.note_failures(instructions)
        self.check_turns(instructions, lines)
        self.world.carry_out(instructions)
        while self.world.to_launch:
            self.launch(self.world.to_launch.pop())

    def note_failures(self, instructions: Sequence[do.Instruction]) -> None:
        for change in instructions:
            ended = isinstance(change, do.Changed) and change.after in ("crashed", "failed")
            if ended and change.reason is not Reason.NOT_LAUNCHED:
                self.failed.setdefault(self.pool.find(change.worker_id).recipe, []).append(self.now)

    def is_held(self, recipe: Recipe) -> bool:
        """After one failure for a second; after two, for two; after three in a row, for as long as a quarantine."""
        times = self.failed.get(recipe, [])
        recent = [t for n, t in enumerate(times) if all(b - a < 60 for a, b in pairwise([*times[n:], self.now]))]
        return self.now - max(recent, default=0.0) < {0: 0.0, 1: 1.0, 2: 2.0}.get(len(recent), 60.0)

    def check_launch(self, event: ev.Resolved, new: Worker, pending: list[Pending], live: list[Worker]) -> None:
        memory, need = new.recipe.memory, new.recipe.need.total_bytes
        recipes = [spot.recipe for spot in event.spots]
        assert new.recipe in recipes, "on a device that it leaves open"
        assert not [w for w in live if w.recipe in recipes and w.state is not WorkerState.STOPPING], "no second one"
        before = pending[: [p.demand for p in pending].index(event.demand)]
        due = [
            p.recipe.need.total_bytes
            for p in before
            if p.passed > LIMITS.overtakes and p.recipe and p.line and p.recipe.memory == memory
        ]
        assert need <= self.unclaimed(memory, live), "it fits"
        assert need + sum(due) <= self.unclaimed(memory, live) or not due, "who has waited long enough is not passed"

    def check_turns(self, instructions: Sequence[do.Instruction], before: dict[WorkerId, dict[Ticket, str]]) -> None:
        """Between two turns of a client at a worker, no other one has two that came later."""
        for instruction in instructions:
            if not isinstance(instruction, do.Grant):
                continue
            ticket, worker_id = instruction.ticket, instruction.worker_id
            client = self.world.waiting.get(ticket, "")
            others = before.get(worker_id, {})
            came = self.joined.get(ticket, self.count)
            for other in {c for t, c in others.items() if t in self.world.waiting and c != client}:
                oldest = min(self.joined[t] for t, c in others.items() if c == other)
                self.overtaken[worker_id, other, client] += oldest < came
                assert self.overtaken[worker_id, other, client] <= 1, f"{client} goes before {other} twice"
            for key in [k for k in self.overtaken if k[:2] == (worker_id, client)]:
                del self.overtaken[key]
            others.pop(ticket, None)
        for worker in self.pool.live():
            for ticket in self.line(worker):
                self.joined.setdefault(ticket, self.count)
            waiting = set(self.line(worker).values())
            for key in [k for k in self.overtaken if k[0] == worker.id and k[1] not in waiting]:
                del self.overtaken[key]

    def launch(self, worker_id: WorkerId) -> None:
        self.count += 1
        if self.count % 7 == 6:
            self.feed(ev.LaunchFailed(self.now, worker_id, RbeeError("no more processes")))
            return
        self.world.processes[worker_id] = self.pool.find(worker_id)
        self.feed(ev.ChildLaunched(self.now, worker_id, pid=self.count))

    # Looking, for the invariants alone.

    def promised(self, spot: Spot, event: ev.Resolved, pending: list[Pending]) -> int:
        """Return at most what is promised to earlier ones there."""
        before = pending[: [p.demand for p in pending].index(event.demand)]
        here = [p.recipe for p in before if p.recipe and p.recipe.memory == spot.recipe.memory]
        return sum(r.need.total_bytes for r in here)

    def pending(self) -> list[Pending]:
        return list(self.pool._requests._pending)

    def line(self, worker: Worker) -> dict[Ticket, str]:
        return {r.ticket: r.client for r in self.pool._requests._lines.get(worker.id, ())}

    def queued(self) -> list[ev.RequestWanted]:
        lines = [*(p.line for p in self.pending()), *self.pool._requests._lines.values()]
        return [request for line in lines for request in line]

    def unclaimed(self, memory: str, workers: list[Worker]) -> int:
        needs = sum(w.recipe.need.total_bytes for w in workers if w.recipe.memory == memory)
        return MEMORIES[memory] - self.world.strangers[memory] - needs

    def some_worker(self, pick: int) -> WorkerId:
        """Return a live worker, or one that never was."""
        live = self.pool.live()
        return live[pick % len(live)].id if live else WorkerId("w0")

    def ticket(self, client: str) -> int:
        self.count += 1
        self.world.waiting[Ticket(self.count)] = client
        return self.count

    # What may happen.

    @rule(
        model=st.sampled_from("aabbcdeef"), device=st.sampled_from([None, None, 1]), client=st.sampled_from("xyz"),
        until=st.sampled_from(["slot", "slot", "slot", "ready", "bound"]), queue=st.sampled_from([True, True, False]),
    )  # fmt: skip
    def want(self, model: str, device: int | None, client: str, until: ev.Until, queue: bool) -> None:
        ticket = self.ticket(client)
        self.feed(wants(ticket, model, device=device, client=client, until=until, queue=queue, at=self.now))

    @precondition(lambda self: not self.pool.closing)
    @rule(model=st.sampled_from("abcef"), device=st.sampled_from([None, None, 1]), keep=st.booleans())
    def have_a_worker(self, model: str, device: int | None, keep: bool) -> None:
        """Go straight to where most happens: a model is loaded, if there is room."""
        self.want(model, device, "w", "bound", True)
        wanted = demand(model, device)
        if wanted in self.world.resolving:
            self.resolve(self.world.resolving.index(wanted), True)
        if worker := next((w for w in self.pool.live() if wanted in w.demands), None):
            self.feed(ev.WorkerBound(self.now, worker.id, URL))
            self.feed(ev.WorkerLoaded(self.now, worker.id, slots=1, context_tokens=512))
            self.feed(ev.PinWanted(self.now, worker.id, keep))

    @precondition(lambda self: not self.pool.closing)
    @rule(models=st.permutations("abc"), keep=st.integers(0, 3), device=st.sampled_from([None, 1]))
    def have_more_than_fits(self, models: list[str], keep: int, device: int | None) -> None:
        for n, model in enumerate(models):
            self.have_a_worker(model, device, n < keep)

    @precondition(lambda self: not self.pool.closing)
    @rule(models=st.lists(st.sampled_from("abcef"), min_size=2, max_size=4), client=st.sampled_from("xyz"))
    def want_at_once(self, models: list[str], client: str) -> None:
        """What is wanted is used at once, so that the next one finds memory taken by busy workers."""
        for model in models:
            self.want(model, None, client, "slot", True)
            if demand(model) in self.world.resolving:
                self.resolve(self.world.resolving.index(demand(model)), True)
            if worker := next((w for w in self.pool.live() if demand(model) in w.demands), None):
                self.feed(ev.WorkerBound(self.now, worker.id, URL))
                self.feed(ev.WorkerLoaded(self.now, worker.id, slots=1, context_tokens=512))

    @precondition(lambda self: any(w.serving for w in self.pool.live()))
    @rule(clients=st.text("xyz", min_size=3, max_size=7), ends=st.integers(0, 5))
    def crowd(self, clients: str, ends: int) -> None:
        """Many want one worker, and some of them are served."""
        worker = next(w for w in self.pool.live() if w.serving)
        for client in clients:
            self.feed(wants_worker(self.ticket(client), worker.id, client=client, at=self.now))
        for _ in range(ends):
            here = [n for n, w in enumerate(self.world.granted.values()) if w == worker.id]
            if here:
                self.end_request(here[0], well=True)

    @precondition(lambda self: self.pool.live())
    @rule(pick=PICK, client=st.sampled_from("xyz"), queue=st.sampled_from([True, True, False]))
    def want_that_worker(self, pick: int, client: str, queue: bool) -> None:
        worker = self.some_worker(pick)
        self.feed(wants_worker(self.ticket(client), worker, client=client, queue=queue, at=self.now))

    @precondition(lambda self: self.world.waiting)
    @rule(pick=PICK)
    def leave(self, pick: int) -> None:
        waiting = [t for t in self.world.waiting if t not in self.world.removing]
        if waiting:
            ticket = waiting[pick % len(waiting)]
            del self.world.waiting[ticket]
            self.feed(ev.TicketDropped(self.now, ticket))

    @precondition(lambda self: self.world.waiting or self.world.granted)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        tickets = [*self.world.waiting, *self.world.granted]
        ticket = tickets[pick % len(tickets)]
        before = len(self.world.settled)
        self.feed(ev.CancelWanted(self.now, RequestId(f"r{ticket}")))
        assert len(self.world.settled) <= before + 1, "nobody else is refused"
        assert ticket not in [r.ticket for r in self.queued() if r.request_id], "who is cancelled waits no more"

    @precondition(lambda self: self.world.granted)
    @rule(pick=PICK, well=st.booleans())
    def end_request(self, pick: int, well: bool) -> None:
        ticket = list(self.world.granted)[pick % len(self.world.granted)]
        worker_id = self.world.granted.pop(ticket)
        if well:
            self.failed.pop(self.pool.find(worker_id).recipe, None)
        self.feed(ev.RequestEnded(self.now, ticket, answered=True) if well else ev.TicketDropped(self.now, ticket))

    @precondition(lambda self: self.world.resolving)
    @rule(pick=PICK, good=st.sampled_from([True, True, True, False]))
    def resolve(self, pick: int, good: bool) -> None:
        wanted = self.world.resolving.pop(pick % len(self.world.resolving))
        if not good:
            self.feed(ev.Unresolvable(self.now, wanted, RbeeError("no such model")))
            return
        self.count += 1
        model, need = wanted.reference[-1], MODELS[wanted.reference[-1]]
        free = {n: self.world.available(recipe(model, n).memory) for n in open_devices(wanted)}
        self.feed(resolved_on(model, f"w{self.count}", free, wanted=wanted, need=need, at=self.now))

    @precondition(lambda self: self.pool.live())
    @rule(pick=PICK)
    def call_back(self, pick: int) -> None:
        self.feed(ev.WorkerBound(self.now, self.some_worker(pick), URL))

    @precondition(lambda self: self.pool.live())
    @rule(pick=PICK, fraction=st.sampled_from([0.1, 0.9]))
    def progress(self, pick: int, fraction: float) -> None:
        self.feed(ev.LoadProgressed(self.now, self.some_worker(pick), fraction, ""))

    @precondition(lambda self: self.pool.live())
    @rule(pick=PICK, good=st.sampled_from([True, True, True, False]), slots=st.integers(1, 2))
    def finish_load(self, pick: int, good: bool, slots: int) -> None:
        worker_id = self.some_worker(pick)
        if good:
            self.feed(ev.WorkerLoaded(self.now, worker_id, slots=slots, context_tokens=512))
        else:
            self.feed(ev.LoadFailed(self.now, worker_id, RbeeError("no model")))

    @precondition(lambda self: self.pool.live())
    @rule(pick=PICK, alive=st.booleans())
    def probe(self, pick: int, alive: bool) -> None:
        event = ev.ProbeAnswered if alive else ev.ProbeFailed
        self.feed(event(self.now, self.some_worker(pick)))

    @precondition(lambda self: self.pool.live())
    @rule(pick=PICK, keep=st.booleans())
    def pin(self, pick: int, keep: bool) -> None:
        self.feed(ev.PinWanted(self.now, self.some_worker(pick), keep))

    @precondition(lambda self: self.pool.live())
    @rule(pick=PICK)
    def stop(self, pick: int) -> None:
        self.feed(ev.StopWanted(self.now, self.some_worker(pick), "asked to stop"))

    @precondition(lambda self: self.world.processes)
    @rule(pick=PICK, how=st.sampled_from(["exit code 0", "SIGSEGV", "SIGKILL"]))
    def exit(self, pick: int, how: str) -> None:
        worker_id = list(self.world.processes)[pick % len(self.world.processes)]
        del self.world.processes[worker_id]
        self.world.granted = {t: w for t, w in self.world.granted.items() if w != worker_id}
        self.feed(ev.ChildExited(self.now, worker_id, how, ()))

    @rule(memory=st.sampled_from(sorted(MEMORIES)), taken=st.sampled_from([0, 0, 100]))
    def other_programs(self, memory: str, taken: int) -> None:
        self.world.strangers[memory] = taken

    @rule(seconds=st.sampled_from([0.5, 5.0, 25.0, 110.0]))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.last_tick = self.now
        self.feed(ev.Tick(self.now))

    @rule(model=st.sampled_from("abcef"))
    def try_again(self, model: str) -> None:
        self.failed = {r: times for r, times in self.failed.items() if r.reference != f"file:/{model}"}
        self.feed(ev.RetryWanted(self.now, f"file:/{model}"))

    def try_all_again(self) -> None:
        for model in MODELS:
            self.try_again(model)

    @precondition(lambda self: self.pool.live() and not self.pool.closing)
    @rule(pick=PICK, times=st.integers(1, 4), seconds=st.sampled_from([0.5, 1.0, 2.0, 70.0]))
    def crash_again_and_again(self, pick: int, times: int, seconds: float) -> None:
        """A worker dies, somebody wants its model again at once, and a moment later it may be launched."""
        wanted = next(iter(self.pool.find(self.some_worker(pick)).demands), demand("a"))
        for _ in range(times):
            if worker := next((w for w in self.pool.live() if wanted in w.demands), None):
                self.exit(list(self.world.processes).index(worker.id), "SIGABRT")
            self.want(wanted.reference[-1], wanted.device, "x", "bound", True)
            self.tick(seconds)
            if wanted in self.world.resolving:
                self.resolve(self.world.resolving.index(wanted), True)

    @rule(model=st.sampled_from("ab"))
    def remove_model(self, model: str) -> None:
        ticket = Ticket(self.ticket(""))
        self.world.removing.append(ticket)
        self.feed(ev.ModelRemovalWanted(self.now, ticket, f"file:/{model}"))
        assert ticket in self.world.settled, "a removal does not wait"
        if ticket not in self.pool._requests._removals:
            self.world.removing.remove(ticket)

    @precondition(lambda self: self.world.removing)
    @rule(pick=PICK)
    def finish_removal(self, pick: int) -> None:
        self.feed(ev.ModelRemoved(self.now, self.world.removing.pop(pick % len(self.world.removing))))

    @precondition(lambda self: self.count > 40)
    @rule()
    def drain(self) -> None:
        self.feed(ev.DrainWanted(self.now))
        assert not self.world.waiting

    @precondition(lambda self: self.count > 50)
    @rule()
    def shut_down(self) -> None:
        self.feed(ev.ShutdownWanted(self.now))

    # What holds at any time.

    @invariant()
    def live_workers_are_live_processes(self) -> None:
        assert {w.id for w in self.pool.live()} == set(self.world.processes)

    @invariant()
    def nobody_is_stranded(self) -> None:
        """Each ticket that waits is in one place, and for a reason."""
        held = [r.ticket for p in self.pending() for r in p.line]
        held += [t for w in self.pool.live() for t in self.line(w)]
        assert sorted(held) == sorted(self.world.waiting)
        assert len(held) <= LIMITS.queue
        live = {w.id for w in self.pool.live()}
        removed = set(self.pool._requests._removals.values())
        memories: set[str] = set()
        for pending in self.pending():
            assert pending.resolving == (pending.demand in self.world.resolving) or self.pool.closing
            held = pending.held_until is not None and pending.held_until > self.last_tick
            reasons = [pending.resolving, pending.demand.reference in removed, pending.awaited & live, held]
            assert any(reasons) or memories & set(pending.memories), f"{pending} waits for nothing"
            memories |= set(pending.memories)
        for worker in self.pool.live():
            assert not self.line(worker) or worker.state in STARTING or (worker.serving and not worker.free_slots)

    @invariant()
    def slots_are_granted_once(self) -> None:
        for worker in self.pool.live():
            granted = {t for t, w in self.world.granted.items() if w == worker.id}
            assert set(worker.requests) == granted
            assert len(granted) <= worker.slots
            if worker.serving:
                assert (worker.state is WorkerState.BUSY) == bool(granted)

    @invariant()
    def memory_is_accounted_for(self) -> None:
        live = self.pool.live()
        for memory in MEMORIES:
            assert free_bytes(memory, self.world.available(memory), live) == self.unclaimed(memory, live)

    @invariant()
    def one_worker_for_a_recipe(self) -> None:
        recipes = [w.recipe for w in self.pool.live() if w.state is not WorkerState.STOPPING]
        assert all(r not in recipes[:n] for n, r in enumerate(recipes))

    @invariant()
    def states_never_go_back(self) -> None:
        for worker in self.pool.live():
            assert worker.state not in ENDED
            rank = RANK[worker.state]
            assert rank >= self.ranks.get(worker.id, 0)
            self.ranks[worker.id] = rank

    @invariant()
    def who_leaves_was_stopping_or_died(self) -> None:
        stopping = {w.id for w in self.pool.live() if w.state is WorkerState.STOPPING}
        assert stopping == self.world.asked_to_stop & set(self.world.processes)

    @invariant()
    def the_past_is_bounded(self) -> None:
        assert len(self.pool.remembered()) <= REMEMBERED
        assert all(w.state in ENDED for w in self.pool.remembered())
        assert set(self.pool._requests._told) <= set(self.world.waiting)
        assert set(self.pool._requests._lines) <= set(self.world.processes)

    # How it ends.

    def teardown(self) -> None:
        """If all goes well from here, everybody is served; a shutdown then ends every worker."""
        if not hasattr(self, "pool"):
            return
        self.let_all_go_well()
        assert not self.world.waiting, "everybody is served in the end"
        self.ticket("x")
        self.feed(wants(self.count, "a"))
        self.feed(ev.ShutdownWanted(self.now))
        assert not self.world.waiting
        for worker_id in list(self.world.processes):
            self.exit(list(self.world.processes).index(worker_id), "exit code 0")
        assert self.pool.live() == []
        assert not self.pending()

    def let_all_go_well(self) -> None:
        self.world.strangers = dict.fromkeys(MEMORIES, 0)
        for worker in self.pool.live():
            self.feed(ev.PinWanted(self.now, worker.id, pinned=False))
        while self.world.removing:
            self.finish_removal(0)
        for _ in range(60):
            if not self.world.waiting:
                return
            for worker in self.pool.live():
                if worker.state is WorkerState.STOPPING:
                    self.exit(list(self.world.processes).index(worker.id), "exit code 0")
            self.try_all_again()
            while self.world.resolving:
                self.resolve(0, good=True)
            for worker in self.pool.live():
                self.feed(ev.WorkerBound(self.now, worker.id, URL))
                self.feed(ev.WorkerLoaded(self.now, worker.id, slots=1, context_tokens=512))
            while self.world.granted:
                self.end_request(0, well=True)


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=100, stateful_step_count=50, derandomize=True, deadline=None)
