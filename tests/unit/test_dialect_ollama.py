"""Ollama's codec alone: what a body becomes, the lines that parts become, and what is refused by name."""

import json
import math
from typing import Any

import ollama
import pytest

from rbee_core import wire
from rbee_core.dialects.ollama.durations import seconds_of
from rbee_core.dialects.ollama.embed import EmbedTalk
from rbee_core.dialects.ollama.errors import error_body
from rbee_core.dialects.ollama.models import Facts, Known, show_body, tags_body
from rbee_core.dialects.ollama.names import reference_of
from rbee_core.dialects.ollama.pull import progress_body
from rbee_core.dialects.ollama.work import ChatTalk, GenerateTalk
from rbee_core.dialects.parts import Arguments, CallBegins, End, Part, Reasoning, Text
from rbee_core.dialects.talk import Moment
from rbee_core.errors import InvalidRequest, ModelNotFound

MOMENT = Moment("r1", 1_700_000_000, "rbee-1")
HI = {"role": "user", "content": "hi"}
DONE = wire.StreamEvent(
    done=True, total_tokens=2, duration_ms=30, finish_reason="stop", prompt_tokens=9, first_token_ms=10
)
HEAD = '{"model":"m","created_at":"2023-11-14T22:13:20Z",'
FIGURES = (
    '"total_duration":30000000,"load_duration":0,"prompt_eval_count":9,"prompt_eval_duration":10000000,'
    '"eval_count":2,"eval_duration":20000000}'
)
ANSWER: list[Part] = [Text("a"), Text("é\n"), End("stop", DONE)]


def chat(**said: Any) -> ChatTalk:
    return ChatTalk.read(json.dumps({"model": "m", "messages": [HI], **said}).encode(), MOMENT)


def generate(**said: Any) -> GenerateTalk:
    return GenerateTalk.read(json.dumps({"model": "m", "prompt": "p", **said}).encode(), MOMENT)


def lines(talk: ChatTalk | GenerateTalk, parts: list[Part]) -> list[str]:
    return (talk.begins() + b"".join(talk.tells(0, [part]) for part in parts) + talk.ends()).decode().splitlines()


def test_the_lines_of_a_chat_are_these() -> None:
    assert lines(chat(), ANSWER) == [
        HEAD + '"message":{"role":"assistant","content":"a"},"done":false}',
        HEAD + '"message":{"role":"assistant","content":"é\\n"},"done":false}',
        HEAD + '"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop",' + FIGURES,
    ]


def test_the_lines_of_a_completion_are_these() -> None:
    assert lines(generate(), [Reasoning("hm"), *ANSWER[1:2], End("length", DONE)]) == [
        HEAD + '"response":"","thinking":"hm","done":false}',
        HEAD + '"response":"é\\n","done":false}',
        HEAD + '"response":"","done":true,"done_reason":"length",' + FIGURES,
    ]


@pytest.mark.parametrize("talk", [chat(stream=False), generate(stream=False)])
def test_an_answer_in_one_piece_is_what_the_package_expects(talk: ChatTalk | GenerateTalk) -> None:
    assert talk.tells(0, ANSWER) == b""
    answer = json.loads(talk.whole())
    if isinstance(talk, ChatTalk):
        assert ollama.ChatResponse(**answer).message.content == "aé\n"
    else:
        assert ollama.GenerateResponse(**answer).response == "aé\n"
    assert (answer["done"], answer["done_reason"], answer["eval_count"]) == (True, "stop", 2)


CALLS: list[Part] = [
    Text("so"),
    CallBegins(0, "look"), Arguments(0, '{"a"'), Arguments(0, ":1}"),
    CallBegins(1, "wait"),
    CallBegins(2, "odd"), Arguments(2, "[1"),
    End("tool_calls", DONE),
]  # fmt: skip


