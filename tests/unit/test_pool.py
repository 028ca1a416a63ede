"""The pool as a table: in this state, this event yields exactly these instructions."""

from collections.abc import Sequence

import pytest

from rbee_core.domain import events as ev
from rbee_core.domain import instructions as do
from rbee_core.domain.pool import REMEMBERED, Limits, Pool
from rbee_core.domain.worker import Need, RequestId, Secret, Ticket, Wanted, WorkerId
from rbee_core.errors import (
    InsufficientRam,
    LoadingTimeout,
    ModelLoadFailed,
    RbeeError,
    ShuttingDown,
    VramExhausted,
    WorkerCrashed,
    WorkerNotFound,
)

LIMITS = Limits(worker_start_s=30, load_stall_s=60, idle_s=300, probe_every_s=20)
W = WorkerId("worker-1")
NEED = Need(mapped_bytes=60, private_bytes=40)
URL = "http://127.0.0.1:1"
REFUSED = ModelLoadFailed(reference="a", why="it is a text file")
NO_FORK = RbeeError("fork: Resource temporarily unavailable")


def wants(
    ticket: int,
    worker: str = W,
    *,
    model: str = "a",
    device: str = "cpu",
    need: Need = NEED,
    available: int = 1000,
    host_memory: bool = True,
    at: float = 0,
) -> ev.WorkerWanted:
    wanted = Wanted(f"file:/{model}", f"/{model}", "gguf", 60, "scripted", device)
    return ev.WorkerWanted(
        at, Ticket(ticket), wanted, need, available, WorkerId(worker), Secret("hush-hush"), host_memory
    )


def launched(worker: str = W, at: float = 0) -> ev.ChildLaunched:
    return ev.ChildLaunched(at, WorkerId(worker), pid=77)


def bound(worker: str = W, at: float = 0) -> ev.WorkerBound:
    return ev.WorkerBound(at, WorkerId(worker), URL)


def loaded(worker: str = W, at: float = 0) -> ev.WorkerLoaded:
    return ev.WorkerLoaded(at, WorkerId(worker), slots=1, context_tokens=512)


def started(request: str = "r1", at: float = 0) -> ev.RequestStarted:
    return ev.RequestStarted(at, W, RequestId(request))


def ended(request: str = "r1", at: float = 0) -> ev.RequestEnded:
    return ev.RequestEnded(at, W, RequestId(request))


def stop(worker: str = W, at: float = 0) -> ev.StopWanted:
    return ev.StopWanted(at, WorkerId(worker), "asked to stop")


def exited(how: str = "SIGSEGV", worker: str = W, at: float = 0) -> ev.ChildExited:
    return ev.ChildExited(at, WorkerId(worker), how, ("last words",))


HISTORIES: dict[str, list[ev.Event]] = {
    "launching": [wants(1), launched()],
    "loading": [wants(1), launched(), bound()],
    "idle": [wants(1), launched(), bound(), loaded()],
    "busy": [wants(1), launched(), bound(), loaded(), started()],
    "stopping": [wants(1), launched(), bound(), loaded(), stop()],
    "unloaded": [wants(1), launched(), bound(), loaded(), stop(), exited("exit code 0")],
    "crashed": [wants(1), launched(), bound(), loaded(), exited()],
    "failed": [wants(1), launched(), bound(), exited()],
    "evicted": [wants(1), launched(), bound(), loaded(), ev.Tick(1000), exited("exit code 0")],
}


def pool_in(state: str) -> Pool:
    pool = Pool(LIMITS)
    feed(pool, HISTORIES[state])
    assert pool.find(W).state == state
    return pool


def feed(pool: Pool, events: Sequence[ev.Event]) -> list[do.Instruction]:
    return [instruction for event in events for instruction in pool.handle(event)]


def said(text: str) -> do.Announce:
    return do.Announce(W, text)


def gone(text: str) -> do.Announce:
    return do.Announce(W, text, gone=True)


STOPPING = [said("stopping: asked to stop"), do.Stop(W)]
NOTHING: list[do.Instruction] = []

