"""Many texts at once with MLX: each is what it would be alone, and nobody takes another's room."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from rbee_core.backend import Finished, GenerateRequest, LoadOptions, PromptDone, PromptProgress, Token
from tests.contract.conftest import get

SLOTS, ROOM = 3, 128
SURE = ["a b c d e f g h i", "The alphabet: A, B, C, D, E, F, G,"]
"""Prompts that the model is sure how to go on from, whatever the last bits say; see test_backends_agree."""


@pytest.fixture(scope="module")
def engine(loaded):
    subject = get(loaded, "mlx")
    options = LoadOptions(context_tokens=ROOM, slots=SLOTS)
    engine = subject.backend.load(subject.model, subject.backend.devices()[0], options, lambda _f, _d="": True)
    yield engine
    engine.close()


@pytest.fixture
def steps(engine, monkeypatch):
    """How many texts were in each step of the batch."""
    sizes, batch = [], engine._loop._batch
    step = batch.step

    def watched():
        sizes.append(len(batch))
        return step()

    monkeypatch.setattr(batch, "step", watched)
    return sizes


def request(prompt, **wanted):
    return GenerateRequest(prompt=prompt, **{"temperature": 0.0, "max_tokens": 3, **wanted})


def tokens(engine, prompt, **wanted):
    found = engine.generate(request(prompt, **wanted), threading.Event())
    return [event for event in found if isinstance(event, Token)]


def text(events):
    return "".join(event.text for event in events if isinstance(event, Token))


def together(*asked):
    """Call all at once; return what each returned."""
    with ThreadPoolExecutor(len(asked)) as threads:
        return [future.result() for future in [threads.submit(call) for call in asked]]


def test_it_has_the_slots_that_were_asked_for(engine):
    assert engine.info().slots == SLOTS


def test_each_of_several_texts_is_what_it_is_alone_and_they_share_steps(engine, steps):
    alone = [text(tokens(engine, prompt, seed=1)) for prompt in SURE]
    assert not steps, "a text with a seed was computed in the batch"
    likely, plain = together(
        lambda: tokens(engine, SURE[0], max_tokens=12, logprobs=2), lambda: tokens(engine, SURE[1])
    )
    assert text(likely[:3]) == alone[0]
    assert text(plain) == alone[1]
    assert max(steps) == 2
    assert all(token.chosen == token.top[0] for token in likely)
    assert [token.chosen.piece.decode() for token in likely] == [token.text for token in likely]


def test_a_seed_gives_its_text_whoever_is_written_for_beside(engine, steps):
    def story(seed):
        return text(tokens(engine, "Once", seed=seed, temperature=1.5))

    alone = [story(1), story(2)]
    assert alone[0] != alone[1]
    found = together(lambda: story(1), lambda: story(2), lambda: tokens(engine, "I", temperature=2.0, max_tokens=6))
    assert found[:2] == alone
    assert max(steps) == 1


def test_one_who_leaves_disturbs_nobody(engine):
    expected = text(tokens(engine, SURE[0], max_tokens=4))
    stays = engine.generate(request(SURE[0], max_tokens=4), threading.Event())
    leaves = engine.generate(request("Once", max_tokens=None), cancel := threading.Event())
    abandoned = engine.generate(request("In", max_tokens=None), threading.Event())
    assert all(isinstance(next(stream), PromptDone | PromptProgress) for stream in (stays, leaves, abandoned))
    cancel.set()
    abandoned.close()
    assert list(leaves) == []
    assert text(stays) == expected


def test_a_running_text_goes_on_while_a_prompt_is_read(engine, monkeypatch):
    order, model, batch = [], engine._loop.model, engine._loop._batch
    read, step = model.read, batch.step
    running = engine.generate(request("One", max_tokens=None), threading.Event())
    while not isinstance(next(running), Token):
        pass
    monkeypatch.setattr(model, "read", lambda *prompt: (order.append("read"), read(*prompt)))
    monkeypatch.setattr(batch, "step", lambda: (order.append("step"), step())[1])
    tokens(engine, SURE[0], max_tokens=1, reuse_prompt=False)
    running.close()
    reads = [place for place, what in enumerate(order) if what == "read"]
    assert len(reads) > 1
    assert all(order[place - 1] == "step" for place in reads[1:]), "two chunks without a step between them"


def test_a_step_that_fails_ends_those_who_are_in_it_and_no_more(engine, monkeypatch):
    def broken():
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(engine._loop._batch, "step", broken)
        with pytest.raises(ZeroDivisionError):
            tokens(engine, "One")
    *_, last = engine.generate(request("One", max_tokens=1), threading.Event())
    assert last == Finished("length")


def test_more_texts_than_slots_are_all_written(engine):
    found = together(*[lambda n=n: tokens(engine, f"{n}", max_tokens=2) for n in range(SLOTS + 1)])
    assert [len(one) for one in found] == [2] * (SLOTS + 1)
