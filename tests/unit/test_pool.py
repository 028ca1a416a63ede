"""The pool as a table: in this state, this event yields exactly these instructions."""

import dataclasses
from collections.abc import Sequence

import msgspec
import pytest

from rbee_core.domain import events as ev
from rbee_core.domain import instructions as do
from rbee_core.domain.pool import REMEMBERED, Limits, Pool
from rbee_core.domain.worker import Demand, Reason, RequestId, Spot, Stay, Ticket, WorkerId
from rbee_core.errors import (
    InvalidRequest,
    LoadingTimeout,
    ModelLoadFailed,
    RbeeError,
    ShuttingDown,
    WorkerCrashed,
    WorkerNotFound,
    WorkerNotReady,
)
from tests.support.pools import (
    NOTHING,
    URL,
    Refused,
    answer,
    bound,
    changed,
    demand,
    dropped,
    ended,
    exited,
    feed,
    grant,
    idle,
    launch,
    launched,
    loaded,
    pinned,
    plain,
    recipe,
    refusal,
    resolved,
    resolved_on,
    stop,
    waits,
    wants,
    wants_worker,
    without_words,
)

LIMITS = Limits(worker_start_s=30, load_stall_s=60, idle_s=300, probe_every_s=20)
W = WorkerId("w1")
REFUSED = ModelLoadFailed(reference="a", why="it is a text file")
NO_FORK = RbeeError("fork: Resource temporarily unavailable")

HISTORIES: dict[str, list[ev.Event]] = {
    "launching": launch(),
    "loading": [*launch(), bound()],
    "idle": idle(),
    "busy": [*idle(), wants(1)],
    "stopping": [*idle(), stop()],
    "unloaded": [*idle(), stop(), exited(how="exit code 0")],
    "crashed": [*idle(), exited()],
    "failed": [*launch(), bound(), exited()],
    "evicted": [*idle(), ev.Tick(1000), exited(how="exit code 0")],
}


def pool_in(state: str) -> Pool:
    pool = Pool(LIMITS)
    feed(pool, HISTORIES[state])
    assert pool.find(W).state == state
    return pool


BUSY = changed("idle", "busy", Reason.REQUEST, "ann")
DONE = changed("busy", "idle", Reason.DONE)


def stopping(before: str, reason: Reason = Reason.ASKED) -> list[do.Instruction]:
    return [changed(before, "stopping", reason), do.Stop(W)]


