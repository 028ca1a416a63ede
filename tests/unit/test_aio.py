"""Threads that are stuck hold nobody up; those that are not are waited for."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from rbee_core import aio


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """What a stuck thread waits for: set once the test is over."""
    event = threading.Event()
    yield event
    event.set()


def test_b7_the_end_of_a_program_does_not_wait_for_a_thread_that_is_stuck(never: threading.Event) -> None:
    async def main() -> str:
        begun = threading.Event()

        def stuck() -> None:
            begun.set()
            never.wait()

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await aio.off_loop(stuck)
        begun.wait()
        return "over"

    assert aio.run(main()) == "over"  # and not when the test is


def test_calls_off_the_loop_return_raise_and_use_as_many_threads_as_are_needed() -> None:
    async def main() -> None:
        both = threading.Barrier(2)
        await asyncio.gather(aio.off_loop(both.wait), aio.off_loop(both.wait))
        assert await aio.off_loop(int, "7") == 7
        with pytest.raises(ZeroDivisionError):
            await aio.off_loop(lambda: 1 / 0)

    aio.run(main())


def test_more_calls_than_threads_wait_their_turn() -> None:
    async def main() -> list[int]:
        return await asyncio.gather(*(aio.off_loop(lambda n=n: n) for n in range(200)))

    assert aio.run(main()) == list(range(200))


def test_what_is_at_work_when_a_program_ends_is_waited_for() -> None:
    done: list[str] = []

    async def main() -> None:
        begun = threading.Event()

        def work() -> None:
            begun.set()
            done.append("written")

        async with asyncio.TaskGroup() as tasks:
            call = tasks.create_task(aio.off_loop(work))
            await aio.off_loop(begun.wait)
            call.cancel()

    aio.run(main())
    assert done == ["written"]


def test_after_the_end_no_call_is_taken() -> None:
    threads = aio.Threads()
    assert threads.submit(int, "1").result() == 1
    threads.shutdown()
    with pytest.raises(RuntimeError):
        threads.submit(int, "1")


def test_a_thread_that_goes_on_with_the_next_call_is_not_counted_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that waited for a thread once must not leave the impression that one is free when none is."""
    threads, first, second = aio.Threads(), threading.Event(), threading.Event()
    begun = threading.Event()

    def refused(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def stuck() -> None:
        begun.set()
        second.wait()

    threads.submit(first.wait)
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refused)
        threads.submit(stuck)  # waits for the only thread
    first.set()
    assert begun.wait(60)
    assert threads.submit(int, "1").result(60) == 1
    second.set()
    threads.shutdown()
