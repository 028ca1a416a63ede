"""A model whose workers fail is held back: how long, what ends it, and what is no failure."""

from collections.abc import Sequence

import pytest

from rbee_core.domain import events as ev
from rbee_core.domain import instructions as do
from rbee_core.domain.pool import Limits, Pool
from rbee_core.domain.worker import WorkerId
from rbee_core.errors import ModelHeldBack, ModelLoadFailed, RbeeError
from tests.support.pools import (
    bound,
    demand,
    dropped,
    ended,
    exited,
    feed,
    grant,
    launched,
    loaded,
    refusal,
    resolved,
    stop,
    waits,
    wants,
    without_words,
)

LIMITS = Limits(restart_delay_s=1, quarantine_s=600)
RESOLVE = do.Resolve(demand())


def start(n: int, at: float) -> list[ev.Event]:
    """What leads to the loading of worker `n` for a spawn that goes away, where nothing holds it back."""
    worker = f"w{n}"
    spawn = [wants(100 + n, until="bound", at=at), resolved(worker=worker, at=at), launched(worker, at)]
    return [*spawn, bound(worker, at), dropped(100 + n, at)]


def crash(n: int, at: float) -> list[ev.Event]:
    return [*start(n, at), exited(f"w{n}", "SIGABRT", at)]


def after(failures: Sequence[float]) -> Pool:
    """Return a pool in which a worker failed at each of these moments."""
    pool = Pool(LIMITS)
    for n, at in enumerate(failures, 1):
        feed(pool, crash(n, at))
    return pool


def launches(pool: Pool, at: float) -> bool:
    """Whether a request that comes then starts a worker at once."""
    return do.Launch(WorkerId("w9")) in feed(pool, [wants(1, at=at), resolved(worker="w9", at=at)])


# failures at, wait after the last one
WAITS: list[tuple[list[float], float]] = [
    ([], 0),
    ([10], 1),
    ([10, 11], 2),
    ([10, 11, 13], 4),
    ([10, 11, 13, 17], 8),
    ([10, 11, 13, 17, 25], 600),
    ([10, 610], 1),  # what was long ago is forgotten
    ([10, 609], 2),
]


@pytest.mark.parametrize(("failures", "wait_s"), WAITS)
def test_b12_each_failure_in_a_row_doubles_the_wait(failures: list[float], wait_s: float) -> None:
    last = max(failures, default=0)
    assert launches(after(failures), last + wait_s)
    assert wait_s == 0 or not launches(after(failures), last + wait_s - 0.01)


def test_b12_a_model_that_aborts_the_engine_is_started_five_times() -> None:
    pool, started = Pool(LIMITS), 0
    for tenth in range(6000):
        at, worker = tenth / 10, f"v{tenth}"
        said = feed(pool, [wants(tenth, at=at), resolved(worker=worker, at=at), dropped(tenth, at), ev.Tick(at)])
        if do.Launch(WorkerId(worker)) in said:
            started += 1
            feed(pool, [launched(worker, at), exited(worker, "SIGABRT", at)])
    assert started == 5


def test_b12_who_comes_too_early_waits_and_is_served() -> None:
    pool = after([10])
    assert feed(pool, [wants(1, at=10.5), resolved(worker="w2", at=10.5)]) == [
        RESOLVE, waits(1, 1, "the model"), waits(1, 1, "a restart")
    ]  # fmt: skip
    assert feed(pool, [ev.Tick(10.9)]) == []
    assert RESOLVE in feed(pool, [ev.Tick(11)])
    assert grant(1, "w2") in feed(
        pool, [resolved(worker="w2", at=11), launched("w2", 11), bound("w2", 11), loaded("w2", 11)]
    )


def test_b12_who_does_not_wait_is_refused() -> None:
    pool = after([10])
    error = refusal(feed(pool, [wants(1, queue=False, at=10.5), resolved(worker="w2", at=10.5)]), ticket=1)
    assert isinstance(error, ModelHeldBack)
    assert "a worker for it has just failed" in error.message


