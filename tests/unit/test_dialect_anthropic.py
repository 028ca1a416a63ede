"""Anthropic's codec alone: what a body becomes, the events of parts and their order, what is refused by name."""

import json
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from rbee_core import wire
from rbee_core.dialects.anthropic.errors import error_body
from rbee_core.dialects.anthropic.messages import SIGNATURE, MessagesTalk, counted
from rbee_core.dialects.anthropic.requests import FIELDS, PROMPT_FIELDS, MessagesBody, Prompted
from rbee_core.dialects.parts import Arguments, CallBegins, End, Part, Reasoning, Text
from rbee_core.dialects.talk import Moment
from rbee_core.errors import AllSlotsBusy, InvalidApiKey, InvalidRequest, ModelNotFound, PromptTooLong, WorkerCrashed

MOMENT = Moment("r1", 1_700_000_000, "rbee-1")
HI = {"role": "user", "content": "hi"}
DONE = wire.StreamEvent(done=True, total_tokens=2, finish_reason="stop", prompt_tokens=9, cached_tokens=4)
STOPPED = wire.StreamEvent(done=True, total_tokens=2, finish_reason="stop", stopped_by="END")
FULL = wire.StreamEvent(done=True, total_tokens=8, finish_reason="length")
EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
LOOK: dict[str, Any] = {
    "name": "look",
    "description": "looks",
    "input_schema": {"type": "object", "properties": {"a": {}}},
}
PING = b'event: ping\ndata: {"type":"ping"}\n\n'


def talk(**fields: Any) -> MessagesTalk:
    body = {"model": "m", "max_tokens": 8, "messages": [HI], **fields}
    return MessagesTalk.read(json.dumps(body).encode(), MOMENT)


def wanted(**fields: Any) -> wire.PoolInference:
    return talk(**fields).wanted[0]


def turns(*said: dict[str, Any], **fields: Any) -> list[wire.ChatMessage]:
    return wanted(messages=list(said), **fields).messages or []


def refusal(**fields: Any) -> dict[str, Any]:
    with pytest.raises(InvalidRequest) as caught:
        talk(**fields)
    assert 400 <= caught.value.http_status < 500
    return error_body(caught.value)["error"]


def events(data: bytes) -> list[dict[str, Any]]:
    """Return the events of a stream, each of which is valid, named as its type, and nothing else."""
    *said, rest = data.decode().split("\n\n")
    assert rest == ""
    told: list[dict[str, Any]] = []
    for lines in said:
        name, text = lines.split("\n")
        event = json.loads(text.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        if event["type"] not in ("ping", "error"):
            EVENTS.validate_python(event)
        told.append(event)
    return told


def streamed(parts: list[Part], **fields: Any) -> list[dict[str, Any]]:
    told = talk(stream=True, **fields)
    return events(told.begins() + b"".join(told.tells(0, [part]) for part in parts) + told.ends())


def whole(parts: list[Part], **fields: Any) -> dict[str, Any]:
    told = talk(**fields)
    assert told.tells(0, parts) == b""
    answer = json.loads(told.whole())
    Message.model_validate(answer)
    return answer


def test_nothing_said_leaves_everything_but_the_limit_to_us() -> None:
    request = wanted()
    assert request == wire.PoolInference(
        model_ref="m", request_id="r1", max_tokens=8, messages=[wire.ChatMessage(role="user", content="hi")]
    )
    nulls = dict.fromkeys(set(MessagesBody.__struct_fields__) - {"model", "messages", "max_tokens"})
    assert wanted(**nulls) == request, "null is as good as nothing"


@pytest.mark.parametrize(
    ("said", "field", "value"),
    [
        ({"stop_sequences": ["x", "", "y"]}, "stop", ["x", "y"]),
        ({"temperature": 0}, "temperature", 0),
        ({"top_p": 0.5}, "top_p", 0.5),
        ({"top_k": 3}, "top_k", 3),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, "template_arguments", {"enable_thinking": True}),
        ({"thinking": {"type": "adaptive"}}, "template_arguments", {"enable_thinking": True}),
        ({"thinking": {"type": "disabled"}}, "template_arguments", {"enable_thinking": False}),
        ({"output_config": {"effort": "low"}}, "template_arguments", {"reasoning_effort": "low"}),
        ({"output_config": {"effort": "max"}}, "template_arguments", {"reasoning_effort": "high"}),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "number"}}}},
            "json_schema",
            {"type": "number"},
        ),
        ({"output_format": {"type": "json_schema", "schema": {"enum": [1]}}}, "json_schema", {"enum": [1]}),
        ({"tools": [LOOK]}, "tools", [wire.Tool("look", "looks", LOOK["input_schema"])]),
        ({"tools": [LOOK], "tool_choice": {"type": "none"}}, "tools", []),
        ({"tools": [LOOK], "tool_choice": {"type": "any"}}, "json_schema", LOOK["input_schema"]),
        ({"tools": [LOOK], "tool_choice": {"type": "tool", "name": "look"}}, "json_schema", LOOK["input_schema"]),
        ({"metadata": {"user_id": "me"}, "context_management": {"edits": []}, "no_such": 1}, "stop", []),
    ],
)
def test_what_a_field_becomes(said: dict[str, Any], field: str, value: object) -> None:
    assert getattr(wanted(**said), field) == value


