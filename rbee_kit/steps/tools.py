"""Steps about tools, and about texts with a gap."""

from collections.abc import Mapping
from typing import Any

import pytest
from pytest_bdd import then, when

from rbee_core import wire
from rbee_core.dialects.parts import Collected
from rbee_core.dialects.tools import Choice, Offer
from rbee_core.errors import InvalidRequest
from rbee_kit.judge import SUBJECT
from rbee_kit.loaded import WORD, Loaded, Text
from rbee_kit.steps.choosing import SCHEMA, is_person

QUESTION = "Who lives in the hive?"
TOOL: Mapping[str, Any] = {"name": "look_up_person", "description": "Looks up a person.", "parameters": SCHEMA}
OTHER: Mapping[str, Any] = {
    "name": "ring_bell",
    "description": "Rings a bell.",
    "parameters": {"type": "object", "properties": {}},
}
SHORT, LONG = 1, 16  # words
CALL_TOKENS, FEW = 256, 4
GAP_BEFORE = "def add(a, b):\n    "


@when(
    "a conversation is read without its tool, with it, and with a longer result of it",
    target_fixture="read_tokens",
)
def read_conversations(loaded: Loaded) -> Mapping[str, int]:
    asked = [{"role": "user", "content": QUESTION}]
    call = {"name": OTHER["name"], "arguments": "{}", "id": "call0"}

    def read(words: int, *tools: Mapping[str, Any]) -> int:
        said = {"role": "tool", "content": WORD * words, "tool_call_id": "call0", "tool_name": OTHER["name"]}
        turns = [*asked, {"role": "assistant", "content": "", "tool_calls": [call]}, said]
        text = loaded.ask(messages=turns, tools=list(map(dict, tools)), max_tokens=1)
        assert text.error is None, str(text.error)
        return text.end.prompt_tokens

    return {"without": read(SHORT), "short": read(SHORT, OTHER), "long": read(LONG, OTHER)}


@then("the tool takes tokens of the prompt")
def tool_is_told(read_tokens: Mapping[str, int]) -> None:
    without, told = read_tokens["without"], read_tokens["short"]
    assert told > without, (
        f"a conversation has {without} tokens, and with a tool {told}: the model is not told of it. `ChatTemplate` "
        "tells those too whose template knows no tools"
    )


@then("a long result takes more of them than a short one")
def result_is_told(read_tokens: Mapping[str, int]) -> None:
    short, long = read_tokens["short"], read_tokens["long"]
    assert long - short >= (LONG - SHORT) / 2, (
        f"a conversation has {short} tokens with a result of {SHORT} word and {long} with one of {LONG}: the model is "
        "not told what a tool answered"
    )


@when("one of two tools has to be called, and then none may be", target_fixture="answers")
def choose_tool(loaded: Loaded, pytestconfig: pytest.Config) -> Mapping[str, Collected]:
    if "json_schema" not in pytestconfig.stash[SUBJECT].capabilities:
        pytest.skip("what has to be called is forced by a schema, and json_schema is not declared")
    called = answer(loaded, Choice("required", TOOL["name"]), CALL_TOKENS)
    return {"called": called, "none": answer(loaded, Choice("none"), FEW)}


def answer(loaded: Loaded, choice: Choice, tokens: int) -> Collected:
    """Ask with tools, and read what comes, as every dialect does."""
    offer = Offer([wire.build(wire.Tool, **tool) for tool in (TOOL, OTHER)], choice)
    request: dict[str, Any] = {
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": tokens,
        **offer.fields(),
    }
    text = loaded.ask(**request)
    assert text.error is None, f"with tools, and a choice of {choice.mode}, it ended with {text.error}"
    reader, read = offer.reader(wire.build(wire.WorkerInference, **request)), Collected()
    for event in text.events:
        read.add(reader.feed(event))
    return read


@then("the call names that tool, and its arguments fit")
def call_fits(answers: Mapping[str, Collected]) -> None:
    called = answers["called"]
    assert [name for name, _ in called.calls] == [TOOL["name"]], f"{TOOL['name']} had to be called: {called.calls}"
    arguments = "".join(called.calls[0][1])
    assert is_person(arguments), (
        f"the arguments of a call do not fit their schema: {arguments!r}. With tools, `json_schema` holds too"
    )
    assert called.end is not None
    assert called.end.reason == "tool_calls", f"an answer that is a call ended with {called.end.reason}"


@then("without a call a text comes")
def no_call(answers: Mapping[str, Collected]) -> None:
    none = answers["none"]
    assert not none.calls, f"no tool was to be called: {none.calls}"
    assert none.text, "neither a text came nor a call"


@when("a gap is filled before a short text, and before a long one", target_fixture="gaps")
def fill_gaps(loaded: Loaded) -> list[Text]:
    texts = [loaded.ask(prompt=GAP_BEFORE, suffix=f"\n{WORD * words}", max_tokens=FEW) for words in (SHORT, LONG)]
    for text in texts:
        if text.error is not None and text.error.code == InvalidRequest.code:
            pytest.skip(f"this model fills in no gaps: {text.error.message}")
    return texts


@then("each gap got a text")
def gaps_filled(gaps: list[Text]) -> None:
    for text in gaps:
        assert text.error is None, str(text.error)
        assert text.end.total_tokens > 0, "nothing came for a gap"


@then("the text behind the gap takes tokens of the prompt")
def both_sides_read(gaps: list[Text]) -> None:
    short, long = (text.end.prompt_tokens for text in gaps)
    assert long - short >= (LONG - SHORT) / 2, (
        f"a prompt has {short} tokens with a short text behind the gap, and {long} with a long one: `suffix` is not "
        "read"
    )
