"""Responses by OpenAI's own package against a hive: the real model where text matters, scripted workers for time."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseFunctionToolCall

from rbee_kit.program import Hive, Home

SHORT: dict[str, Any] = {"model": "smollm2", "input": "Say hi", "max_output_tokens": 6, "temperature": 0}
BEES = {
    "type": "object",
    "properties": {"bees": {"enum": [1, 2]}},
    "required": ["bees"],
    "additionalProperties": False,
}
COUNT: Any = {"type": "function", "name": "count", "description": "counts bees", "parameters": BEES, "strict": True}
WRITE: Any = {"type": "custom", "name": "write", "format": {"type": "grammar", "syntax": "regex", "definition": "b+ee"}}


@pytest.fixture
def hive(home: Home) -> Hive:
    return home.start_hive()


@pytest.fixture
def client(hive: Hive) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{hive.port}/v1", api_key="none", max_retries=0) as client:
        yield client


def short(**fields: Any) -> dict[str, Any]:
    return SHORT | fields


def scripted(script: str, **fields: Any) -> dict[str, Any]:
    return {"model": f"scripted:{script}", "input": "hello", **fields}


def test_a_response_its_stream_a_schema_and_a_loop_of_tools_with_the_real_model(client: openai.OpenAI) -> None:
    raw = client.responses.with_raw_response.create(**SHORT, extra_headers={"X-Request-Id": "my-name"})
    assert raw.headers["x-request-id"] == "my-name"
    response = raw.parse()
    Response.model_validate(response.to_dict())
    assert (response.id, response.status, response.output_text != "") == ("resp_my-name", "incomplete", True)
    assert response.usage is not None
    assert response.usage.output_tokens == 6

    with client.responses.stream(**SHORT) as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(pieces) == response.output_text
    last = events[-1]
    assert last.type == "response.incomplete"
    assert last.response.usage is not None
    assert last.response.usage.input_tokens_details.cached_tokens, "the second turn read the prompt of the first"

    form: Any = {"format": {"type": "json_schema", "name": "count", "schema": BEES, "strict": True}}
    fitting = client.responses.create(**short(text=form, max_output_tokens=40))
    assert json.loads(fitting.output_text)["bees"] in (1, 2)
    functions(client)
    free_texts(client)


def functions(client: openai.OpenAI) -> None:
    """Even a model of 135M parameters calls what it has to call, and hears what came of it."""
    asked = short(tools=[COUNT], max_output_tokens=40)
    with client.responses.stream(**asked, tool_choice="required") as stream:
        called = stream.get_final_response()
    [call] = called.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert (call.name, json.loads(call.arguments)["bees"] in (1, 2)) == ("count", True)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "right"}
    turns: Any = [{"role": "user", "content": "Say hi"}, call.to_dict(), result]
    told = client.responses.create(**asked | {"input": turns})
    assert told.status in ("completed", "incomplete")
    assert told.output_text or told.output


def free_texts(client: openai.OpenAI) -> None:
    """A custom tool takes a text that fits its grammar, and not JSON."""
    choice: Any = {"type": "custom", "name": "write"}
    with client.responses.stream(**short(tools=[COUNT, WRITE], max_output_tokens=40), tool_choice=choice) as stream:
        events = list(stream)
    [done] = [event for event in events if event.type == "response.custom_tool_call_input.done"]
    pieces = [event.delta for event in events if event.type == "response.custom_tool_call_input.delta"]
    assert "".join(pieces) == done.input
    last: Any = events[-1]
    [call] = last.response.output
    assert (call.type, call.name, call.input) == ("custom_tool_call", "write", done.input)
    assert last.type == "response.incomplete" or done.input.strip("b") == "ee"
    result = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "right"}
    turns: Any = [{"role": "user", "content": "Say hi"}, call.to_dict(), result]
    assert client.responses.create(**short(tools=[COUNT, WRITE], input=turns)).usage


@pytest.mark.scripted
def test_refusals_are_the_clients_own_exceptions(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="GET /v1/models") as missing:
        client.responses.create(**short(model="gpt-of-somebody-else"))
    assert missing.value.code == "MODEL_NOT_FOUND"
    with pytest.raises(openai.BadRequestError, match="keeps no conversations") as state:
        client.responses.create(**SHORT, previous_response_id="resp_1")
    assert (state.value.code, state.value.param) == ("NOT_SUPPORTED", "previous_response_id")
    with pytest.raises(openai.BadRequestError, match=r"tools\[0\]\.web_search"):
        client.responses.create(**SHORT, tools=[{"type": "web_search"}])
    with pytest.raises(openai.BadRequestError, match="context holds 4096"):
        client.responses.create(**scripted("", input="a " * 5000))
    answer = client.responses.create(**scripted("text=one two"))
    assert (answer.status, answer.output_text) == ("completed", "one two ")


@pytest.mark.scripted
def test_a_worker_that_dies_within_an_answer_fails_the_response_and_the_next_one_works(client: openai.OpenAI) -> None:
    events = list(client.responses.create(**scripted("crash_at_token=3:KILL;token_ms=100"), stream=True))
    *_, error, failed = events
    assert (error.type, failed.type) == ("error", "response.failed")
    assert error.code == "WORKER_CRASHED"
    assert failed.response.status == "failed"
    assert failed.response.error is not None
    assert (failed.response.error.code, failed.response.error.type) == ("server_error", "WORKER_CRASHED")
    written = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert failed.response.output_text == written != ""
    assert client.responses.create(**scripted("")).status == "completed"


@pytest.mark.scripted
def test_rule_4_a_silence_is_heard_and_a_failure_behind_it_is_a_failed_response(client: openai.OpenAI) -> None:
    script = "load_s=1.2;tokens=2"
    with client.responses.with_streaming_response.create(**scripted(script), stream=True) as raw:
        lines = list(raw.iter_lines())
    assert lines[0] == ":", "a comment comes before the first event"
    assert not any(line.startswith("id:") for line in lines), "which clients would take together with comments"
    kinds = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    late = list(client.responses.create(**scripted("load_s=1.2;load_error=no such luck"), stream=True))
    assert [event.type for event in late] == [
        "response.created", "response.in_progress", "error", "response.failed",
    ]  # fmt: skip
