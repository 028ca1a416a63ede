"""llama.cpp's words against rbee's, without a model."""

import pytest
from rbee_backend_xllamacpp.translate import body, events

from rbee_core.backend import Finished, GenerateRequest, Message, PromptDone, PromptProgress, Token
from rbee_core.errors import InvalidRequest, PromptTooLong, RbeeError


def last(reason: str, predicted: int) -> dict[str, object]:
    return {"choices": [{"text": "", "finish_reason": reason}], "timings": {"predicted_n": predicted}}


def text(piece: str) -> dict[str, object]:
    return {"choices": [{"text": piece, "finish_reason": None}]}


def delta(piece: str | None) -> dict[str, object]:
    return {"choices": [{"delta": {"content": piece}, "finish_reason": None}]}


def reading(done: int) -> dict[str, object]:
    return {"prompt_progress": {"processed": done, "total": 5}, "choices": [{"text": "", "finish_reason": None}]}


def test_a_completion() -> None:
    assert list(events([reading(0), reading(5), text("a"), text("b"), last("length", 2)])) == [
        PromptProgress(0, 5),
        PromptDone(5),
        Token("a"),
        Token("b"),
        Finished("length"),
    ]


def test_a_chat_that_the_model_ends() -> None:
    found = list(events([reading(5), delta(None), delta("Hi"), last("stop", 2)]))
    assert found == [PromptDone(5), Token("Hi"), Finished("stop")]


def test_tokens_without_text_are_counted() -> None:
    found = list(events([text("🐝"), last("length", 3)]))
    assert found == [Token("🐝"), Token(""), Token(""), Finished("length")]


def test_a_prompt_that_is_too_long_names_both_numbers() -> None:
    error = {"code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 400, "n_ctx": 256}
    with pytest.raises(PromptTooLong, match=r"400 .* 256"):
        list(events([{"error": error}]))


def test_other_errors() -> None:
    with pytest.raises(InvalidRequest, match="no good"):
        list(events([{"error": {"code": 400, "message": "no good"}}]))
    with pytest.raises(RbeeError, match="broke"):
        list(events([{"error": {"code": 500, "message": "broke"}}]))


def test_requests() -> None:
    assert body(GenerateRequest(prompt="x", seed=0xFFFF_FFFF))["seed"] == 0xFFFF_FFFE
    chat = body(GenerateRequest(messages=(Message("user", "Hi"),), max_tokens=3))
    assert (chat["messages"], chat["max_tokens"]) == ([{"role": "user", "content": "Hi"}], 3)
