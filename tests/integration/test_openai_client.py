"""OpenAI's own package against a hive: the real model where text matters, scripted workers where time does."""

import json
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import openai
import pytest

from rbee_kit.program import Hive, Home
from rbee_kit.waiting import eventually

SHORT = {"model": "smollm2", "messages": [{"role": "user", "content": "Say hi"}], "max_tokens": 6, "temperature": 0}


def client_of(hive: Hive, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{hive.port}/v1", api_key="none", max_retries=0, **options)


@pytest.fixture
def hive(home: Home) -> Hive:
    return home.start_hive()


@pytest.fixture
def client(hive: Hive) -> Iterator[openai.OpenAI]:
    with client_of(hive) as client:
        yield client


def scripted(script: str, **fields: Any) -> dict[str, Any]:
    return {"model": f"scripted:{script}", "messages": [{"role": "user", "content": "hello"}], **fields}


def test_models_and_a_chat_with_the_real_one(client: openai.OpenAI, hive: Hive) -> None:
    [model] = client.models.list().data
    assert model.id == "smollm2"
    facts = model.model_dump()
    window = facts["context_length"]
    assert window == facts["max_model_len"] == facts["meta"]["n_ctx"] > 0
    for name in ("smollm2", facts["names"][-1]):
        assert client.models.retrieve(name).id == "smollm2"

    raw = client.chat.completions.with_raw_response.create(**SHORT, extra_headers={"X-Request-Id": "my-name"})
    assert raw.headers["x-request-id"] == "my-name"
    answer = raw.parse()
    assert answer.id == "chatcmpl-my-name"
    [choice] = answer.choices
    assert choice.finish_reason == "length"
    assert choice.message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 6
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 6
    assert client.models.list().data[0].model_dump()["loaded"]
    with pytest.raises(openai.BadRequestError, match="was not made for vectors"):
        client.embeddings.create(model="smollm2", input="a bee")
    assert len(hive.client.list_workers()) == 1, "no second one is loaded to refuse it"

    chunks = list(client.chat.completions.create(**SHORT, stream=True, stream_options={"include_usage": True}))
    *told, usage = chunks
    assert "".join(c.choices[0].delta.content or "" for c in told) == choice.message.content
    assert told[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in told] == [None] * (len(told) - 1) + ["length"]
    assert usage.usage is not None
    assert usage.usage.completion_tokens == 6
    cached = usage.usage.prompt_tokens_details
    assert cached is not None
    assert cached.cached_tokens, "the second turn read the prompt of the first from the cache"
    assert usage.model_dump()["timings"]["predicted_n"] == 6

    likely = client.chat.completions.create(**SHORT, logprobs=True, top_logprobs=2).choices[0].logprobs
    assert likely is not None
    assert likely.content is not None
    assert [len(token.top_logprobs) for token in likely.content] == [2] * 6
    assert "".join(token.token for token in likely.content) == choice.message.content

    seeded = [client.chat.completions.create(**{**SHORT, "temperature": 1, "max_tokens": 4}, seed=7) for _ in range(2)]
    assert len({a.choices[0].message.content for a in seeded}) == 1
    several = client.chat.completions.create(**{**SHORT, "temperature": 1, "max_tokens": 2}, n=2)
    assert [c.index for c in several.choices] == [0, 1]
    merged = client.chat.completions.create(**SHORT, n=2, stream=True)
    assert {c.choices[0].index for c in merged} == {0, 1}

    schema = {"type": "object", "properties": {"bees": {"enum": [1, 2]}}, "required": ["bees"]}
    form: Any = {"type": "json_schema", "json_schema": {"name": "count", "schema": schema, "strict": True}}
    fitting = client.chat.completions.create(**{**SHORT, "max_tokens": 40}, response_format=form)
    assert json.loads(fitting.choices[0].message.content or "")["bees"] in (1, 2)
    forced_calls(client)


PLACE = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
LOOK: Any = {"type": "function", "function": {"name": "look", "description": "the weather", "parameters": PLACE}}
NOW: Any = {"type": "function", "function": {"name": "now"}}


def forced_calls(client: openai.OpenAI) -> None:
    """Even a model of 135M parameters calls what it has to call, with arguments that fit; and hears what came of it."""
    asked = {**SHORT, "max_tokens": 60}
    named: Any = {"type": "function", "function": {"name": "look"}}
    answer = client.chat.completions.create(**asked, tools=[LOOK, NOW], tool_choice=named).choices[0]
    assert answer.finish_reason == "tool_calls"
    [call] = answer.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "look"
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")

    with client.chat.completions.stream(**asked, tools=[LOOK, NOW], tool_choice="required") as stream:
        final = stream.get_final_completion().choices[0]
    [chosen] = final.message.tool_calls or []
    assert chosen.function.name in ("look", "now")
    assert isinstance(json.loads(chosen.function.arguments), dict)

    turns: Any = [
        *SHORT["messages"],
        answer.message.to_dict(),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    told = client.chat.completions.create(**{**SHORT, "messages": turns}, tools=[LOOK, NOW])
    assert told.choices[0].finish_reason in ("length", "stop", "tool_calls")


@pytest.mark.scripted
def test_texts_are_gone_on_with_and_have_vectors(client: openai.OpenAI) -> None:
    model = "scripted:text=one two"
    answer = client.completions.create(model=model, prompt=["a", "b"], echo=True)
    assert [choice.text for choice in answer.choices] == ["aone two ", "bone two "]
    told = list(client.completions.create(model=model, prompt="a", stream=True))
    assert "".join(chunk.choices[0].text for chunk in told) == "one two "
    assert told[-1].choices[0].finish_reason == "stop"

    vectors = client.embeddings.create(model="scripted:", input=["a bee", "honey"])  # which it asks for as base64
    assert [one.embedding for one in vectors.data] == [[5.0, 3.0], [5.0, 5.0]]
    plain = client.embeddings.create(model="scripted:", input="a bee", encoding_format="float")
    assert plain.data[0].embedding == [5.0, 3.0]


@pytest.mark.scripted
def test_an_answer_without_a_limit_goes_on_to_its_end(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**scripted("tokens=300"))
    assert answer.usage is not None
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (300, "stop")
    answer = client.chat.completions.create(**scripted("text=one two three four"), stop=["three"])
    assert answer.choices[0].message.content == "one two "


@pytest.mark.scripted
def test_refusals_are_the_clients_own_exceptions(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="GET /v1/models") as missing:
        client.chat.completions.create(**{**SHORT, "model": "gpt-4o"})
    assert missing.value.code == "MODEL_NOT_FOUND"
    with pytest.raises(openai.NotFoundError, match="rbee models pull hf:someone/something"):
        client.chat.completions.create(**{**SHORT, "model": "hf:someone/something"})
    with pytest.raises(openai.BadRequestError, match="temperature") as wrong:
        client.chat.completions.create(**{**SHORT, "temperature": 9})
    assert (wrong.value.code, wrong.value.param) == ("INVALID_REQUEST", "temperature")
    with pytest.raises(openai.UnprocessableEntityError, match="json_schema") as lacking:
        client.chat.completions.create(**scripted(""), response_format={"type": "json_object"})
    assert lacking.value.code == "NOT_SUPPORTED"
    with pytest.raises(openai.BadRequestError, match="context holds 4096") as long:
        client.chat.completions.create(**scripted("") | {"messages": [{"role": "user", "content": "a " * 5000}]})
    assert long.value.code == "PROMPT_TOO_LONG"


@pytest.mark.scripted
def test_a_load_that_fails_and_a_deadline_are_said_with_their_status(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="no such luck"):
        client.chat.completions.create(**scripted("load_error=no such luck"))
    with pytest.raises(openai.APIStatusError) as late:
        client.chat.completions.create(**scripted("token_ms=3600000"), extra_headers={"X-Request-Timeout": "0.5"})
    assert late.value.status_code == 408
    assert late.value.response.headers["x-should-retry"] == "false"


@pytest.mark.scripted
def test_a_worker_that_dies_within_an_answer_ends_the_stream_with_an_error_and_the_next_one_works(
    client: openai.OpenAI,
) -> None:
    stream = client.chat.completions.create(**scripted("crash_at_token=3:KILL;token_ms=100"), stream=True)
    said: list[str] = []
    with pytest.raises(openai.APIError) as broken:
        said.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert broken.value.code == "WORKER_CRASHED"
    assert client.chat.completions.create(**scripted("")).choices[0].finish_reason == "stop"


def raw_stream(hive: Hive, body: dict[str, Any]) -> Iterator[bytes]:
    """Yield the lines of an answer as they come, headers first."""
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", hive.port), 60) as connection, connection.makefile("rb") as answer:
        connection.sendall(head.encode() + data)
        yield from answer


@pytest.mark.scripted
def test_rule_4_every_silent_phase_is_heard_to_live(hive: Hive) -> None:
    lines = list(raw_stream(hive, scripted("load_s=1.5;prefill_s=1.5;tokens=2", stream=True)))
    assert lines[0].startswith(b"HTTP/1.1 200")
    comments = [n for n, line in enumerate(lines) if line == b":\n"]
    first = next(n for n, line in enumerate(lines) if line.startswith(b"data: "))
    assert len([n for n in comments if n < first]) >= 2
    assert not any(line.startswith(b"id:") for line in lines), "which clients would take together with comments"


@pytest.mark.scripted
def test_a_name_that_runs_may_be_used_again_and_ends_all_who_are_called_so(
    hive: Hive, client: openai.OpenAI, home: Home
) -> None:
    named: dict[str, Any] = {"extra_headers": {"X-Request-Id": "mine"}, "stream": True}
    endless = scripted("tokens=inf;token_ms=20")
    streams = [client.chat.completions.create(**endless, **named) for _ in range(2)]  # of which one waits
    assert [stream.response.headers["x-request-id"] for stream in streams] == ["mine", "mine"]
    assert next(streams[0]).id == "chatcmpl-mine"
    assert urlopen(Request(f"http://127.0.0.1:{hive.port}/v1/inference/mine", method="DELETE")).status == 204
    for stream in streams:
        with pytest.raises(openai.APIError) as ended:
            list(stream)
        assert ended.value.code == "REQUEST_CANCELED"
    inside = set(re.findall(r"request (mine-\w+) of", (home.path / "logs" / "hive.log").read_text()))
    assert len(inside) == 2


@pytest.mark.scripted
def test_who_leaves_frees_the_slot_and_who_waits_hears_that_it_lives(hive: Hive) -> None:
    endless = scripted("tokens=inf;token_ms=20;slots=1", stream=True)
    holder = raw_stream(hive, endless)
    assert any(line.startswith(b"data: ") for line in holder)
    waiter = raw_stream(hive, endless)
    assert next(line for line in waiter if line in (b":\n", b"data: \n")) == b":\n", "it waits in the queue"
    holder.close()
    assert any(line.startswith(b"data: ") for line in waiter)
    waiter.close()
    eventually(lambda: [w.state for w in hive.client.list_workers()] == ["idle"], what="both are forgotten")
