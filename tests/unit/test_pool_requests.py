"""Who waits for a worker, who is served first, and what is stopped for whom."""

import pytest

from rbee_core.domain import events as ev
from rbee_core.domain import instructions as do
from rbee_core.domain.pool import Limits, Pool
from rbee_core.domain.worker import Demand, Need, Reading, Reason, Ticket, WorkerId
from rbee_core.domain.workers import DEMANDS_KEPT
from rbee_core.errors import (
    AllSlotsBusy,
    InsufficientRam,
    InvalidRequest,
    ModelInUse,
    RbeeError,
    RequestCanceled,
    ShuttingDown,
    VramExhausted,
)
from tests.support.pools import (
    NEED,
    Refused,
    answer,
    bound,
    cancels,
    changed,
    demand,
    dropped,
    ended,
    exited,
    feed,
    grant,
    idle,
    launch,
    loaded,
    pinned,
    plain,
    refusal,
    resolved,
    resolved_on,
    stop,
    waits,
    wants,
    wants_worker,
    without_words,
)

LIMITS = Limits(queue=64, overtakes=2)
RESOLVE_A, RESOLVE_B, RESOLVE_C = (do.Resolve(demand(model)) for model in "abc")
STOP = do.Stop(WorkerId("w1"))
FOR_B = changed("idle", "stopping", Reason.MAKE_ROOM, "file:/b")


def pool_after(*events: ev.Event, limits: Limits = LIMITS) -> Pool:
    pool = Pool(limits)
    feed(pool, events)
    return pool


def busy_pool(**options: int) -> Pool:
    """One worker with model a, one slot, and request 1 on it. It holds 100 of what there is."""
    return pool_after(*idle(**options), wants(1))


# A model is its files.


def test_a5_an_idle_worker_whose_files_were_replaced_goes_at_once_and_the_next_request_is_resolved_anew() -> None:
    pool = pool_after(*idle(), wants(1), ended(1))
    assert plain(pool.handle(ev.ModelReplaced(3, WorkerId("w1")))) == [
        changed("idle", "stopping", Reason.REPLACED), STOP,
    ]  # fmt: skip
    assert RESOLVE_A in pool.handle(wants(2, at=4))


def test_a5_a_busy_one_serves_who_came_before_and_then_goes() -> None:
    pool = busy_pool()
    feed(pool, [wants(2)])
    assert STOP not in pool.handle(ev.ModelReplaced(3, WorkerId("w1")))
    assert RESOLVE_A in pool.handle(wants(3, at=4))
    assert grant(2) in pool.handle(ended(1))
    assert STOP in pool.handle(ended(2))


# One worker, however many ask.


def test_many_who_want_one_cold_model_start_one_worker() -> None:
    pool = Pool(LIMITS)
    said = feed(pool, [wants(n, client=f"c{n}") for n in range(1, 51)])
    assert [i for i in said if isinstance(i, do.Resolve)] == [RESOLVE_A]
    said = feed(pool, [resolved(), bound()])
    assert [i for i in said if isinstance(i, do.Launch)] == [do.Launch(WorkerId("w1"))]
    served = [i for i in pool.handle(loaded()) if isinstance(i, do.Grant)]
    for n in range(1, 50):
        assert served == [grant(n)]
        served = [i for i in pool.handle(ended(n)) if isinstance(i, do.Grant)]


def test_two_demands_that_mean_the_same_share_a_worker() -> None:
    pool = pool_after(wants(1), wants(2, device=0), resolved("a", "w1"))
    said = pool.handle(resolved("a", "w2", device=0))
    assert not any(isinstance(i, do.Launch) for i in said)
    assert [w.id for w in pool.live()] == ["w1"]


def test_a_demand_that_came_while_its_worker_stops_is_resolved_anew() -> None:
    pool = pool_after(*idle(), stop())
    assert RESOLVE_A in pool.handle(wants(1))
    assert do.Launch(WorkerId("w2")) in pool.handle(resolved("a", "w2"))


# The queue.


def test_slots_go_round_by_client() -> None:
    pool = busy_pool()
    feed(pool, [wants(n, client="ann") for n in (2, 3, 4)])
    feed(pool, [wants(5, client="bob"), wants_worker(6, client="cy")])
    served = [1]
    for _ in range(5):
        granted = [i.ticket for i in pool.handle(ended(served[-1])) if isinstance(i, do.Grant)]
        served += granted
    assert served == [1, 2, 5, 6, 3, 4]