def test_b12_a_refusal_names_the_last_reason_and_the_log() -> None:
    pool = after([10, 11, 13, 17, 25])
    said = feed(pool, [wants(1, at=26), resolved(worker="w9", at=26)])
    error = refusal(said, ticket=1)
    assert error.message == (
        "Model file:/a is not started for 599 s: 5 workers for it failed in a row, "
        "the last one so: Worker w5 crashed (SIGABRT)"
    )
    assert "`rbee logs w5`" in error.hint
    assert error.details["retry_after_s"] == 599
    assert [(w.id, w.failures) for w in pool.held_back(26)] == [("w5", 5)]


def test_b12_other_files_are_another_model() -> None:
    pool = after([10, 11, 13, 17, 25])
    assert launches(pool, 26) is False
    assert do.Launch(WorkerId("x")) in feed(pool, [wants(2, "b", at=26), resolved("b", "x", at=26)])


def test_b12_somebody_may_ask_to_try_again() -> None:
    pool = after([10, 11, 13, 17, 25])
    assert feed(pool, [ev.RetryWanted(26, "file:/b")]) == []
    assert pool.held_back(26)
    assert feed(pool, [ev.RetryWanted(26, "file:/a")]) == []
    assert pool.held_back(26) == []
    assert launches(pool, 26)


def test_b12_who_waits_for_a_restart_goes_on_when_somebody_asks_to_try_again() -> None:
    pool = after([10, 11, 13])
    feed(pool, [wants(1, at=13.5), resolved(worker="w4", at=13.5)])
    assert without_words(feed(pool, [ev.RetryWanted(14, "file:/a")])) == [RESOLVE]
    assert do.Launch(WorkerId("w4")) in feed(pool, [resolved(worker="w4", at=14)])


@pytest.mark.parametrize(("answered", "wait_s"), [(True, 1), (False, 2)])
def test_b12_a_request_that_a_worker_ended_itself_ends_the_row(answered: bool, wait_s: float) -> None:
    pool = after([10])
    done = ev.RequestEnded(20, ended(1).ticket, answered)
    feed(pool, [*start(2, 20), loaded("w2", 20), wants(1, at=20), done, exited("w2", "SIGSEGV", 20)])
    assert [(w.id, w.held_until) for w in pool.held_back(20)] == [("w2", 20 + wait_s)]


NO_FORK = RbeeError("fork: Resource temporarily unavailable")
NO_MODEL = ModelLoadFailed(reference="a", why="it is a text file")
# events that end worker w1, whether that is a failure
ENDS: list[tuple[list[ev.Event], bool]] = [
    ([exited()], True),
    ([bound(), exited()], True),
    ([bound(), loaded(), exited()], True),
    ([bound(), ev.LoadFailed(0, WorkerId("w1"), NO_MODEL), exited(how="exit code 0")], True),
    ([ev.Tick(30), exited(how="SIGKILL", at=30)], True),
    ([ev.LaunchFailed(0, WorkerId("w1"), NO_FORK)], False),
    ([stop(), exited()], False),
    ([bound(), loaded(), stop(), exited(how="exit code 0")], False),
    ([bound(), loaded(), ev.Tick(1000), exited(how="exit code 0", at=1000)], False),
]


@pytest.mark.parametrize(("events", "counts"), ENDS)
def test_b12_what_is_a_failure(events: list[ev.Event], counts: bool) -> None:
    pool = Pool(LIMITS)
    feed(pool, [wants(1, until="ready"), resolved(), launched(), *events])
    assert pool.find("w1").failures == int(counts)
    assert bool(pool.held_back(events[-1].at)) == counts


def test_b12_zero_seconds_never_hold_anything_back() -> None:
    pool = Pool(Limits(quarantine_s=0))
    for n in range(1, 20):
        feed(pool, crash(n, 1))
    assert pool.held_back(1) == []
    assert launches(pool, 1)
