"""The pool under arbitrary histories: whatever order events come in, its promises hold."""

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from rbee_core.domain import events as ev
from rbee_core.domain import instructions as do
from rbee_core.domain.placement import free_bytes
from rbee_core.domain.pool import REMEMBERED, Limits, Pool
from rbee_core.domain.worker import ENDED, Need, RequestId, Secret, Ticket, Wanted, Worker, WorkerId, WorkerState
from rbee_core.errors import RbeeError

MEMORY = 1000
NEED = Need(mapped_bytes=150, private_bytes=100)
LIMITS = Limits(worker_start_s=30, load_stall_s=60, idle_s=100, probe_every_s=20)
RANK = {"launching": 0, "loading": 1, "idle": 2, "busy": 2, "stopping": 3}


class Operator:
    """Carries out what the pool says, as the supervisor would, with a dictionary for an operating system."""

    def __init__(self) -> None:
        self.processes: set[WorkerId] = set()
        self.to_launch: list[WorkerId] = []
        self.asked_to_stop: set[WorkerId] = set()
        self.waiting: set[Ticket] = set()
        self.served: set[Ticket] = set()

    def carry_out(self, instructions: Sequence[do.Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case do.Launch(worker_id):
                    self.to_launch.append(worker_id)
                case do.Stop(worker_id):
                    assert worker_id not in self.asked_to_stop, "a worker is stopped once"
                    self.asked_to_stop.add(worker_id)
                case do.Answer(ticket) | do.Refuse(ticket):
                    assert ticket not in self.served, "a ticket is settled once"
                    self.served.add(ticket)
                    self.waiting.discard(ticket)
                case do.Watch() | do.Probe() | do.Announce():
                    pass


class PoolMachine(RuleBasedStateMachine):
    """Time is virtual and only moves forward; a process exists from Launch to ChildExited."""

    tickets = Bundle("tickets")
    requests = Bundle("requests")

    @initialize()
    def begin(self) -> None:
        self.pool = Pool(LIMITS)
        self.operator = Operator()
        self.now = 0.0
        self.count = 0
        self.ranks: dict[WorkerId, int] = {}
        self.launched_after_shutdown = False

    def feed(self, event: ev.Event) -> None:
        closing = self.pool.closing
        instructions = self.pool.handle(event)
        assert not (closing and any(isinstance(i, do.Launch) for i in instructions)), "nothing starts after shutdown"
        self.operator.carry_out(instructions)
        while self.operator.to_launch:
            self._launch(self.operator.to_launch.pop())

    def _launch(self, worker_id: WorkerId) -> None:
        if self.count % 7 == 6:
            self.feed(ev.LaunchFailed(self.now, worker_id, RbeeError("no more processes")))
            return
        self.operator.processes.add(worker_id)
        self.feed(ev.ChildLaunched(self.now, worker_id, pid=self.count))

    def some_worker(self, pick: int) -> WorkerId:
        """Return a live worker, or one that never was."""
        live = self.pool.live()
        return live[pick % len(live)].id if live else WorkerId("worker-0")

    @rule(target=tickets, model=st.sampled_from("abc"), available=st.sampled_from([100, 400, MEMORY]))
    def want(self, model: str, available: int) -> Ticket:
        self.count += 1
        ticket = Ticket(self.count)
        self.operator.waiting.add(ticket)
        wanted = Wanted(f"file:/{model}", f"/{model}", "gguf", 150, "scripted", "cpu")
        worker_id = WorkerId(f"worker-{self.count}")
        self.feed(ev.WorkerWanted(self.now, ticket, wanted, NEED, available, worker_id, Secret("secret")))
        return ticket

    @rule(ticket=consumes(tickets))
    def drop(self, ticket: Ticket) -> None:
        self.feed(ev.TicketDropped(self.now, ticket))
        self.operator.waiting.discard(ticket)

    @rule(pick=st.integers(0, 9))
    def call_back(self, pick: int) -> None:
        self.feed(ev.WorkerBound(self.now, self.some_worker(pick), "http://127.0.0.1:1"))

    @rule(pick=st.integers(0, 9), fraction=st.floats(0, 1))
    def progress(self, pick: int, fraction: float) -> None:
        self.feed(ev.LoadProgressed(self.now, self.some_worker(pick), fraction, ""))

    @rule(pick=st.integers(0, 9), good=st.booleans())
    def finish_load(self, pick: int, good: bool) -> None:
        worker_id = self.some_worker(pick)
        if good:
            self.feed(ev.WorkerLoaded(self.now, worker_id, slots=2, context_tokens=512))
        else:
            self.feed(ev.LoadFailed(self.now, worker_id, RbeeError("no model")))

    @rule(target=requests, pick=st.integers(0, 9))
    def start_request(self, pick: int) -> tuple[WorkerId, RequestId]:
        self.count += 1
        worker_id, request_id = self.some_worker(pick), RequestId(f"r{self.count}")
        self.feed(ev.RequestStarted(self.now, worker_id, request_id))
        return worker_id, request_id

    @rule(request=consumes(requests))
    def end_request(self, request: tuple[WorkerId, RequestId]) -> None:
        self.feed(ev.RequestEnded(self.now, *request))

    @rule(pick=st.integers(0, 9), alive=st.booleans())
    def probe(self, pick: int, alive: bool) -> None:
        event = ev.ProbeAnswered if alive else ev.ProbeFailed
        self.feed(event(self.now, self.some_worker(pick)))

    @rule(pick=st.integers(0, 9))
    def stop(self, pick: int) -> None:
        self.feed(ev.StopWanted(self.now, self.some_worker(pick), "asked to stop"))

    @precondition(lambda self: self.operator.processes)
    @rule(pick=st.integers(0, 9), how=st.sampled_from(["exit code 0", "SIGSEGV", "SIGKILL"]))
    def exit(self, pick: int, how: str) -> None:
        worker_id = sorted(self.operator.processes)[pick % len(self.operator.processes)]
        self.operator.processes.discard(worker_id)
        self.feed(ev.ChildExited(self.now, worker_id, how, ()))

    @rule(seconds=st.sampled_from([0.5, 5.0, 25.0, 70.0, 200.0]))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.feed(ev.Tick(self.now))

    @precondition(lambda self: self.count > 5)
    @rule()
    def shut_down(self) -> None:
        self.feed(ev.ShutdownWanted(self.now))

    @invariant()
    def live_workers_are_live_processes(self) -> None:
        assert {w.id for w in self.pool.live()} == self.operator.processes

    @invariant()
    def nobody_is_stranded(self) -> None:
        held = [t for w in self.pool.live() for t in w.tickets]
        assert len(held) == len(set(held))
        assert set(held) == self.operator.waiting
        assert all(w.state is WorkerState.LAUNCHING for w in self.pool.live() if w.tickets)

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
        assert stopping == self.operator.asked_to_stop & self.operator.processes

    @invariant()
    def busy_means_requests(self) -> None:
        for worker in self.pool.live():
            if worker.serving:
                assert (worker.state is WorkerState.BUSY) == bool(worker.requests)

    @invariant()
    def memory_is_accounted_for(self) -> None:
        live: list[Worker] = self.pool.live()
        assert 0 <= free_bytes(MEMORY, live) <= MEMORY
        if not live:
            assert free_bytes(MEMORY, live) == MEMORY

    @invariant()
    def the_past_is_bounded(self) -> None:
        assert len(self.pool._ended) <= REMEMBERED
        assert all(w.state in ENDED for w in self.pool._ended.values())

    def teardown(self) -> None:
        """A shutdown ends every worker and settles every ticket, from wherever the history got to."""
        if not hasattr(self, "pool"):
            return
        self.feed(ev.ShutdownWanted(self.now))
        assert not self.operator.waiting
        for worker_id in sorted(self.operator.processes):
            self.operator.processes.discard(worker_id)
            self.feed(ev.ChildExited(self.now, worker_id, "exit code 0", ()))
        assert self.pool.live() == []


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=60, stateful_step_count=40)