def test_who_waits_is_told_its_place_whenever_that_changes() -> None:
    pool = busy_pool()
    assert pool.handle(wants(2)) == [waits(2, 1, "a slot")]
    assert pool.handle(wants(3)) == [waits(3, 2, "a slot")]
    assert pool.handle(wants(4, client="bob")) == [waits(4, 2, "a slot"), waits(3, 3, "a slot")]
    assert pool.handle(dropped(2)) == [waits(3, 1, "a slot")]
    assert pool.handle(ev.Tick(1)) == []


def test_two_hundred_requests_for_one_slot() -> None:
    pool = pool_after(*idle())
    said = feed(pool, [wants(n) for n in range(1, 201)])
    refused = [i for i in said if isinstance(i, do.Refuse)]
    assert [i.ticket for i in said if isinstance(i, do.Grant)] == [1]
    assert [i.ticket for i in refused] == list(range(66, 201))
    assert refused[0].error.details == {"slots": 1, "busy": 1, "waiting": 64}
    served = [i.ticket for n in range(1, 66) for i in pool.handle(ended(n)) if isinstance(i, do.Grant)]
    assert served == list(range(2, 66))


def test_the_limit_holds_for_a_cold_model_too() -> None:
    pool = Pool(LIMITS)
    said = feed(pool, [wants(n, client=f"c{n % 7}") for n in range(1, 201)])
    assert sum(isinstance(i, do.Refuse) for i in said) == 200 - 64


@pytest.mark.parametrize("waiting", [0, 3])
def test_who_does_not_queue_is_refused_with_the_numbers(waiting: int) -> None:
    pool = busy_pool()
    feed(pool, [wants(n) for n in range(2, 2 + waiting)])
    error = refusal(pool.handle(wants(9, client="bob", queue=False)), ticket=9)
    assert isinstance(error, AllSlotsBusy)
    assert error.details == {"slots": 1, "busy": 1, "waiting": waiting}


def test_who_does_not_queue_waits_for_a_cold_model_but_not_for_others() -> None:
    pool = pool_after(wants(1), wants(2, queue=False), resolved(), bound())
    assert without_words(pool.handle(loaded(slots=1)))[1:] == [
        grant(1), changed("idle", "busy", Reason.REQUEST, "ann"), Refused(2, AllSlotsBusy)
    ]  # fmt: skip


def test_slots_are_those_of_the_engine_and_not_what_was_asked_for() -> None:
    pool = pool_after(*[wants(n) for n in (1, 2, 3)], resolved(), bound())
    said = pool.handle(loaded(slots=2))
    assert [i for i in said if isinstance(i, do.Grant)] == [grant(1), grant(2)]


def test_a_request_that_leaves_the_queue_is_never_granted() -> None:
    pool = busy_pool()
    feed(pool, [wants(2), wants(3), dropped(2)])
    assert [i for i in pool.handle(ended(1)) if isinstance(i, do.Grant)] == [grant(3)]


@pytest.mark.parametrize(
    ("history", "event", "said"),
    [
        pytest.param([*idle(), wants(1), wants(2)], cancels("r2"), [Refused(2, RequestCanceled)], id="in a line"),
        pytest.param([*idle(), wants(1), wants(2)], cancels("r2", "w1"), [Refused(2, RequestCanceled)], id="named"),
        pytest.param([*idle(), wants(1), wants(2)], cancels("r2", "w2"), [], id="not at that worker"),
        pytest.param([wants(1)], cancels("r1"), [Refused(1, RequestCanceled)], id="while its model is looked up"),
        pytest.param([wants(1), resolved()], cancels("r1"), [Refused(1, RequestCanceled)], id="while it is loaded"),
        pytest.param(
            [*idle(), wants(1), wants(2, "b"), resolved("b", "w2", available=150)], cancels("r2"),
            [Refused(2, RequestCanceled)], id="while it waits for memory",
        ),
        pytest.param([*idle(), wants(1)], cancels("r1"), [do.Cancel(Ticket(1), WorkerId("w1"), "r1")], id="running"),
        pytest.param([*idle(), wants(1)], cancels("r1", "w2"), [], id="running elsewhere"),
        pytest.param([*idle(), wants(1), ended(1)], cancels("r1"), [], id="over"),
        pytest.param([*idle(), wants(1)], cancels("nobody"), [], id="unknown"),
    ],
)  # fmt: skip
def test_a_request_is_cancelled_by_its_name(
    history: list[ev.Event], event: ev.CancelWanted, said: list[do.Instruction | Refused]
) -> None:
    pool = pool_after(*history)
    assert without_words(pool.handle(event)) == said
    if said and isinstance(said[0], Refused):
        assert without_words(pool.handle(event)) == []
        assert pool.handle(dropped(said[0].ticket)) == []
        assert not any(isinstance(i, do.Grant) for i in feed(pool, [bound(), loaded(), ended(1)]))


