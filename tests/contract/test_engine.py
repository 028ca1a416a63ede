"""What every engine promises, shown with real libraries and a real small model."""

import threading

import pytest

from rbee_core.backend import Finished, GenerateRequest, LoadOptions, Message, PromptDone, PromptProgress, Token
from rbee_core.errors import InvalidRequest, ModelLoadFailed, PromptTooLong
from tests.contract.conftest import CONTEXT

STORY = GenerateRequest(prompt="Once upon a time", max_tokens=5, temperature=0)
QUESTION = (Message("user", "What is the capital of France?"),)
LONG = "hello " * (CONTEXT - 200)
REFUSED_TOKENS = 3001


def test_tells_what_was_loaded(subject):
    info = subject.engine.info()
    assert (info.context_tokens, info.slots) == (CONTEXT, 1)
    assert (info.architecture, info.accelerator) == ("llama", subject.backend.accelerator)


def test_loading_reports_rising_progress(subject):
    assert subject.progress == sorted(subject.progress)
    assert 0 <= subject.progress[0] < 0.5
    assert subject.progress[-1] == 1.0
    assert len(subject.progress) > 10


def test_events_come_in_order_and_greedy_repeats_itself(subject):
    first, *tokens, last = subject.events(STORY)
    assert isinstance(first, PromptDone)
    assert first.prompt_tokens == 4
    assert [type(t) for t in tokens] == [Token] * 5
    assert last == Finished("length")
    again, *same_tokens, end = subject.events(STORY)  # what is kept of the prompt by now is no part of the promise
    assert isinstance(again, PromptDone)
    assert again.prompt_tokens == 4
    assert ([t.text for t in same_tokens], end) == ([t.text for t in tokens], last)


def test_same_seed_same_text_and_another_seed_another(subject):
    def story(seed):
        return subject.text(GenerateRequest(prompt="Once upon a time", max_tokens=4, temperature=1.5, seed=seed))

    first = story(7)
    assert story(2**32 - 1) == story(2**32 - 1)
    assert story(7) == first
    assert len({story(seed) for seed in range(3)} | {first}) > 1


def test_without_a_seed_a_seeded_request_before_it_does_not_matter(subject):
    def story(seed):
        return subject.text(GenerateRequest(prompt="I", max_tokens=4, temperature=2, top_k=0, min_p=0, seed=seed))

    unseeded = []
    for _ in range(3):
        story(7)
        unseeded.append(story(None))
    assert len(set(unseeded)) > 1


@pytest.mark.parametrize("top_p", [0.0, 1.0])
def test_every_sampler_setting_is_accepted(subject, top_p):
    request = GenerateRequest(
        prompt="One two", max_tokens=2, temperature=1.5, top_k=10**6, top_p=top_p, min_p=0.0, repeat_penalty=1.3
    )
    assert subject.events(request)[-1] == Finished("length")


def test_top_p_zero_is_the_most_likely_token(subject):
    narrow = GenerateRequest(prompt="a b c d e f g h i", max_tokens=3, temperature=2, top_p=0, top_k=0, min_p=0)
    assert subject.text(narrow) == " j k l"


def test_a_conversation_goes_through_the_models_template(subject):
    chat = subject.events(GenerateRequest(messages=QUESTION, max_tokens=1, temperature=0))
    assert isinstance(chat[0], PromptDone)
    assert chat[0].prompt_tokens == 37
    assert subject.engine.info().chat_template is True


def test_the_models_own_end_stops_it(subject):
    prompt = "<|im_start|>user\nSay yes.<|im_end|>\n<|im_start|>assistant\nYes."
    *_, last_token, last = subject.events(GenerateRequest(prompt=prompt, max_tokens=9, temperature=0))
    assert last == Finished("stop")
    assert not isinstance(last_token, Token) or "<|im_end|>" not in last_token.text


def test_cancel_ends_a_long_prompt(subject):
    cancel = threading.Event()
    timer = threading.Timer(0.2, cancel.set)
    timer.start()
    assert subject.events(GenerateRequest(prompt=LONG), cancel) == []
    timer.join()


def test_cancel_ends_decoding(subject):
    cancel = threading.Event()
    seen = []
    for event in subject.engine.generate(GenerateRequest(prompt="Once upon a time", temperature=0), cancel):
        seen.append(event)
        if len(seen) == 3:
            cancel.set()
    assert len(seen) == 3


def test_a_request_after_a_cancelled_or_abandoned_one_is_not_disturbed(subject):
    undisturbed = subject.text(STORY)
    cancel = threading.Event()
    timer = threading.Timer(0.2, cancel.set)
    timer.start()
    subject.events(GenerateRequest(prompt="Once upon a time " * 300), cancel)
    timer.join()
    abandoned = subject.engine.generate(STORY, threading.Event())
    kinds = (type(event) for event in abandoned if not isinstance(event, PromptProgress))
    assert [next(kinds), next(kinds)] == [PromptDone, Token]
    abandoned.close()
    assert subject.text(STORY) == undisturbed


def test_tokens_hold_whole_characters(subject):
    bees = GenerateRequest(prompt="\N{HONEYBEE}" * 6, max_tokens=8, temperature=0)
    tokens = [e.text for e in subject.events(bees) if isinstance(e, Token)]
    text = "".join(tokens)
    assert "" in tokens, "no character was split: the prompt tests nothing"
    assert "\N{HONEYBEE}" in text
    assert "\ufffd" not in text[:-1]


def test_an_over_long_prompt_names_both_numbers(subject):
    with pytest.raises(PromptTooLong) as caught:
        subject.events(GenerateRequest(prompt="hello " * (REFUSED_TOKENS - 1)))
    assert caught.value.details == {"prompt_tokens": REFUSED_TOKENS, "context_tokens": CONTEXT}


def test_an_empty_prompt_is_refused(subject):
    with pytest.raises(InvalidRequest, match="empty"):
        subject.events(GenerateRequest(prompt=""))


def test_a_lone_surrogate_is_no_crash(subject):
    assert isinstance(subject.events(GenerateRequest(prompt="a\ud800", max_tokens=1))[-1], Finished)


def test_a_context_beyond_the_trained_one_is_refused(subject):
    with pytest.raises(InvalidRequest, match=r"9000 .* 8192"):
        subject.backend.estimate(subject.model, LoadOptions(context_tokens=9000))


def test_the_default_context_is_bounded(subject):
    assert subject.backend.estimate(subject.model, LoadOptions()).context_tokens == 4096


def test_loading_can_be_given_up(subject):
    with pytest.raises(ModelLoadFailed, match="given up"):
        subject.load(lambda fraction, _detail="": fraction < 0.3)


def test_an_error_of_the_progress_receiver_comes_out(subject):
    def broken(fraction, _detail=""):
        if fraction > 0.2:
            raise ZeroDivisionError
        return True

    with pytest.raises(ZeroDivisionError):
        subject.load(broken)