def test_turns_come_in_every_shape_that_clients_send() -> None:
    use = {"type": "tool_use", "id": "t1", "name": "look", "input": {"a": 1}, "cache_control": {"type": "ephemeral"}}
    result = {
        "type": "tool_result",
        "tool_use_id": "t1",
        "content": [{"type": "text", "text": "21"}],
        "is_error": False,
    }
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    said = turns(
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": [thought, {"type": "redacted_thinking", "data": "x"}, use]},
        {"role": "user", "content": [result, {"type": "text", "text": "and?"}]},
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t9"}]},
        system=[{"type": "text", "text": "be kind"}, {"type": "text", "text": "be quick"}],
    )
    assert said == [
        wire.ChatMessage(role="system", content="be kind\nbe quick"),
        wire.ChatMessage(role="user", content="one\ntwo"),
        wire.ChatMessage(
            role="assistant",
            content="",
            reasoning="hm",
            tool_calls=[wire.ToolCall(name="look", arguments='{"a":1}', id="t1")],
        ),
        wire.ChatMessage(role="tool", content="21", tool_call_id="t1", tool_name="look"),
        wire.ChatMessage(role="user", content="and?"),
        wire.ChatMessage(role="system", content="be brief"),
        wire.ChatMessage(role="tool", content="", tool_call_id="t9", tool_name=""),
    ]


BILLED = "x-anthropic-billing-header: cc_version=2.1.101.e51; cc_entrypoint=cli; cch={};"


