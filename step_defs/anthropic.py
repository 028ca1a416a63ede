"""Steps about clients that were written for Anthropic."""

import json
from typing import Any

import httpx
from pytest_bdd import given, parsers, then, when

from rbee_kit.loaded import Loaded

SYSTEM = "You know all about bees. " * 20
BILLED = "x-anthropic-billing-header: cc_version=2.1.101.e51; cc_entrypoint=cli; cch={};"
HEADERS = {"x-api-key": "any", "anthropic-version": "2023-06-01", "anthropic-beta": "any-2026-01-01"}
TOOL = {
    "name": "count",
    "input_schema": {
        "type": "object",
        "properties": {"bees": {"enum": [1, 2]}},
        "required": ["bees"],
        "additionalProperties": False,
    },
}
CALLING = {"max_tokens": 40, "tools": [TOOL], "tool_choice": {"type": "tool", "name": "count"}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x"}}


def post(loaded: Loaded, path: str = "", **fields: Any) -> httpx.Response:
    said = {"model": loaded.worker.model_ref, "messages": [{"role": "user", "content": "Say hi"}], "temperature": 0}
    url = f"http://127.0.0.1:{loaded.hive.port}/v1/messages{path}?beta=true"
    return httpx.post(url, json=said | fields, headers=HEADERS, timeout=60, trust_env=False)


def billed(loaded: Loaded, mark: str) -> httpx.Response:
    system = [{"type": "text", "text": text} for text in (BILLED.format(mark), SYSTEM)]
    return post(loaded, max_tokens=1, system=system)


@given(parsers.parse("a client of Anthropic has had a message of {tokens:d} tokens"), target_fixture="earlier")
@when(parsers.parse("a client of Anthropic asks for a message of {tokens:d} tokens"), target_fixture="answer")
def ask(loaded: Loaded, tokens: int) -> httpx.Response:
    return post(loaded, max_tokens=tokens)


@when(parsers.parse("a client of Anthropic asks for a streamed message of {tokens:d} tokens"), target_fixture="answer")
def ask_for_stream(loaded: Loaded, tokens: int) -> httpx.Response:
    return post(loaded, max_tokens=tokens, stream=True)


@given("Claude Code has had a message with a line that it is billed by")
def has_been_billed(loaded: Loaded) -> None:
    assert billed(loaded, "a5145").status_code == 200


@when("Claude Code asks for the same with another such line", target_fixture="answer")
def ask_billed(loaded: Loaded) -> httpx.Response:
    return billed(loaded, "00b1f")


@when("a client of Anthropic asks how many tokens that prompt has", target_fixture="answer")
def ask_for_count(loaded: Loaded) -> httpx.Response:
    return post(loaded, "/count_tokens")


@when("a client of Anthropic asks for a call of a tool", target_fixture="answer")
def ask_for_call(loaded: Loaded) -> httpx.Response:
    return post(loaded, **CALLING)


@when("a client of Anthropic sends an image", target_fixture="answer")
def send_image(loaded: Loaded) -> httpx.Response:
    return post(loaded, max_tokens=1, messages=[{"role": "user", "content": [IMAGE]}])


@then(parsers.parse("the message has {tokens:d} tokens and says that this was the limit"))
def is_message(answer: httpx.Response, tokens: int) -> None:
    message = answer.json()
    assert (message["type"], message["role"], message["stop_reason"]) == ("message", "assistant", "max_tokens")
    assert message["usage"]["output_tokens"] == tokens
    assert [block["type"] for block in message["content"]] == ["text"]


@then("the events are those of one message with one block, in order")
def are_events(answer: httpx.Response) -> None:
    events = [event.split("\n") for event in answer.text.split("\n\n")[:-1]]
    kinds = [name.removeprefix("event: ") for name, _ in events]
    assert kinds == [json.loads(data.removeprefix("data: "))["type"] for _, data in events]
    told = [kind for kind in kinds if kind != "ping"]
    deltas = told.count("content_block_delta")
    assert deltas > 0
    block = ["content_block_start", *["content_block_delta"] * deltas, "content_block_stop"]
    assert told == ["message_start", *block, "message_delta", "message_stop"]


@then(parsers.parse("the last usage counts {tokens:d} tokens"))
def counts(answer: httpx.Response, tokens: int) -> None:
    [last] = [line for line in answer.text.split("\n") if '"message_delta"' in line and line.startswith("data: ")]
    assert json.loads(last.removeprefix("data: "))["usage"]["output_tokens"] == tokens


@then("most of the prompt came from the cache")
def came_from_cache(answer: httpx.Response) -> None:
    usage = answer.json()["usage"]
    assert usage["cache_read_input_tokens"] > 9 * usage["input_tokens"]


@then("it is told as many as the message had")
def is_count(answer: httpx.Response, earlier: httpx.Response) -> None:
    usage = earlier.json()["usage"]
    assert answer.json() == {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]}


@then("the message is a call of that tool with arguments that fit")
def is_call(answer: httpx.Response) -> None:
    message = answer.json()
    assert message["stop_reason"] == "tool_use"
    [block] = message["content"]
    assert (block["type"], block["name"]) == ("tool_use", "count")
    assert block["input"] in ({"bees": 1}, {"bees": 2})


@then("it is refused in the shape that such clients know, and the image is named")
def is_refused(answer: httpx.Response) -> None:
    said = answer.json()
    assert (answer.status_code, said["type"], said["error"]["type"]) == (400, "error", "invalid_request_error")
    assert "content[0].image" in said["error"]["message"]
    assert said["request_id"] == answer.headers["request-id"]
