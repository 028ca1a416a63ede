"""OpenAI's codec alone: what a body becomes, what parts become, and what is refused by name."""

import functools
import json
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from rbee_core import wire
from rbee_core.dialects.fields import Field
from rbee_core.dialects.openai import embeddings, rerank
from rbee_core.dialects.openai.chat import FIELDS, ChatBody, ChatTalk
from rbee_core.dialects.openai.completions import CompletionTalk
from rbee_core.dialects.openai.errors import error_body
from rbee_core.dialects.parts import Arguments, CallBegins, End, Part, Reasoning, Text
from rbee_core.dialects.talk import Moment
from rbee_core.errors import AllSlotsBusy, InvalidRequest, PromptTooLong

MOMENT = Moment("r1", 1_700_000_000, "rbee-1")
HI = {"role": "user", "content": "hi"}
DONE = wire.StreamEvent(
    done=True, total_tokens=2, duration_ms=30, finish_reason="stop", prompt_tokens=9, first_token_ms=10, cached_tokens=4
)
LIKELY = wire.Logprobs(id=1, token="a", bytes=[97], logprob=-0.5, top=[])


def talk(**fields: Any) -> ChatTalk:
    body = {"model": "m", "messages": [HI], **fields}
    return ChatTalk.read(json.dumps(body).encode(), MOMENT)


def wanted(**fields: Any) -> wire.PoolInference:
    return talk(**fields).wanted[0]


def refusal(**fields: Any) -> dict[str, Any]:
    with pytest.raises(InvalidRequest) as caught:
        talk(**fields)
    assert 400 <= caught.value.http_status < 500
    return dict(error_body(caught.value)["error"])


def chunks(data: bytes) -> list[Any]:
    """Return the events of a stream, which must be nothing else."""
    *events, rest = data.decode().split("\n\n")
    assert rest == ""
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    return [json.loads(event[6:]) if event != "data: [DONE]" else "[DONE]" for event in events]


def streamed(parts: list[Part], **fields: Any) -> list[Any]:
    told = talk(stream=True, **fields)
    return chunks(told.begins() + b"".join(told.tells(0, [part]) for part in parts) + told.ends())


def whole(parts: list[Part], **fields: Any) -> dict[str, Any]:
    told = talk(**fields)
    assert told.tells(0, parts) == b""
    answer = json.loads(told.whole())
    ChatCompletion.model_validate(answer)
    return answer


def test_nothing_said_leaves_everything_to_us() -> None:
    request = wanted()
    assert (request.model_ref, request.request_id, request.max_tokens, request.seed) == ("m", "r1", None, None)
    assert request == wire.PoolInference(
        model_ref="m", request_id="r1", messages=[wire.ChatMessage(role="user", content="hi")]
    )
    nulls = dict.fromkeys(set(ChatBody.__struct_fields__) - {"model", "messages"})
    assert wanted(**nulls) == request, "null is as good as nothing"


@pytest.mark.parametrize(
    ("said", "field", "value"),
    [
        ({"max_tokens": 5}, "max_tokens", 5),
        ({"max_tokens": 5, "max_completion_tokens": 7}, "max_tokens", 7),
        ({"max_tokens": -1}, "max_tokens", None),
        ({"stop": "x"}, "stop", ["x"]),
        ({"stop": ["x", "y", ""]}, "stop", ["x", "y"]),
        ({"temperature": 0}, "temperature", 0),
        ({"seed": -7}, "seed", (1 << 32) - 7),
        ({"seed": 1 << 40}, "seed", 0),
        ({"seed": -1}, "seed", None),
        ({"top_k": -1}, "top_k", 0),
        ({"logit_bias": {"5": -100}}, "logit_bias", {5: -100}),
        ({"logprobs": True}, "logprobs", 0),
        ({"logprobs": True, "top_logprobs": 3}, "logprobs", 3),
        ({"logprobs": False, "top_logprobs": None}, "logprobs", None),
        ({"cache_prompt": False}, "reuse_prompt", False),
        ({"ignore_eos": True, "min_tokens": 4}, "min_tokens", 4),
        ({"repetition_penalty": 1.5}, "repeat_penalty", 1.5),
        ({"response_format": {"type": "text"}}, "json_schema", None),
        ({"response_format": {"type": "json_object"}}, "json_schema", {"type": "object"}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "number"}}}},
            "json_schema",
            {"type": "number"},
        ),
        ({"guided_regex": "a+"}, "regex", "a+"),
        ({"reasoning_effort": "none"}, "template_arguments", {"reasoning_effort": "none", "enable_thinking": False}),
        ({"chat_template_kwargs": {"a": 1}}, "template_arguments", {"a": 1}),
        ({"no_such_field": {"a": 1}, "user": "me", "metadata": {}}, "stop", []),
    ],
)
def test_what_a_field_becomes(said: dict[str, Any], field: str, value: object) -> None:
    assert getattr(wanted(**said), field) == value


