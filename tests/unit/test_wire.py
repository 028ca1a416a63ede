"""Decoding what others send: whatever is wrong with it, it is an `InvalidRequest` and nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee_core import wire
from rbee_core.errors import InvalidRequest

HOSTILE = {
    "empty": b"",
    "not JSON": b"prompt=hi",
    "truncated": b'{"prompt": "hi"',
    "trailing data": b'{"prompt": "hi"} x',
    "two objects": b'{"prompt": "hi"}{"prompt": "ho"}',
    "an array": b"[]",
    "null": b"null",
    "NaN": b'{"prompt": "hi", "temperature": NaN}',
    "Infinity": b'{"prompt": "hi", "temperature": Infinity}',
    "1e999": b'{"prompt": "hi", "temperature": 1e999}',
    "depth": b"[" * 100_000,
    "depth in a field": b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "depth of objects": b'{"a":' * 100_000,
    "lone surrogate": b'{"prompt": "\\ud800"}',
    "bad UTF-8": b'{"prompt": "\xff\xfe"}',
    "bad UTF-8 in a key": b'{"\xff": 1}',
    "UTF-16": '{"prompt": "hi"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"prompt": "hi"}',
    "NUL": b"\x00",
    "raw control character": b'{"prompt": "a\nb"}',
    "5000 digits": b'{"prompt": "hi", "seed": ' + b"9" * 5000 + b"}",
    "5000 digit exponent": b'{"prompt": "hi", "temperature": 1e' + b"9" * 5000 + b"}",
    "unknown key": b'{"prompt": "hi", "n_discard": -1}',
    "unknown key in a message": b'{"messages": [{"role": "user", "content": "hi", "name": "x"}]}',
    "wrong type": b'{"prompt": 5}',
    "number as text": b'{"prompt": "hi", "seed": "1"}',
    "true as number": b'{"prompt": "hi", "max_tokens": true}',
    "comment": b'{"prompt": "hi" /* */}',
    "single quotes": b"{'prompt': 'hi'}",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("shape", [wire.InferenceRequest, wire.SpawnRequest, wire.WorkerReady])
def test_hostile_bodies(body: bytes, shape: type[object]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        wire.decode(body, shape)
    assert len(wire.encode(caught.value.body())) < 2000


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt": "a", "prompt": "b"}',
        b'{"prompt": "a", "pro\\u006dpt": "a"}',
        b'{"messages": [{"role": "user", "content": "a", "role": "user"}]}',
    ],
)
def test_c3_a_name_that_stands_twice_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="stands twice"):
        wire.decode(body, wire.InferenceRequest)


def test_b5_what_is_no_unicode_text_is_escaped() -> None:
    path = b"/home/\xff/worker.log".decode("utf-8", "surrogateescape")
    ready = wire.DownloadProgress(id="", reference="é", state="done", done_bytes=1, total_bytes=1, file=path)
    assert wire.decode(wire.encode(ready), wire.DownloadProgress).file == "/home/\\udcff/worker.log"


# Ranges: (field, refused values, accepted values).
RANGES: list[tuple[str, list[object], list[object]]] = [
    ("temperature", [-0.1, 2.1, "1"], [0, 0.0, 2, None]),
    ("top_k", [-1, 0.5, 1 << 21], [0, 40]),
    ("top_p", [-0.1, 1.1], [0, 1]),
    ("min_p", [-0.1, 1.1], [0, 1]),
    ("repeat_penalty", [0, -1, 11], [0.1, 10]),
    ("seed", [-1, 1 << 32, 1.5], [0, (1 << 32) - 1, None]),
    ("frequency_penalty", [-2.1, 2.1], [-2, 2]),
    ("presence_penalty", [-2.1, 2.1], [-2, 2]),
    ("penalty_window", [0, -1, 1.5], [1, 64]),
    ("logit_bias", [{"a": 1}, {"-1": 1}, {"5": 101}, {"5": "1"}, {str(n): 1 for n in range(4097)}], [{}]),
    ("typical_p", [0, 1.1], [0.1, 1]),
    ("top_n_sigma", [-1, 101], [0, 2.5]),
    ("xtc_probability", [-0.1, 1.1], [0, 1]),
    ("xtc_threshold", [-0.1, 0.6], [0, 0.5]),
    ("dry_multiplier", [-1, 101], [0, 0.8]),
    ("dry_base", [0.9, 11], [1, 1.75]),
    ("dry_allowed_length", [0, 1025], [1]),
    ("dry_window", [0, -1], [1]),
    ("dry_breakers", ["x", [""], ["x"] * 17, ["x" * 41], ["é" * 21]], []),
    ("mirostat", [3, -1, True, "2"], [0, 1, 2]),
    ("mirostat_tau", [0, 21], [5]),
    ("mirostat_eta", [0, 1.1], [0.1]),
    ("min_tokens", [-1, 1 << 25], [0, 5]),
    ("ignore_eos", [1, "yes"], [True]),
    ("logprobs", [-1, 21, True, 1.5], [0, 20, None]),
    ("grammar", ["", "x" * 65_537], ["root ::= .", None]),
    ("json_schema", [True, [], "{}"], [{}, {"type": "object"}, None]),
    ("regex", ["", "x" * 4097], ["a+", None]),
    ("max_tokens", [0, -1, 1 << 25], [1, None]),
    ("stop", ["x", [""], ["x" * 257], ["x"] * 17, [1]], [[], ["x" * 256] * 16]),
    ("timeout_s", [0, -1, 86_401], [0.1, None]),
    ("request_id", ["", "a b", "a\n", "é", "x" * 65, "../x"], ["a-B_9", None]),
    ("prompt", ["", "  \n"], ["x"]),
    ("reuse_prompt", [0, "no", None], [True, False]),
    ("suffix", [1, []], ["", "x", None]),
    ("chat_template", ["", "never", True], ["if_any", "required", None]),
]
REFUSED = [(name, value) for name, refused, _ in RANGES for value in refused]
ACCEPTED = [(name, value) for name, _, accepted in RANGES for value in accepted]


def decode(**fields: object) -> wire.InferenceRequest:
    return wire.decode(json.dumps({"prompt": "hi", **fields}).encode(), wire.InferenceRequest)


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_out_of_range(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest):
        decode(**{name: value})


@pytest.mark.parametrize(("name", "value"), ACCEPTED)
def test_in_range(name: str, value: object) -> None:
    assert getattr(decode(**{name: value}), name) == value


def test_a_new_field_of_an_inference_has_its_range_tested() -> None:
    tested = {name for name, _, _ in RANGES}
    assert tested | {"messages", "tools", "template_arguments"} == set(wire.InferenceRequest.__struct_fields__)


TURN = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"messages": [{"role": "developer", "content": "x"}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": " "}, {"role": "assistant", "content": ""}]},
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"name": ""}]}]},
        {"messages": [TURN], "tools": [{"name": "x" * 257}]},
        {"messages": [TURN], "tools": [{"name": "x", "parameters": []}]},
        {"messages": [TURN], "tools": [{"name": "x"}] * 513},
        {"messages": [TURN], "template_arguments": {str(n): n for n in range(65)}},
        {"prompt": "x", "tools": [{"name": "x"}]},
        {"prompt": "x", "template_arguments": {"a": 1}},
    ],
)
def test_conversations_that_are_none(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        wire.decode(json.dumps(fields).encode(), wire.InferenceRequest)


def nested(levels: int) -> dict[str, object]:
    schema: dict[str, object] = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"grammar": "root ::= .", "regex": "."}, "at most one of grammar, regex"),
        ({"mirostat": 2, "temperature": 0}, "mirostat needs a temperature"),
        ({"json_schema": nested(49)}, "more than 48 deep"),
        ({"json_schema": nested(900)}, "more than 48 deep"),
        ({"json_schema": {"enum": ["x" * 70_000]}}, "more than 65536 bytes"),
        ({"json_schema": {"a": {str(n): {} for n in range(513)}}}, "more than 512 entries"),
    ],
)
def test_what_does_not_go_together_or_is_too_large(fields: dict[str, object], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        decode(**fields)


def test_what_is_nested_deeper_than_anybody_who_walks_through_it_has_room_for_is_refused() -> None:
    talk = {"prompt": None, "messages": [{"role": "user", "content": "x"}], "template_arguments": nested(128)}
    with pytest.raises(InvalidRequest, match="more than 128 deep"):
        decode(**talk)


def test_what_is_just_small_enough_is_taken() -> None:
    assert decode(json_schema=nested(47)).json_schema
    assert wire.decode(json.dumps({"a": nested(126)}).encode(), dict[str, object])
    beside = {'[{"\\': '[{"\\' * 200, "list": [[]] * 200}
    assert wire.decode(json.dumps(beside).encode(), dict[str, object]) == beside
    assert decode(logit_bias={"5": -100}).logit_bias == {5: -100}
    assert decode(dry_breakers=["\n"]).dry_breakers == ("\n",)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": None},
        {"prompt": "", "suffix": " "},
        {"prompt": "x", "suffix": "y", "chat_template": "if_any"},
        {"prompt": None, "messages": [{"role": "user", "content": "hi"}], "suffix": "y"},
        {"messages": [{"role": "user", "content": "hi"}]},
        {"prompt": None, "messages": []},
        {"prompt": None, "messages": [{"role": "user", "content": " "}]},
        {"prompt": None, "messages": [{"role": "root", "content": "hi"}]},
        {"prompt": None, "messages": [{"role": "user", "content": "hi"}] * (wire.MOST_MESSAGES + 1)},
    ],
)
def test_exactly_one_way_to_say_what_to_generate(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        decode(**fields)


def test_build_checks_as_decode_does() -> None:
    assert wire.build(wire.InferenceRequest, prompt="hi", seed=None).seed is None
    for fields in ({"prompt": "hi", "temperature": float("nan")}, {"prompt": "hi", "seed": -1}, {"promt": "hi"}):
        with pytest.raises(InvalidRequest):
            wire.build(wire.InferenceRequest, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 2.5}, "Invalid --temperature: expected `float` <= 2.0"),
        ({"stop": ["ok", ""]}, "Invalid --stop: expected `str` of length >= 1"),
        ({"seed": 1, "top_k": -1}, "Invalid --top_k: expected `int` >= 0"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "Invalid request: give exactly one of prompt and messages"),
    ],
)
def test_build_calls_a_wrong_field_as_it_is_told(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        wire.build(wire.InferenceRequest, lambda field: f"--{field}", prompt="hi", **fields)
    assert caught.value.message == message


@pytest.mark.parametrize(
    "body",
    [
        {"model_ref": ""},
        {"model_ref": "x" * 4097},
        {"model_ref": "a", "device": -1},
        {"model_ref": "a", "device": 1024},
        {"model_ref": "a", "context_tokens": 0},
        {"model_ref": "a", "backend": "x" * 65},
        {"model_ref": "a", "extra_args": ["--log-file=/x"]},
        {},
    ],
)
def test_bad_spawns(body: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        wire.decode(json.dumps(body).encode(), wire.SpawnRequest)


def test_a_client_takes_what_a_newer_server_adds() -> None:
    data = b'{"status": "alive", "version": "9", "api_version": "v1", "mood": "good"}'
    assert wire.decode(data, wire.Health).version == "9"


@given(st.text())
def test_text_survives_the_wire(text: str) -> None:
    encoded = wire.encode(wire.TokenEvent(token=text, index=0))
    assert b"\n" not in encoded
    assert b"\r" not in encoded
    assert wire.decode(encoded, wire.TokenEvent).token == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(body=st.dictionaries(st.sampled_from(wire.InferenceRequest.__struct_fields__), JSON, max_size=6))
def test_any_json_is_taken_or_refused(body: dict[str, object]) -> None:
    try:
        request = wire.decode(json.dumps(body).encode(), wire.InferenceRequest)
    except InvalidRequest:
        return
    assert request.temperature is None or 0 <= request.temperature <= 2


@given(st.binary(max_size=200))
def test_any_bytes_are_taken_or_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        wire.decode(data, wire.WorkerReady)


@pytest.mark.parametrize("texts", [[], [""], ["x"] * 2049, "x", [1], None])
def test_texts_that_are_none_get_no_vector(texts: object) -> None:
    with pytest.raises(InvalidRequest):
        wire.decode(json.dumps({"model_ref": "m", "texts": texts}).encode(), wire.PoolEmbed)


@pytest.mark.parametrize(
    "tuning",
    [
        {"cache_type_k": "q9"},
        {"flash_attention": 1},
        {"lora": [{"path": "relative.gguf"}]},
        {"pooling": "rank"},
        {"x": 1},
    ],
)
def test_what_no_worker_can_be_tuned_to_is_refused(tuning: object) -> None:
    with pytest.raises(InvalidRequest):
        wire.decode(json.dumps({"model_ref": "m", "tuning": tuning}).encode(), wire.SpawnRequest)
