"""The journal alone: numbered, bounded, heard by all, resumed where it can be, and without a secret in its story."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from rbee_core import aio, wire
from rbee_core.domain import events as ev
from rbee_core.domain import instructions as do
from rbee_core.domain.worker import (
    Demand,
    Need,
    Reason,
    Recipe,
    RequestId,
    Secret,
    Spot,
    Ticket,
    WorkerId,
    WorkerState,
)
from rbee_core.errors import AllSlotsBusy
from rbee_core.hive import journal as journals
from rbee_core.hive.journal import Journal, telling_plugins

ID = WorkerId("worker-1")
CHANGES = [
    (None, WorkerState.LAUNCHING, Reason.WANTED),
    (WorkerState.LAUNCHING, WorkerState.LOADING, Reason.BOUND),
    (WorkerState.LOADING, WorkerState.IDLE, Reason.LOADED),
    (WorkerState.IDLE, WorkerState.BUSY, Reason.REQUEST),
    (WorkerState.BUSY, WorkerState.CRASHED, Reason.EXITED),
]
Told = wire.PoolSnapshot | wire.WorkerChanged


def find(worker_id: str) -> Any:
    return worker_id


def describe(worker_id: Any) -> wire.WorkerInfo:
    return wire.WorkerInfo(worker_id=worker_id, model_ref="m", backend="b", device="cpu", state="idle", reason="why")


def live() -> list[wire.WorkerInfo]:
    return [describe("worker-7")]


def change(journal: Journal, number: int = 0) -> None:
    before, after, reason = CHANGES[number % len(CHANGES)]
    journal.record(ev.Tick(1.0), [do.Changed(ID, before, after, reason, "m")], find)


def follow(journal: Journal, mark: str = "", meanwhile: Callable[[], None] = lambda: None) -> list[Sequence[Told]]:
    """Return what a follower is told up to the journal's end; `meanwhile` happens after the first of it."""

    async def read() -> list[Sequence[Told]]:
        told: list[Sequence[Told]] = []
        async with aclosing(journal.follow(mark, live)) as groups:
            async for group in groups:
                if not told:
                    meanwhile()
                    journal.close()
                told.append(group)
        return told

    return asyncio.run(read())


def test_a_follower_gets_a_snapshot_and_then_each_change() -> None:
    journal = Journal(describe)
    change(journal)
    (snapshot,), changes = follow(journal, meanwhile=lambda: [change(journal, n) for n in (1, 2)] and None)
    assert isinstance(snapshot, wire.PoolSnapshot)
    assert (snapshot.number, snapshot.missed, snapshot.workers) == (1, 0, live())
    assert [(c.number, c.before, c.after, c.reason, c.for_whom) for c in changes] == [
        (2, "launching", "loading", "bound", "m"),
        (3, "loading", "idle", "loaded", "m"),
    ]
    assert [c.worker.state for c in changes] == ["loading", "idle"]


def test_a_follower_goes_on_where_it_was() -> None:
    journal = Journal(describe)
    for number in range(4):
        change(journal, number)
    journal.close()
    assert [c.number for group in follow(journal, journal.mark(2)) for c in group] == [3, 4]
    assert follow(journal, journal.mark(4)) == []


@pytest.mark.parametrize("mark", ["", "x", "2", "-", "other-2", "{id}-", "{id}--1", "{id}-99", "{id}-" + "9" * 5000])
def test_a_mark_of_another_hive_or_none_begins_with_a_snapshot(mark: str) -> None:
    journal = Journal(describe)
    for number in range(4):
        change(journal, number)
    ((snapshot,),) = follow(journal, mark.replace("{id}", journal.id))
    assert (snapshot.number, snapshot.missed) == (4, 0)


def test_a_slow_follower_is_told_how_much_it_missed_and_costs_nothing() -> None:
    journal = Journal(describe, kept=3)
    change(journal)
    first, second = follow(journal, journal.mark(0), lambda: [change(journal, n) for n in range(10)] and None)
    assert [c.number for c in first] == [1]
    (snapshot,) = second
    assert (snapshot.number, snapshot.missed) == (11, 10)


