"""Guesses of what comes next, how far they are trusted, and when they are worth being computed. No native calls."""

import random
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from rbee_plugins.llamacpp import drafts
from rbee_plugins.llamacpp.drafts import GRAMS, Grams, Lookup, Record
from rbee_plugins.llamacpp.planner import Pace, Share
from rbee_plugins.llamacpp.speculation import LENGTHS, MOST_DRAFTED, WORTH, Speculation

texts = st.lists(st.integers(1, 4), max_size=60)


def written(prompt: list[int], text: list[int]) -> Lookup:
    lookup = Lookup(prompt, Record())
    for token in text:
        lookup.follow(token)
    return lookup


@given(texts, texts, st.integers(1, 20))
def test_a_draft_is_what_followed_the_same_tokens_before(prompt: list[int], text: list[int], count: int) -> None:
    lookup, all_of_it = written(prompt, text), prompt + text
    draft = lookup.draft(count)
    assert len(draft) in (0, count)
    if draft:
        whole = [*all_of_it, *draft]
        shifts = [
            n for n in range(1, len(all_of_it) + 1) if draft == [whole[len(all_of_it) + k - n] for k in range(count)]
        ]
        assert shifts, "the draft stands nowhere"


@given(texts, texts)
def test_whatever_is_said_again_is_found(prompt: list[int], text: list[int]) -> None:
    all_of_it = prompt + text
    last = all_of_it[-GRAMS[-1] :]
    before = [all_of_it[n : n + GRAMS[-1]] for n in range(len(all_of_it) - GRAMS[-1])]
    if len(text) and last in before:
        assert written(prompt, text).draft(1)


def test_a_quotation_is_followed_and_one_exchanged_token_does_not_end_it() -> None:
    prompt = [*range(100, 140)]
    lookup = written([*prompt, 1, 2], prompt[:10])
    assert lookup.draft(5) == prompt[10:15]
    lookup.follow(7)
    assert lookup.draft(3) == prompt[11:14]
    lookup.follow(8)
    assert lookup.draft(3) == []


def test_what_is_said_again_and_again_is_guessed_beyond_its_end() -> None:
    assert written([1, 2, 3], [1, 2, 3, 1, 2]).draft(7) == [3, 1, 2, 3, 1, 2, 3]


def test_hopes_grow_with_what_proved_right_and_sink_with_what_did_not() -> None:
    quoting, prose = Record(), Record()
    for _ in range(40):
        for matched in range(80):
            quoting.note(matched, right=True)
            prose.note(matched, right=False)
    prompt = [*range(20)]
    hopeful, hopeless = Lookup(prompt, quoting), Lookup(prompt, prose)
    for token in prompt[:5]:
        hopeful.follow(token)
        hopeless.follow(token)
    assert hopeful.hopes(16)[16] > 12
    assert hopeless.hopes(16)[16] < 1.3
    assert hopeless.hopes(4)[0] == 1


def test_what_one_text_teaches_the_next_one_knows() -> None:
    record, prompt = Record(), [*range(40)]
    before = record.rate(6)
    for _ in range(8):
        lookup = Lookup(prompt, record)
        for token in prompt:
            lookup.follow(token)
    assert record.rate(6) > before
    assert Lookup(prompt, record).hopes(3) == [1.0] * 4, "nothing was found yet"


@given(texts)
def test_hopes_are_never_less_than_one_and_never_more_than_all(text: list[int]) -> None:
    hopes = written([], text).hopes(9)
    assert len(hopes) == 10
    assert hopes == sorted(hopes)
    assert all(1 <= hope <= 1 + n for n, hope in enumerate(hopes))


def test_what_is_known_of_a_text_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(drafts, "MOST_GRAMS", 100)
    tokens = random.Random(1).sample(range(10**6), 5000)
    grams = Grams(2, tokens)
    for end in range(2, 5000):
        grams.swap(tokens[:end][-2:])
    assert len(grams._new) + len(grams._old) <= 100
    assert len(Grams(2, tokens)._new) <= 50


@dataclass(eq=False)
class Text:
    lookup: Lookup | None
    room: int = 100
    unread: int = 0
    alone: bool = False