def test_how_much_of_its_last_prompt_was_cached_is_known_of_a_worker() -> None:
    pool, read = busy_pool(), Reading(401, 0, "evicted for request chat-7")
    worker = pool.live()[0]
    assert worker.last_prompt is None
    feed(pool, [ev.RequestEnded(1, ended(1).ticket, answered=True, read=read)])
    assert worker.last_prompt == read
    feed(pool, [wants(2, at=2), ev.RequestEnded(3, ended(2).ticket, answered=True)])
    assert worker.last_prompt == read, "vectors have no prompt"


def test_who_stands_behind_a_cancelled_request_moves_up() -> None:
    pool = busy_pool()
    feed(pool, [wants(2), wants(3)])
    assert waits(3, 1, "a slot") in pool.handle(cancels("r2"))
    assert grant(3) in pool.handle(ended(1))


def test_a_demand_that_everybody_left_launches_nothing() -> None:
    pool = pool_after(wants(1), dropped(1))
    assert pool.handle(resolved()) == []
    assert pool.live() == []


def test_who_comes_while_a_demand_is_resolved_for_nobody_is_served_by_it() -> None:
    pool = pool_after(wants(1), dropped(1))
    assert RESOLVE_A not in pool.handle(wants(2)), "it is being resolved already"
    assert do.Launch(WorkerId("w1")) in pool.handle(resolved())


@pytest.mark.parametrize("second", [wants(2), wants_worker(2, name="r1"), wants_worker(2, name="r3")])
def test_a_name_belongs_to_one_request_running_or_waiting(second: ev.RequestWanted) -> None:
    pool = busy_pool()
    pool.handle(wants(3))
    said = plain(pool.handle(second))
    taken = second.request_id in ("r1", "r3")
    assert (Refused(2, InvalidRequest) in said) == taken


# Memory: launch, make room, wait, or refuse with both numbers.


@pytest.mark.parametrize(("device", "shortage"), [(None, InsufficientRam), (1, VramExhausted)])
@pytest.mark.parametrize("until", ["bound", "ready", "slot"])
def test_what_can_never_fit_is_refused(device: int | None, shortage: type[RbeeError], until: ev.Until) -> None:
    pool = pool_after(wants(1, device=device, until=until))
    error = refusal(pool.handle(resolved(device=device, available=99)), ticket=1)
    assert isinstance(error, shortage)
    assert error.details == {"need_bytes": 100, "have_bytes": 99}
    assert pool.live() == []


def test_what_starting_workers_will_take_is_set_aside() -> None:
    pool = pool_after(*launch(available=199), wants(2, "b", until="bound"))
    error = refusal(pool.handle(resolved("b", "w2", available=199)), ticket=2)
    assert error.details == {"need_bytes": 100, "have_bytes": 99}


def test_a_model_on_one_card_takes_nothing_of_another() -> None:
    """D1: the second card is empty, whatever the first one holds or loads."""
    pool = pool_after(*launch(device=1, available=100), wants(2, "b", device=2))
    assert do.Launch(WorkerId("w2")) in pool.handle(resolved("b", "w2", device=2, available=100))


def test_a_model_on_a_card_is_not_counted_on_top_of_what_the_driver_says() -> None:
    """D1: the driver's free bytes know what a loaded model holds."""
    pool = pool_after(*idle(device=1, available=200), wants(2, "b", device=1))
    assert do.Launch(WorkerId("w2")) in pool.handle(resolved("b", "w2", device=1, available=100))


def on_cards(model: str, worker: str, *free: int, need: Need = NEED) -> ev.Resolved:
    """A demand that leaves cards 1, 2 … open, with what is free on each."""
    return resolved_on(model, worker, dict(enumerate(free, 1)), need=need)