# (state before, event, instructions, state after).
TABLE: list[tuple[str, ev.Event, Sequence[do.Instruction | Refused], str]] = [
    # The child's process.
    ("launching", launched(), NOTHING, "launching"),
    ("launching", ev.LaunchFailed(1, W, NO_FORK), [changed("launching", "failed", Reason.NOT_LAUNCHED)], "failed"),
    ("launching", exited(), [changed("launching", "failed", Reason.EXITED)], "failed"),
    ("loading", exited(), [changed("loading", "failed", Reason.EXITED)], "failed"),
    ("idle", exited(), [changed("idle", "crashed", Reason.EXITED)], "crashed"),
    ("busy", exited(), [changed("busy", "crashed", Reason.EXITED)], "crashed"),
    ("stopping", exited(), [changed("stopping", "unloaded", Reason.EXITED)], "unloaded"),
    # Loading.
    ("launching", bound(), [changed("launching", "loading", Reason.BOUND), do.Watch(W)], "loading"),
    ("loading", bound(), NOTHING, "loading"),
    ("idle", bound(), NOTHING, "idle"),
    ("stopping", bound(), NOTHING, "stopping"),
    ("launching", ev.LoadProgressed(1, W, 0.5, ""), NOTHING, "launching"),
    ("loading", ev.LoadProgressed(1, W, 0.5, "weights"), NOTHING, "loading"),
    ("idle", ev.LoadProgressed(1, W, 0.5, ""), NOTHING, "idle"),
    ("stopping", ev.LoadProgressed(1, W, 0.5, ""), NOTHING, "stopping"),
    ("launching", loaded(), NOTHING, "launching"),
    ("loading", loaded(), [changed("loading", "idle", Reason.LOADED)], "idle"),
    ("busy", loaded(), NOTHING, "busy"),
    ("stopping", loaded(), NOTHING, "stopping"),
    ("launching", ev.LoadFailed(1, W, REFUSED), stopping("launching", Reason.NOT_LOADED), "stopping"),
    ("loading", ev.LoadFailed(1, W, REFUSED), stopping("loading", Reason.NOT_LOADED), "stopping"),
    ("idle", ev.LoadFailed(1, W, REFUSED), NOTHING, "idle"),
    ("stopping", ev.LoadFailed(1, W, REFUSED), NOTHING, "stopping"),
    # Requests for a model that a worker holds.
    ("launching", wants(2), [waits(2, 1, "the model")], "launching"),
    ("loading", wants(2), [waits(2, 1, "the model")], "loading"),
    ("idle", wants(2), [grant(2), BUSY], "busy"),
    ("idle", wants(2, queue=False), [grant(2), BUSY], "busy"),
    ("busy", wants(2), [waits(2, 1, "a slot")], "busy"),
    ("stopping", wants(2), [do.Resolve(demand()), waits(2, 1, "the model")], "stopping"),
    ("crashed", wants(2), [do.Resolve(demand()), waits(2, 1, "the model")], "crashed"),
    ("idle", ended(99), NOTHING, "idle"),
    ("idle", dropped(99), NOTHING, "idle"),
    ("busy", ended(99), NOTHING, "busy"),
    ("busy", ended(1), [DONE], "idle"),
    ("busy", dropped(1), [DONE], "idle"),
    # Requests for a worker.
    ("idle", wants_worker(2), [grant(2), BUSY], "busy"),
    ("idle", wants_worker(2, "w9"), [Refused(2, WorkerNotFound)], "idle"),
    ("loading", wants_worker(2), [waits(2, 1, "the model")], "loading"),
    ("loading", wants_worker(2, queue=False), [Refused(2, WorkerNotReady)], "loading"),
    ("stopping", wants_worker(2), [Refused(2, WorkerNotReady)], "stopping"),
    ("evicted", wants_worker(2), [Refused(2, WorkerNotReady)], "evicted"),
    ("busy", wants_worker(2, name="r1"), [Refused(2, InvalidRequest)], "busy"),
    # Probes.
    ("idle", ev.ProbeAnswered(1, W), NOTHING, "idle"),
    ("idle", ev.ProbeFailed(1, W), NOTHING, "idle"),
    ("loading", ev.ProbeFailed(1, W), NOTHING, "loading"),
    ("stopping", ev.ProbeFailed(1, W), NOTHING, "stopping"),
    # Stopping.
    ("launching", stop(), stopping("launching"), "stopping"),
    ("loading", stop(), stopping("loading"), "stopping"),
    ("idle", stop(), stopping("idle"), "stopping"),
    ("busy", stop(), stopping("busy"), "stopping"),
    ("stopping", stop(), NOTHING, "stopping"),
    ("idle", ev.DrainWanted(1), NOTHING, "idle"),
    ("busy", ev.DrainWanted(1), NOTHING, "busy"),
    ("idle", ev.ShutdownWanted(1), stopping("idle", Reason.SHUTDOWN), "stopping"),
    ("stopping", ev.ShutdownWanted(1), NOTHING, "stopping"),
    # Time.
    ("launching", ev.Tick(29.9), NOTHING, "launching"),
    ("launching", ev.Tick(30), stopping("launching", Reason.STALLED), "stopping"),
    ("loading", ev.Tick(59.9), NOTHING, "loading"),
    ("loading", ev.Tick(60), stopping("loading", Reason.STALLED), "stopping"),
    ("idle", ev.Tick(19.9), NOTHING, "idle"),
    ("idle", ev.Tick(20), [do.Probe(W)], "idle"),
    ("busy", ev.Tick(20), [do.Probe(W)], "busy"),
    ("busy", ev.Tick(1000), [do.Probe(W)], "busy"),
    ("idle", ev.Tick(300), stopping("idle", Reason.IDLE), "stopping"),
    ("stopping", ev.Tick(1000), NOTHING, "stopping"),
]


@pytest.mark.parametrize(("before", "event", "expected", "after"), TABLE)
def test_table(before: str, event: ev.Event, expected: Sequence[do.Instruction | Refused], after: str) -> None:
    pool = pool_in(before)
    assert plain(pool.handle(event)) == list(expected)
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
    pinned(),
    ended(1),
    dropped(1),
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


# A life, from the first wish to the end.


def test_a_demand_is_resolved_then_a_worker_is_launched_bound_and_loaded() -> None:
    pool = Pool(LIMITS)
    assert pool.handle(wants(1)) == [do.Resolve(demand()), waits(1, 1, "the model")]
    assert pool.live() == []
    assert pool.handle(resolved()) == [changed("", "launching", Reason.WANTED, "ann"), do.Launch(W)]
    worker = pool.find(W)
    assert (worker.state, worker.pid, worker.url) == ("launching", 0, "")
    assert pool.handle(launched()) == []
    assert worker.pid == 77
    pool.handle(bound())
    assert worker.url == URL
    assert pool.handle(ev.LoadProgressed(1, W, 0.5, "weights")) == [waits(1, 1, "the model", 0.5)]
    assert pool.handle(loaded()) == [changed("loading", "idle", Reason.LOADED), grant(1), BUSY]
    assert (worker.slots, worker.context_tokens, worker.requests) == (1, 512, {1: "r1"})


