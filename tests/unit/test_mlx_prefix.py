"""Which beginnings of prompts an MLX model finds again, with memories that are lists of their tokens."""

from dataclasses import dataclass

import pytest

from rbee_plugins.mlx.prefix import Prefixes

TEXT = list(range(100))
REPLY = list(range(200, 220))


@dataclass
class Text:
    """A memory of so many tokens, a byte each."""

    tokens: list[int]
    cuttable: bool = True

    @property
    def size_bytes(self) -> int:
        return len(self.tokens)

    def copy(self):
        return Text(list(self.tokens), self.cuttable)

    def cut(self, tokens):
        assert self.cuttable or not tokens
        del self.tokens[len(self.tokens) - tokens :]


@pytest.fixture
def prefixes():
    return Prefixes(chunk_tokens=8, room_bytes=200)


def keep(prefixes, tokens, request_id="", *, cuttable=True):
    prefixes.keep(tokens, Text(list(tokens), cuttable), request_id)


def found(prefixes, prompt):
    start = prefixes.find(prompt)
    assert (start.memory.tokens if start.memory else []) == prompt[: start.tokens]
    return start.tokens, start.why


def test_a_longer_prompt_begins_where_the_shorter_one_ended(prefixes):
    keep(prefixes, TEXT[:40])
    assert found(prefixes, TEXT[:60]) == (40, "")
    assert found(prefixes, [*TEXT[:40], *REPLY]) == (40, "")


def test_only_whole_chunks_are_the_same_to_the_last_bit(prefixes):
    keep(prefixes, TEXT[:40])
    assert found(prefixes, [*TEXT[:37], *REPLY]) == (32, "differs at token 37")
    assert found(prefixes, TEXT[:40]) == (32, ""), "the last token is always computed"
    assert found(prefixes, TEXT[:60]) == (40, ""), "what was cut was a copy"


def test_what_is_short_is_not_worth_it(prefixes):
    keep(prefixes, TEXT[:8])
    assert found(prefixes, TEXT[:60]) == (0, "")
    keep(prefixes, TEXT[:40])
    assert found(prefixes, [*TEXT[:9], *REPLY]) == (0, "")


def test_a_memory_that_cannot_be_cut_serves_only_those_who_begin_with_all_of_it(prefixes):
    keep(prefixes, TEXT[:40], cuttable=False)
    assert found(prefixes, [*TEXT[:32], *REPLY]) == (0, "not cuttable")
    assert found(prefixes, TEXT[:60]) == (40, "")
    keep(prefixes, TEXT[:48], cuttable=False)
    assert found(prefixes, [*TEXT[:40], *REPLY])[0] == 40, "the shorter one is still of use"


def test_a_part_of_another_one_takes_no_room(prefixes):
    for tokens in (TEXT[:40], TEXT[:96], TEXT[:40], TEXT[:96]):
        keep(prefixes, tokens)
    keep(prefixes, [*REPLY, *TEXT[:84]])
    assert found(prefixes, TEXT)[0] == 96


def test_the_one_that_was_not_used_for_longest_goes(prefixes):
    one, two, three = ([start, *TEXT[:79]] for start in (1001, 1002, 1003))
    keep(prefixes, one, "a")
    keep(prefixes, two, "b")
    assert found(prefixes, [*one, 5])[0] == 80
    keep(prefixes, three, "c")
    assert found(prefixes, [*one, 5])[0] == 80
    assert found(prefixes, [*two, 5]) == (0, "evicted for request c")


def test_one_that_is_larger_than_all_the_room_is_not_kept(prefixes):
    keep(prefixes, TEXT[:40])
    keep(prefixes, [*REPLY, *range(1000, 1220)])
    assert found(prefixes, TEXT[:60])[0] == 40