def devices(pool: Pool) -> dict[str, str]:
    return {w.id: w.recipe.device for w in pool.live()}


def test_m4_a_second_model_goes_to_the_card_that_has_room() -> None:
    pool = pool_after(wants(1, "a"), on_cards("a", "w1", 300, 300), wants(2, "b"), on_cards("b", "w2", 300, 300))
    assert devices(pool) == {"w1": "cuda:1", "w2": "cuda:2"}


def test_m4_a_device_that_is_named_is_used_or_refused() -> None:
    pool = pool_after(wants(1, device=1))
    assert isinstance(refusal(pool.handle(resolved(device=1, available=99)), ticket=1), VramExhausted)


def test_m4_a_worker_on_another_card_is_found_before_a_new_one_is_started() -> None:
    pool = pool_after(*idle(device=2), wants(1, "a"))
    assert grant(1) in pool.handle(on_cards("a", "w2", 900, 0))
    assert devices(pool) == {"w1": "cuda:2"}


def test_m4_of_two_twins_the_one_with_a_free_slot() -> None:
    pool = pool_after(*idle("w1", device=1), *idle("w2", device=2), wants(1, device=1), wants(2, "a"))
    assert grant(2, "w2") in pool.handle(on_cards("a", "w3", 0, 0))


def test_m4_where_none_has_room_the_card_is_cleared_where_least_has_to_go() -> None:
    large, small = Need(0, 200), Need(0, 110)
    pool = pool_after(*idle("w1", "b", device=1, need=large), *idle("w2", "c", device=2, need=small), wants(1, "a"))
    said = pool.handle(on_cards("a", "w3", 0, 0))
    assert [i for i in said if isinstance(i, do.Stop)] == [do.Stop(WorkerId("w2"))]
    feed(pool, [exited("w2"), on_cards("a", "w3", 0, 110)])
    assert devices(pool) == {"w1": "cuda:1", "w3": "cuda:2"}


def test_m4_room_on_a_card_that_it_does_not_wait_for_serves_it_too() -> None:
    large, small = Need(0, 200), Need(0, 110)
    pool = pool_after(*idle("w1", "b", device=1, need=large), *idle("w2", "c", device=2, need=small))
    feed(pool, [wants(1, "b", device=1), wants(2, "c", device=2), wants(3, "a")])
    assert pool.handle(on_cards("a", "w3", 0, 0)) == [waits(3, 1, "memory")]
    assert RESOLVE_A in pool.handle(exited("w1"))
    pool.handle(on_cards("a", "w3", 200, 0))
    assert devices(pool) == {"w2": "cuda:2", "w3": "cuda:1"}


def test_m4_who_waits_long_enough_is_promised_one_card_and_the_other_goes_on_serving() -> None:
    busy = [*idle("w1", "b", device=1), wants(1, "b", device=1), *idle("w2", "c", device=2), wants(2, "c", device=2)]
    pool = pool_after(*busy, wants(3, "a"), on_cards("a", "w3", 0, 0))
    assert pool.find("w1").used_at <= pool.find("w2").used_at
    feed(pool, [wants(4, "b", device=1), wants(5, "b", device=1)])
    assert do.Resolve(demand("b", 1)) in pool.handle(wants(6, "b", device=1)), "passed twice: w1 takes nobody new"
    pool.handle(resolved("b", "w9", device=1, available=0))
    assert waits(7, 1, "a slot") in pool.handle(wants(7, "c", device=2)), "w2 is not what it waits for"
    feed(pool, [ended(1), ended(4)])
    assert RESOLVE_A in pool.handle(ended(5))
    said = pool.handle(on_cards("a", "w3", 0, 0))
    assert [i for i in said if isinstance(i, do.Stop)] == [do.Stop(WorkerId("w1"))]


def test_an_idle_worker_is_stopped_to_make_room_and_it_says_for_whom() -> None:
    pool = pool_after(*idle(), wants(2, "b"))
    assert pool.handle(resolved("b", "w2", available=100)) == [FOR_B, STOP, waits(2, 1, "memory")]
    said = pool.handle(exited(how="exit code 0"))
    assert said == [changed("stopping", "evicted", Reason.EXITED), RESOLVE_B]
    assert pool.find("w1").reason == "to make room for file:/b"
    said = pool.handle(resolved("b", "w2", available=100))
    assert said == [
        changed("", "launching", Reason.WANTED, "ann", "w2"), do.Launch(WorkerId("w2")), waits(2, 1, "the model")
    ]  # fmt: skip