@pytest.mark.parametrize(
    "system",
    [
        lambda line: [{"type": "text", "text": line}, {"type": "text", "text": "You are kind."}],
        lambda line: f"{line}\nYou are kind.",
        lambda line: [{"type": "text", "text": f"{line}\nYou are kind."}],
    ],
)
def test_rule_10_the_line_that_changes_with_every_turn_is_no_part_of_the_prompt(system: Any) -> None:
    prompts = [turns(HI, system=system(BILLED.format(mark))) for mark in ("a5145", "00b1f")]
    assert prompts[0] == prompts[1]
    assert prompts[0][0] == wire.ChatMessage(role="system", content="You are kind.")
    assert turns(HI, system=BILLED.format("a5145"))[0].role == "user", "nothing else was said"
    assert "cch" in turns(HI, system=f"See:\n{BILLED.format('x')}")[0].content, "elsewhere it is a text like any other"


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"stop_sequences": ["x"] * 17}, "stop_sequences"),
        ({"stream": "yes"}, "stream"),
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [HI, {"role": "user"}]}, "messages[1]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": 5}]}]},
            "messages[0].content[0]",
        ),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}, HI]}, "messages[0].content[0].name"),
        ({"system": 5}, "system"),
        ({"tools": [{"description": "x"}]}, "tools[0].name"),
        ({"tools": [LOOK], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": [LOOK], "tool_choice": {"type": "tool", "name": "other"}}, "tool_choice"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "perhaps"}}, "tool_choice.type"),
    ],
)
def test_a_wrong_value_is_refused_with_the_name_of_its_field(said: dict[str, Any], param: str) -> None:
    error = refusal(**said)
    assert (error["code"], error["type"]) == ("INVALID_REQUEST", "invalid_request_error")
    assert error["param"].startswith(param), error


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x"}}
SHOWN = {"type": "tool_result", "tool_use_id": "t", "content": [IMAGE]}


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0].image"),
        ({"messages": [{"role": "user", "content": [SHOWN]}]}, "messages[0].content[0].content[0].image"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "messages[0].content[0].document"),
        ({"messages": [HI, {"role": "assistant", "content": "The"}]}, "messages[1]"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].web_search_20250305"),
        ({"mcp_servers": [{"name": "s", "url": "u"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(said: dict[str, Any], param: str) -> None:
    error = refusal(**said)
    assert (error["code"], error["param"], error["type"]) == ("NOT_SUPPORTED", param, "invalid_request_error")


@pytest.mark.parametrize(("table", "body"), [(FIELDS, MessagesBody), (PROMPT_FIELDS, Prompted)])
def test_the_table_knows_every_field_of_the_body(table: Any, body: Any) -> None:
    assert {row.name.partition(".")[0] for row in table if row.fate == "honoured"} == set(body.__struct_fields__)
    assert len({row.name for row in table}) == len(table)


def test_a_stream_is_every_event_by_its_name_in_order() -> None:
    told = talk(stream=True)
    said = told.begins() + told.tells(0, [Text("He")]) + told.still_here() + told.tells(0, [Text("y\n\n"), Text("")])
    said += told.tells(0, [End("stop", DONE)]) + told.ends()
    usage = b'"cache_creation_input_tokens":0,"cache_read_input_tokens":%d,"output_tokens":%d'
    details = b'"output_tokens_details":{"thinking_tokens":0}'
    assert said == (
        b"event: message_start\n"
        b'data: {"type":"message_start","message":{"id":"msg_r1","type":"message","role":"assistant","model":"m",'
        b'"content":[],"stop_reason":null,"stop_sequence":null,"stop_details":null,"container":null,'
        b'"usage":{"input_tokens":0,' + usage % (0, 0) + b"," + details + b"}}}\n\n"
        b"event: content_block_start\n"
        b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":"","citations":null}}\n\n'
        b"event: content_block_delta\n"
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"He"}}\n\n'
        + PING
        + b"event: content_block_delta\n"
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"y\\n\\n"}}\n\n'
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
        b"event: message_delta\n"
        b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null,"stop_details":null,'
        b'"container":null},"usage":{"input_tokens":5,' + usage % (4, 2) + b"," + details + b"}}\n\n"
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    )
    events(said)


def test_rule_4_the_first_ping_comes_after_the_message_has_begun() -> None:
    told = talk(stream=True)
    kinds = [event["type"] for event in events(told.still_here() + told.still_here() + told.begins())]
    assert kinds == ["message_start", "ping", "ping"]


