"""Saved states: within their bytes, the least recently used first out, none twice."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from rbee_plugins.llamacpp.states import MOST_STATES, WORTH_SAVING, Saved, States

LONG = list(range(1000))


def put(states: States[str], tokens: list[int], state_bytes: int = 1, floor: int = 0) -> list[Saved[str]] | None:
    lost = states.make_room(tokens, state_bytes, floor)
    if lost is not None:
        states.add(tokens, "state", state_bytes, floor)
    return lost


def texts(states: States[str]) -> list[list[int]]:
    return [list(saved.tokens) for saved in states]


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 2), max_size=9), st.integers(0, 60), st.integers(0, 9))),
    st.integers(0, 100),
)
def test_they_never_take_more_than_they_may(added: list[tuple[list[int], int, int]], limit_bytes: int) -> None:
    states: States[str] = States(limit_bytes)
    for tokens, state_bytes, floor in added:
        put(states, tokens, state_bytes, min(floor, len(tokens)))
        assert states.size_bytes <= limit_bytes


def test_the_least_recently_used_goes_first() -> None:
    states: States[str] = States(250)
    put(states, [1], 96)
    put(states, [2], 96)
    states.use(next(iter(states)))
    lost = put(states, [3], 96)
    assert lost is not None
    assert [list(saved.tokens) for saved in lost] == [[2]]
    assert texts(states) == [[1], [3]]


def test_a_state_that_can_never_fit_drives_nothing_out() -> None:
    states: States[str] = States(250)
    put(states, [1], 200)
    assert put(states, [2], 260) is None
    assert texts(states) == [[1]]


def test_what_a_longer_text_serves_too_goes_without_loss() -> None:
    states: States[str] = States(10**6)
    put(states, LONG[:300])
    assert put(states, LONG[:600]) == []
    assert texts(states) == [LONG[:600]]
    put(states, LONG[:900], floor=900)
    assert texts(states) == [LONG[:600], LONG[:900]], "it cannot be cut back to the shorter one"


def test_a_text_that_is_there_but_for_its_last_tokens_is_not_saved_again() -> None:
    states: States[str] = States(10**6)
    put(states, LONG[:300])
    assert not states.lack(LONG[:200])
    assert not states.lack(LONG[: 300 + WORTH_SAVING - 1])
    assert states.lack(LONG[: 300 + WORTH_SAVING])
    assert states.lack([*LONG[:200], 5, 5])
    put(states, LONG[:300], floor=300)
    assert not states.lack(LONG[:300])


def test_a_state_serves_what_it_can_be_cut_back_to() -> None:
    state = Saved(array("i", LONG[:300]), "state", 1, floor=200)
    assert state.serves(array("i", LONG[:250]))
    assert not state.serves(array("i", LONG[:199]))
    assert not state.serves(array("i", [*LONG[:249], 5]))


def test_there_are_never_many() -> None:
    states: States[str] = States(10**6)
    for number in range(MOST_STATES + 5):
        put(states, [number])
    assert len(texts(states)) == MOST_STATES
