"""Anthropic's own package against a hive, with ANTHROPIC_BASE_URL as its only set-up."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from rbee_kit.program import Hive, Home

SHORT: dict[str, Any] = {
    "model": "smollm2",
    "messages": [{"role": "user", "content": "Say hi"}],
    "max_tokens": 6,
    "extra_body": {"temperature": 0},
}
COUNT_BEES: Any = {
    "name": "count",
    "description": "says how many bees there are",
    "input_schema": {
        "type": "object",
        "properties": {"bees": {"enum": [1, 2]}},
        "required": ["bees"],
        "additionalProperties": False,
    },
}


def short(**fields: Any) -> dict[str, Any]:
    return SHORT | fields


@pytest.fixture
def hive(home: Home) -> Hive:
    return home.start_hive()


@pytest.fixture
def client(hive: Hive, monkeypatch: pytest.MonkeyPatch) -> Iterator[anthropic.Anthropic]:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", f"http://127.0.0.1:{hive.port}")
    with anthropic.Anthropic(api_key="none", max_retries=0) as client:
        yield client


def scripted(script: str, **fields: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": "hello"}]
    return {"model": f"scripted:{script}", "messages": said, "max_tokens": 1000, **fields}


def test_a_message_its_stream_its_count_and_a_tool_with_the_real_model(client: anthropic.Anthropic) -> None:
    [model] = client.models.list(extra_headers={"anthropic-beta": "any-2026-01-01"}).data
    assert (model.id, client.models.retrieve("smollm2").id) == ("smollm2", "smollm2")

    raw = client.messages.with_raw_response.create(**SHORT, extra_headers={"X-Request-Id": "my-name"})
    assert raw.headers["request-id"] == "my-name"
    message = raw.parse()
    assert (message.id, message.stop_reason, message.usage.output_tokens) == ("msg_my-name", "max_tokens", 6)
    [block] = message.content
    assert block.type == "text"

    with client.messages.stream(**SHORT) as stream:
        kinds = [event.type for event in stream]
        told = stream.get_final_message()
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert [b.text for b in told.content if b.type == "text"] == [block.text]
    assert told.usage.cache_read_input_tokens, "the second turn read the prompt of the first from the cache"
    read = told.usage.input_tokens + told.usage.cache_read_input_tokens

    asked = {"model": SHORT["model"], "messages": SHORT["messages"]}
    assert client.messages.count_tokens(**asked).input_tokens == read
    with_system = client.messages.count_tokens(**asked, system="You are kind.").input_tokens
    with_tools = client.messages.count_tokens(**asked, system="You are kind.", tools=[COUNT_BEES]).input_tokens
    assert with_tools > with_system != read
    long: Any = [{"role": "user", "content": "bees " * 20_000}]
    assert client.messages.count_tokens(model="smollm2", messages=long).input_tokens > 20_000, "no context has so much"

    assert block.text.strip()
    word = block.text.split()[0]
    stopped = client.messages.create(**SHORT, stop_sequences=[word])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", word)

    choices: list[Any] = [{"type": "tool", "name": "count"}, {"type": "any"}]
    for choice in choices:
        with client.messages.stream(**short(tools=[COUNT_BEES], max_tokens=40), tool_choice=choice) as calling:
            called = calling.get_final_message()
        assert called.stop_reason == "tool_use"
        [use] = called.content
        assert use.type == "tool_use"
        assert (use.name, use.input["bees"] in (1, 2)) == ("count", True)
        result = {"type": "tool_result", "tool_use_id": use.id, "content": "right"}
        blocks = [use.model_dump(exclude_none=True)]
        turns = [*SHORT["messages"], {"role": "assistant", "content": blocks}, {"role": "user", "content": [result]}]
        assert client.messages.create(**short(tools=[COUNT_BEES], max_tokens=4, messages=turns)).usage.output_tokens


@pytest.mark.scripted
def test_refusals_are_the_clients_own_exceptions(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="GET /v1/models") as missing:
        client.messages.create(**short(model="claude-of-somebody-else"))
    body: Any = missing.value.body
    assert (body["type"], body["error"]["type"], body["error"]["code"]) == (
        "error",
        "not_found_error",
        "MODEL_NOT_FOUND",
    )
    assert body["request_id"] == missing.value.request_id
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        client.messages.create(**short(extra_body={"temperature": 9}))
    image = {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/bee.png"}}
    with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\]\.content\[0\]\.image"):
        client.messages.create(**short(messages=[{"role": "user", "content": [image]}]))
    with pytest.raises(anthropic.BadRequestError, match="context holds 4096"):
        client.messages.create(**scripted("", messages=[{"role": "user", "content": "a " * 5000}]))
    with pytest.raises(anthropic.UnprocessableEntityError, match="cannot count") as unable:
        client.messages.count_tokens(model="scripted:", messages=[{"role": "user", "content": "hello"}])
    counting: Any = unable.value.body
    assert counting["error"]["code"] == "NOT_SUPPORTED"
    assert (
        client.messages.create(**scripted("text=one two three four"), stop_sequences=["three"]).stop_sequence == "three"
    )


@pytest.mark.scripted
def test_a_worker_that_dies_within_an_answer_is_an_error_event_and_the_next_one_works(
    client: anthropic.Anthropic,
) -> None:
    stream = client.messages.create(**scripted("crash_at_token=3:KILL;token_ms=100"), stream=True)
    kinds: list[str] = []
    with pytest.raises(anthropic.APIStatusError) as broken:
        kinds.extend(event.type for event in stream)
    body: Any = broken.value.body
    assert (body["error"]["type"], body["error"]["code"]) == ("api_error", "WORKER_CRASHED")
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert client.messages.create(**scripted("")).stop_reason == "end_turn"


@pytest.mark.scripted
def test_rule_4_every_silent_phase_has_pings(hive: Hive) -> None:
    data = json.dumps(scripted("load_s=1.5;prefill_s=1.5;tokens=2", stream=True)).encode()
    head = (
        f"POST /v1/messages?beta=true HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"anthropic-version: 2023-06-01\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", hive.port), 60) as connection, connection.makefile("rb") as answer:
        connection.sendall(head.encode() + data)
        lines = list(answer)
    assert lines[0].startswith(b"HTTP/1.1 200")
    kinds = [line.split()[1].decode() for line in lines if line.startswith(b"event: ")]
    assert kinds[0] == "message_start"
    assert kinds.index("content_block_start") >= 3, "pings while it loads and reads"
    assert set(kinds[1 : kinds.index("content_block_start")]) == {"ping"}
    assert kinds[-2:] == ["message_delta", "message_stop"]
