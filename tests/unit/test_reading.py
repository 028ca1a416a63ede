"""Outputs as models write them become the same parts wherever they are cut.

The texts are in the notations that the models' own cards and chat templates show: Qwen2.5 and Qwen3 (Hermes'),
Qwen3-Coder, Mistral 7B v0.3 and Small 3, Llama 3.1, gpt-oss.
"""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee_core import wire
from rbee_core.backend.talk import TOOL_STYLES, Message, Tool, ToolCall, gentler, offers, style_of, turns
from rbee_core.dialects.parts import Collected, Reader, Text
from rbee_core.dialects.reading.reader import NOTATIONS, ForcedReader, StyledReader
from rbee_core.dialects.tools import Choice, Offer
from rbee_core.errors import InvalidRequest

WEATHER = wire.Tool(
    name="get_weather",
    parameters={"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
)
LOOK = ("get_weather", {"city": "Paris"})
THINK = ("<think>", "</think>")
Call = tuple[str, dict[str, Any]]
Case = tuple[str, str, str, list[Call]]

NO_CALL = "a <tool_calls> <tool_call>oh no</tool_call> b"

CASES: dict[str, Case] = {
    "hermes": (
        "hermes",
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
        "",
        [LOOK],
    ),
    "hermes, text before": (
        "hermes",
        'I will look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
        "I will look.\n",
        [LOOK],
    ),
    "hermes, two at once": (
        "hermes",
        (
            '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n<tool_call>\n'
            '{"name": "now", "arguments": {}}\n</tool_call>'
        ),
        "",
        [LOOK, ("now", {})],
    ),
    "hermes, arguments first and odd blanks": (
        "hermes",
        '<tool_call>{ "arguments" :{"city":"Paris"} , "name":"get_weather"}</tool_call>',
        "",
        [LOOK],
    ),
    "hermes, arguments as a string": (
        "hermes",
        '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call>',
        "",
        [LOOK],
    ),
    "hermes, brackets and quotes within": (
        "hermes",
        '<tool_call>{"name": "f", "arguments": {"a": "}\\"]</tool_call>{", "b": [{}]}}</tool_call> Done.',
        "Done.",
        [("f", {"a": '}"]</tool_call>{', "b": [{}]})],
    ),
    "hermes, both words": (
        "hermes",
        '<tool_call>{"name": "get_weather", "parameters": {"a": 1}, "arguments": {"city": "Paris"}}</tool_call>',
        "",
        [LOOK],
    ),
    "hermes, the other word": (
        "hermes",
        '<tool_call>{"name": "get_weather", "parameters": {"city": "Paris"}}</tool_call>',
        "",
        [LOOK],
    ),
    "hermes, cut off": ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1}', "", [("f", {"a": 1})]),
    "hermes, no call": ("hermes", NO_CALL, NO_CALL, []),
    "hermes, a mark that never came": ("hermes", "1 < 2 <tool_c", "1 < 2 <tool_c", []),
    "hermes, an object that is none": ("hermes", '<tool_call>{"tool": 1}', '<tool_call>{"tool": 1}', []),
    "qwen3-xml": (
        "qwen3-xml",
        (
            "Sure.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
            "</function>\n</tool_call>"
        ),
        "Sure.\n",
        [("get_weather", {"city": "Paris", "days": 3})],
    ),
    "qwen3-xml, text that looks like a number, and several lines": (
        "qwen3-xml",
        (
            "<tool_call>\n<function=get_weather>\n<parameter=city>\n75001\n</parameter>\n<parameter=note>\na\n<b>\n</parameter>\n"
            "</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>"
        ),
        "",
        [("get_weather", {"city": "75001", "note": "a\n<b>"}), ("now", {})],
    ),
    "mistral, a list": (
        "mistral",
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "now", "arguments": {}}]',
        "",
        [LOOK, ("now", {})],
    ),
    "mistral, newer": (
        "mistral",
        'Yes.[TOOL_CALLS]get_weather[CALL_ID]abc123[ARGS]{"city": "Paris"}[TOOL_CALLS]now[ARGS]{}',
        "Yes.",
        [LOOK, ("now", {})],
    ),
    "mistral, a list in the text": ("mistral", "[1, 2] and [TOOL", "[1, 2] and [TOOL", []),
    "llama": ("llama-json", '{"name": "get_weather", "parameters": {"city": "Paris"}}', "", [LOOK]),
    "llama, both words": (
        "llama-json",
        '{"name": "get_weather", "arguments": "{}", "parameters": {"city": "Paris"}, "parameters": {}}',
        "",
        [LOOK],
    ),
    "llama, marked": (
        "llama-json",
        '<|python_tag|>{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}',
        "",
        [LOOK],
    ),
    "llama, two": (
        "llama-json",
        '{"name": "now", "parameters": {}}; {"name": "now", "parameters": {}}',
        "",
        [("now", {}), ("now", {})],
    ),
    "llama, an answer that is JSON": ("llama-json", '{"answer": {"name": "x"}}', '{"answer": {"name": "x"}}', []),
    "llama, text": ("llama-json", 'It is {"name": "x"}.', 'It is {"name": "x"}.', []),
    "gpt-oss": (
        "gpt-oss",
        (
            "<|channel|>analysis<|message|>Need it.<|end|><|start|>assistant"
            "<|channel|>commentary to=functions.get_weather "
            '<|constrain|>json<|message|>{"city": "Paris"}<|call|>'
        ),
        "",
        [LOOK],
    ),
    "gpt-oss, an answer": (
        "gpt-oss",
        "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>final<|message|>Hi!<|return|>",
        "Hi!",
        [],
    ),
}


