"""Whose turn it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee_core.domain.queue import FairQueue
from rbee_core.domain.worker import Ticket
from tests.support.pools import wants


def queue_of(clients: str) -> FairQueue:
    """Return a queue in which the clients came in this order, with tickets 1, 2, 3 …"""
    queue = FairQueue()
    for ticket, client in enumerate(clients, 1):
        queue.push(wants(ticket, client=client))
    return queue


def drain(queue: FairQueue) -> list[int]:
    return [queue.pop().ticket for _ in range(len(queue))]


@pytest.mark.parametrize(
    ("clients", "order"),
    [
        ("", []),
        ("aaa", [1, 2, 3]),
        ("aaab", [1, 4, 2, 3]),
        ("aabbc", [1, 3, 5, 2, 4]),
        ("abcabc", [1, 2, 3, 4, 5, 6]),
    ],
)
def test_clients_take_turns(clients: str, order: list[int]) -> None:
    assert [r.ticket for r in queue_of(clients)] == order
    assert drain(queue_of(clients)) == order


def test_who_comes_back_goes_behind_the_others() -> None:
    queue = queue_of("ab")
    assert queue.pop().ticket == 1
    queue.push(wants(3, client="a"))
    assert drain(queue) == [2, 3]


def test_one_may_leave_from_anywhere() -> None:
    queue = queue_of("aaab")
    assert queue.remove(Ticket(1))
    assert not queue.remove(Ticket(1))
    assert queue.remove(Ticket(4))
    assert (len(queue), drain(queue), len(queue)) == (2, [2, 3], 0)


@given(st.text("abcd", max_size=30), st.integers(0, 29))
def test_it_leaves_in_the_order_that_it_shows(clients: str, leaves: int) -> None:
    queue, same = queue_of(clients), queue_of(clients)
    queue.remove(Ticket(leaves))
    same.remove(Ticket(leaves))
    assert [r.ticket for r in queue] == drain(same)
