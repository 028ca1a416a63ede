"""The codec of Responses alone: what a body becomes, every event and their order, what is refused by name."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from rbee_core import wire
from rbee_core.dialects.openai.errors import error_body
from rbee_core.dialects.parts import Arguments, CallBegins, End, Part, Reasoning, Text
from rbee_core.dialects.responses import freeform
from rbee_core.dialects.responses.requests import FIELDS, ResponsesBody
from rbee_core.dialects.responses.responses import ResponseTalk
from rbee_core.dialects.talk import Moment
from rbee_core.errors import AllSlotsBusy, InvalidRequest, PromptTooLong, WorkerCrashed

MOMENT = Moment("r1", 1_700_000_000, "rbee-1")
DONE = wire.StreamEvent(done=True, total_tokens=2, finish_reason="stop", prompt_tokens=9, cached_tokens=4)
FULL = wire.StreamEvent(done=True, total_tokens=8, finish_reason="length")
LIKELY = wire.Logprobs(id=1, token="a", bytes=[97], logprob=-0.5, top=[])
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
PLACE = {"type": "object", "properties": {"a": {}}}
LOOK: dict[str, Any] = {"type": "function", "name": "look", "description": "looks", "parameters": PLACE}
PATCH: dict[str, Any] = {"type": "custom", "name": "patch", "description": "patches"}
LARK = {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'}
REGEX = {"type": "grammar", "syntax": "regex", "definition": "x+|y"}
NULLABLE = (
    "error", "incomplete_details", "instructions", "metadata", "model", "temperature", "top_p", "tools", "tool_choice",
    "parallel_tool_calls", "max_output_tokens", "previous_response_id", "reasoning", "text", "truncation", "usage",
    "user", "store", "background", "conversation", "completed_at", "service_tier", "top_logprobs", "max_tool_calls",
    "presence_penalty", "frequency_penalty", "prompt", "prompt_cache_key", "safety_identifier",
)  # fmt: skip


def talk(**fields: Any) -> ResponseTalk:
    return ResponseTalk.read(json.dumps({"model": "m", "input": "hi", **fields}).encode(), MOMENT)


def wanted(**fields: Any) -> wire.PoolInference:
    return talk(**fields).wanted[0]


def turns(*items: dict[str, Any], **fields: Any) -> list[wire.ChatMessage]:
    return wanted(input=list(items), **fields).messages or []


def refusal(**fields: Any) -> dict[str, Any]:
    with pytest.raises(InvalidRequest) as caught:
        talk(**fields)
    assert 400 <= caught.value.http_status < 500
    return dict(error_body(caught.value)["error"])


def events(data: bytes, *, valid: bool = True) -> list[dict[str, Any]]:
    """Return the events of a stream: each is valid and named as its type, they are numbered, and that is all."""
    *said, rest = data.decode().split("\n\n")
    assert rest == ""
    told: list[dict[str, Any]] = []
    for lines in said:
        name, text = lines.split("\n")
        event = json.loads(text.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        if valid:
            EVENTS.validate_python(event, strict=True)
        told.append(event)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    return told


def streamed(parts: list[Part], *, valid: bool = True, **fields: Any) -> list[dict[str, Any]]:
    told = talk(stream=True, **fields)
    return events(told.begins() + b"".join(told.tells(0, [part]) for part in parts) + told.ends(), valid=valid)


def whole(parts: list[Part], **fields: Any) -> dict[str, Any]:
    told = talk(**fields)
    assert told.tells(0, parts) == b""
    answer = json.loads(told.whole())
    Response.model_validate(answer)
    assert set(NULLABLE) <= set(answer)
    return answer


def test_nothing_said_leaves_everything_to_us() -> None:
    request = wanted()
    assert request == wire.PoolInference(
        model_ref="m", request_id="r1", messages=[wire.ChatMessage(role="user", content="hi")]
    )
    nulls = dict.fromkeys(set(ResponsesBody.__struct_fields__) - {"model", "input"})
    assert wanted(**nulls) == request, "null is as good as nothing"


@pytest.mark.parametrize(
    ("said", "field", "value"),
    [
        ({"max_output_tokens": 5}, "max_tokens", 5),
        ({"temperature": 0}, "temperature", 0),
        ({"top_p": 0.5}, "top_p", 0.5),
        ({"presence_penalty": 1}, "presence_penalty", 1),
        ({"reasoning": {"effort": "minimal", "summary": "auto"}}, "template_arguments", {"reasoning_effort": "low"}),
        (
            {"reasoning": {"effort": "none"}},
            "template_arguments",
            {"reasoning_effort": "none", "enable_thinking": False},
        ),
        ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, "json_schema", None),
        ({"text": {"format": {"type": "json_object"}}}, "json_schema", {"type": "object"}),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "number"}}}},
            "json_schema",
            {"type": "number"},
        ),
        ({"include": ["message.output_text.logprobs"]}, "logprobs", 0),
        ({"top_logprobs": 3}, "logprobs", 3),
        ({"include": ["reasoning.encrypted_content"], "top_logprobs": 0}, "logprobs", None),
        ({"tools": [LOOK]}, "tools", [wire.Tool("look", "looks", PLACE)]),
        ({"tools": [LOOK], "tool_choice": "none"}, "tools", []),
        ({"tools": [LOOK], "tool_choice": "required"}, "json_schema", PLACE),
        ({"tools": [LOOK, PATCH], "tool_choice": {"type": "function", "name": "look"}}, "json_schema", PLACE),
        (
            {"tools": [LOOK, PATCH], "tool_choice": {"type": "custom", "name": "patch"}},
            "json_schema",
            freeform.schema(None),
        ),
        (
            {"tools": [{**PATCH, "format": REGEX}], "tool_choice": "required"},
            "json_schema",
            freeform.schema("x+|y"),
        ),
        (
            {
                "tools": [LOOK, PATCH],
                "tool_choice": {"type": "allowed_tools", "tools": [{"type": "custom", "name": "patch"}]},
            },
            "tools",
            [wire.Tool("patch", "patches", freeform.schema(None))],
        ),
        (
            {"tools": [{**PATCH, "format": LARK}]},
            "tools",
            [
                wire.Tool(
                    "patch", 'patches\n`input` fits this lark grammar:\nstart: "x"', freeform.schema(None)
                )
            ],
        ),
        ({"store": True, "truncation": "auto", "service_tier": "flex", "user": "me", "no_such": 1}, "stop", []),
        ({"previous_response_id": None, "background": False, "conversation": None}, "stop", []),
    ],
)  # fmt: skip
def test_what_a_field_becomes(said: dict[str, Any], field: str, value: object) -> None:
    assert getattr(wanted(**said), field) == value


def test_items_come_in_every_shape_that_clients_send() -> None:
    said = turns(
        {"role": "developer", "content": "be brief"},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}],
        },
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look", "arguments": '{"a":1}'},
        {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": 'say "x"'},
        {"type": "function_call_output", "call_id": "c1", "output": "21"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "done"}]},
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "x"},
        {"type": "function_call", "call_id": "c3", "name": "look", "arguments": {"a": 2}},
        {"type": "function_call_output", "call_id": "c9", "output": ""},
        {"role": "user", "content": "and?"},
        instructions="be kind",
    )
    assert said == [
        wire.ChatMessage(role="system", content="be kind"),
        wire.ChatMessage(role="system", content="be brief"),
        wire.ChatMessage(role="user", content="one\ntwo"),
        wire.ChatMessage(
            role="assistant",
            content="I look.",
            reasoning="hm",
            tool_calls=[
                wire.ToolCall(name="look", arguments='{"a":1}', id="c1"),
                wire.ToolCall(name="patch", arguments='{"input":"say \\"x\\""}', id="c2"),
            ],
        ),
        wire.ChatMessage(role="tool", content="21", tool_call_id="c1", tool_name="look"),
        wire.ChatMessage(role="tool", content="done", tool_call_id="c2", tool_name="patch"),
        wire.ChatMessage(
            role="assistant", content="", tool_calls=[wire.ToolCall(name="look", arguments='{"a":2}', id="c3")]
        ),
        wire.ChatMessage(role="tool", content="", tool_call_id="c9", tool_name=""),
        wire.ChatMessage(role="user", content="and?"),
    ]


def test_thoughts_begin_another_turn_of_the_model() -> None:
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
    call = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
    said = turns({"role": "assistant", "content": "a"}, thought, call, {"role": "user", "content": "b"})
    assert [(turn.role, turn.reasoning, len(turn.tool_calls)) for turn in said] == [
        ("assistant", "", 0), ("assistant", "hm", 1), ("user", "", 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 10**30}, "max_output_tokens"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"model": ""}, "model"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": [{"role": "king", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "message"}]}, "input[0].role"),
        ({"input": [{"type": "function_call", "call_id": "c"}]}, "input[0].name"),
        ({"input": [{"type": "function_call", "name": "x" * 300}]}, "input[0].name"),
        ({"input": [{"type": "function_call", "name": "x", "call_id": "x" * 300}]}, "input[0].call_id"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {"a": "x" * 513}}, "metadata"),
        ({"reasoning": {"effort": "mighty"}}, "reasoning.effort"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{**PATCH, "format": {"type": "grammar", "syntax": "regex"}}]}, "tools[0].format"),
        ({"tools": [{**PATCH, "format": {"type": "grammar", "syntax": "ebnf"}}]}, "tools[0].format.syntax"),
        ({"tools": [LOOK], "tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"tools": [LOOK], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "perhaps"}, "tool_choice"),
    ],
)
def test_a_wrong_value_is_refused_with_the_name_of_its_field(said: dict[str, Any], param: str) -> None:
    error = refusal(**said)
    assert (error["code"], error["type"]) == ("INVALID_REQUEST", "invalid_request_error")
    assert (error["param"] or "").startswith(param), error


IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,x"}
HOSTED = (
    "web_search", "web_search_preview", "file_search", "code_interpreter", "computer_use_preview", "mcp",
    "image_generation", "local_shell", "shell", "apply_patch", "namespace",
)  # fmt: skip


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        *(({"tools": [LOOK, {"type": kind}]}, f"tools[1].{kind}") for kind in HOSTED),
        ({"tools": [LOOK], "tool_choice": {"type": "web_search_preview"}}, "tool_choice.web_search_preview"),
        ({"tool_choice": {"type": "allowed_tools", "tools": [{"type": "mcp"}]}}, "tool_choice.tools[0].mcp"),
        ({"input": [{"role": "user", "content": [IMAGE]}]}, "input[0].content[0].input_image"),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": [IMAGE]}]},
            "input[0].output[0].input_image",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0].input_file"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].item_reference"),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input[0].web_search_call"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(said: dict[str, Any], param: str) -> None:
    error = refusal(**said)
    assert (error["code"], error["param"], error["type"]) == ("NOT_SUPPORTED", param, "invalid_request_error")


def test_the_table_knows_every_field_of_the_body() -> None:
    honoured = {row.name.partition(".")[0] for row in FIELDS if row.fate == "honoured"}
    assert honoured == set(ResponsesBody.__struct_fields__)
    assert len({row.name for row in FIELDS}) == len(FIELDS)


ALL: list[Part] = [
    Reasoning("h"), Reasoning("m"), Text("I look."), Text(""), Text("\n\n"),
    CallBegins(0, "look"), Arguments(0, '{"a"'), Arguments(0, ":1}"),
    CallBegins(1, "patch"), Arguments(1, '{"input": "a\\n'), Arguments(1, 'b"}'),
    End("tool_calls", DONE, reasoning_tokens=1),
]  # fmt: skip


def test_an_answer_that_has_a_form_may_be_a_call_instead() -> None:
    form = {"type": "json_schema", "name": "n", "schema": {"type": "number"}}
    told = talk(tools=[LOOK, PATCH], text={"format": form})
    schema = told.wanted[0].json_schema
    assert schema is not None
    assert schema["$defs"]["answer"] == {"type": "number"}
    read = told.reader(0)
    texts = ('{"name": "patch", ', '"arguments": {"input": "a', 'b"}}')
    said = [part for text in texts for part in read.feed(wire.StreamEvent(token=text))]
    told.tells(0, [*said, *read.feed(DONE)])
    [call] = json.loads(told.whole())["output"]
    assert (call["type"], call["input"]) == ("custom_tool_call", "ab")


def test_a_stream_is_every_event_in_the_order_of_the_specification() -> None:
    said = streamed(ALL, tools=[LOOK, PATCH])
    parted = ["output_item.added", "content_part.added"]
    closed = ["content_part.done", "output_item.done"]
    reasoning = ["reasoning_text.delta", "reasoning_text.delta", "reasoning_text.done"]
    text = ["output_text.delta", "output_text.delta", "output_text.done"]
    arguments = ["function_call_arguments.delta", "function_call_arguments.delta", "function_call_arguments.done"]
    custom = ["custom_tool_call_input.delta", "custom_tool_call_input.delta", "custom_tool_call_input.done"]
    assert [event["type"].removeprefix("response.") for event in said] == [
        "created", "in_progress", *parted, *reasoning, *closed, *parted, *text, *closed,
        "output_item.added", *arguments, "output_item.done", "output_item.added", *custom, "output_item.done",
        "completed",
    ]  # fmt: skip
    places = [event["output_index"] for event in said if "output_index" in event]
    assert places == sorted(places)
    for index, item in enumerate(said[-1]["response"]["output"]):
        own = [event for event in said if event.get("output_index") == index]
        assert {event["item_id"] for event in own if "item_id" in event} == {item["id"]}
        assert (own[0]["item"]["status"], own[-1]["item"]) == ("in_progress", item)
        pieces = "".join(event["delta"] for event in own if "delta" in event)
        [again] = [e for e in own if e["type"].endswith((".done",)) and not {"item", "part"} & set(e)]
        said_again = again.get("text", again.get("arguments", again.get("input")))
        assert pieces == said_again
    assert [item["type"] for item in said[-1]["response"]["output"]] == [
        "reasoning", "message", "function_call", "custom_tool_call",
    ]  # fmt: skip


def test_the_answer_in_one_piece_is_what_a_stream_ends_with() -> None:
    answer = whole(ALL, tools=[LOOK, PATCH], metadata={"a": "b"}, instructions="be kind", temperature=0.5)
    assert (
        answer
        == streamed(ALL, tools=[LOOK, PATCH], metadata={"a": "b"}, instructions="be kind", temperature=0.5)[-1][
            "response"
        ]
    )
    thought, message, call, custom = answer["output"]
    assert (thought["content"], thought["summary"]) == ([{"type": "reasoning_text", "text": "hm"}], [])
    assert message["content"] == [
        {"type": "output_text", "annotations": [], "logprobs": [], "text": "I look.\n\n"}
    ]  # fmt: skip
    assert (call["name"], call["arguments"], call["status"]) == ("look", '{"a":1}', "completed")
    assert (custom["name"], custom["input"], custom["status"]) == ("patch", "a\nb", "completed")
    assert call["call_id"] != custom["call_id"]
    assert answer["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 11,
    }
    assert (answer["id"], answer["status"], answer["metadata"]) == ("resp_r1", "completed", {"a": "b"})
    assert (answer["store"], answer["truncation"], answer["instructions"]) == (False, "disabled", "be kind")


@given(st.lists(st.sampled_from("trcf "), max_size=12), st.lists(st.booleans(), min_size=13, max_size=13))
def test_however_parts_come_together_the_events_are_the_same(kinds: list[str], cuts: list[bool]) -> None:
    calls = 0
    parts: list[Part] = []
    for kind in kinds:
        if kind in "cf":
            parts += [CallBegins(calls, "look" if kind == "c" else "patch"), Arguments(calls, '{"input":"1"}')]
            calls += 1
        else:
            parts.append({"t": Text("x"), "r": Reasoning("x"), " ": Text("")}[kind])
    parts.append(End("stop", DONE))
    told, data, group = talk(stream=True, tools=[LOOK, PATCH]), [b""], list[Part]()
    data.append(told.begins())
    for number, part in enumerate(parts):
        group.append(part)
        if cuts[number % len(cuts)] or part is parts[-1]:
            data.append(told.tells(0, group))
            group = []
    data.append(told.ends())
    assert events(b"".join(data), valid=False) == streamed(parts, valid=False, tools=[LOOK, PATCH])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"input": "*** Begin\\n\\"x\\" \\\\ud83d \\u00e9\\ud83d\\ude00\\/"}', '*** Begin\n"x" \\ud83d é😀/'),
        (' { "input" : "a" } ', "a"),
        ('{"input":""}', ""),
        ('{"input": "raw\nbreak"}', "raw\nbreak"),
        ('{"input": "half \\ud83d"}', "half \N{REPLACEMENT CHARACTER}"),
        ('{"input": "half \\ud83d\\u0041"}', "half \N{REPLACEMENT CHARACTER}A"),
        ('{"input": "cut \\u00', "cut "),
        ('{"patch": "a"}', "a"),
        ('{"patch": "a", "b": 1}', '{"patch": "a", "b": 1}'),
        ("*** Begin", "*** Begin"),
        ("", ""),
    ],
)
def test_a_free_text_is_the_same_wherever_its_arguments_are_cut(arguments: str, text: str) -> None:
    for width in (1, 2, 3, 7, len(arguments) + 1):
        read = freeform.FreeText()
        pieces = [read.take(arguments[at : at + width]) for at in range(0, len(arguments), width)]
        assert "".join(pieces) + read.close() == text
    for at in range(len(arguments)):
        read = freeform.FreeText()
        assert read.take(arguments[:at]) + read.take(arguments[at:]) + read.close() == text


@given(st.text(), st.lists(st.integers(1, 9), min_size=1))
def test_whatever_a_free_text_is_it_comes_back(text: str, widths: list[int]) -> None:
    for arguments in (freeform.written(text), json.dumps({"input": text})):
        read, said, at, turn = freeform.FreeText(), "", 0, 0
        while at < len(arguments):
            width = widths[turn % len(widths)]
            said, at, turn = said + read.take(arguments[at : at + width]), at + width, turn + 1
        assert said + read.close() == text


def test_an_answer_that_met_its_limit_is_incomplete_and_so_is_its_last_item() -> None:
    parts: list[Part] = [Reasoning("hm"), Text("a"), End("length", FULL)]
    answer = whole(parts)
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert [item["status"] for item in answer["output"]] == ["completed", "incomplete"]
    last = streamed(parts)[-1]
    assert (last["type"], last["response"]) == ("response.incomplete", answer)
    assert whole([End("stop", DONE)])["output"] == []


def test_probabilities_stand_with_the_text_that_they_are_of() -> None:
    parts: list[Part] = [Text("", LIKELY), Text("a", LIKELY), End("stop", DONE)]
    said = streamed(parts, top_logprobs=1)
    deltas = [event["logprobs"] for event in said if event["type"] == "response.output_text.delta"]
    assert [len(likely) for likely in deltas] == [1, 1]
    [done] = [event for event in said if event["type"] == "response.output_text.done"]
    [message] = whole(parts, top_logprobs=1)["output"]
    assert done["logprobs"] == message["content"][0]["logprobs"] == [*deltas[0], *deltas[1]]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PromptTooLong(prompt_tokens=9, context_tokens=4), "invalid_prompt"),
        (AllSlotsBusy(slots=1, busy=1), "server_error"),
        (WorkerCrashed(worker_id="w", exit="signal 9"), "server_error"),
    ],
)
def test_a_stream_that_fails_says_so_by_itself_and_in_the_response(error: Any, code: str) -> None:
    told = talk(stream=True)
    said = events(told.begins() + told.tells(0, [Text("a")]) + told.fails(error))
    assert [event["type"] for event in said[-2:]] == ["error", "response.failed"]
    assert (said[-2]["code"], said[-2]["message"].startswith(error.message)) == (error.code, True)
    response = said[-1]["response"]
    assert (response["status"], response["error"]["code"], response["error"]["type"]) == ("failed", code, error.code)
    assert [item["status"] for item in response["output"]] == ["incomplete"]
    early = talk(stream=True)
    kinds = [event["type"] for event in events(early.fails(error))]
    assert kinds == ["response.created", "response.in_progress", "error", "response.failed"]


def test_rule_4_a_silence_has_comments_which_are_no_events() -> None:
    assert talk(stream=True).still_here() == b":\n\n"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"model": "m"}', b"\xff", b'{"model":"a","model":"b"}'])
def test_what_is_no_body_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        ResponseTalk.read(body, MOMENT)
