"""Steps about clients that were written for OpenAI."""

import base64
import json
import struct
from typing import Any

import httpx
from pytest_bdd import given, parsers, then, when

from rbee_kit.loaded import Loaded
from step_defs.support import Hive

HEADERS = {"Authorization": "Bearer any", "x-stainless-lang": "python"}
SAY_HI = [{"role": "user", "content": "Say hi"}]
SYSTEM = "You know all about flowers. " * 20
BEES = "bee " * 30
MORE_THAN_LIMITS_OF_OTHERS = 16
TOOL = {
    "type": "function",
    "function": {
        "name": "count",
        "parameters": {
            "type": "object",
            "properties": {"bees": {"enum": [1, 2]}},
            "required": ["bees"],
            "additionalProperties": False,
        },
    },
}
CALLING = {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "count"}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "count", "arguments": '{"bees": 2}'}}
KEPT = [
    {"role": "developer", "content": [{"type": "text", "text": "You count."}, {"type": "text", "text": "Briefly."}]},
    {"role": "user", "content": "Here are bees."},
    {"role": "user", "content": [{"type": "text", "text": "How many?"}], "name": "somebody"},
    {"role": "assistant", "content": None, "reasoning_content": "I have to count.", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "2"},
]
OF_OTHER_SERVERS = {
    "ignore_eos": True, "min_tokens": 2, "cache_prompt": True, "top_k": 1, "min_p": 0.1, "repetition_penalty": 1.0,
    "chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "low", "timings_per_token": True,
}  # fmt: skip
SENT_BY_CLIENTS = (
    "authorization", "content-type", "x-stainless-lang", "x-stainless-retry-count", "x-api-key", "anthropic-version",
    "anthropic-beta",
)  # fmt: skip


def url(hive: Hive, path: str) -> str:
    return f"http://127.0.0.1:{hive.port}/v1/{path}"


