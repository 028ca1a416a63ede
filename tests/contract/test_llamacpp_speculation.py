"""Guessing ahead with the real library: the same text as without, and what ends it still does."""

import threading

import pytest

from rbee_core.backend import Finished, GenerateRequest, LoadOptions, PromptDone, PromptProgress, Token, Tuning
from rbee_plugins.llamacpp import sampling, speculation
from tests.contract.conftest import get

ROOM = 512
FABLE = (
    "A crow was thirsty and found a jug with a little water at the bottom. She could not reach it with her beak. So "
    "she dropped stones into the jug, one by one, until the water rose and she could drink. "
)
QUOTING = FABLE + FABLE + FABLE[:40]


@pytest.fixture(scope="module")
def subject(loaded):
    return get(loaded, "llamacpp-cpu")


@pytest.fixture(scope="module")
def engines(subject):
    """One that guesses, and one that does not."""

    def load(said):
        options = LoadOptions(context_tokens=ROOM, slots=1, tuning=Tuning(speculation=said))
        return subject.backend.load(subject.model, subject.backend.devices()[0], options, lambda _f, _d="": True)

    both = load("auto"), load("off")
    yield both
    for engine in both:
        engine.close()


@pytest.fixture(autouse=True)
def drafts_are_cheap(monkeypatch):
    """How long calls take here and now decides nothing."""
    monkeypatch.setattr(speculation.Costs, "ratio", lambda *_: 1.0)


def asked(prompt, **wanted):
    return GenerateRequest(prompt=prompt, **{"temperature": 0.0, "max_tokens": 40, **wanted})


def tokens(engine, request):
    return [event for event in engine.generate(request, threading.Event()) if isinstance(event, Token)]


def text(found):
    return "".join(token.text for token in found)


def right(found):
    return sum(token.guessed for token in found)


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"repeat_penalty": 1.05, "min_tokens": 30},
        {"grammar": "root ::= [a-zA-Z ,.]+"},
        {"logit_bias": {5: -3.0}, "min_p": 0.1},
    ],
    ids=str,
)
def test_a_quotation_is_guessed_and_the_text_is_the_same(engines, wanted):
    guessing, plain = (tokens(engine, asked(QUOTING, **wanted)) for engine in engines)
    assert text(guessing) == text(plain)
    assert right(guessing) > 15
    assert right(guessing) <= sum(token.guesses for token in guessing)
    assert right(plain) == sum(token.guesses for token in plain) == 0


def test_what_is_drawn_by_chance_is_drawn_the_same(engines, monkeypatch):
    monkeypatch.setattr(sampling.secrets, "randbits", lambda _bits: 7)
    guessing, plain = (tokens(engine, asked(QUOTING, temperature=0.6, top_k=20)) for engine in engines)
    assert text(guessing) == text(plain)
    assert 0 < right(guessing) < sum(token.guesses for token in guessing)


def test_a_text_with_a_seed_is_not_guessed(engines):
    guessing, plain = (tokens(engine, asked(QUOTING, seed=3)) for engine in engines)
    assert text(guessing) == text(plain)
    assert sum(token.guesses for token in guessing) == 0


def test_guessed_tokens_say_how_likely_they_were(engines):
    # Read anew: in what portions an earlier test had the prompt read shows in the numbers.
    guessing, plain = (tokens(engine, asked(QUOTING, logprobs=2, reuse_prompt=False)) for engine in engines)
    assert right(guessing) > 15
    for one, other in zip(guessing, plain, strict=True):
        assert one.chosen.id == other.chosen.id
        assert one.chosen.logprob == pytest.approx(other.chosen.logprob, abs=0.1)
        assert [top.id for top in one.top[:1]] == [top.id for top in other.top[:1]]


@pytest.mark.parametrize("limit", [1, 2, 9, 14])
def test_no_token_comes_behind_the_last_one_that_was_asked_for(engines, limit):
    *found, last = engines[0].generate(asked(QUOTING, max_tokens=limit), threading.Event())
    assert sum(isinstance(event, Token) for event in found) == limit
    assert last == Finished("length")


def test_a_full_context_ends_a_text_that_is_guessed(engines):
    for engine in engines:
        request = asked("hello " * 470, max_tokens=None, ignore_eos=True)
        first, *found, last = [
            e for e in engine.generate(request, threading.Event()) if not isinstance(e, PromptProgress)
        ]
        assert isinstance(first, PromptDone)
        assert last == Finished("length")
        assert len(found) == ROOM - first.prompt_tokens
    assert engines[0].info().context_tokens == ROOM


def test_who_leaves_among_guessed_tokens_leaves_nothing_behind(engines):
    guessing, plain = engines
    cancel, seen = threading.Event(), 0
    for event in guessing.generate(asked(QUOTING, max_tokens=None), cancel):
        seen += isinstance(event, Token) and event.guessed
        if seen == 3:
            cancel.set()
        assert not isinstance(event, Finished)
    assert seen == 3
    again = FABLE + FABLE[:90]
    assert text(tokens(guessing, asked(again))) == text(tokens(plain, asked(again)))


def test_a_grammar_goes_on_behind_what_was_right_only(engines):
    schema = {"type": "array", "items": {"enum": ["red", "green"]}, "minItems": 9, "maxItems": 12}
    prompt = "Colours: " + '["red", "green", "red", "green", "red", "green"] ' * 3
    guessing, plain = (tokens(engine, asked(prompt, json_schema=schema, max_tokens=90)) for engine in engines)
    assert text(guessing) == text(plain)
    assert 0 < right(guessing) < sum(token.guesses for token in guessing)