# (state before, event, instructions, state after). Refusals are compared by ticket and error class below.
TABLE: list[tuple[str, ev.Event, Sequence[do.Instruction], str]] = [
    # The child's process.
    ("launching", launched(), NOTHING, "launching"),
    ("loading", exited(), [gone("failed: SIGSEGV")], "failed"),
    ("idle", exited(), [gone("crashed: SIGSEGV")], "crashed"),
    ("busy", exited("exit code 3"), [gone("crashed: exit code 3")], "crashed"),
    ("stopping", exited("SIGKILL"), [gone("unloaded: asked to stop")], "unloaded"),
    # Loading.
    ("loading", bound(), NOTHING, "loading"),
    ("idle", bound(), NOTHING, "idle"),
    ("stopping", bound(), NOTHING, "stopping"),
    ("launching", ev.LoadProgressed(1, W, 0.5, ""), NOTHING, "launching"),
    ("loading", ev.LoadProgressed(1, W, 0.5, "weights"), NOTHING, "loading"),
    ("idle", ev.LoadProgressed(1, W, 0.5, ""), NOTHING, "idle"),
    ("stopping", ev.LoadProgressed(1, W, 0.5, ""), NOTHING, "stopping"),
    ("launching", loaded(), NOTHING, "launching"),
    ("loading", loaded(), [do.Announce(W, "ready with 1 slots of 512 tokens", ready=True)], "idle"),
    ("busy", loaded(), NOTHING, "busy"),
    ("stopping", loaded(), NOTHING, "stopping"),
    ("loading", ev.LoadFailed(1, W, REFUSED), [said(f"stopping: {REFUSED}"), do.Stop(W)], "stopping"),
    ("idle", ev.LoadFailed(1, W, REFUSED), NOTHING, "idle"),
    ("stopping", ev.LoadFailed(1, W, REFUSED), NOTHING, "stopping"),
    # Requests.
    ("loading", started(), NOTHING, "loading"),
    ("idle", started(), NOTHING, "busy"),
    ("idle", ended("unknown"), NOTHING, "idle"),
    ("busy", started("r2"), NOTHING, "busy"),
    ("busy", ended("unknown"), NOTHING, "busy"),
    ("busy", ended(), NOTHING, "idle"),
    ("stopping", started(), NOTHING, "stopping"),
    ("stopping", ended(), NOTHING, "stopping"),
    # Probes.
    ("idle", ev.ProbeAnswered(1, W), NOTHING, "idle"),
    ("idle", ev.ProbeFailed(1, W), NOTHING, "idle"),
    ("loading", ev.ProbeFailed(1, W), NOTHING, "loading"),
    ("stopping", ev.ProbeFailed(1, W), NOTHING, "stopping"),
    # Stopping.
    ("loading", stop(), STOPPING, "stopping"),
    ("idle", stop(), STOPPING, "stopping"),
    ("busy", stop(), STOPPING, "stopping"),
    ("stopping", stop(), NOTHING, "stopping"),
    ("idle", ev.ShutdownWanted(1), [said("stopping: the hive is shutting down"), do.Stop(W)], "stopping"),
    ("stopping", ev.ShutdownWanted(1), NOTHING, "stopping"),
    # Time.
    ("launching", ev.Tick(29.9), NOTHING, "launching"),
    ("loading", ev.Tick(59.9), NOTHING, "loading"),
    ("idle", ev.Tick(19.9), NOTHING, "idle"),
    ("idle", ev.Tick(20), [do.Probe(W)], "idle"),
    ("busy", ev.Tick(20), [do.Probe(W)], "busy"),
    ("busy", ev.Tick(1000), [do.Probe(W)], "busy"),
    ("idle", ev.Tick(300), [said("stopping: idle for 300 s"), do.Stop(W)], "stopping"),
    ("stopping", ev.Tick(1000), NOTHING, "stopping"),
    # Wants, once the worker's address is known.
    ("loading", wants(2, "worker-2"), [do.Answer(Ticket(2), W)], "loading"),
    ("idle", wants(2, "worker-2"), [do.Answer(Ticket(2), W)], "idle"),
    ("busy", wants(2, "worker-2"), [do.Answer(Ticket(2), W)], "busy"),
    ("launching", wants(2, "worker-2"), NOTHING, "launching"),
    ("idle", ev.TicketDropped(1, Ticket(1)), NOTHING, "idle"),
]