BROKEN: dict[str, Case] = {
    "gpt-oss, a call of nothing": (
        "gpt-oss",
        "<|channel|>commentary to=functions. <|constrain|>json<|message|>{}<|call|>",
        "{}",
        [],
    ),
    "qwen3-xml, a call of nothing": ("qwen3-xml", "<function=>hm", "<function=>hm", []),
    "qwen3-xml, what is too deep to be JSON": (
        "qwen3-xml",
        f"<tool_call><function=get_weather><parameter=days>{'[' * 5000}</parameter></function></tool_call>",
        "",
        [("get_weather", {"days": "[" * 5000})],
    ),
    "hermes, a name of half a character": (
        "hermes",
        '<tool_call>{"name": "\\ud800"}</tool_call>',
        '<tool_call>{"name": "\\ud800"}</tool_call>',
        [],
    ),
    "hermes, arguments of half a character": (
        "hermes",
        '<tool_call>{"name": "get_weather", "parameters": {}, "arguments": "\\ud800"}</tool_call>',
        "}</tool_call>",
        [("get_weather", {})],
    ),
}


def event(**fields: Any) -> wire.StreamEvent:
    return wire.StreamEvent(**fields)


def read(reader: Reader, pieces: Sequence[str], style: wire.Style | None = None) -> Collected:
    collected = Collected()
    if style:
        collected.add(reader.feed(event(style=style)))
    for number, piece in enumerate(pieces):
        collected.add(reader.feed(event(token=piece, index=number)))
    collected.add(reader.feed(event(done=True, finish_reason="stop")))
    return collected


def calls(collected: Collected) -> list[Call]:
    return [(name, json.loads("".join(arguments))) for name, arguments in collected.calls]


def styled(case: Case, pieces: Sequence[str]) -> Collected:
    return read(StyledReader([WEATHER]), pieces, wire.Style(tools=case[0]))


@pytest.mark.parametrize("name", CASES)
def test_every_notation_is_read_the_same_cut_at_every_place(name: str) -> None:
    case = CASES[name]
    _, written, text, wanted = case
    for cut in range(len(written) + 1):
        got = styled(case, [written[:cut], written[cut:]])
        if name.endswith("cut off"):
            assert [called for called, _ in got.calls] == [wanted[0][0]]
            assert json.loads("".join(got.calls[0][1])) == wanted[0][1]
        else:
            assert (got.text, calls(got)) == (text, wanted), cut
        assert got.end is not None
        assert got.end.reason == ("tool_calls" if wanted else "stop")
    one_by_one = styled(case, list(written))
    assert (one_by_one.text, [n for n, _ in one_by_one.calls]) == (text, [n for n, _ in wanted])


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_written_wrong_is_text_and_breaks_nothing(name: str) -> None:
    case = BROKEN[name]
    for pieces in ([case[1]], list(case[1])):
        got = styled(case, pieces)
        assert (got.text, calls(got)) == case[2:]
        wire.encode([got.text, got.calls])


@given(
    st.sampled_from(list(CASES)),
    st.sampled_from(list(CASES)),
    st.lists(st.integers(1, 30), max_size=60),
    st.text("<tol_c>{}[]\"':,nameTOOL|\n "),
)
def test_whatever_is_written_is_read_the_same_however_it_is_cut(
    name: str, other: str, sizes: list[int], noise: str
) -> None:
    written = CASES[name][1] + noise + CASES[other][1]
    pieces, rest = [], written
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    whole, cut = styled(CASES[name], [written]), styled(CASES[name], [*pieces, rest])
    assert (whole.text, whole.reasoning) == (cut.text, cut.reasoning)
    assert [(n, "".join(a)) for n, a in whole.calls] == [(n, "".join(a)) for n, a in cut.calls]


