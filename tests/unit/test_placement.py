"""How much of a memory a new worker may take."""

import pytest

from rbee_core.domain.placement import free_bytes, roomiest, shortage
from rbee_core.domain.worker import ENDED, HOST, Need, Secret, Spot, Worker, WorkerId, WorkerState
from tests.support.pools import NEED, recipe

CARD = "cuda:1"


def worker(state: WorkerState, *, device: int = 0, loaded: bool | None = None, need: Need = NEED) -> Worker:
    starting = state in (WorkerState.LAUNCHING, WorkerState.LOADING)
    return Worker(
        id=WorkerId("w1"), recipe=recipe(device=device, need=need), secret=Secret("secret"), launched_at=0, state=state,
        loaded=not starting if loaded is None else loaded,
    )  # fmt: skip


# A worker that loads will take all of its need. One that is loaded has its private memory, and the system knows that;
# the system does not know that mapped weights are in use, where they are the host's.
@pytest.mark.parametrize(
    ("claims", "on_host", "on_card"),
    [
        (worker(WorkerState.LAUNCHING), 100, 100),
        (worker(WorkerState.LOADING), 100, 100),
        (worker(WorkerState.IDLE), 60, 0),
        (worker(WorkerState.BUSY), 60, 0),
        (worker(WorkerState.STOPPING), 60, 0),
        (worker(WorkerState.STOPPING, loaded=False), 100, 100),
        *((worker(state), 0, 0) for state in ENDED),
    ],
    ids=lambda value: f"{value.state}" if isinstance(value, Worker) else None,
)
def test_what_a_worker_claims(claims: Worker, on_host: int, on_card: int) -> None:
    assert free_bytes(HOST, 1000, [claims]) == 1000 - on_host
    there = worker(claims.state, device=1, loaded=claims.loaded)
    assert free_bytes(CARD, 1000, [there]) == 1000 - on_card


def test_a_worker_in_one_memory_takes_nothing_of_another() -> None:
    workers = [worker(WorkerState.LOADING), worker(WorkerState.IDLE, device=1), worker(WorkerState.LOADING, device=2)]
    assert free_bytes(HOST, 1000, workers) == 900
    assert free_bytes(CARD, 1000, workers) == 1000
    assert free_bytes("cuda:3", 1000, workers) == 1000


def test_a_card_that_holds_a_model_is_not_counted_twice() -> None:
    """A card of 24 GB with a model of 8 on it, of which the driver says 15 are free: there are 15."""
    gb = 10**9
    serving = worker(WorkerState.IDLE, device=1, need=Need(8 * gb, gb))
    assert free_bytes(CARD, 15 * gb, [serving]) == 15 * gb


def test_claims_add_up() -> None:
    assert free_bytes(HOST, 1000, [worker(WorkerState.LOADING), worker(WorkerState.IDLE)]) == 840


def test_more_may_be_claimed_than_there_is() -> None:
    assert free_bytes(HOST, 50, [worker(WorkerState.LOADING)]) == -50


# Of several devices, the one with most free memory: what is free on card 1, 2 and 3, who is there, which one it is.
LOADING_ON_2 = worker(WorkerState.LOADING, device=2)


@pytest.mark.parametrize(
    ("free", "workers", "chosen"),
    [
        ((100, 900, 500), [], 2),
        ((900, 100, 500), [], 1),
        ((500, 500, 500), [], 1),
        ((99, 99, 100), [], 3),
        ((99, 99, 99), [], None),
        ((450, 500, 99), [LOADING_ON_2], 1),
        ((99, 200, 99), [LOADING_ON_2], 2),
        ((99, 199, 99), [LOADING_ON_2], None),
        ((99, 120, 99), [worker(WorkerState.IDLE, device=2)], 2),
    ],
)
def test_m4_the_device_with_most_free_memory_that_fits(
    free: tuple[int, ...], workers: list[Worker], chosen: int | None
) -> None:
    spots = [Spot(recipe(device=n), available) for n, available in enumerate(free, 1)]
    assert roomiest(spots, workers) is (None if chosen is None else spots[chosen - 1])


def test_m4_a_refusal_has_the_numbers_of_the_roomiest_device() -> None:
    spots = [Spot(recipe(device=n), available) for n, available in ((1, 40 * 10**6), (2, 70 * 10**6))]
    error = shortage(spots, [])
    assert error.details == {"need_bytes": 100, "have_bytes": 70 * 10**6}
    assert "have 70 MB on the roomiest of 2 devices" in error.message
    assert "devices" not in shortage(spots[:1], []).message
