"""What the kit takes for a text that was held up by another's prompt, told from when its tokens came."""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from rbee_core.errors import WorkerCrashed
from rbee_kit.steps.together import Reader, went_on


@pytest.mark.parametrize(
    ("took_s", "came_s"),
    [
        (0.05, [0.0, 0.06]),  # a quick backend: its tokens go out together, once in so long
        (2.0, [0.0, 0.5, 1.0, 1.5, 2.1]),
        (-1.0, [-1.0]),  # the other text had ended before
    ],
)
def test_a_text_that_goes_on_is_not_held_up(took_s: float, came_s: Sequence[float]) -> None:
    went_on((0.0, took_s, came_s))


def test_a_text_without_a_token_for_most_of_the_time_is_held_up() -> None:
    with pytest.raises(AssertionError, match=r"for 1\.90 s of that no token came"):
        went_on((0.0, 2.0, [0.0, 0.1, 2.1]))


def reader_of(events: Iterator[Any]) -> Reader:
    """Return a reader of a text whose stream is `events`."""
    client = SimpleNamespace(infer=lambda *_: events)
    loaded: Any = SimpleNamespace(hive=SimpleNamespace(connect=lambda: client), worker=SimpleNamespace(worker_id="w"))
    return Reader(loaded)


def test_what_a_text_beside_others_ended_with_is_said() -> None:
    def broken() -> Iterator[Any]:
        yield SimpleNamespace(token="a")
        raise WorkerCrashed(worker_id="w-1", exit="SIGKILL")

    with pytest.raises(AssertionError, match=r"ended with: .*w-1"):
        reader_of(broken()).leave()


def test_a_text_beside_others_that_ended_without_a_word_is_named() -> None:
    def silent() -> Iterator[Any]:
        yield SimpleNamespace(token=None)

    with pytest.raises(AssertionError, match="ended without a word"):
        reader_of(silent()).leave()