def post(hive: Hive, path: str, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    return httpx.post(url(hive, path), json=body, headers=HEADERS | (headers or {}), timeout=60, trust_env=False)


def chat(loaded: Loaded, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    said = {"model": loaded.worker.model_ref, "messages": SAY_HI, "temperature": 0}
    return post(loaded.hive, "chat/completions", headers, **(said | fields))


def said_by(role: str, loaded: Loaded) -> dict[str, Any]:
    """Return the usage of a chat that begins with a word of that role."""
    answer = chat(loaded, messages=[{"role": role, "content": SYSTEM}, *SAY_HI], max_tokens=1)
    return answer.json()["usage"]


def data_of(answer: httpx.Response) -> list[str]:
    return [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data: ")]


def chunks_of(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(data) for data in data_of(answer) if data != "[DONE]"]


def choices_of(answer: httpx.Response) -> list[dict[str, Any]]:
    return [choice for chunk in chunks_of(answer) for choice in chunk["choices"]]


def pieces_of(answer: httpx.Response) -> list[dict[str, Any]]:
    return [piece for choice in choices_of(answer) for piece in choice["delta"].get("tool_calls", ())]


def entry_of(loaded: Loaded, answer: httpx.Response) -> dict[str, Any]:
    [entry] = [model for model in answer.json()["data"] if loaded.worker.model_ref in model["names"]]
    return entry


@when(parsers.parse("a client of OpenAI asks for a streamed chat of {tokens:d} tokens"), target_fixture="answer")
def ask_for_stream(loaded: Loaded, tokens: int) -> httpx.Response:
    return chat(loaded, max_tokens=tokens, stream=True, stream_options={"include_usage": True})


@when("a client of OpenAI asks for thirty bees and sets no limit", target_fixture="answer")
def ask_for_bees(loaded: Loaded) -> httpx.Response:
    return chat(loaded, guided_regex="(bee ){30}")


@when("a client of OpenAI asks for a streamed call of a tool", target_fixture="answer")
def ask_for_call(loaded: Loaded) -> httpx.Response:
    return chat(loaded, max_tokens=40, stream=True, **CALLING)


@given("a client of OpenAI has asked with a word of the system", target_fixture="earlier")
def has_asked_as_system(loaded: Loaded) -> dict[str, Any]:
    return said_by("system", loaded)


@when("it asks with the same as the developer's", target_fixture="usage")
def ask_as_developer(loaded: Loaded) -> dict[str, Any]:
    return said_by("developer", loaded)


@when(
    "a client of OpenAI sends a conversation with parts, thoughts, a call and two turns of one side in a row",
    target_fixture="answer",
)
def send_conversation(loaded: Loaded) -> httpx.Response:
    return chat(loaded, messages=KEPT, tools=[TOOL], max_completion_tokens=1, ignore_eos=True)


@when(
    parsers.parse("a client of OpenAI asks for {tokens:d} tokens with the fields of other servers"),
    target_fixture="answer",
)
def ask_with_fields_of_others(loaded: Loaded, tokens: int) -> httpx.Response:
    return chat(loaded, max_tokens=tokens, **OF_OTHER_SERVERS)


@when("a client of OpenAI lists the models", target_fixture="answer")
def list_models(loaded: Loaded) -> httpx.Response:
    return httpx.get(url(loaded.hive, "models"), headers=HEADERS, timeout=60, trust_env=False)


@when("a client of OpenAI asks for a model that is not here", target_fixture="answer")
def ask_for_missing(loaded: Loaded) -> httpx.Response:
    return chat(loaded, model="gpt-4o")


@when("a client of OpenAI gives a very long chat a tenth of a second", target_fixture="answer")
def ask_with_deadline(loaded: Loaded) -> httpx.Response:
    return chat(loaded, {"X-Request-Timeout": "0.1"}, ignore_eos=True)


@when("a browser asks what a page on this machine may send", target_fixture="answer")
def ask_before(loaded: Loaded) -> httpx.Response:
    asked = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    asked |= {"Access-Control-Request-Headers": ",".join(SENT_BY_CLIENTS)}
    return httpx.options(url(loaded.hive, "chat/completions"), headers=asked, timeout=60, trust_env=False)


@when("a client of OpenAI asks it for a vector as bytes", target_fixture="answer")
def ask_for_bytes(hive: Hive, model: str) -> httpx.Response:
    return post(hive, "embeddings", model=model, input=["a bee"], encoding_format="base64")


@when("a client of OpenAI asks for its text as a stream", target_fixture="answer")
def ask_for_text(hive: Hive, model: str) -> httpx.Response:
    return post(hive, "chat/completions", model=model, messages=SAY_HI, stream=True)


@then("the role is in the first chunk and in no other")
def role_is_first(answer: httpx.Response) -> None:
    first, *others = [choice["delta"] for choice in choices_of(answer)]
    assert (first["role"], first["content"]) == ("assistant", "")
    assert not any("role" in delta for delta in others)


@then("the reason is in the last chunk of the answer: the limit")
def reason_is_last(answer: httpx.Response) -> None:
    *earlier, last = [choice["finish_reason"] for choice in choices_of(answer)]
    assert (set(earlier), last) == ({None}, "length")


@then(parsers.parse("a chunk without an answer follows, which counts {tokens:d} tokens"))
def usage_follows(answer: httpx.Response, tokens: int) -> None:
    *told, last = chunks_of(answer)
    assert all(chunk["choices"] and chunk["usage"] is None for chunk in told)
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], tokens)


@then("the end mark follows, and nothing else")
def end_mark_follows(answer: httpx.Response) -> None:
    assert answer.text.count("data: [DONE]") == 1
    assert answer.text.endswith("data: [DONE]\n\n")


@then("all chunks have one name, and no event has one")
def chunks_have_one_name(answer: httpx.Response) -> None:
    assert len({chunk["id"] for chunk in chunks_of(answer)}) == 1
    assert not [line for line in answer.text.split("\n") if line.startswith(("id:", "event:"))]


@then("it has all of them, and the model has ended by itself")
def has_all_bees(answer: httpx.Response) -> None:
    said = answer.json()
    [choice] = said["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (BEES, "stop")
    assert said["usage"]["completion_tokens"] > MORE_THAN_LIMITS_OF_OTHERS


@then("the first piece has the name of the call and of the tool, the others its arguments")
def pieces_are_in_order(answer: httpx.Response) -> None:
    first, *others = pieces_of(answer)
    assert (first["index"], first["type"], first["function"]["name"]) == (0, "function", "count")
    assert first["id"]
    assert others
    assert all(piece.keys() == {"index", "function"} and piece["index"] == 0 for piece in others)
    assert all(piece["function"].keys() == {"arguments"} for piece in others)


@then("put together, the arguments fit")
def arguments_fit(answer: httpx.Response) -> None:
    arguments = "".join(piece["function"]["arguments"] for piece in pieces_of(answer))
    assert json.loads(arguments) in ({"bees": 1}, {"bees": 2})
    assert choices_of(answer)[-1]["finish_reason"] == "tool_calls"


@then("the model has read the same prompt")
def same_prompt(earlier: dict[str, Any], usage: dict[str, Any]) -> None:
    assert usage["prompt_tokens"] == earlier["prompt_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > 0.9 * usage["prompt_tokens"]


@then(parsers.re(r"the chat has (?P<tokens>\d+) tokens?, and that was the limit"))
def has_tokens(answer: httpx.Response, tokens: str) -> None:
    said = answer.json()
    assert said["object"] == "chat.completion", said
    assert said["usage"]["completion_tokens"] == int(tokens)
    assert [choice["finish_reason"] for choice in said["choices"]] == ["length"]


@then("it says what came from the cache, and how long it took")
def says_figures(answer: httpx.Response) -> None:
    said = answer.json()
    assert said["usage"]["prompt_tokens_details"]["cached_tokens"] >= 0
    assert said["timings"]["predicted_n"] == said["usage"]["completion_tokens"]
    assert said["timings"].keys() >= {"prompt_n", "prompt_ms", "prompt_per_second", "predicted_per_second"}


@then("the model is listed with the window of its worker, under each name that clients look for")
def is_listed_with_window(loaded: Loaded, answer: httpx.Response) -> None:
    entry = entry_of(loaded, answer)
    windows = [entry["context_length"], entry["max_model_len"], entry["meta"]["n_ctx"]]
    assert windows == [loaded.worker.context_tokens] * 3
    assert (entry["object"], entry["loaded"]) == ("model", True)


@then("it looks the same when it is asked for alone")
def looks_the_same(loaded: Loaded, answer: httpx.Response) -> None:
    entry = entry_of(loaded, answer)
    alone = httpx.get(url(loaded.hive, f"models/{entry['id']}"), headers=HEADERS, timeout=60, trust_env=False)
    assert alone.json() == entry


@then(parsers.parse("it is refused with status {status:d} and the code {code}, and told not to try again"))
def is_refused(answer: httpx.Response, status: int, code: str) -> None:
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert error["message"]
    assert error.keys() >= {"type", "param"}
    assert answer.headers["x-should-retry"] == "false"


@then("it may send the headers of such clients")
def may_send(answer: httpx.Response) -> None:
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert answer.headers["access-control-allow-headers"].split(", ") == list(SENT_BY_CLIENTS)
    assert "POST" in answer.headers["access-control-allow-methods"]


@then("it has the numbers as little-endian bytes, four for each")
def is_bytes(answer: httpx.Response) -> None:
    [vector] = answer.json()["data"]
    assert struct.unpack("<2f", base64.b64decode(vector["embedding"])) == (5.0, 3.0)


@then("it hears comments before the first chunk")
def hears_comments(answer: httpx.Response) -> None:
    before, _, _ = answer.text.partition("data: ")
    assert set(before.split("\n")) == {":", ""}
    assert choices_of(answer)[-1]["finish_reason"] == "stop"