def test_text_leaves_as_soon_as_it_cannot_be_a_mark() -> None:
    reader = StyledReader([])
    reader.feed(event(style=wire.Style(tools="hermes")))
    assert reader.feed(event(token="one <")) == [Text("one ")]
    assert reader.feed(event(token="b> two")) == [Text("<b> two")]
    assert reader.feed(event(token='{"a"')) == [Text('{"a"')]


@pytest.mark.parametrize(
    ("written", "opened", "thought", "text"),
    [
        ("<think>\nhm, yes\n</think>\n\nHi", False, "hm, yes\n", "Hi"),
        ("hm</think>Hi <think>", True, "hm", "Hi <think>"),
        ("hm, and no end", True, "hm, and no end", ""),
        ("Hi <think>no</think>", False, "", "Hi <think>no</think>"),
        ("<thin", False, "", "<thin"),
        ("", True, "", ""),
    ],
)
def test_reasoning_is_told_from_the_answer(written: str, opened: bool, thought: str, text: str) -> None:
    style = wire.Style(reasoning=THINK, open=opened)
    for cut in range(len(written) + 1):
        got = read(StyledReader([]), [written[:cut], written[cut:]], style)
        assert (got.reasoning, got.text) == (thought, text), cut


def test_a_call_behind_reasoning_is_a_call_and_one_within_is_none() -> None:
    written = f"<think>I could <tool_call></think>\n{CASES['hermes'][1]}"
    got = read(StyledReader([]), list(written), wire.Style(tools="hermes", reasoning=THINK))
    assert (got.reasoning, got.text, calls(got)) == ("I could <tool_call>", "", [LOOK])
    assert got.end is not None
    assert got.end.reasoning_tokens > 0


def test_without_a_style_or_in_one_that_nobody_knows_all_is_text() -> None:
    for style in (None, wire.Style(), wire.Style(tools="runes")):
        written = CASES["hermes"][1]
        assert read(StyledReader([]), [written], style).text == written


def test_only_the_first_of_several_calls_is_told_where_one_is_wanted() -> None:
    written = CASES["hermes, two at once"][1]
    for pieces in ([written], list(written)):
        assert calls(read(StyledReader([], most_calls=1), pieces, wire.Style(tools="hermes"))) == [LOOK]


def test_probabilities_stay_with_the_text_that_they_belong_to() -> None:
    def likely(token: str) -> wire.Logprobs:
        return wire.Logprobs(id=1, token=token, bytes=[], logprob=-1.0)

    reader, collected = StyledReader([]), Collected()
    reader.feed(event(style=wire.Style(tools="hermes")))
    for token in ("a", "<", "b", CASES["hermes"][1]):
        collected.add(reader.feed(event(token=token, logprobs=likely(token))))
    assert [one.token for one in collected.logprobs] == ["a", "<", "b"]
    assert collected.text == "a<b"


OTHER = wire.Tool(
    name="add", parameters={"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}}
)


def test_a_forced_call_is_all_of_the_text() -> None:
    one = Offer((WEATHER,), Choice("required"))
    assert one.fields()["json_schema"] == WEATHER.parameters
    for pieces in (['{"city": "Paris"}'], list('{"city": "Paris"}')):
        assert calls(read(ForcedReader("get_weather"), pieces)) == [LOOK]
        got = read(ForcedReader(), ['{"name": "get_weather", "arguments": ', *pieces, "}"])
        assert calls(got) == [LOOK]
        assert got.end is not None
        assert got.end.reason == "tool_calls"
    empty = Offer((wire.Tool(name="now"),), Choice("required", "now")).fields()["json_schema"]
    assert empty["additionalProperties"] is False


def test_of_several_tools_the_schema_lets_the_model_name_one_and_references_stay_within_each() -> None:
    schema = Offer((WEATHER, OTHER), Choice("required")).fields()["json_schema"]
    assert [call["properties"]["name"]["const"] for call in schema["anyOf"]] == ["get_weather", "add"]
    assert schema["$defs"]["tool1"]["properties"]["a"] == {"$ref": "#/$defs/tool1/$defs/n"}


FORM = {"type": "object", "properties": {"name": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "string"}}}