def sure(count: int = 30) -> Text:
    prompt = [*range(count)]
    return Text(written(prompt, prompt[:12]))


def unsure() -> Text:
    return Text(written([], random.Random(2).sample(range(10**6), 40)))


def pace(texts: int = 1, step_s: float = 0.010, token_s: float = 0.001) -> Pace:
    made = Pace(512)
    made.took(step_s, texts, 0)
    made.took(token_s * 16, 0, 16)
    return made


def lengths(speculation: Speculation, texts: list[Text], pace: Pace) -> list[int]:
    return [len(share.draft) for share in speculation.added([Share(text, 1) for text in texts], pace)]


def test_a_quotation_is_drafted_and_a_text_of_its_own_is_not() -> None:
    assert lengths(Speculation(), [sure()], pace())[0] >= 4
    assert lengths(Speculation(), [unsure()], pace()) == [0]


def test_nobody_drafts_while_a_prompt_is_read_or_nothing_is_measured() -> None:
    assert lengths(Speculation(), [sure(), Text(None, unread=5)], pace(2)) == [0, 0]
    assert lengths(Speculation(), [sure()], Pace(512)) == [0]
    assert lengths(Speculation(), [sure()], pace(texts=2)) == [0]


def test_a_text_that_must_not_be_guessed_is_not() -> None:
    assert lengths(Speculation(), [Text(None)], pace()) == [0]


def test_who_has_nothing_to_guess_does_not_wait_for_anothers_guesses() -> None:
    assert lengths(Speculation(), [sure(), unsure()], pace(2)) == [0, 0]
    assert min(lengths(Speculation(), [sure(), sure()], pace(2))) > 1
    assert sum(lengths(Speculation(), [sure() for _ in range(8)], pace(8))) <= MOST_DRAFTED


def test_no_more_is_drafted_than_there_is_room_for() -> None:
    text = sure()
    for room in range(20):
        text.room = room
        assert lengths(Speculation(), [text], pace())[0] <= room


@settings(max_examples=50)
@given(st.floats(0, 3), st.integers(0, 1000))
def test_drafts_that_cost_more_than_they_bring_end_soon(each: float, seed: int) -> None:
    """Each token more costs `each` calls: what was lost until that was known is little."""
    speculation, clock, choices = Speculation(), pace(), random.Random(seed)
    drafted, lost = 0, 0.0
    for _ in range(300):
        [share] = speculation.added([Share(sure(), 1)], clock)
        drafted = len(share.draft)
        cost = 1 + each * drafted
        lost += max(0.0, cost - (1 + drafted * (choices.random() < 0.95)))
        if drafted:
            speculation.took(0.010 * cost * choices.uniform(0.9, 1.1), [share], clock)
    if each >= 1:
        assert not drafted
        assert lost < 8 * LENGTHS[-1] * each
    if each < 0.3:
        assert drafted


def test_a_price_that_was_measured_long_ago_is_measured_again() -> None:
    speculation, clock, text = Speculation(), pace(), sure()
    shares = speculation.added([Share(text, 1)], clock)
    while shares[0].draft:
        speculation.took(10.0, shares, clock)
        shares = speculation.added([Share(text, 1)], clock)
    assert any(speculation.added([Share(text, 1)], clock)[0].draft for _ in range(5000))


def test_a_measure_from_a_busy_machine_does_not_make_drafts_cheap_for_long() -> None:
    """Each token more costs two calls, but one call was measured when it took twenty times as long."""
    speculation, clock, drafted = Speculation(), pace(step_s=0.200, token_s=0.020), 0
    for _ in range(500):
        [share] = speculation.added([Share(sure(), 1)], clock)
        drafted = len(share.draft)
        if drafted:
            speculation.took(0.010 * (1 + 2 * drafted), [share], clock)
        else:
            clock.took(0.010, 1, 0)
    assert not drafted
    assert clock.plain_s(1) < 0.012


def test_the_time_of_a_call_is_foreseen() -> None:
    speculation, clock = Speculation(), pace()
    shares = speculation.added([Share(sure(), 1)], clock)
    for _ in range(40):
        speculation.took(0.030, shares, clock)
    assert 0.029 < speculation.expected_s(shares, clock) < 0.031
    assert WORTH > 1
