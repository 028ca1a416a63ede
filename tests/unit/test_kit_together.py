"""What the kit takes for a text that was held up by another's prompt, told from when its tokens came."""

from collections.abc import Sequence

import pytest

from rbee_kit.steps.together import went_on


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
