"""Whose end makes room, and that nobody is stopped in vain."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee_core.domain.eviction import awaited, cheapest, victims
from rbee_core.domain.placement import free_bytes
from rbee_core.domain.worker import HOST, Need, Secret, Spot, Worker, WorkerId, WorkerState
from tests.support.pools import recipe

STATES = {
    "idle": WorkerState.IDLE, "busy": WorkerState.BUSY, "loading": WorkerState.LOADING,
    "launching": WorkerState.LAUNCHING, "stopping": WorkerState.STOPPING,
}  # fmt: skip


def worker(name: str, state: str, size: int, *, used_at: float = 0, device: int = 0, pinned: bool = False) -> Worker:
    return Worker(
        id=WorkerId(name), recipe=recipe(name, device, Need(0, size)), secret=Secret("secret"), launched_at=0,
        used_at=used_at, state=STATES[state], loaded=state in ("idle", "busy", "stopping"), pinned=pinned,
    )  # fmt: skip


# (what is missing of what is needed, the workers, who is stopped, who is waited for)
TABLE: list[tuple[str, int, list[Worker], tuple[str, ...] | None, tuple[str, ...] | None]] = [
    ("one idle worker is enough", 100, [worker("a", "idle", 100)], ("a",), ("a",)),
    ("it is not enough, so it stays", 101, [worker("a", "idle", 100)], None, None),
    (
        "the least recently used one goes", 100,
        [worker("a", "idle", 100, used_at=2), worker("b", "idle", 100, used_at=1)], ("b",), ("b",),
    ),
    (
        "as many as needed", 150,
        [worker("a", "idle", 100, used_at=2), worker("b", "idle", 100, used_at=1)], ("b", "a"), ("b", "a"),
    ),
    (
        "a small one that does not help stays", 100,
        [worker("a", "idle", 10, used_at=1), worker("b", "idle", 100, used_at=2)], ("b",), ("b",),
    ),
    ("a busy one is waited for", 100, [worker("a", "busy", 100)], None, ("a",)),
    ("a loading one is waited for", 100, [worker("a", "loading", 100)], None, ("a",)),
    ("a launching one is waited for", 100, [worker("a", "launching", 100)], None, ("a",)),
    ("a pinned one is neither", 100, [worker("a", "idle", 100, pinned=True)], None, None),
    ("nor is a pinned busy one", 100, [worker("a", "busy", 100, pinned=True)], None, None),
    ("another memory does not help", 100, [worker("a", "idle", 100, device=1)], None, None),
    ("who is stopping counts as gone", 100, [worker("a", "stopping", 100), worker("b", "idle", 100)], (), ()),
    ("and may need help", 150, [worker("a", "stopping", 100), worker("b", "idle", 100)], ("b",), ("b",)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("missing", "workers", "stopped", "waited_for"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_table(
    missing: int, workers: list[Worker], stopped: tuple[str, ...] | None, waited_for: tuple[str, ...] | None
) -> None:
    claimed = 500 - free_bytes(HOST, 500, workers)
    need = Need(0, 500 - claimed + missing)
    assert victims(need, HOST, workers, 500) == stopped
    assert awaited(need, HOST, workers, 500) == waited_for


# (what is free on card 1 and 2, the workers, on which card somebody is stopped, and who)
CARDS: list[tuple[str, tuple[int, int], list[Worker], tuple[int, tuple[str, ...]] | None]] = [
    (
        "where less has to go", (0, 0),
        [worker("a", "idle", 120, device=1), worker("b", "idle", 100, device=2, used_at=9)], (2, ("b",)),
    ),
    (
        "one small one rather than two", (20, 0),
        [worker("a", "idle", 80, device=1), worker("b", "idle", 60, device=2), worker("c", "idle", 60, device=2)],
        (1, ("a",)),
    ),
    (
        "where the other card would not be enough", (0, 0),
        [worker("a", "idle", 50, device=1), worker("b", "idle", 300, device=2)], (2, ("b",)),
    ),
    (
        "where nobody has to go: one is going already", (0, 0),
        [worker("a", "idle", 100, device=1), worker("b", "stopping", 100, device=2)], (2, ()),
    ),
    (
        "of equals the one used longest ago", (0, 0),
        [worker("a", "idle", 100, device=1, used_at=5), worker("b", "idle", 100, device=2, used_at=4)], (2, ("b",)),
    ),
    ("nobody where all are busy", (0, 0), [worker("a", "busy", 100, device=1)], None),
]  # fmt: skip


@pytest.mark.parametrize(("free", "workers", "chosen"), [row[1:] for row in CARDS], ids=[r[0] for r in CARDS])
def test_m4_which_device_is_evicted_from(
    free: tuple[int, int], workers: list[Worker], chosen: tuple[int, tuple[str, ...]] | None
) -> None:
    spots = [Spot(recipe("x", n, Need(0, 100)), available) for n, available in enumerate(free, 1)]
    found = cheapest(spots, workers, victims)
    assert found == (None if chosen is None else (spots[chosen[0] - 1], chosen[1]))


WORKERS = st.lists(
    st.tuples(st.sampled_from(sorted(STATES)), st.integers(1, 9), st.integers(0, 1), st.booleans(), st.integers(0, 5)),
    max_size=6,
).map(
    lambda rows: [
        worker(f"w{n}", state, size, device=device, pinned=pinned, used_at=used_at)
        for n, (state, size, device, pinned, used_at) in enumerate(rows)
    ]
)  # fmt: skip


@given(WORKERS, st.integers(0, 30), st.integers(0, 40))
def test_a_choice_is_enough_none_of_it_in_vain_and_never_one_in_use(
    workers: list[Worker], available: int, size: int
) -> None:
    chosen = victims(Need(0, size), HOST, workers, available)
    idle = [w for w in workers if w.state is WorkerState.IDLE and w.recipe.memory == HOST and not w.pinned]
    room = free_bytes(HOST, available, workers) + held(w for w in workers if w.state is WorkerState.STOPPING)
    if chosen is None:
        assert room + held(idle) < size
        return
    gone = [w for w in idle if w.id in chosen]
    assert len(gone) == len(chosen)
    assert room + held(gone) >= size
    assert all(room + held(w for w in gone if w is not spared) < size for spared in gone)


def held(workers: object) -> int:
    return sum(w.recipe.need.total_bytes for w in workers if w.recipe.memory == HOST)  # type: ignore[attr-defined]