def test_rule_14_a_call_is_one_line_and_its_arguments_are_an_object() -> None:
    told = [json.loads(line) for line in lines(chat(), CALLS)]
    assert [line["message"].get("tool_calls") for line in told] == [
        None,
        [{"id": "call_r1_0", "function": {"index": 0, "name": "look", "arguments": {"a": 1}}}],
        [{"id": "call_r1_1", "function": {"index": 1, "name": "wait", "arguments": {}}}],
        None,
        None,
    ]
    assert told[3]["message"]["content"] == "odd([1)", "what is no object is told as it was written"
    assert told[-1]["done_reason"] == "stop"
    one = chat(stream=False)
    one.tells(0, CALLS)
    message = ollama.ChatResponse(**json.loads(one.whole())).message
    assert [call.function.arguments for call in message.tool_calls or ()] == [{"a": 1}, {}]
    assert message.content == "soodd([1)"


def test_a_silence_is_a_blank_that_belongs_to_the_next_line_and_an_error_is_the_last_one() -> None:
    talk = chat()
    assert json.loads(talk.still_here() * 3 + talk.tells(0, [Text("a")]))["message"]["content"] == "a"
    error = ModelNotFound(reference="m", why="it is gone")
    assert json.loads(talk.fails(error)) == error_body(error)
    assert talk.fails(error).endswith(b"\n")
    assert error_body(error)["code"] == "MODEL_NOT_FOUND"
    assert isinstance(error_body(error)["error"], str)


@pytest.mark.parametrize(
    ("said", "field", "value"),
    [
        ({"options": {"num_ctx": 512}}, "context_tokens", 512),
        ({"options": {"num_predict": 5}}, "max_tokens", 5),
        ({"options": {"num_predict": -1}}, "max_tokens", None),
        ({"options": {"num_predict": -2}}, "max_tokens", None),
        ({"options": {"temperature": 0}}, "temperature", 0),
        ({"options": {"top_k": 3}}, "top_k", 3),
        ({"options": {"top_p": 0.5}}, "top_p", 0.5),
        ({"options": {"min_p": 0.1}}, "min_p", 0.1),
        ({"options": {"seed": -7}}, "seed", (1 << 32) - 7),
        ({"options": {"seed": -1}}, "seed", None),
        ({"options": {"stop": ["x", ""]}}, "stop", ["x"]),
        ({"options": {"stop": "x"}}, "stop", ["x"]),
        ({"options": {"repeat_penalty": 1.5}}, "repeat_penalty", 1.5),
        ({"options": {"repeat_penalty": 1.5, "repeat_last_n": 0}}, "repeat_penalty", 1),
        ({"options": {"repeat_last_n": 8}}, "penalty_window", 8),
        ({"options": {"repeat_last_n": -1}}, "penalty_window", 1 << 20),
        ({"options": {"num_gpu": 99, "nobody_knows": []}}, "max_tokens", None),
        ({"format": "json"}, "json_schema", {"type": "object"}),
        ({"format": {"type": "number"}}, "json_schema", {"type": "number"}),
        ({"format": ""}, "json_schema", None),
        ({"think": True}, "template_arguments", {"enable_thinking": True}),
        ({"think": False}, "template_arguments", {"enable_thinking": False}),
        ({"think": "low"}, "template_arguments", {"enable_thinking": True, "reasoning_effort": "low"}),
        ({"logprobs": True, "top_logprobs": 2}, "logprobs", 2),
        ({"model": "m:latest"}, "model_ref", "m"),
    ],
)  # fmt: skip
def test_what_a_field_becomes(said: dict[str, Any], field: str, value: object) -> None:
    for talk in (chat(**said), generate(**said)):
        assert getattr(talk.wanted[0], field) == value


def test_nothing_said_leaves_everything_to_us() -> None:
    asked = wire.PoolInference(model_ref="m", request_id="r1", messages=[wire.ChatMessage(role="user", content="hi")])
    assert chat().wanted[0] == asked
    nothing = dict.fromkeys(("tools", "stream", "format", "options", "keep_alive", "think"))
    assert chat(**nothing).wanted[0] == asked
    assert chat().streams
    assert chat(stream=None).streams
    assert not chat(stream=False).streams
    empty = {"suffix": "", "system": "", "template": "", "context": [], "images": [], "raw": False}
    assert generate(prompt="hi", **empty).wanted[0] == asked, "as the package sends what its user left out"