def test_the_least_recently_used_one_is_stopped() -> None:
    pool = pool_after(*idle("w1", "a"), *idle("w2", "b"), wants(1, "a", at=5), ended(1, at=6))
    feed(pool, [wants(2, "c")])
    said = pool.handle(resolved("c", "w3", available=150))
    assert [i for i in said if isinstance(i, do.Stop)] == [do.Stop(WorkerId("w2"))]


@pytest.mark.parametrize(
    "history", [[*idle(), pinned()], launch(), [*launch(), bound()], [*idle(device=1)], [*idle(), wants(1)]]
)
def test_who_is_in_use_is_not_stopped(history: list[ev.Event]) -> None:
    pool = pool_after(*history, wants(2, "b", until="bound"))
    said = pool.handle(resolved("b", "w2", available=60))
    assert isinstance(refusal(said, ticket=2), InsufficientRam)
    assert not any(isinstance(i, do.Stop) for i in said)


def test_nobody_is_stopped_in_vain() -> None:
    pool = pool_after(*idle(), wants(2, "b"))
    said = pool.handle(resolved("b", "w2", need=Need(0, 200), available=100))
    assert [type(i) for i in said] == [do.Refuse]


def test_who_queues_waits_for_a_busy_worker_and_gets_its_memory() -> None:
    pool = busy_pool()
    feed(pool, [wants(2, "b")])
    assert pool.handle(resolved("b", "w2", available=100)) == [waits(2, 1, "memory")]
    said = pool.handle(ended(1))
    assert said == [changed("busy", "idle", Reason.DONE), RESOLVE_B]
    assert pool.handle(resolved("b", "w2", available=100)) == [FOR_B, STOP]
    assert feed(pool, [exited()])[1:] == [RESOLVE_B]
    assert do.Launch(WorkerId("w2")) in pool.handle(resolved("b", "w2", available=100))


@pytest.mark.parametrize("impatient", [wants(2, "b", queue=False), wants(2, "b", until="bound")])
def test_who_does_not_queue_is_refused_at_once(impatient: ev.RequestWanted) -> None:
    pool = pool_after(*idle(), wants(1), wants(3, "b"), resolved("b", "w2", available=100))
    assert RESOLVE_B in pool.handle(impatient), "the memory that there is now decides"
    assert without_words(pool.handle(resolved("b", "w2", available=100))) == [Refused(2, InsufficientRam)]


def test_of_two_cold_models_of_which_one_fits_the_other_waits_its_turn() -> None:
    pool = pool_after(wants(1, "a"), wants(2, "b", client="bob"))
    said = feed(pool, [resolved("a", "w1", available=100), resolved("b", "w2", available=100)])
    assert [i for i in said if isinstance(i, do.Launch)] == [do.Launch(WorkerId("w1"))]
    assert said[-1] == waits(2, 1, "memory")
    assert grant(1) in feed(pool, [bound(), loaded()])
    assert RESOLVE_B in pool.handle(ended(1))
    feed(pool, [resolved("b", "w2", available=100), exited()])
    feed(pool, [resolved("b", "w2", available=100), bound("w2")])
    assert grant(2, "w2") in pool.handle(loaded("w2"))


def test_room_that_is_made_for_one_is_not_given_to_another() -> None:
    pool = pool_after(*idle(), wants(2, "b"), resolved("b", "w2", available=100), wants(3, "c"), exited())
    said = pool.handle(resolved("c", "w3", available=100))
    assert not any(isinstance(i, do.Launch) for i in said)
    assert do.Launch(WorkerId("w2")) in pool.handle(resolved("b", "w2", available=100))


def test_room_that_nobody_wants_any_more_is_anybodys() -> None:
    pool = pool_after(*idle(), wants(2, "b"), resolved("b", "w2", available=100), wants(3, "c"))
    feed(pool, [resolved("c", "w3", available=100)])
    said = feed(pool, [dropped(2), exited()])
    assert RESOLVE_C in said
    assert do.Launch(WorkerId("w3")) in pool.handle(resolved("c", "w3", available=100))