def test_an_agents_long_conversation_is_taken() -> None:
    turns = [{"role": ("user", "assistant")[n % 2], "content": "x"} for n in range(5001)]
    assert len(wanted(messages=turns).messages or ()) == 5001


def test_turns_come_in_every_shape_that_clients_send() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}
    said = [
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {"role": "user", "content": "again", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "hm", "refusal": None},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "21"}]},
    ]
    messages = wanted(messages=said).messages
    assert messages == [
        wire.ChatMessage(role="system", content="be kind"),
        wire.ChatMessage(role="user", content="one\ntwo"),
        wire.ChatMessage(role="user", content="again"),
        wire.ChatMessage(
            role="assistant",
            content="",
            reasoning="hm",
            tool_calls=[wire.ToolCall(name="look", arguments='{"a":1}', id="c1")],
        ),
        wire.ChatMessage(role="tool", content="21", tool_call_id="c1", tool_name="look"),
    ]


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
DEEP = {
    "type": "function",
    "function": {"name": "dig", "parameters": functools.reduce(lambda s, _: {"not": s}, range(60), {})},
}


def test_tools_are_told_unless_they_may_not_be_called_and_a_forced_call_is_held_to_its_schema() -> None:
    told = wanted(tools=[TOOL])
    assert told.tools == [wire.Tool(name="look", parameters={"type": "object"})]
    assert told.json_schema is None
    assert wanted(tools=[TOOL], tool_choice="none").tools == []
    for choice in ("required", {"type": "function", "function": {"name": "look"}}):
        forced = wanted(tools=[TOOL], tool_choice=choice, guided_regex="a")
        assert (forced.json_schema, forced.regex) == ({"type": "object"}, None)


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"n": 1000}, "n"),
        ({"n": 0}, "n"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {"bee": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias[...]"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"content": "x"}]}, "messages[0]"),
        ({"messages": [HI, {"role": "user", "content": 5}]}, "messages[1].content"),
        ({"messages": "hi"}, "messages"),
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tools": [TOOL], "tool_choice": "perhaps"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "walk"}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL] * 10_000}, "tools"),
        ({"tools": [DEEP], "tool_choice": "required"}, ""),
    ],
)
def test_a_wrong_value_is_refused_with_the_name_of_its_field(said: dict[str, Any], param: str) -> None:
    error = refusal(**said)
    assert (error["code"], error["type"]) == ("INVALID_REQUEST", "invalid_request_error")
    assert (error["param"] or "").startswith(param), error


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,x"}}


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0].image_url"),
        ({"audio": {"voice": "ash"}}, "audio"),
        ({"web_search_options": {"a": 1}}, "web_search_options"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(said: dict[str, Any], param: str) -> None:
    error = refusal(**said)
    assert (error["code"], error["param"]) == ("NOT_SUPPORTED", param)


def test_the_table_knows_every_field_of_the_body() -> None:
    rows: list[Field] = [row for row in FIELDS if row.fate == "honoured"]
    named = {row.name.partition(".")[0] for row in rows}
    assert named == set(ChatBody.__struct_fields__)
    assert len({row.name for row in FIELDS}) == len(FIELDS)


def test_rule_1_a_stream_begins_with_the_role_and_ends_with_a_reason_the_usage_and_the_mark() -> None:
    told = streamed([Text("He"), Text(""), Text("y \n\n"), End("stop", DONE)], stream_options={"include_usage": True})
    assert told.pop() == "[DONE]"
    for chunk in told:
        ChatCompletionChunk.model_validate(chunk)
    assert {(c["id"], c["created"], c["model"]) for c in told} == {("chatcmpl-r1", 1_700_000_000, "m")}
    *chunks, usage = told
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "He"},
        {"content": "y \n\n"},
        {},
    ]
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None, None, None, "stop"]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 11
    assert usage["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}


def test_usage_is_said_in_a_stream_only_if_it_was_asked_for() -> None:
    told = streamed([Text("a"), End("length", DONE)])
    assert told.pop() == "[DONE]"
    assert not any("usage" in chunk for chunk in told)
    assert told[-1]["choices"][0]["finish_reason"] == "length"
    assert told[-1]["timings"] == {
        "cache_n": 4, "prompt_n": 5, "prompt_ms": 10, "prompt_per_token_ms": 2.0, "prompt_per_second": 500.0,
        "predicted_n": 2, "predicted_ms": 20, "predicted_per_token_ms": 10.0, "predicted_per_second": 50.0,
    }  # fmt: skip


def test_rule_2_the_first_delta_of_a_call_has_all_that_names_it() -> None:
    parts: list[Part] = [CallBegins(0, "look"), Arguments(0, '{"a"'), Arguments(0, ":1}"), End("tool_calls", DONE)]
    told = streamed(parts)
    calls = [c["choices"][0]["delta"]["tool_calls"][0] for c in told[1:-2]]
    first = {"index": 0, "id": "call_r1_0_0", "type": "function", "function": {"name": "look", "arguments": ""}}
    assert calls == [
        first,
        {"index": 0, "function": {"arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ":1}"}},
    ]
    assert told[-2]["choices"][0]["finish_reason"] == "tool_calls"
    [choice] = whole(parts)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    [call] = choice["message"]["tool_calls"]
    assert call == {"id": "call_r1_0_0", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}


def test_an_answer_in_one_piece_has_all_that_its_schema_wants() -> None:
    answer = whole([Reasoning("hm"), Text("a", LIKELY), Text("b", LIKELY), End("stop", DONE)], logprobs=True)
    [choice] = answer["choices"]
    assert choice["message"] == {
        "role": "assistant", "content": "ab", "refusal": None, "annotations": [], "reasoning_content": "hm",
    }  # fmt: skip
    token = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    assert choice["logprobs"] == {"content": [token, token], "refusal": None}
    assert answer["usage"]["completion_tokens"] == 2
    assert "timings" in answer


def test_a_tool_that_is_nested_as_deep_as_json_may_be_is_refused_and_not_a_bug_of_ours() -> None:
    schema: dict[str, Any] = {}
    for _ in range(900):
        schema = {"not": schema}
    tools = [{"type": "function", "function": {"name": name, "parameters": schema}} for name in "ab"]
    assert "128 deep" in refusal(tools=tools, tool_choice="required")["message"]


def test_several_answers_have_names_and_seeds_of_their_own() -> None:
    told = talk(n=3, seed=(1 << 32) - 1, stream=True)
    assert [w.seed for w in told.wanted] == [(1 << 32) - 1, 0, 1]
    assert len({w.request_id for w in told.wanted}) == 3
    told = talk(n=2)
    for index in (1, 0):
        told.tells(index, [Text(str(index)), End("stop", DONE)])
    answer = json.loads(told.whole())
    assert [(c["index"], c["message"]["content"]) for c in answer["choices"]] == [(0, "0"), (1, "1")]
    assert answer["usage"]["prompt_tokens"] == 9
    assert answer["usage"]["completion_tokens"] == 4


def test_an_error_in_a_stream_is_one_event_which_clients_raise() -> None:
    told = talk(stream=True)
    error, mark = chunks(told.fails(PromptTooLong(prompt_tokens=9, context_tokens=4)))
    assert mark == "[DONE]"
    assert error["error"]["code"] == "PROMPT_TOO_LONG"
    assert set(error["error"]) >= {"message", "type", "param", "code"}


def test_an_error_says_what_to_do() -> None:
    error = error_body(AllSlotsBusy(slots=1, busy=1))["error"]
    assert error["type"] == "server_error"
    assert AllSlotsBusy(slots=1, busy=1).hint in error["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"model": 1}', b"\xff", b'{"model":"a","model":"b"}'])
def test_what_is_no_body_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        ChatTalk.read(body, MOMENT)


def completion(**said: Any) -> CompletionTalk:
    return CompletionTalk.read(json.dumps({"model": "m", "prompt": "Once", **said}).encode(), MOMENT)


def test_a_completion_goes_on_with_each_prompt_as_often_as_asked() -> None:
    told = completion(prompt=["a", "b"], n=2, seed=5, suffix=None)
    assert [(w.prompt, w.seed) for w in told.wanted] == [("a", 5), ("a", 6), ("b", 5), ("b", 6)]
    assert len({w.request_id for w in told.wanted}) == 4
    for index in range(4):
        told.tells(index, [Text(f" {index}"), End("stop", DONE)])
    answer = json.loads(told.whole())
    Completion.model_validate(answer)
    assert [c["text"] for c in answer["choices"]] == [" 0", " 1", " 2", " 3"]
    assert answer["usage"]["prompt_tokens"] == 18, "each prompt once"
    assert answer["usage"]["completion_tokens"] == 8


def test_a_completion_echoes_and_says_probabilities_with_their_places() -> None:
    parts: list[Part] = [Text("a", LIKELY), Text("a", LIKELY), End("length", DONE)]
    told = completion(echo=True, logprobs=0)
    told.tells(0, parts)
    [choice] = json.loads(told.whole())["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("Onceaa", "length")
    assert choice["logprobs"]["text_offset"] == [4, 5]
    stream = completion(echo=True, logprobs=0, stream=True, stream_options={"include_usage": True})
    *said, usage, mark = chunks(b"".join(stream.tells(0, [part]) for part in parts) + stream.ends())
    assert mark == "[DONE]"
    assert [c["choices"][0]["text"] for c in said] == ["Oncea", "a", ""]
    assert [c["choices"][0]["logprobs"]["text_offset"] for c in said[:2]] == [[4], [5]]
    assert usage["usage"]["completion_tokens"] == 2
    Completion.model_validate(said[-1])


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"prompt": [1, 2]}, "NOT_SUPPORTED"),
        ({"prompt": [[1, 2]]}, "NOT_SUPPORTED"),
        ({"best_of": 3}, "NOT_SUPPORTED"),
        ({"prompt": ["a"] * 9, "n": 2}, "INVALID_REQUEST"),
        ({"prompt": []}, "INVALID_REQUEST"),
        ({"prompt": ""}, "INVALID_REQUEST"),
        ({"prompt": None}, "INVALID_REQUEST"),
        ({"logprobs": True}, "INVALID_REQUEST"),
    ],
)
def test_a_completion_that_cannot_be_made_is_refused(said: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        completion(**said)
    assert caught.value.code == code


def test_vectors_are_numbers_or_their_bytes() -> None:
    vectors = [[0.5, -1.0], [0.25, 2.0]]
    for form, expected in (("float", vectors), (None, vectors), ("base64", ["AAAAPwAAgL8=", "AACAPgAAAEA="])):
        body, wanted = embeddings.read(
            json.dumps({"model": "m", "input": ["a", "b"], "encoding_format": form}).encode(), "r1"
        )
        assert (wanted.texts, wanted.request_id) == (["a", "b"], "r1")
        answer = embeddings.answer(body, vectors, 7)
        assert [one["embedding"] for one in answer["data"]] == expected
        assert answer["usage"] == {"prompt_tokens": 7, "total_tokens": 7}


@pytest.mark.parametrize(
    ("said", "param", "code"),
    [
        ({"input": [1, 2]}, "input", "NOT_SUPPORTED"),
        ({"input": "a", "dimensions": 5}, "dimensions", "NOT_SUPPORTED"),
        ({"input": ""}, "input", "INVALID_REQUEST"),
        ({"input": []}, "input", "INVALID_REQUEST"),
        ({"input": ["a"], "encoding_format": "int8"}, "encoding_format", "INVALID_REQUEST"),
    ],
)
def test_texts_that_can_have_no_vectors_are_refused(said: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        embeddings.read(json.dumps({"model": "m", **said}).encode(), "r1")
    error = error_body(caught.value)["error"]
    assert str(error["param"]).startswith(param)
    assert error["code"] == code


def test_documents_come_in_the_order_in_which_they_answer() -> None:
    said: dict[str, Any] = {"model": "m", "query": "q", "documents": ["a", {"text": "b", "title": "B"}, "c"]}
    for more, order in (({}, [1, 0, 2]), ({"top_n": 2}, [1, 0]), ({"top_n": 9, "return_documents": False}, [1, 0, 2])):
        body, wanted = rerank.read(json.dumps(said | more).encode(), "r1")
        assert (wanted.query, wanted.documents, wanted.request_id) == ("q", ["a", "b", "c"], "r1")
        answer = rerank.answer(body, [-0.5, 2.0, -0.5], 7, "r1")
        assert [one["index"] for one in answer["results"]] == order
        assert answer["results"][0] == {"index": 1, "relevance_score": 2.0}
        assert answer["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    body, _ = rerank.read(json.dumps(said | {"return_documents": True, "top_n": 1}).encode(), "r1")
    [best] = rerank.answer(body, [0.0, 1.0, 0.5], 7, "r1")["results"]
    assert best == {"index": 1, "relevance_score": 1.0, "document": {"text": "b"}}


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"query": ""}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": ["a", ""]}, "documents"),
        ({"documents": [{"title": "a"}]}, "documents"),
        ({"top_n": 0}, "top_n"),
    ],
)
def test_documents_that_can_have_no_order_are_refused(said: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        rerank.read(json.dumps({"model": "m", "query": "q", "documents": ["a"], **said}).encode(), "r1")
    assert str(error_body(caught.value)["error"]["param"]).startswith(param)
