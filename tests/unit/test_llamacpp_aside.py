"""What takes too long to be made ready is given up, counted while it goes on, and let go of when it ends."""

import threading
from collections.abc import Callable

import pytest

from rbee_core.errors import InvalidRequest, Overloaded
from rbee_kit.waiting import eventually
from rbee_plugins.llamacpp import aside
from rbee_plugins.llamacpp.aside import AT_ONCE, Aside


class Slow:
    """Work that goes on until it may end."""

    def __init__(self) -> None:
        self.may_end = threading.Event()

    def __call__(self) -> "Slow":
        self.may_end.wait()
        return self


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "PATIENCE_S", 0.0)


def made(things: Aside[Slow], work: Callable[[], Slow], cancel: threading.Event | None = None) -> Slow | None:
    return things.make("grammar", work, cancel or threading.Event())


def test_what_is_made_is_the_callers_and_what_it_raises_is_raised() -> None:
    dropped: list[Slow] = []
    things, quick = Aside(dropped.append), Slow()
    quick.may_end.set()
    assert made(things, quick) is quick

    def fails() -> Slow:
        raise InvalidRequest("no grammar")

    with pytest.raises(InvalidRequest, match="no grammar"):
        made(things, fails)
    things.close()
    assert dropped == []


@pytest.mark.usefixtures("impatient")
def test_so_many_go_on_and_nobody_begins_before_one_of_them_has_ended() -> None:
    dropped: list[Slow] = []
    things, slow = Aside(dropped.append), [Slow() for _ in range(AT_ONCE)]
    for work in slow:
        with pytest.raises(InvalidRequest, match="The grammar took longer than 0 s to be made ready"):
            made(things, work)
    with pytest.raises(Overloaded, match="2 are being made already, and none was ready within 0 s"):
        made(things, slow[0])
    left = threading.Event()
    left.set()
    assert made(things, slow[0], left) is None
    slow[0].may_end.set()
    eventually(lambda: dropped == slow[:1], 5, what="what nobody waits for is let go of")
    quick = Slow()
    quick.may_end.set()
    eventually(lambda: _began(things, quick), 5, what="there is room again")
    slow[1].may_end.set()
    things.close()
    assert set(slow) <= set(dropped)


def test_those_who_come_at_the_same_moment_are_no_more_at_once_than_others() -> None:
    things, slow = Aside[Slow](lambda _made: None), [Slow() for _ in range(4 * AT_ONCE)]
    begun, most, change = list[Slow](), list[int](), threading.Lock()

    def work(one: Slow) -> Slow:
        with change:
            begun.append(one)
            most.append(len(begun))
        try:
            return one()
        finally:
            with change:
                begun.remove(one)

    together = threading.Barrier(len(slow))

    def ask(one: Slow) -> None:
        together.wait()
        things.make("grammar", lambda: work(one), threading.Event())

    asking = [threading.Thread(target=ask, args=[one]) for one in slow]
    for thread in asking:
        thread.start()
    eventually(lambda: len(begun) == AT_ONCE, 5, what="as many as may be are begun")
    for one in slow:
        one.may_end.set()
    for thread in asking:
        thread.join()
    assert len(most) == len(slow)
    assert max(most) == AT_ONCE


def _began(things: Aside[Slow], work: Slow) -> bool:
    try:
        made(things, work)
    except InvalidRequest:  # the machine was slow
        return True
    except Overloaded:
        return False
    return True


def test_whoever_leaves_waits_no_longer() -> None:
    dropped: list[Slow] = []
    things, slow, left = Aside(dropped.append), Slow(), threading.Event()
    answers: list[Slow | None] = []
    waiting = threading.Thread(target=lambda: answers.append(made(things, slow, left)))
    waiting.start()
    left.set()
    waiting.join()
    assert answers == [None]
    slow.may_end.set()
    things.close()
    assert dropped == [slow]
