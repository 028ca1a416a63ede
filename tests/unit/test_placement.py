"""How much of the free memory a new worker may take."""

import pytest

from rbee_core.domain.placement import free_bytes
from rbee_core.domain.worker import Need, Secret, Wanted, Worker, WorkerId, WorkerState

WANTED = Wanted("file:/a", "/a", "gguf", 60, "scripted", "cpu")


def worker(state: WorkerState, mapped: int = 60, private: int = 40) -> Worker:
    return Worker(WorkerId("worker-1"), WANTED, Need(mapped, private), Secret("secret"), state, since=0)


@pytest.mark.parametrize(
    ("state", "claimed"),
    [
        (WorkerState.LAUNCHING, 100),
        (WorkerState.LOADING, 100),
        (WorkerState.IDLE, 60),
        (WorkerState.BUSY, 60),
        (WorkerState.STOPPING, 60),
        (WorkerState.UNLOADED, 0),
        (WorkerState.EVICTED, 0),
        (WorkerState.CRASHED, 0),
        (WorkerState.FAILED, 0),
    ],
)
def test_what_a_worker_claims(state: WorkerState, claimed: int) -> None:
    assert free_bytes(1000, [worker(state)]) == 1000 - claimed


def test_claims_add_up() -> None:
    assert free_bytes(1000, [worker(WorkerState.LOADING), worker(WorkerState.IDLE)]) == 840


def test_free_memory_is_never_negative() -> None:
    assert free_bytes(50, [worker(WorkerState.LOADING)]) == 0
