"""M2: who decides whether a prompt is answered or continued, and what an engine is asked then."""

from typing import Any

import pytest

from rbee_core import wire
from rbee_core.backend import GenerateRequest, Message, Token, TokenLogprob
from rbee_core.domain.sampling import USUAL, Sampling
from rbee_core.errors import InvalidRequest
from rbee_core.worker.wanted import IMPOSSIBLE, NEAR_ZERO, generate_request, likelihoods


def asked(template: bool | None, **fields: Any) -> GenerateRequest:
    return generate_request(wire.WorkerTask(request_id="r", seed=7, **fields), template)


ANSWERED = (None, (Message("user", "hi"),))
CONTINUED = ("hi", ())


@pytest.mark.parametrize(
    ("wanted", "template", "is_asked"),
    [
        (None, True, CONTINUED),
        (None, False, CONTINUED),
        ("if_any", True, ANSWERED),
        ("if_any", False, CONTINUED),
        ("if_any", None, CONTINUED),  # a plugin that does not say so is asked as it always was
        ("required", True, ANSWERED),
        ("required", None, ANSWERED),
    ],
)
def test_m2_a_prompt_is_answered_or_continued(wanted: Any, template: bool | None, is_asked: Any) -> None:
    request = asked(template, prompt="hi", chat_template=wanted)
    assert (request.prompt, request.messages) == is_asked
    assert request.seed == 7


@pytest.mark.parametrize("fields", [{"prompt": "hi"}, {"messages": [wire.ChatMessage(role="user", content="hi")]}])
def test_m2_who_insists_is_refused_where_there_is_no_template(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="no chat template") as caught:
        asked(False, chat_template="required", **fields)
    assert "--raw" in caught.value.hint


@pytest.mark.parametrize("template", [True, False, None])
def test_messages_stay_messages(template: bool | None) -> None:
    request = asked(template, messages=[wire.ChatMessage(role="user", content="hi")])
    assert (request.prompt, request.messages) == ANSWERED


def test_what_a_token_says_of_likelihoods_travels_as_text_and_bytes() -> None:
    half, whole = TokenLogprob(7, b"\xf0\x9f", -0.5), TokenLogprob(9, b" bee", -1.5)
    told = likelihoods(Token("", half, (half, whole)))
    assert told is not None
    assert (told.id, told.token, told.bytes, told.logprob) == (7, "\N{REPLACEMENT CHARACTER}", [0xF0, 0x9F], -0.5)
    assert [(one.id, one.bytes, one.logprob) for one in told.top] == [(7, [0xF0, 0x9F], -0.5), (9, [*b" bee"], -1.5)]
    assert likelihoods(Token("x")) is None


def test_nothing_is_divided_by_what_is_nearly_zero() -> None:
    tiny = asked(None, prompt="hi", temperature=1e-40, repeat_penalty=1e-40)
    assert (tiny.temperature, tiny.repeat_penalty) == (0.0, NEAR_ZERO)
    small = asked(None, prompt="hi", temperature=0.001, repeat_penalty=0.001)
    assert (small.temperature, small.repeat_penalty) == (0.001, 0.001)


def test_what_is_no_number_does_not_travel_as_null() -> None:
    never = TokenLogprob(7, b"x", float("-inf"))
    told = likelihoods(Token("x", never, (never,)))
    assert told is not None
    assert (told.logprob, told.top[0].logprob) == (IMPOSSIBLE, IMPOSSIBLE)
    with pytest.raises(ValueError, match="token 7 is no number"):
        likelihoods(Token("x", TokenLogprob(7, b"x", float("nan"))))


def test_what_a_request_does_not_say_is_as_usual() -> None:
    assert asked(None, prompt="hi") == GenerateRequest(prompt="hi", seed=7, request_id="r")
    assert asked(None, prompt="hi", temperature=1e-9, repeat_penalty=1e-9).temperature == 0
    assert asked(None, prompt="hi", repeat_penalty=1e-9).repeat_penalty == NEAR_ZERO


def test_whatever_may_be_said_of_sampling_an_engine_hears() -> None:
    assert set(Sampling.__struct_fields__) <= set(GenerateRequest.__struct_fields__)


def test_what_is_usual_is_what_an_engine_hears_of_who_says_nothing() -> None:
    assert {name: getattr(GenerateRequest(), name) for name in Sampling.__struct_fields__} == USUAL


SYSTEM = Message("system", "Be brief.")


def test_a_conversation_without_a_system_message_begins_with_the_models_own() -> None:
    user = wire.ChatMessage(role="user", content="hi")
    said = wire.ChatMessage(role="system", content="Be long.")
    own = {"system_prompt": SYSTEM.content}
    assert asked(True, messages=[user], **own).messages == (SYSTEM, Message("user", "hi"))
    assert asked(True, prompt="hi", chat_template="if_any", **own).messages == (SYSTEM, Message("user", "hi"))
    assert asked(True, messages=[said, user], **own).messages[0] == Message("system", "Be long.")
    for template, wanted in ((True, None), (False, "if_any")):
        assert asked(template, prompt="hi", chat_template=wanted, **own).messages == (), "a text that is continued"