def test_many_followers_hear_the_same() -> None:
    journal = Journal(describe)

    async def read() -> list[int]:
        return [c.number async for group in journal.follow("", live) for c in group]

    async def all_of_them() -> list[list[int]]:
        async with asyncio.TaskGroup() as tasks:
            readers = [tasks.create_task(read()) for _ in range(20)]
            for number in range(5):
                await aio.sleep(0)
                change(journal, number)
            journal.close()
        return [reader.result() for reader in readers]

    heard = asyncio.run(all_of_them())
    assert all(numbers[-1] == 5 for numbers in heard)
    assert len({tuple(numbers) for numbers in heard}) == 1


def test_a_silence_is_told_so_that_a_reader_that_left_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "SILENCE_S", 0.01)
    journal = Journal(describe)

    async def read() -> list[Sequence[Told]]:
        async with aclosing(journal.follow(journal.mark(0), live)) as groups:
            return [await anext(groups), await anext(groups)]

    assert asyncio.run(read()) == [[], []]


def test_a_listener_that_fails_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def fail(told: wire.WorkerChanged) -> None:
        raise ZeroDivisionError

    journal, heard = Journal(describe), list[wire.WorkerChanged]()
    journal.listen(fail)
    journal.listen(heard.append)
    change(journal)
    assert [c.after for c in heard] == ["launching"]
    assert "a listener of the journal failed" in caplog.text


def test_plugins_hear_of_ready_and_gone_only() -> None:
    journal, calls = Journal(describe), list[tuple[str, dict[str, str]]]()

    async def tell(hook: str, **arguments: str) -> None:
        calls.append((hook, arguments))

    async def live_through() -> None:
        async with telling_plugins(journal, tell):
            for number in range(len(CHANGES)):
                change(journal, number)

    asyncio.run(live_through())
    assert calls == [
        ("rbee_worker_ready", {"worker_id": ID, "model": "m", "backend": "b", "device": "cpu"}),
        ("rbee_worker_gone", {"worker_id": ID, "reason": "why"}),
    ]


def test_the_story_tells_what_led_to_what_and_no_secret() -> None:
    journal = Journal(describe)
    secret = "s3cr3t"
    demand = Demand(f"hf:{secret}")
    recipe = Recipe(
        reference=secret,
        path=secret,
        place=secret,
        format="gguf",
        size_bytes=1,
        backend="b",
        device="cpu",
        need=Need(1, 1),
    )
    journal.record(
        ev.RequestWanted(at=1, ticket=Ticket(3), client=secret, demand=demand, request_id=RequestId(secret)),
        [do.Resolve(demand)],
        find,
    )
    journal.record(
        ev.Resolved(at=2, demand=demand, spots=(Spot(recipe, 5),), worker_id=ID, secret=Secret(secret)),
        [do.Changed(ID, None, WorkerState.LAUNCHING, Reason.WANTED, secret), do.Launch(ID)],
        find,
    )
    busy = AllSlotsBusy(slots=1, busy=1)
    journal.record(ev.Tick(3), [do.Tell(Ticket(3), do.Waiting(1, "a slot")), do.Refuse(Ticket(3), busy)], find)
    journal.record(ev.Tick(4), [], find)
    assert journal.story() == [
        "1.000 RequestWanted 3 slot -> Resolve",
        "2.000 Resolved worker-1 -> Changed worker-1 launching wanted, Launch worker-1",
        "3.000 Tick -> Tell 3 a slot, Refuse 3 ALL_SLOTS_BUSY",
    ]
    assert journal.story(1) == journal.story()[-1:]


def test_the_story_is_bounded() -> None:
    journal = Journal(describe)
    for number in range(1000):
        journal.record(ev.ProbeAnswered(number, ID), [], find)
    assert len(journal.story()) == journals.STORY_LINES
    assert journal.story()[-1].startswith("999.000 ")


def test_every_field_that_the_story_tells_is_one_of_an_event_or_an_instruction() -> None:
    shapes = [shape for module in (ev, do) for shape in vars(module).values() if isinstance(shape, type)]
    assert set(journals.TOLD) <= {name for shape in shapes for name in getattr(shape, "__struct_fields__", ())}
