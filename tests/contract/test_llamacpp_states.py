"""What had to leave the context is found again, with the real library, and does not show in the text.

Memories that cannot be cut back are met with tiny models of random weights.
"""

import random
import threading

import pytest

from rbee_core.backend import GenerateRequest, LoadOptions, LocalModel, OnDisk, PromptDone, Token, Tuning
from rbee_plugins.llamacpp.backend import LlamaCppCpu
from tests.contract.conftest import get, missing
from tests.support.gguf_models import recurrent, windowed

WORDS = ("bee", "sea", "map", "snow", "train", "book", "moon")
WORDS_EACH = 140


def prompt(number):
    """Return a text of one token a word, that begins as no other does."""
    chosen = random.Random(number)
    return " ".join(chosen.choice(WORDS) for _ in range(WORDS_EACH))


def loaded_with(loaded, on_disk=None, **tuning):
    subject = get(loaded, "llamacpp-cpu")
    options = LoadOptions(context_tokens=1024, slots=1, tuning=Tuning(**tuning), on_disk=on_disk)
    return subject.backend.load(subject.model, subject.backend.devices()[0], options, lambda _f, _d="": True)


@pytest.fixture(scope="module")
def engine(loaded):
    engine = loaded_with(loaded)
    yield engine
    engine.close()


def ask(engine, text, **wanted):
    """Return what was there of the prompt, and what was written."""
    request = GenerateRequest(prompt=text, **{"temperature": 0.0, "max_tokens": 6, **wanted})
    events = list(engine.generate(request, threading.Event()))
    done = next(event for event in events if isinstance(event, PromptDone))
    return done, "".join(event.text for event in events if isinstance(event, Token))


def test_a_text_is_the_same_from_a_restored_state(engine):
    first, _ = ask(engine, prompt(1))
    again, written = ask(engine, prompt(1))  # its last token is computed by itself: that shows in the last bits
    seeded, _ = ask(engine, prompt(2), seed=1)
    restored, rewritten = ask(engine, prompt(1))
    assert seeded.cached_tokens == 0, "a seed starts from nothing, and leaves what was there"
    assert again.cached_tokens == restored.cached_tokens == first.prompt_tokens - 1
    assert restored.not_cached == ""
    assert rewritten == written


def test_a_conversation_goes_on_from_a_restored_state(engine):
    _, written = ask(engine, prompt(3))
    ask(engine, prompt(4))
    restored, _ = ask(engine, f"{prompt(3)}{written} and then")
    assert restored.cached_tokens >= WORDS_EACH


def test_nothing_is_kept_where_nothing_may_be(loaded):
    engine = loaded_with(loaded, prompt_cache_bytes=0)
    ask(engine, prompt(1))
    ask(engine, prompt(2), request_id="chat-7")
    assert ask(engine, prompt(1))[0] == PromptDone(WORDS_EACH, 0, "evicted for request chat-7")
    engine.close()


def test_the_estimate_counts_what_may_be_kept(loaded):
    subject = get(loaded, "llamacpp-cpu")

    def needed(**tuning):
        return subject.backend.estimate(subject.model, LoadOptions(context_tokens=1024, tuning=Tuning(**tuning)))

    assert needed(prompt_cache_bytes=10**6).private_bytes == needed(prompt_cache_bytes=0).private_bytes + 10**6
    assert needed(prompt_cache_bytes=0).private_bytes < needed().private_bytes


def test_the_next_engine_goes_on_from_what_was_left_on_disk(loaded, tmp_path):
    place = OnDisk(tmp_path / "prompts", 10**9, 60.0, "v1")
    engine = loaded_with(loaded, place)
    first, _ = ask(engine, prompt(1))
    again, written = ask(engine, prompt(1))
    engine.close()
    engine.close()
    assert len(list(place.folder.iterdir())) == 1
    engine = loaded_with(loaded, place)
    restored, rewritten = ask(engine, prompt(1))
    engine.close()
    assert again.cached_tokens == restored.cached_tokens == first.prompt_tokens - 1
    assert (restored.not_cached, rewritten) == ("", written)


@pytest.fixture(params=[windowed, recurrent])
def uncut(request, tmp_path):
    """An engine with one slot and a memory that cannot be cut back to everything."""
    if why := missing("llamacpp-cpu"):
        pytest.skip(why)
    path = request.param(tmp_path / "m.gguf")
    backend, model = LlamaCppCpu(), LocalModel("m", path, "gguf", path.stat().st_size)
    options = LoadOptions(context_tokens=2048, slots=1, tuning=Tuning(prompt_cache_bytes=10**6))
    engine = backend.load(model, backend.devices()[0], options, lambda _f, _d="": True)
    yield engine
    engine.close()


def letters(number, count=700):
    chosen = random.Random(number)
    return "".join(chosen.choice("abcdefgh") for _ in range(count))


def tokens(engine, text, **wanted):
    """Return what was there of the prompt, and which tokens came."""
    request = GenerateRequest(prompt=text, temperature=0.0, max_tokens=4, ignore_eos=True, logprobs=0, **wanted)
    events = list(engine.generate(request, threading.Event()))
    done = next(event for event in events if isinstance(event, PromptDone))
    return done, [event.chosen.id for event in events if isinstance(event, Token) and event.chosen]


def test_a_memory_that_cannot_be_cut_serves_from_where_its_prompt_ended(uncut):
    first, written = tokens(uncut, letters(1))
    again, rewritten = tokens(uncut, letters(1))
    assert (again.cached_tokens, rewritten) == (first.prompt_tokens - 1, written)
    longer, _ = tokens(uncut, letters(1) + "abc")
    assert longer.cached_tokens >= first.prompt_tokens - 1, "its answer was another one"
    tokens(uncut, letters(2))
    restored, rewritten = tokens(uncut, letters(1))
    assert (restored.cached_tokens, rewritten) == (first.prompt_tokens - 1, written)
    shorter, _ = tokens(uncut, letters(1)[:500])
    assert (shorter.cached_tokens, shorter.not_cached) == (0, "not cuttable")