@pytest.mark.parametrize(("offered", "told"), [(1, "4 slots were asked for, its engine has 1"), (4, ""), (8, "")])
def test_n31_an_engine_with_fewer_slots_than_asked_for_is_told(offered: int, told: str) -> None:
    pool = Pool(LIMITS)
    asked = ev.Resolved(
        at=0, demand=demand(), spots=(Spot(recipe(slots=4), 1000),), worker_id=W, secret=resolved().secret
    )  # fmt: skip
    feed(pool, [wants(1), asked, launched(), bound(), loaded(slots=offered)])
    assert pool.find(W).detail == told


@pytest.mark.parametrize(("until", "event"), [("bound", bound()), ("ready", loaded())])
def test_a_ticket_is_answered_when_the_worker_is_as_far_as_it_wants(until: ev.Until, event: ev.Event) -> None:
    pool = Pool(LIMITS)
    feed(pool, [wants(1, until=until), resolved(), launched()])
    events = [bound(), loaded()]
    for other in events[: events.index(event)]:
        assert answer(1) not in pool.handle(other)
    assert answer(1) in pool.handle(event)
    assert answer(1) not in feed(pool, events[events.index(event) + 1 :])


@pytest.mark.parametrize("until", ["bound", "ready"])
@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_ticket_for_a_worker_that_serves_is_answered_once_it_is_resolved(state: str, until: ev.Until) -> None:
    pool = pool_in(state)
    assert without_words(feed(pool, [wants(2, until=until), resolved(worker="w2")])) == [
        do.Resolve(demand()), answer(2)
    ]  # fmt: skip


@pytest.mark.parametrize("other", [("b", None), ("a", 1)])
def test_other_demands_get_a_worker_of_their_own(other: tuple[str, int | None]) -> None:
    model, device = other
    pool = pool_in("idle")
    said = feed(pool, [wants(2, model, device=device), resolved(model, "w2", device=device)])
    assert do.Launch(WorkerId("w2")) in said
    assert len(pool.live()) == 2


def test_what_a_demand_means_may_change() -> None:
    """The file was replaced by a larger one: a spawn gets a new worker, and requests go there from then on."""
    pool = pool_in("idle")
    changed_file = ev.Resolved(
        at=0, demand=demand(), spots=resolved("b").spots, worker_id=WorkerId("w2"), secret=resolved().secret
    )  # fmt: skip
    feed(pool, [wants(2, until="bound"), changed_file, bound("w2"), loaded("w2")])
    assert grant(3, "w2") in pool.handle(wants(3))


def test_a_worker_that_would_serve_is_shown_and_not_claimed() -> None:
    pool = pool_in("idle")
    assert pool.would_serve(demand()) is pool.find(W)
    assert pool.would_serve(demand("b")) is None
    pool.handle(wants(1))
    assert pool.would_serve(demand()) is None


# Ways out: whoever waits is told, with the reason.


