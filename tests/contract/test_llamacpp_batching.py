"""Many texts at once, with the real library: each is what it would be alone, and nobody takes another's room."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from rbee_core.backend import Finished, GenerateRequest, LoadOptions, PromptDone, Token, Tuning
from rbee_core.errors import PromptTooLong
from tests.contract.conftest import get

SLOTS, ROOM = 4, 256
SURE = ["a b c d e f g h i", "The alphabet: A, B, C, D, E, F, G,"]
"""Prompts that the model is sure how to go on from, whatever the last bits say; see test_backends_agree."""


class Watched:
    """Notes which sequences were in each call, and with how many tokens."""

    def __init__(self, context):
        self.calls: list[dict[int, int]] = []
        self._decode = context.decode

    def __call__(self, parts):
        self.calls.append({part.sequence: len(part.tokens) for part in parts})
        return self._decode(parts)


@pytest.fixture(scope="module")
def engine(loaded):
    subject = get(loaded, "llamacpp-cpu")
    plainly = Tuning(speculation="off")  # what is in a call, and how many there are, is looked at here
    options = LoadOptions(context_tokens=ROOM, slots=SLOTS, tuning=plainly)
    engine = subject.backend.load(subject.model, subject.backend.devices()[0], options, lambda _f, _d="": True)
    yield engine
    engine.close()


@pytest.fixture
def calls(engine, monkeypatch):
    watched = Watched(engine._loop._context)
    monkeypatch.setattr(engine._loop._context, "decode", watched)
    return watched.calls


def events(engine, prompt, cancel=None, **wanted):
    request = GenerateRequest(prompt=prompt, **{"temperature": 0.0, "max_tokens": 4, **wanted})
    return list(engine.generate(request, cancel or threading.Event()))


def text(engine, prompt, **wanted):
    return "".join(event.text for event in events(engine, prompt, **wanted) if isinstance(event, Token))


def together(*asked):
    """Call all at once; return what each returned."""
    with ThreadPoolExecutor(len(asked)) as threads:
        return [future.result() for future in [threads.submit(call) for call in asked]]


def test_each_of_several_texts_is_what_it_is_alone_and_they_share_calls(engine, calls):
    alone = {prompt: text(engine, prompt) for prompt in SURE}
    assert len(set(alone.values())) == 2
    calls.clear()
    prompts = SURE * (SLOTS // 2)
    found = together(*[lambda p=p: text(engine, p, max_tokens=4) for p in prompts])
    assert found == [alone[prompt] for prompt in prompts]
    assert max(map(len, calls)) > 1


def test_a_seed_gives_its_text_whoever_is_written_for_beside(engine, calls):
    def story(seed):
        return text(engine, "Once upon a time", seed=seed, temperature=1.5, max_tokens=6)

    alone = {seed: story(seed) for seed in (1, 2)}
    assert alone[1] != alone[2]
    calls.clear()
    crowd = [lambda n=n: text(engine, f"{n} bees", max_tokens=40) for n in range(2)]
    first, second, *_ = together(lambda: story(1), lambda: story(2), *crowd)
    assert (first, second) == (alone[1], alone[2])
    assert max(map(len, calls)) <= 2, "a seed's tokens were computed beside others'"


def test_one_who_leaves_disturbs_nobody(engine):
    expected = text(engine, SURE[0], max_tokens=6)
    stays = engine.generate(GenerateRequest(prompt=SURE[0], max_tokens=6, temperature=0), threading.Event())
    leaves = engine.generate(GenerateRequest(prompt="Once upon a time", temperature=0), cancel := threading.Event())
    abandoned = engine.generate(GenerateRequest(prompt="In the beginning", temperature=0), threading.Event())
    started = [next(stream) for stream in (stays, leaves, abandoned)]
    assert all(isinstance(event, PromptDone) for event in started)
    cancel.set()
    abandoned.close()
    assert list(leaves) == []
    assert "".join(event.text for event in stays if isinstance(event, Token)) == expected


def test_a_long_prompt_lets_a_running_text_into_every_call(engine, calls):
    running = engine.generate(GenerateRequest(prompt="1 2 3 4", temperature=0), threading.Event())
    assert isinstance(next(running), PromptDone)
    assert isinstance(next(running), Token)
    calls.clear()
    events(engine, "hello " * 150, max_tokens=1, reuse_prompt=False)
    reading = [call for call in calls if max(call.values()) > 1]
    assert len(reading) > 1, "it was read in one call"
    assert all(len(call) == 2 for call in reading), "the running text was left out"
    running.close()


@pytest.mark.parametrize(("tokens", "written"), [(ROOM - 1, 1), (ROOM - 2, 2)])
def test_a_prompt_that_just_fits_is_answered_up_to_the_context(engine, tokens, written):
    first, *rest, last = [
        e
        for e in events(engine, "hello " * (tokens - 1), max_tokens=None)
        if isinstance(e, PromptDone | Token | Finished)
    ]
    assert first.prompt_tokens == tokens
    assert (len(rest), last) == (written, Finished("length"))


@pytest.mark.parametrize("tokens", [ROOM, ROOM + 1])
def test_a_prompt_that_leaves_no_room_is_refused(engine, tokens):
    with pytest.raises(PromptTooLong) as caught:
        events(engine, "hello " * (tokens - 1))
    assert caught.value.details == {"prompt_tokens": tokens, "context_tokens": ROOM}


def test_more_and_longer_prompts_than_there_is_room_for_are_all_answered(engine):
    def one(number):
        *_, last = found = events(engine, f"{number} " + "hello " * 180, max_tokens=3)
        return last, sum(isinstance(event, Token) for event in found)

    found = together(*[lambda n=n: one(n) for n in range(2 * SLOTS)])
    assert all(last in (Finished("stop"), Finished("length")) for last, _ in found)
    assert all(tokens == 3 for last, tokens in found if last == Finished("length"))
