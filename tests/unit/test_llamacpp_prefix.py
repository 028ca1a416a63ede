"""Where a prompt starts from, and the reason for not more."""

from array import array
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rbee_plugins.llamacpp.prefix import (
    ASKED_NOT_TO,
    EVICTED_TOKENS,
    NOT_CUTTABLE,
    WORTH_PART,
    WORTH_TOKENS,
    Evictions,
    Held,
    Start,
    choose,
    shared,
)
from rbee_plugins.llamacpp.states import Saved

tokens = st.lists(st.integers(0, 2), max_size=40)
LONG = list(range(100))


@given(tokens, tokens)
def test_shared_is_the_longest_common_beginning(one: list[int], other: list[int]) -> None:
    count = shared(one, other)
    assert one[:count] == other[:count]
    assert one[: count + 1] != other[: count + 1] or count == min(len(one), len(other))


def state(tokens: Sequence[int], floor: int = 0) -> Saved[Any]:
    return Saved(array("i", tokens), object(), 1, floor)


floors = st.lists(st.integers(0, 40), min_size=5, max_size=5)


@given(tokens.filter(len), st.lists(tokens, min_size=1, max_size=5), floors, st.lists(tokens, max_size=5), floors)
def test_what_is_kept_is_there_and_can_be_cut_to_and_the_last_token_is_computed(
    prompt: list[int], memories: list[list[int]], lowest: list[int], away: list[list[int]], lowest_away: list[int]
) -> None:
    free = [Held(n, held, n, min(lowest[n], len(held))) for n, held in enumerate(memories)]
    saved = [state(held, min(lowest_away[n], len(held))) for n, held in enumerate(away)]
    start = choose(prompt, free, Evictions(), saved=saved)
    source = start.state or free[start.source]
    assert 0 <= start.kept < len(prompt)
    assert list(source.tokens[: start.kept]) == prompt[: start.kept]
    assert start.kept == 0 or start.kept >= source.floor
    assert start.state is None or start.source == start.sequence
    best = max((shared(held.tokens, prompt[:-1]) for held in free if held.floor == 0), default=0)
    assert start.kept >= best or best < WORTH_TOKENS


def test_a_conversation_goes_on_where_it_was() -> None:
    free = [Held(0, [7] * 50, 1), Held(1, LONG[:60], 2)]
    assert choose(LONG, free, Evictions()) == Start(1, 1, 60)


def test_a_text_that_only_begins_alike_stays_and_its_beginning_is_copied() -> None:
    free = [Held(0, LONG, 2), Held(1, [7] * 50, 1)]
    prompt = [*LONG[:30], 500, 501]
    assert choose(prompt, free, Evictions()) == Start(1, 0, 30, "differs at token 30")
    assert choose(prompt, free[:1], Evictions()) == Start(0, 0, 30, "differs at token 30")


def test_a_short_match_destroys_nothing() -> None:
    free = [Held(0, LONG, 2), Held(1, [7] * 50, 1)]
    assert choose([*LONG[: WORTH_TOKENS - 1], 500], free, Evictions()).sequence == 1
    assert choose([*LONG[: WORTH_TOKENS - 1], 500], free, Evictions()).kept == 0


def test_a_new_text_goes_to_an_empty_place_or_else_the_oldest() -> None:
    assert choose([5, 6], [Held(0, LONG, 1), Held(1, [], 2)], Evictions()).sequence == 1
    assert choose([5, 6], [Held(0, LONG, 3), Held(1, LONG, 2)], Evictions()).sequence == 1


def test_a_new_text_goes_beside_those_that_run_where_little_is_lost() -> None:
    empty = [Held(number) for number in (0, 1, 4, 6)]
    assert choose([5, 6], empty, Evictions(), beside={5}).sequence == 4
    assert choose([5, 6], empty, Evictions(), beside={5}, reuse=False).sequence == 4
    assert choose([5, 6], empty, Evictions(), beside={3, 5, 7}).sequence == 4, "a hole is filled first"
    full = [Held(number, LONG, used) for number, used in [(0, 4), (1, 2), (3, 1), (4, 3)]]
    assert choose([5, 6], full, Evictions(), beside={2}).sequence == 3
    assert choose([5, 6], full, Evictions(), beside={0}).sequence == 1
    assert choose([5, 6], full, Evictions(), beside={5}).sequence == 3, "what was used lately stays"
    assert choose(LONG[:50], [Held(0, LONG[:60], 1), Held(4)], Evictions(), beside={3}).sequence == 0