def test_a_small_one_passes_a_large_one_that_waits_but_not_for_ever() -> None:
    small, large = Need(0, 50), Need(0, 200)
    pool = pool_after(*idle(need=large), wants(1), wants(2, "b"), resolved("b", "w2", need=large, available=100))
    for n, model in enumerate("cd", 3):
        feed(pool, [wants(n, model)])
        assert do.Launch(WorkerId(f"w{n}")) in pool.handle(resolved(model, f"w{n}", need=small, available=200))
    feed(pool, [wants(5, "e")])
    said = pool.handle(resolved("e", "w5", need=small, available=200))
    assert not any(isinstance(i, do.Launch) for i in said), "the large one has been passed twice"
    assert said == [waits(5, 2, "memory")]


def test_a_worker_that_another_waits_for_long_enough_takes_nobody_new() -> None:
    pool = pool_after(*idle(), wants(1), wants(2, "b"), resolved("b", "w2", available=100))
    feed(pool, [wants(3), wants(4)])
    assert RESOLVE_A in pool.handle(wants(5)), "model b has been passed twice: who comes now waits behind it"
    assert plain(pool.handle(resolved("a", "w9", available=100))) == [waits(5, 2, "memory")]
    feed(pool, [ended(1), ended(3)])
    said = pool.handle(ended(4))
    assert said == [changed("busy", "idle", Reason.DONE), RESOLVE_B]
    assert STOP in pool.handle(resolved("b", "w2", available=100))


def test_pinning_tells_those_who_wait_for_nothing_now() -> None:
    pool = pool_after(*idle(), wants(1), wants(2, "b"), resolved("b", "w2", available=100))
    assert pool.handle(pinned()) == [RESOLVE_B]
    assert isinstance(refusal(pool.handle(resolved("b", "w2", available=100)), ticket=2), InsufficientRam)


# Removing a model.


@pytest.mark.parametrize(
    ("history", "users", "hint"),
    [
        (idle(), ["w1"], "end that first with `rbee workers shutdown w1`"),
        ([wants(1)], ["a request that waits for it"], "try again when that is over"),
        ([ev.ModelRemovalWanted(0, Ticket(8), "file:/a")], ["another removal"], "try again when that is over"),
    ],
)
def test_a_model_in_use_is_not_removed(history: list[ev.Event], users: list[str], hint: str) -> None:
    """D12: somebody whose demand is being resolved holds no worker yet, and uses the files."""
    pool = pool_after(*history)
    error = refusal(pool.handle(ev.ModelRemovalWanted(0, Ticket(9), "file:/a")), ticket=9)
    assert isinstance(error, ModelInUse)
    assert (error.details["users"], error.hint) == (users, hint)


def test_while_a_model_is_removed_nobody_begins_to_use_it() -> None:
    pool = Pool(LIMITS)
    assert pool.handle(ev.ModelRemovalWanted(0, Ticket(9), "file:/a")) == [answer(9, None)]
    assert pool.handle(wants(1)) == [waits(1, 1, "the model")]
    assert RESOLVE_B in pool.handle(wants(2, "b"))
    assert pool.handle(ev.ModelRemoved(1, Ticket(9))) == [RESOLVE_A]


def test_no_removal_begins_while_the_hive_stops() -> None:
    pool = pool_after(ev.DrainWanted(0))
    said = pool.handle(ev.ModelRemovalWanted(0, Ticket(9), "file:/a"))
    assert plain(said) == [Refused(9, ShuttingDown)]


def test_what_comes_to_one_worker_in_any_number_of_ways_is_remembered_to_a_limit() -> None:
    pool = pool_after(*idle())
    for n in range(200):
        wanted = Demand("file:/a", needs=frozenset({f"field {n}"}))
        spots = tuple(resolved().spots)
        pool.handle(ev.RequestWanted(at=n, ticket=Ticket(n + 9), client="c", demand=wanted, queue=True))
        secret = resolved().secret
        pool.handle(ev.Resolved(at=n, demand=wanted, spots=spots, worker_id=WorkerId("w9"), secret=secret))
        pool.handle(ev.TicketDropped(n, Ticket(n + 9)))
    worker = pool.find("w1")
    assert len(worker.demands) == DEMANDS_KEPT
    assert worker.names == {"file:/a"}
