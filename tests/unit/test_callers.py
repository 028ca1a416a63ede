"""Who waits at the door: told when it takes a moment, answered once, refused with an error of its own."""

import asyncio

import pytest

from rbee_core.domain.instructions import Waiting
from rbee_core.errors import ShuttingDown
from rbee_core.hive.callers import Caller


def test_two_who_are_refused_with_one_error_raise_two() -> None:
    error = ShuttingDown(who="hive")

    async def refused() -> ShuttingDown:
        caller = Caller()
        caller.refuse(error)
        with pytest.raises(ShuttingDown) as caught:
            await caller.worker()
        return caught.value

    async def both() -> list[ShuttingDown]:
        return [await refused(), await refused()]

    first, second = asyncio.run(both())
    assert first is not second
    assert error.__traceback__ is None
    assert first.body() == second.body() == error.body()


def test_what_it_waits_for_is_told_until_it_is_answered() -> None:
    async def told() -> list[Waiting]:
        caller, heard = Caller(), list[Waiting]()
        caller.tell(Waiting(2, "a slot"))
        async for waiting in caller.waits():
            heard.append(waiting)
            if waiting.position == 1:
                caller.answer(None)
            else:
                caller.tell(Waiting(1, "a slot"))
        return heard

    assert asyncio.run(told()) == [Waiting(2, "a slot"), Waiting(1, "a slot")]


def test_who_is_answered_at_once_is_told_nothing() -> None:
    async def told() -> list[Waiting]:
        caller = Caller()
        caller.tell(Waiting(1, "the model"))
        caller.answer(None)
        return [waiting async for waiting in caller.waits()]

    assert asyncio.run(told()) == []


def test_an_answer_that_nobody_fetched_is_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    async def leave() -> None:
        caller = Caller()
        caller.refuse(ShuttingDown(who="hive"))
        caller.close()

    asyncio.run(leave())
    assert caplog.records == []