def test_turns_and_tools_become_ours() -> None:
    call = {"function": {"name": "look", "arguments": {"a": 1}}}
    tool = {"type": "function", "function": {"name": "look", "description": "d", "parameters": {"type": "object"}}}
    asked = chat(
        tools=[tool],
        messages=[
            {"role": "system", "content": "be kind"},
            HI,
            {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [call, call]},
            {"role": "tool", "tool_name": "look", "content": "21"},
            {"role": "tool", "content": "22"},
        ],
    ).wanted[0]
    assert asked.tools == [wire.Tool(name="look", description="d", parameters={"type": "object"})]
    assert asked.messages is not None
    made = [wire.ToolCall(name="look", arguments='{"a":1}', id=f"call_2_{n}") for n in range(2)]
    assert asked.messages[2:] == [
        wire.ChatMessage(role="assistant", content="", reasoning="hm", tool_calls=made),
        wire.ChatMessage(role="tool", content="21", tool_call_id="call_2_0", tool_name="look"),
        wire.ChatMessage(role="tool", content="22", tool_call_id="call_2_1", tool_name="look"),
    ]


def test_a_prompt_is_answered_continued_or_filled_in() -> None:
    asked = generate(system="be kind").wanted[0]
    assert [(turn.role, turn.content) for turn in asked.messages or ()] == [("system", "be kind"), ("user", "p")]
    raw = generate(raw=True).wanted[0]
    assert (raw.prompt, raw.messages, raw.suffix) == ("p", None, None)
    filled = generate(suffix="end").wanted[0]
    assert (filled.prompt, filled.suffix) == ("p", "end")


@pytest.mark.parametrize("talk", [chat(messages=[]), chat(messages=None), generate(prompt=""), generate(prompt=None)])
def test_without_anything_to_answer_the_model_is_loaded(talk: ChatTalk | GenerateTalk) -> None:
    assert list(talk.wanted) == []
    assert json.loads(talk.only("load")) | {"message": 0, "response": 0} == {
        "model": "m", "created_at": "2023-11-14T22:13:20Z", "message": 0, "response": 0,
        "done": True, "done_reason": "load",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"model": None}, "`model` is missing"),
        ({"model": 5}, "`model`"),
        ({"options": {"temperature": 9}}, "`options.temperature`"),
        ({"options": {"temperature": "hot"}}, "`options.temperature`"),
        ({"options": {"num_predict": 0}}, "`options.num_predict`"),
        ({"options": {"num_ctx": -4}}, "`options.num_ctx`"),
        ({"format": "yaml"}, "`format`"),
        ({"keep_alive": "soon"}, "`keep_alive`"),
        ({"messages": [{"role": "king", "content": "x"}]}, r"`messages\[0\].role`"),
        ({"messages": [{**HI, "images": ["YQ=="]}]}, r"`messages\[0\].images` is not supported"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages"),
        ({"tools": [{"type": "function"}]}, "tools"),
    ],
)
def test_what_is_wrong_is_refused_by_name(said: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        chat(**said)


@pytest.mark.parametrize("field", ["template", "context", "images", "width"])
def test_what_a_completion_cannot_have_is_refused_by_name(field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"`{field}` is not supported"):
        generate(**{field: [1]})


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (None, None), ("", None), (0, 0), ("0", 0), (30, 30), ("5m", 300), ("1h30m", 5400), ("1.5s", 1.5),
        ("500ms", 0.5), (-1, math.inf), ("-1", math.inf), ("-1m", math.inf), ("300", 300),
    ],
)  # fmt: skip
def test_how_long_a_model_is_kept(said: Any, seconds: float | None) -> None:
    assert seconds_of(said) == seconds
    assert chat(keep_alive=said).body.kept_s == seconds


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("smollm2", "smollm2"), ("smollm2:latest", "smollm2"), ("hf.co/a/b:Q4_K_M", "hf:a/b:Q4_K_M"),
        ("huggingface.co/a/b", "hf:a/b"), ("hf:a/b", "hf:a/b"),
    ],
)  # fmt: skip
def test_names_as_clients_write_them(name: str, ours: str) -> None:
    assert reference_of(name) == ours


def embed(**said: Any) -> EmbedTalk:
    return EmbedTalk.read(json.dumps({"model": "m", **said}).encode(), MOMENT)