def test_where_an_answer_has_a_form_and_tools_may_be_called_it_is_one_of_both() -> None:
    offer = Offer((WEATHER, OTHER))
    schema = offer.fields(FORM)["json_schema"]
    assert schema["anyOf"][0] == {"$ref": "#/$defs/answer"}
    assert [call["properties"]["name"]["const"] for call in schema["anyOf"][1:]] == ["get_weather", "add"]
    assert schema["$defs"]["answer"]["properties"]["name"] == {"$ref": "#/$defs/answer/$defs/n"}
    assert "json_schema" not in offer.fields({"type": "object"}), "a call is an object already"
    assert "json_schema" not in offer.fields()


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ('{"name": "get_weather", "arguments": {"city": "Paris"}}', [LOOK]),
        ('{"arguments": {"city": "Paris"}, "name": "get_weather"}', [LOOK]),
        ('{"name": "get_weather", "parameters": {"city": "Paris"}}', [LOOK]),
        ('{"name": "get_weather"}', []),
        ('{"name": "get_weather", "size": 3}', []),
        ('{"name": "Ann", "arguments": {}}', []),
        ('{"answer": "get_weather"}', []),
        ("[1, 2]", []),
        ('{"na', []),
    ],
)
def test_an_answer_of_some_form_is_told_from_a_call_wherever_it_is_cut(written: str, wanted: list[Call]) -> None:
    asked = wire.build(wire.PoolInference, model_ref="m", prompt="p", json_schema=FORM)
    for cut in range(len(written) + 1):
        got = read(Offer((WEATHER,)).reader(asked), [written[:cut], written[cut:]])
        assert (calls(got), got.text) == (wanted, "" if wanted else written)
        assert got.end is not None
        assert got.end.reason == ("tool_calls" if wanted else "stop")


@pytest.mark.parametrize("offer", [Offer((WEATHER,), Choice("required", "none")), Offer((), Choice("required"))])
def test_a_choice_that_cannot_be_made_is_refused(offer: Offer) -> None:
    with pytest.raises(InvalidRequest, match="tool_choice"):
        offer.fields()


def test_no_tools_are_told_where_none_may_be_called() -> None:
    assert Offer((WEATHER,), Choice("none")).fields() == {}


TEMPLATES = {
    "hermes": '{% if tools %}<tool_call>{"name": 1}</tool_call>{% endif %}',
    "qwen3-xml": "{% if tools %}<tool_call><function=x></function></tool_call>{% endif %}",
    "mistral": "{% if tools %}[AVAILABLE_TOOLS]{% endif %}[TOOL_CALLS]",
    "llama-json": '<|start_header_id|>{% if tools %}{"name": "f", "parameters": {}}{% endif %}',
    "gpt-oss": "{% if tools %}{% endif %}<|start|>assistant<|channel|>final<|message|>",
}


def test_the_notation_is_known_by_the_template() -> None:
    assert TEMPLATES.keys() == TOOL_STYLES.keys() == NOTATIONS.keys()
    for name, template in TEMPLATES.items():
        assert style_of(template, "", tools=True).tools == name
    assert style_of("{{ messages }}", "", tools=True).tools == "hermes", "as the model is then told"
    assert style_of(TEMPLATES["hermes"], "", tools=False).tools == ""
    assert style_of("{{ '</think>' }}", "<|im_start|>assistant\n<think>\n", tools=False).open
    assert not style_of("{{ '</think>' }}", "<|im_start|>assistant\n", tools=False).open


def test_a_template_that_knows_no_tools_is_told_of_them_in_its_first_turn() -> None:
    tools = [Tool("look", "looks", {"type": "object"})]
    [system, user] = turns([Message("user", "hi")], tools, "{{ messages }}")
    assert system["role"] == "system"
    assert '"name":"look"' in system["content"]
    assert user == {"role": "user", "content": "hi"}
    [system, _] = turns([Message("system", "Be kind."), Message("user", "hi")], tools, "{{ messages }}")
    assert system["content"].startswith("Be kind.\n\n")
    assert turns([Message("user", "hi")], tools, "{{ tools }}") == [user]
    assert offers([]) is None


def test_turns_about_calls_have_the_shape_that_templates_want() -> None:
    call = Message("assistant", "", "hm", (ToolCall("look", '{"a": 1}', "c1"), ToolCall("look", '{"a": ', "c2")))
    told = turns([call, Message("tool", "21", tool_call_id="c1", tool_name="look")], (), "")
    assert told[0]["reasoning_content"] == "hm"
    assert [c["function"]["arguments"] for c in told[0]["tool_calls"]] == [{"a": 1}, '{"a": ']
    assert told[1] == {"role": "tool", "content": "21", "tool_call_id": "c1", "name": "look"}


def test_arguments_that_are_too_deep_for_an_object_are_told_as_the_text_they_came_as() -> None:
    deep = '{"a":' * 5000 + "1" + "}" * 5000
    (told,) = turns([Message("assistant", "", "", (ToolCall("look", deep),))], (), "")
    assert told["tool_calls"][0]["function"]["arguments"] == deep


def test_rule_9_turns_of_one_role_in_a_row_are_told_as_one_to_a_template_that_refuses_them() -> None:
    said = [Message("system", "S"), Message("user", "a"), Message("user", "b"), Message("assistant", "c")]
    joined, without = gentler(turns(said, (), ""))
    assert [(t["role"], t["content"]) for t in joined] == [("system", "S"), ("user", "a\n\nb"), ("assistant", "c")]
    assert [(t["role"], t["content"]) for t in without] == [("user", "S\n\na\n\nb"), ("assistant", "c")]
