"""Steps about clients that were written for OpenAI's Responses."""

import json
import re
from typing import Any

import httpx
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from pytest_bdd import given, parsers, then, when

from rbee_kit.loaded import Loaded

SAY_HI = {"role": "user", "content": "Say hi"}
SCHEMA = {
    "type": "object",
    "properties": {"bees": {"enum": [1, 2]}},
    "required": ["bees"],
    "additionalProperties": False,
}
FORM = {"format": {"type": "json_schema", "name": "count", "schema": SCHEMA}}
TOOL = {"type": "function", "name": "count", "parameters": SCHEMA}
FREE: dict[str, Any] = {
    "type": "custom",
    "name": "buzz",
    "format": {"type": "grammar", "syntax": "regex", "definition": "bu[z]{3} bu[z]{4}"},
}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,x"}
REFUSED: dict[str, dict[str, Any]] = {
    "what follows an earlier response": {"previous_response_id": "resp_1"},
    "a response in the background": {"background": True},
    "a search of the web": {"tools": [{"type": "web_search"}]},
    "a word on an image": {"input": [{"role": "user", "content": [IMAGE]}]},
}
COMMENT = ":"
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def post(loaded: Loaded, **fields: Any) -> httpx.Response:
    said = {"model": loaded.worker.model_ref, "input": "Say hi", "temperature": 0}
    url = f"http://127.0.0.1:{loaded.hive.port}/v1/responses"
    return httpx.post(url, json=said | fields, headers={"Authorization": "Bearer any"}, timeout=60, trust_env=False)


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return the events, each of which is valid and named as its type."""
    events: list[dict[str, Any]] = []
    *blocks, rest = answer.text.split("\n\n")
    assert rest == ""
    for lines in blocks:
        if lines == COMMENT:
            continue
        name, data = lines.split("\n")
        event = json.loads(data.removeprefix("data: "))
        EVENTS.validate_python(event)
        assert name == f"event: {event['type']}"
        events.append(event)
    return events


@when(parsers.parse("a client of Responses asks for a response of {tokens:d} tokens"), target_fixture="answer")
def ask(loaded: Loaded, tokens: int) -> httpx.Response:
    return post(loaded, max_output_tokens=tokens)


@when(parsers.parse("a client of Responses asks for a streamed response of {tokens:d} tokens"), target_fixture="answer")
def ask_for_stream(loaded: Loaded, tokens: int) -> httpx.Response:
    return post(loaded, max_output_tokens=tokens, stream=True)


@given("a client of Responses has had a call of a tool", target_fixture="earlier")
def has_had_call(loaded: Loaded) -> httpx.Response:
    return post(loaded, tools=[TOOL], tool_choice="required", max_output_tokens=40)


@when("it tells the model what came of that", target_fixture="answer")
def tell_result(loaded: Loaded, earlier: httpx.Response) -> httpx.Response:
    [call] = earlier.json()["output"]
    assert (call["type"], call["name"], json.loads(call["arguments"])["bees"] in (1, 2)) == (
        "function_call",
        "count",
        True,
    )
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "right"}
    return post(loaded, tools=[TOOL], input=[SAY_HI, call, result], max_output_tokens=2)


@when("a client of Responses asks for a call of a tool that takes a free text", target_fixture="answer")
def ask_for_free_text(loaded: Loaded) -> httpx.Response:
    choice = {"type": "custom", "name": "buzz"}
    return post(loaded, tools=[TOOL, FREE], tool_choice=choice, max_output_tokens=40, stream=True)


@when("a client of Responses asks for an answer that fits a schema", target_fixture="answer")
def ask_for_form(loaded: Loaded) -> httpx.Response:
    return post(loaded, text=FORM, max_output_tokens=40)


@when(parsers.parse("a client of Responses asks in vain for {what}"), target_fixture="answer")
def ask_for_more(loaded: Loaded, what: str) -> httpx.Response:
    return post(loaded, **REFUSED[what])


@then(parsers.parse("the response has {tokens:d} tokens and says that this was the limit"))
def is_response(answer: httpx.Response, tokens: int) -> None:
    response = answer.json()
    assert (response["status"], response["usage"]["output_tokens"]) == ("incomplete", tokens)
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [item["type"] for item in response["output"]] == ["message"]


@then("it has every field that strict clients want")
def has_every_field(answer: httpx.Response) -> None:
    response = answer.json()
    Response.model_validate(response, strict=True)
    wanted = {"error", "instructions", "metadata", "temperature", "top_p", "previous_response_id", "truncation", "text"}
    assert wanted <= response.keys()
    assert (response["object"], response["store"], response["background"]) == ("response", False, False)


@then("the events are those of one response with one message, in order and numbered")
def are_events(answer: httpx.Response) -> None:
    events = events_of(answer)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"].removeprefix("response.") for event in events]
    pieces = kinds.count("output_text.delta")
    assert pieces > 0
    part = ["content_part.added", *["output_text.delta"] * pieces, "output_text.done", "content_part.done"]
    assert kinds == ["created", "in_progress", "output_item.added", *part, "output_item.done", "incomplete"]


@then("put together, its text is what the last event has")
def text_is_whole(answer: httpx.Response) -> None:
    events = events_of(answer)
    [message] = events[-1]["response"]["output"]
    pieces = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert message["content"][0]["text"] == "".join(pieces)


@then("the model goes on from there")
def goes_on(answer: httpx.Response) -> None:
    response = answer.json()
    assert response["status"] in ("completed", "incomplete"), response
    assert response["usage"]["output_tokens"] > 0


@then("the text comes in pieces and is what the tool takes")
def free_text_fits(answer: httpx.Response) -> None:
    events = events_of(answer)
    [call] = events[-1]["response"]["output"]
    assert (call["type"], call["name"]) == ("custom_tool_call", "buzz")
    assert re.fullmatch(FREE["format"]["definition"], call["input"])
    pieces = [event["delta"] for event in events if event["type"] == "response.custom_tool_call_input.delta"]
    assert (len(pieces) > 1, "".join(pieces)) == (True, call["input"])


@then("the answer fits it")
def answer_fits(answer: httpx.Response) -> None:
    [message] = answer.json()["output"]
    assert json.loads(message["content"][0]["text"]) in ({"bees": 1}, {"bees": 2})


@then(parsers.parse("it is refused as such clients know it, and {field} is named"))
def is_refused(answer: httpx.Response, field: str) -> None:
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    assert (error["code"], error["param"]) == ("NOT_SUPPORTED", field)
    assert field in error["message"]