def test_vectors_come_in_the_order_of_the_texts() -> None:
    talk = embed(input=["x", "y"], dimensions=2)
    assert talk.wanted is not None
    assert (talk.wanted.texts, talk.wanted.normalize) == (["x", "y"], True)
    talk.take([[0.0, 0.0, 1.0], [3.0, 4.0, 9.0]], DONE)
    answer = ollama.EmbedResponse(**json.loads(talk.whole()))
    assert answer.embeddings == [[0.0, 0.0], [0.6, 0.8]]
    assert answer.prompt_eval_count == 9
    assert embed(input=[]).wanted is None
    older = EmbedTalk.read_older(b'{"model": "m", "prompt": "x"}', MOMENT)
    older.take([[3.0, 4.0]], DONE)
    assert json.loads(older.whole()) == {"embedding": [3.0, 4.0]}
    with pytest.raises(InvalidRequest, match="`input"):
        embed(input=["x", ""])


def known(**facts: Any) -> Known:
    return Known("m", 5, "gguf", 4096, 1_700_000_000, "", Facts(**facts))


def test_strict_clients_find_every_field_also_where_nothing_is_known() -> None:
    [model] = tags_body([known()])["models"]
    assert set(model) == {"name", "model", "modified_at", "size", "digest", "details"}
    assert model["modified_at"] == "2023-11-14T22:13:20Z"
    assert len(model["digest"]) == 64
    assert model["details"] == {
        "parent_model": "", "format": "gguf", "family": "", "families": [],
        "parameter_size": "", "quantization_level": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("metadata", "capabilities"),
    [
        ({}, ["completion"]),
        ({"tokenizer.chat_template": "{% if tools %}"}, ["completion", "tools"]),
        ({"tokenizer.chat_template": "<think> tools"}, ["completion", "tools", "thinking"]),
        ({"tokenizer.ggml.fim_pre_token_id": 3}, ["completion", "insert"]),
        ({"general.architecture": "bert"}, ["embedding"]),
        ({"general.architecture": "qwen3", "qwen3.pooling_type": 3}, ["embedding"]),
    ],
)
def test_what_a_model_can_do(metadata: dict[str, Any], capabilities: list[str]) -> None:
    assert show_body(known(metadata=metadata))["capabilities"] == capabilities


def test_the_context_that_is_shown_is_the_one_that_can_be_used() -> None:
    facts = {"general.architecture": "llama", "llama.context_length": 131_072, "llama.block_count": 30}
    told = show_body(known(metadata=facts, parameters=134_515_008))
    assert told["model_info"]["llama.context_length"] == 4096
    assert told["model_info"]["llama.block_count"] == 30
    assert told["details"]["parameter_size"] == "134.5M"


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({}, "pulling hf:a/b"),
        ({"queue_position": 2}, "waiting to pull hf:a/b: number 2 in line"),
        ({"trouble": "the line broke; again in 2 s"}, "pulling hf:a/b: the line broke; again in 2 s"),
    ],
)
def test_a_download_has_one_bar_whatever_it_waits_for(said: dict[str, Any], status: str) -> None:
    progress = wire.DownloadProgress(
        id="d1", reference="hf:a/b", state="running", done_bytes=3, total_bytes=9, file="x", **said
    )
    told = ollama.ProgressResponse(**progress_body(progress, "ab"))
    assert (told.status, told.digest, told.completed, told.total) == (status, "sha256:ab", 3, 9)


def test_calls_are_told_from_text_as_the_models_style_says() -> None:
    talk = chat(tools=[{"type": "function", "function": {"name": "look"}}])
    reader = talk.reader(0)
    said = ['<tool_call>\n{"name": "look", "arg', 'uments": {"a": 1}}\n</tool_call>']
    events = [
        wire.StreamEvent(style=wire.Style(tools="hermes")),
        *(wire.StreamEvent(token=text) for text in said),
        DONE,
    ]
    told = lines(talk, [part for event in events for part in reader.feed(event)])
    calls = [call for line in told for call in json.loads(line)["message"].get("tool_calls", ())]
    assert [call["function"] for call in calls] == [{"index": 0, "name": "look", "arguments": {"a": 1}}]
    assert not any("tool_call>" in line for line in told)