def test_who_asks_for_no_reuse_gets_none() -> None:
    assert choose(LONG, [Held(0, LONG, 1)], Evictions(), reuse=False) == Start(0, 0, 0, ASKED_NOT_TO)


def test_what_had_to_go_is_named_with_whom_it_went_for() -> None:
    gone = Evictions()
    gone.note(LONG, 0, "chat-7")
    assert choose(LONG, [Held(0, [9] * 20, 1)], gone).why == "evicted for request chat-7"
    assert choose([5, 6, 7], [Held(0, [9] * 20, 1)], gone).why == "differs at token 0"
    assert choose(LONG, [Held(0, [*LONG], 1)], gone).why == ""


def test_the_end_of_a_text_that_had_to_go_is_named_too() -> None:
    gone = Evictions()
    gone.note(LONG, 60, "chat-8")
    gone.note(LONG, 100 - WORTH_TOKENS + 1, "a few tokens are no loss")
    assert choose(LONG, [Held(0, LONG[:60], 1)], gone).why == "evicted for request chat-8"


def test_of_texts_that_had_to_go_only_so_much_is_remembered() -> None:
    gone = Evictions()
    for number in range(9):
        gone.note([number] * (EVICTED_TOKENS // 2 - 1), 0, f"chat-{number}")
    assert gone.tokens <= EVICTED_TOKENS
    assert gone.of([8] * 100, 0) == "chat-8"
    assert gone.of([1] * 100, 0) == ""
    gone.note([9] * (2 * EVICTED_TOKENS), 0, "chat-9")
    assert gone.tokens <= EVICTED_TOKENS
    assert gone.of([9] * 100, 0) == "chat-9"


def test_a_saved_state_serves_where_no_sequence_has_as_much() -> None:
    free, saved = [Held(0, [7] * 50, 2), Held(1, LONG[:30], 1)], state(LONG)
    assert choose([*LONG, 5], free, Evictions(), saved=[saved]) == Start(1, 1, 100, "", saved)
    assert choose([*LONG[:80], 5, 5], free, Evictions(), saved=[saved]) == Start(1, 1, 80, "differs at token 80", saved)
    near = LONG[: 30 + WORTH_TOKENS]  # restoring it would take longer than computing the last ones
    assert choose(near, free, Evictions(), saved=[saved]).state is None
    assert choose([*LONG, 5], free, Evictions(), saved=[saved], reuse=False).state is None


def test_a_long_state_is_not_restored_for_a_short_beginning() -> None:
    saved, free = state(range(WORTH_PART * 100)), [Held(0, [7] * 50, 1)]
    assert choose([*range(100), 7], free, Evictions(), saved=[saved]).kept == 100
    assert choose([*range(99), 7], free, Evictions(), saved=[saved]) == Start(0, 0, 0, "differs at token 99")


def test_what_cannot_be_cut_serves_only_who_goes_on_from_its_end() -> None:
    free = [Held(0, LONG, 2, floor=100), Held(1, [7] * 50, 1, floor=50)]
    assert choose([*LONG, 5], free, Evictions()) == Start(0, 0, 100)
    assert choose([*LONG[:90], 5, 5], free, Evictions()) == Start(1, 1, 0, NOT_CUTTABLE), "nor is it copied"
    free[0].floor = 80
    assert choose([*LONG[:90], 5, 5], free, Evictions()) == Start(0, 0, 90, "differs at token 90")
    point = state(LONG[:60], floor=60)
    assert choose([*LONG[:70], 5, 5], free, Evictions(), saved=[point]) == Start(1, 1, 60, NOT_CUTTABLE, point)