@pytest.mark.parametrize(("before", "event", "expected", "after"), TABLE)
def test_table(before: str, event: ev.Event, expected: Sequence[do.Instruction], after: str) -> None:
    pool = pool_in(before)
    assert pool.handle(event) == list(expected)
    assert pool.find(W).state == after


WORKER_EVENTS: list[ev.Event] = [
    launched(),
    ev.LaunchFailed(1, W, NO_FORK),
    bound(),
    ev.LoadProgressed(1, W, 0.5, ""),
    loaded(),
    ev.LoadFailed(1, W, REFUSED),
    ev.ProbeAnswered(1, W),
    ev.ProbeFailed(1, W),
    started(),
    ended(),
    stop(),
    exited(),
    ev.Tick(5000),
    ev.ShutdownWanted(1),
]


@pytest.mark.parametrize("end", ["unloaded", "crashed", "failed", "evicted"])
@pytest.mark.parametrize("event", WORKER_EVENTS, ids=lambda e: type(e).__name__)
def test_an_end_is_final(end: str, event: ev.Event) -> None:
    pool = pool_in(end)
    assert pool.handle(event) == []
    assert pool.find(W).state == end
    assert pool.live() == []


@pytest.mark.parametrize("event", WORKER_EVENTS, ids=lambda e: type(e).__name__)
def test_events_of_unknown_workers_change_nothing(event: ev.Event) -> None:
    pool = Pool(LIMITS)
    assert pool.handle(event) == []
    assert pool.live() == []
    with pytest.raises(WorkerNotFound):
        pool.find(W)


def test_a_want_launches_a_worker() -> None:
    pool = Pool(LIMITS)
    assert pool.handle(wants(1)) == [said("launching for file:/a on cpu"), do.Launch(W)]
    worker = pool.find(W)
    assert (worker.state, worker.pid, worker.url) == ("launching", 0, "")
    pool.handle(launched())
    assert worker.pid == 77


def test_equal_wants_share_one_worker_however_many_ask() -> None:
    pool = Pool(LIMITS)
    instructions = feed(pool, [wants(n, f"worker-{n}") for n in range(1, 51)])
    assert [i for i in instructions if isinstance(i, do.Launch)] == [do.Launch(W)]
    answers = pool.handle(bound())
    assert answers == [said(f"registered at {URL}"), *[do.Answer(Ticket(n), W) for n in range(1, 51)], do.Watch(W)]
    assert pool.find(W).tickets == []


@pytest.mark.parametrize("other", [wants(2, "worker-2", model="b"), wants(2, "worker-2", device="cuda:0")])
def test_other_wants_get_a_worker_of_their_own(other: ev.WorkerWanted) -> None:
    pool = pool_in("idle")
    assert do.Launch(WorkerId("worker-2")) in pool.handle(other)
    assert len(pool.live()) == 2


def test_a_want_while_the_holder_stops_gets_a_new_worker() -> None:
    pool = pool_in("stopping")
    assert do.Launch(WorkerId("worker-2")) in pool.handle(wants(2, "worker-2"))


def test_an_idle_holder_is_preferred() -> None:
    pool = pool_in("busy")
    pool.handle(wants(2, "worker-2", model="b"))
    pool.find("worker-2").wanted = pool.find(W).wanted  # as after a change of the options that `Wanted` does not carry
    feed(pool, [bound("worker-2"), loaded("worker-2")])
    assert pool.handle(wants(3, "worker-3")) == [do.Answer(Ticket(3), WorkerId("worker-2"))]


