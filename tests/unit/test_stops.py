"""Stop strings: however the text is cut into pieces, the result is that of searching the whole text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee_core.worker.stops import StopFinder

STOPS = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3)
PIECES = st.lists(st.text("ab\n", max_size=5), max_size=20)


def feed(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    """Return all text that was sent, and whether a stop string ended it."""
    finder, sent = StopFinder(stops), ""
    for piece in pieces:
        text, stopped = finder.feed(piece)
        sent += text
        if stopped:
            return sent, True
    return sent + finder.rest(), False


def search(stops: list[str], whole: str) -> tuple[str, bool]:
    """Return the same for the text in one piece: cut at the stop string that is complete first."""
    for end in range(1, len(whole) + 1):
        if starts := [end - len(stop) for stop in stops if whole[:end].endswith(stop)]:
            return whole[: min(starts)], True
    return whole, False


@given(stops=STOPS, pieces=PIECES)
def test_any_split_gives_what_the_whole_text_gives(stops: list[str], pieces: list[str]) -> None:
    assert feed(stops, pieces) == search(stops, "".join(pieces))


@given(stops=STOPS, pieces=PIECES)
def test_only_a_possible_beginning_is_held_back(stops: list[str], pieces: list[str]) -> None:
    finder, given_text, sent = StopFinder(stops), "", ""
    for piece in pieces:
        text, stopped = finder.feed(piece)
        given_text, sent = given_text + piece, sent + text
        if stopped:
            return
        held = given_text[len(sent) :]
        assert not held or any(stop.startswith(held) for stop in stops)


@pytest.mark.parametrize(
    ("stops", "pieces", "expected"),
    [
        ([], ["a", "b"], ("ab", False)),
        (["END"], ["a EN", "D b"], ("a ", True)),
        (["END"], ["a EN", "E b"], ("a ENE b", False)),
        (["END"], ["a EN"], ("a EN", False)),
        (["aab"], ["aa", "ab"], ("a", True)),
        (["x", "xy"], ["a", "xy"], ("a", True)),
        (["abcd", "c"], ["abcd"], ("ab", True)),
        (["abcd", "c"], ["ab", "cd"], ("ab", True)),
        (["b", "ab"], ["ab"], ("", True)),
        (["é"], ["caf", "é", "s"], ("caf", True)),
    ],
)
def test_examples(stops: list[str], pieces: list[str], expected: tuple[str, bool]) -> None:
    assert feed(stops, pieces) == expected
