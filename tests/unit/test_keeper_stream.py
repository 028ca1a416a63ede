"""The stream parser: the network may cut the bytes wherever it likes."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbee_core import wire
from rbee_core.sse import EVENT_LIMIT_BYTES, EventParser

STREAM = (
    'data: {"token":"Grüß 🐝","index":0}\n\n: keep-alive\n\r\ndata:{"token":"\\n","index":1}\r\n\r\n'
    'event: x\ndata: {"done":true,"total_tokens":2,"duration_ms":5,"finish_reason":"stop"}\n\ndata: [DONE]\n\n'
).encode()


def test_events_are_read() -> None:
    parser = EventParser(wire.StreamEvent)

    events = parser.feed(STREAM)

    assert [e.token for e in events] == ["Grüß 🐝", "\n", None]
    assert (events[-1].done, events[-1].total_tokens, events[-1].finish_reason) == (True, 2, "stop")
    assert parser.done


@settings(max_examples=60)
@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_any_split_gives_the_same_events(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    parser = EventParser(wire.StreamEvent)
    events: list[wire.StreamEvent] = []

    for start, end in pairwise(edges):
        events += parser.feed(STREAM[start:end])

    assert events == EventParser(wire.StreamEvent).feed(STREAM)
    assert parser.done


@pytest.mark.parametrize("junk", [b"data: {\n", b'data: {"token": 5}\n', b"data: \xff\n", b"data: []\n"])
def test_what_is_no_event_is_an_error_behind_those_before_it(junk: bytes) -> None:
    parser = EventParser(wire.StreamEvent)

    events = parser.feed(b'data: {"token":"Hi","index":0}\n\n' + junk + b'data: {"token":"lost","index":1}\n\n')

    assert [event.token for event in events] == ["Hi"]
    with pytest.raises(ValueError, match=r"\S"):
        parser.check()


def test_event_without_end_is_an_error() -> None:
    parser = EventParser(wire.StreamEvent)
    parser.feed(b"data: " + b"x" * EVENT_LIMIT_BYTES)
    with pytest.raises(ValueError, match="too large"):
        parser.check()