def test_a_dropped_ticket_is_not_answered_and_its_worker_lives_on() -> None:
    pool = Pool(LIMITS)
    feed(pool, [wants(1), launched(), wants(2, "worker-2")])
    assert pool.handle(ev.TicketDropped(1, Ticket(1))) == []
    assert [i for i in pool.handle(bound()) if isinstance(i, do.Answer)] == [do.Answer(Ticket(2), W)]


def test_an_unknown_ticket_can_be_dropped() -> None:
    assert pool_in("launching").handle(ev.TicketDropped(1, Ticket(99))) == []


# Memory.


@pytest.mark.parametrize(("host_memory", "shortage"), [(True, InsufficientRam), (False, VramExhausted)])
def test_a_want_that_does_not_fit_is_refused(host_memory: bool, shortage: type[RbeeError]) -> None:
    pool = Pool(LIMITS)
    error = only_refusal(pool.handle(wants(1, available=99, host_memory=host_memory)), ticket=1)
    assert isinstance(error, shortage)
    assert error.details == {"need_bytes": 100, "have_bytes": 99}
    assert pool.live() == []


def test_what_starting_workers_will_take_is_set_aside() -> None:
    pool = Pool(LIMITS)
    pool.handle(wants(1, available=199))
    error = only_refusal(pool.handle(wants(2, "worker-2", model="b", available=199)), ticket=2)
    assert error.details == {"need_bytes": 100, "have_bytes": 99}


def test_of_serving_workers_only_the_mapped_weights_are_set_aside() -> None:
    pool = pool_in("idle")
    assert only_refusal(pool.handle(wants(2, "worker-2", model="b", available=159)), ticket=2)
    assert do.Launch(WorkerId("worker-2")) in pool.handle(wants(3, "worker-2", model="b", available=160))


def test_an_end_gives_its_memory_back() -> None:
    pool = pool_in("launching")
    pool.handle(exited())
    assert do.Launch(WorkerId("worker-2")) in pool.handle(wants(2, "worker-2", available=100))


# Ways out: whoever waits is told, with the reason.


def only_refusal(instructions: Sequence[do.Instruction], ticket: int) -> RbeeError:
    refusals = [i for i in instructions if isinstance(i, do.Refuse)]
    assert [r.ticket for r in refusals] == [Ticket(ticket)]
    return refusals[0].error