@pytest.mark.parametrize(
    ("event", "error", "state"),
    [
        (ev.LaunchFailed(1, W, NO_FORK), RbeeError, "failed"),
        (exited(how="exit code 1"), WorkerCrashed, "failed"),
        (ev.LoadFailed(1, W, REFUSED), ModelLoadFailed, "stopping"),
        (ev.Tick(30), LoadingTimeout, "stopping"),
        (stop(), ShuttingDown, "stopping"),
        (ev.DrainWanted(1), ShuttingDown, "launching"),
        (ev.ShutdownWanted(1), ShuttingDown, "stopping"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("until", ["bound", "ready", "slot"])
def test_every_way_out_of_launching_refuses_the_waiting(
    event: ev.Event, error: type[RbeeError], state: str, until: ev.Until
) -> None:
    pool = Pool(LIMITS)
    feed(pool, [wants(1, until=until), resolved(), launched()])
    assert isinstance(refusal(pool.handle(event), ticket=1), error)
    assert pool.find(W).state == state
    assert not any(isinstance(i, do.Refuse) for i in feed(pool, [exited(), ev.ShutdownWanted(2)]))


@pytest.mark.parametrize(
    ("event", "error"),
    [(exited(), WorkerCrashed), (stop(), ShuttingDown), (ev.DrainWanted(1), ShuttingDown)],
    ids=lambda value: type(value).__name__,
)
def test_every_way_out_of_serving_refuses_the_queue(event: ev.Event, error: type[RbeeError]) -> None:
    pool = pool_in("busy")
    pool.handle(wants(2))
    assert isinstance(refusal(pool.handle(event), ticket=2), error)


def test_a_demand_that_cannot_be_resolved_is_refused_to_all() -> None:
    pool = Pool(LIMITS)
    feed(pool, [wants(1), wants(2, until="bound"), wants(3, "b")])
    assert plain(pool.handle(ev.Unresolvable(1, demand(), REFUSED))) == [
        Refused(1, ModelLoadFailed), Refused(2, ModelLoadFailed)
    ]  # fmt: skip
    assert do.Resolve(demand()) in pool.handle(wants(4))


def test_a_crash_names_exit_and_last_lines() -> None:
    pool = pool_in("busy")
    pool.handle(exited())
    worker = pool.find(W)
    assert isinstance(worker.error, WorkerCrashed)
    assert worker.error.details == {"worker_id": "w1", "exit": "SIGSEGV", "log_tail": ["last words"]}
    assert (worker.reason, worker.requests) == ("SIGSEGV", {})


def test_the_reason_of_a_failed_load_outlives_the_exit() -> None:
    pool = pool_in("loading")
    feed(pool, [ev.LoadFailed(1, W, REFUSED), exited(how="exit code 0")])
    worker = pool.find(W)
    assert (worker.state, worker.reason, worker.error) == ("failed", REFUSED.message, REFUSED)


@pytest.mark.parametrize(("end", "words"), [("unloaded", "asked to stop"), ("evicted", "idle for 1000 s")])
def test_a_wanted_end_is_no_error(end: str, words: str) -> None:
    worker = pool_in(end).find(W)
    assert (worker.error, worker.reason) == (None, words)


def test_m9_a_worker_that_did_not_stop_when_asked_says_how_it_was_killed() -> None:
    pool = pool_in("stopping")
    killed = "killed by the hive after 21 s: it did not stop when asked"
    pool.handle(ev.ChildExited(1, W, killed, (), unwilling=True))
    worker = pool.find(W)
    assert (worker.state, worker.error, worker.reason) == ("unloaded", None, f"asked to stop; {killed}")


# Stall, idle time, probes.


def test_progress_extends_the_stall_timeout() -> None:
    pool = pool_in("loading")
    for at in range(50, 1000, 50):
        assert feed(pool, [ev.LoadProgressed(at, W, at / 1000, "weights"), ev.Tick(at + 49)]) == []
    assert pool.handle(ev.Tick(950 + 60)) == stopping("loading", Reason.STALLED)
    pool.handle(exited(how="exit code 0"))
    worker = pool.find(W)
    assert (worker.state, type(worker.error)) == ("failed", LoadingTimeout)


def test_a_request_restarts_the_idle_time() -> None:
    pool = pool_in("idle")
    feed(pool, [wants(1, at=200), ended(1, at=250)])
    assert pool.handle(ev.Tick(549)) == [do.Probe(W)]
    assert do.Stop(W) in pool.handle(ev.Tick(550))


def test_a_pinned_worker_is_not_stopped_for_being_idle() -> None:
    pool = pool_in("idle")
    assert feed(pool, [pinned(), ev.Tick(1000)]) == [do.Probe(W)]
    assert do.Stop(W) in feed(pool, [pinned(pinned=False), ev.Tick(1001)])


def test_a_worker_is_probed_once_an_interval() -> None:
    pool = pool_in("busy")
    probes = [at for at in range(100) if do.Probe(W) in pool.handle(ev.Tick(at))]
    assert probes == [20, 40, 60, 80]


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_worker_that_misses_three_probes_is_killed_and_counts_as_crashed(state: str) -> None:
    pool = pool_in(state)
    miss = ev.ProbeFailed(1, W)
    assert feed(pool, [miss, miss]) == []
    assert pool.handle(miss) == [changed(state, "stopping", Reason.NOT_ANSWERING), do.Stop(W, force=True)]
    pool.handle(exited(how="SIGKILL"))
    worker = pool.find(W)
    assert (worker.state, worker.reason, type(worker.error)) == ("crashed", "it stopped answering", WorkerCrashed)


def test_an_answered_probe_forgives_the_missed_ones() -> None:
    pool = pool_in("idle")
    miss = ev.ProbeFailed(1, W)
    assert feed(pool, [miss, miss, ev.ProbeAnswered(2, W), miss, miss]) == []
    assert pool.find(W).state == "idle"


# Shutdown and memory of the past.


def test_shutdown_stops_all_and_nothing_starts_afterwards() -> None:
    pool = pool_in("busy")
    feed(pool, launch("w2", "b"))
    feed(pool, [wants(3, "c"), wants(4)])
    said = pool.handle(ev.ShutdownWanted(1))
    assert [i.worker_id for i in said if isinstance(i, do.Stop)] == ["w1", "w2"]
    assert [(i.ticket, type(i.error)) for i in said if isinstance(i, do.Refuse)] == [
        (3, ShuttingDown), (4, ShuttingDown)
    ]  # fmt: skip
    assert pool.handle(resolved("c", "w3")) == []
    assert plain(pool.handle(wants(5, "d"))) == [Refused(5, ShuttingDown)]
    feed(pool, [exited(how="exit code 0"), exited("w2", "exit code 0")])
    assert pool.live() == []


def test_who_holds_a_slot_when_the_hive_drains_keeps_it() -> None:
    pool = pool_in("busy")
    assert pool.handle(ev.DrainWanted(1)) == []
    assert pool.find(W).requests == {Ticket(1): "r1"}
    assert pool.handle(ended(1)) == [DONE]


def test_a_late_callback_after_shutdown_is_ignored() -> None:
    pool = pool_in("launching")
    pool.handle(ev.ShutdownWanted(1))
    assert pool.handle(bound()) == []


def test_remembered_ends_are_bounded() -> None:
    pool = Pool(LIMITS)
    for n in range(REMEMBERED + 10):
        feed(pool, [*launch(f"w{n}"), stop(f"w{n}"), exited(f"w{n}")])
    with pytest.raises(WorkerNotFound):
        pool.find("w9")
    assert pool.find("w10").state == "unloaded"
    assert len(pool.remembered()) == REMEMBERED


def test_no_representation_shows_the_secret() -> None:
    pool = pool_in("idle")
    shown = repr(pool.find(W)) + repr(pool) + repr(resolved())
    assert "Secret(…)" in shown
    assert str(pool.find(W).secret) not in shown
    assert repr(pool) == "<Pool w1 idle>"


# What the owner settles for one model.

ADA = Demand("file:/a", section="ada")
ADA_WANTS = ev.RequestWanted(at=0, ticket=Ticket(1), client="ann", demand=ADA, request_id=RequestId("r1"))
ADA_RUNS = [ADA_WANTS, resolved_on("a", "w1", {0: 1000}, wanted=ADA), launched(), bound(), loaded(), ended(1)]


def limits(**stays: Stay) -> Limits:
    return dataclasses.replace(LIMITS, stays=stays)


def test_how_long_a_worker_stays_is_said_by_its_models_settings() -> None:
    pool = Pool(limits(ada=Stay(10)))
    feed(pool, ADA_RUNS)
    assert pool.handle(ev.Tick(9.9)) == NOTHING
    assert do.Stop(W) in pool.handle(ev.Tick(10))


def test_a_pinned_model_stays_whoever_needs_the_room() -> None:
    pool = Pool(limits(ada=Stay(pinned=True)))
    feed(pool, ADA_RUNS)
    assert do.Stop(W) not in pool.handle(ev.Tick(9999))
    feed(pool, [wants(2, "b")])
    assert isinstance(pool.handle(resolved("b", "w2", available=50))[0], do.Refuse)


def test_what_is_settled_anew_counts_for_a_worker_that_is_there() -> None:
    pool = Pool(limits(ada=Stay(pinned=True)))
    feed(pool, ADA_RUNS)
    assert pool.handle(ev.SettingsChanged(0, limits(ada=Stay(20)))) == NOTHING
    assert pool.holder(ADA) is not None
    assert do.Stop(W) in pool.handle(ev.Tick(20))


def test_a_worker_that_another_would_be_started_for_now_serves_no_more_of_them() -> None:
    pool = Pool(limits(ada=Stay(pinned=True)))
    feed(pool, ADA_RUNS)
    feed(pool, [ADA_WANTS])
    pool.handle(ev.SettingsChanged(0, limits(ada=Stay(pinned=True)), frozenset({"ada"})))
    worker = pool.find(W)
    assert (len(worker.requests), worker.kept, pool.holder(ADA)) == (1, False, None), "its stream goes on"
    again = msgspec.structs.replace(ADA_WANTS, ticket=Ticket(2), request_id=RequestId("r2"))
    assert pool.handle(again)[0] == do.Resolve(ADA)