def test_what_is_of_another_kind_is_another_block() -> None:
    parts: list[Part] = [
        Reasoning("h"), Reasoning("m"), Text("I look."),
        CallBegins(0, "look"), Arguments(0, '{"a"'), Arguments(0, ":1}"), CallBegins(1, "look"), Arguments(1, "{}"),
        End("tool_calls", DONE, reasoning_tokens=1),
    ]  # fmt: skip
    said = streamed(parts)
    assert [(event["type"], event.get("index")) for event in said] == [
        ("message_start", None),
        ("content_block_start", 0), *[("content_block_delta", 0)] * 3, ("content_block_stop", 0),
        ("content_block_start", 1), ("content_block_delta", 1), ("content_block_stop", 1),
        ("content_block_start", 2), *[("content_block_delta", 2)] * 2, ("content_block_stop", 2),
        ("content_block_start", 3), ("content_block_delta", 3), ("content_block_stop", 3),
        ("message_delta", None), ("message_stop", None),
    ]  # fmt: skip
    assert [e["delta"] for e in said if e.get("index") == 0 and "delta" in e] == [
        {"type": "thinking_delta", "thinking": "h"},
        {"type": "thinking_delta", "thinking": "m"},
        {"type": "signature_delta", "signature": SIGNATURE},
    ]
    call = next(event for event in said if event.get("index") == 2)["content_block"]
    assert call == {"type": "tool_use", "id": "toolu_r1_0", "name": "look", "input": {}, "caller": {"type": "direct"}}
    pieces = [e["delta"] for e in said if e.get("index") == 2 and "delta" in e]
    assert pieces == [{"type": "input_json_delta", "partial_json": p} for p in ('{"a"', ":1}")]
    assert said[-2]["delta"]["stop_reason"] == "tool_use"
    answer = whole(parts)
    assert [block["type"] for block in answer["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert answer["content"][0] == {"type": "thinking", "thinking": "hm", "signature": SIGNATURE}
    assert [block["input"] for block in answer["content"][2:]] == [{"a": 1}, {}]
    assert answer["usage"]["output_tokens_details"] == {"thinking_tokens": 1}


@given(st.lists(st.sampled_from("trc "), max_size=12), st.lists(st.booleans(), min_size=13, max_size=13))
def test_however_parts_come_together_blocks_are_whole_and_numbered(kinds: list[str], cuts: list[bool]) -> None:
    calls = 0
    parts: list[Part] = []
    for kind in kinds:
        if kind == "c":
            parts += [CallBegins(calls, "look"), Arguments(calls, '{"a":1}')]
            calls += 1
        else:
            parts.append({"t": Text("x"), "r": Reasoning("x"), " ": Text("")}[kind])
    parts.append(End("stop", DONE))
    told, data, group = talk(stream=True), [b""], list[Part]()
    data.append(told.begins())
    for number, part in enumerate(parts):
        group.append(part)
        if cuts[number % len(cuts)] or part is parts[-1]:
            data.append(told.tells(0, group))
            group = []
    data.append(told.ends())
    said = events(b"".join(data))
    assert said == streamed(parts), "it does not matter how parts were cut"
    open_block, begun = None, 0
    for event in said[1:-2]:
        if event["type"] == "content_block_start":
            assert (open_block, event["index"]) == (None, begun)
            open_block, begun = begun, begun + 1
        else:
            assert event["index"] == open_block
            open_block = None if event["type"] == "content_block_stop" else open_block
    assert open_block is None
    assert [event["type"] for event in said[-2:]] == ["message_delta", "message_stop"]


@pytest.mark.parametrize(
    ("end", "reason", "sequence"),
    [
        (End("stop", DONE), "end_turn", None),
        (End("stop", STOPPED), "stop_sequence", "END"),
        (End("length", FULL), "max_tokens", None),
        (End("length", DONE), "model_context_window_exceeded", None),
        (End("tool_calls", DONE), "tool_use", None),
    ],
)
def test_why_it_ended(end: End, reason: str, sequence: str | None) -> None:
    answer = whole([Text("a"), end])
    assert (answer["stop_reason"], answer["stop_sequence"]) == (reason, sequence)
    delta = streamed([Text("a"), end])[-2]["delta"]
    assert (delta["stop_reason"], delta["stop_sequence"]) == (reason, sequence)


def test_a_call_that_was_cut_short_has_no_arguments() -> None:
    answer = whole([CallBegins(0, "look"), Arguments(0, '{"a": "tw'), End("length", FULL)])
    assert (answer["content"][0]["input"], answer["stop_reason"]) == ({}, "max_tokens")
    assert whole([End("stop", DONE)])["content"] == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PromptTooLong(prompt_tokens=9, context_tokens=4), "invalid_request_error"),
        (ModelNotFound(reference="m", why="no", hint="look"), "not_found_error"),
        (InvalidApiKey(), "authentication_error"),
        (AllSlotsBusy(slots=1, busy=1), "overloaded_error"),
        (WorkerCrashed(worker_id="w", exit="signal 9"), "api_error"),
    ],
)
def test_an_error_has_their_type_and_our_code(error: Any, kind: str) -> None:
    [said] = events(talk(stream=True).fails(error))
    assert said["request_id"] == "r1"
    assert (said["error"]["type"], said["error"]["code"]) == (kind, error.code)
    assert said["error"]["message"].startswith(error.message)
    assert error.hint in said["error"]["message"]


def test_what_is_counted_is_the_prompt_of_the_message() -> None:
    said = {"model": "m", "messages": [HI], "system": "be kind", "tools": [LOOK]}
    asked = counted(json.dumps(said).encode(), MOMENT)
    answered = wanted(**said)
    assert (asked.messages, asked.tools, asked.max_tokens) == (answered.messages, answered.tools, None)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"model": "m"}', b"\xff", b'{"model":"a","model":"b"}'])
def test_what_is_no_body_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        MessagesTalk.read(body, MOMENT)
    with pytest.raises(InvalidRequest):
        counted(body, MOMENT)