@pytest.mark.parametrize(
    ("event", "error", "state"),
    [
        (ev.LaunchFailed(1, W, NO_FORK), RbeeError, "failed"),
        (exited("exit code 1"), WorkerCrashed, "failed"),
        (ev.LoadFailed(1, W, REFUSED), ModelLoadFailed, "stopping"),
        (ev.Tick(30), LoadingTimeout, "stopping"),
        (stop(), ShuttingDown, "stopping"),
        (ev.ShutdownWanted(1), ShuttingDown, "stopping"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_way_out_of_launching_refuses_the_waiting(event: ev.Event, error: type[RbeeError], state: str) -> None:
    pool = pool_in("launching")
    assert isinstance(only_refusal(pool.handle(event), ticket=1), error)
    assert pool.find(W).state == state
    assert pool.find(W).tickets == []


def test_a_crash_names_exit_and_last_lines() -> None:
    pool = pool_in("busy")
    pool.handle(exited("SIGSEGV"))
    worker = pool.find(W)
    assert worker.error is not None
    assert worker.error.code == "WORKER_CRASHED"
    assert worker.error.details["exit"] == "SIGSEGV"
    assert worker.error.details["log_tail"] == ["last words"]
    assert worker.requests == set()


def test_the_reason_of_a_failed_load_outlives_the_exit() -> None:
    pool = pool_in("loading")
    feed(pool, [ev.LoadFailed(1, W, REFUSED), exited("exit code 0")])
    worker = pool.find(W)
    assert (worker.state, worker.reason) == ("failed", REFUSED.message)
    assert worker.error is REFUSED


@pytest.mark.parametrize("end", ["unloaded", "evicted"])
def test_a_wanted_end_is_no_error(end: str) -> None:
    assert pool_in(end).find(W).error is None


# Stall, idle time, probes.


def test_progress_extends_the_stall_timeout() -> None:
    pool = pool_in("loading")
    for at in range(50, 1000, 50):
        assert feed(pool, [ev.LoadProgressed(at, W, at / 1000, "weights"), ev.Tick(at + 49)]) == []
    timeout = [said("stopping: Worker worker-1 stopped making progress at 95% for 60 s"), do.Stop(W)]
    assert pool.handle(ev.Tick(950 + 60)) == timeout
    assert pool.find(W).error is not None
    pool.handle(exited("exit code 0"))
    assert pool.find(W).state == "failed"


def test_a_request_restarts_the_idle_time() -> None:
    pool = pool_in("idle")
    feed(pool, [started(at=200), ended(at=250)])
    assert pool.handle(ev.Tick(549)) == [do.Probe(W)]
    assert do.Stop(W) in pool.handle(ev.Tick(550))


def test_a_worker_is_idle_when_its_last_request_ends() -> None:
    pool = pool_in("busy")
    feed(pool, [started("r2"), ended("r1")])
    assert pool.find(W).state == "busy"
    pool.handle(ended("r2"))
    assert pool.find(W).state == "idle"


def test_a_worker_is_probed_once_an_interval() -> None:
    pool = pool_in("busy")
    probes = [at for at in range(100) if do.Probe(W) in pool.handle(ev.Tick(at))]
    assert probes == [20, 40, 60, 80]


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_worker_that_misses_three_probes_is_killed_and_counts_as_crashed(state: str) -> None:
    pool = pool_in(state)
    miss = ev.ProbeFailed(1, W)
    assert feed(pool, [miss, miss]) == []
    assert pool.handle(miss) == [said("stopping: it stopped answering"), do.Stop(W, force=True)]
    pool.handle(exited("SIGKILL"))
    worker = pool.find(W)
    assert (worker.state, worker.reason) == ("crashed", "it stopped answering")
    assert worker.error is not None
    assert worker.error.code == "WORKER_CRASHED"


def test_an_answered_probe_forgives_the_missed_ones() -> None:
    pool = pool_in("idle")
    miss = ev.ProbeFailed(1, W)
    assert feed(pool, [miss, miss, ev.ProbeAnswered(2, W), miss, miss]) == []
    assert pool.find(W).state == "idle"


# Shutdown and memory of the past.


def test_shutdown_stops_all_and_nothing_starts_afterwards() -> None:
    pool = pool_in("idle")
    feed(pool, [wants(2, "worker-2", model="b"), launched("worker-2")])
    stops = [i for i in pool.handle(ev.ShutdownWanted(1)) if isinstance(i, do.Stop)]
    assert stops == [do.Stop(W), do.Stop(WorkerId("worker-2"))]
    error = only_refusal(pool.handle(wants(3, "worker-3", model="c")), ticket=3)
    assert isinstance(error, ShuttingDown)
    feed(pool, [exited("exit code 0"), exited("exit code 0", "worker-2")])
    assert pool.live() == []


def test_a_late_callback_after_shutdown_is_ignored() -> None:
    pool = pool_in("launching")
    pool.handle(ev.ShutdownWanted(1))
    assert pool.handle(bound()) == []


def test_remembered_ends_are_bounded() -> None:
    pool = Pool(LIMITS)
    for n in range(REMEMBERED + 10):
        feed(pool, [wants(n, f"worker-{n}"), exited(worker=f"worker-{n}")])
    with pytest.raises(WorkerNotFound):
        pool.find("worker-9")
    assert pool.find("worker-10").state == "failed"


def test_no_representation_shows_the_secret() -> None:
    pool = pool_in("idle")
    shown = repr(pool.find(W)) + repr(pool) + repr(wants(1))
    assert "Secret(…)" in shown
    assert str(pool.find(W).secret) not in shown
    assert repr(pool) == "<Pool worker-1 idle>"
