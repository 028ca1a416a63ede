"""Conversations as an engine meets them, and what chat templates want to be told. A part of the contract, see `base`.

Templates are written for Hugging Face's own renderer: messages and tools come in one shape, and answers are written as
the template's text shows. What follows from that is the same for every engine, and stands here. No I/O.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

Role = Literal["system", "user", "assistant", "tool"]


class Tool(Struct, frozen=True):
    """A function that the model may call; `parameters` is the JSON schema of its arguments, {} for none."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = {}


class ToolCall(Struct, frozen=True):
    """A call that the model made in an earlier turn; `arguments` is JSON text, as it came."""

    name: str
    arguments: str = ""
    id: str = ""


class Message(Struct, frozen=True):
    """One turn of a conversation. What follows `content` comes only where ``tools`` is declared.

    A ``tool`` turn is the result of the call that `tool_call_id` and `tool_name` name; `reasoning` is what an
    assistant thought before it answered.
    """

    role: Role
    content: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    tool_name: str = ""


class Style(Struct, frozen=True):
    """How an answer to messages will be written; yielded once before the first `Token`, if it is more than text.

    `tools` is a word of `TOOL_STYLES`, "" for a model whose calls nobody can tell from text. What stands between the
    two marks of `reasoning` is no part of the answer; `open` says that the prompt ends behind the first of them. rbee
    reads the text by that: with a style whose marks are control tokens, those tokens come as text (`marked`).
    """

    tools: str = ""
    reasoning: tuple[str, str] | None = None
    open: bool = False

    @property
    def marked(self) -> bool:
        """Whether what marks calls are control tokens, whose text an engine would else leave out."""
        return self.tools in MARKED_BY_TOKENS


TOOL_STYLES: Mapping[str, tuple[str, ...]] = {
    "gpt-oss": ("<|channel|>", "<|message|>"),
    "mistral": ("[TOOL_CALLS]",),
    "qwen3-xml": ("<tool_call>", "<function="),
    "hermes": ("<tool_call>",),
    "llama-json": ("<|start_header_id|>", '"parameters"'),
}
"""The notations of calls that rbee reads, each with what stands in the chat template of a model that uses it."""

MARKED_BY_TOKENS = frozenset({"gpt-oss", "mistral", "llama-json"})
THINKING = ("<think>", "</think>")

_TOLD = """You may call one or more functions. Here are their signatures within <tools></tools>:
<tools>
{tools}
</tools>
For each call, return an object with its name and arguments within <tool_call></tool_call>:
<tool_call>
{{"name": <function-name>, "arguments": <arguments-object>}}
</tool_call>"""


def style_of(template: str, prompt: str, *, tools: bool) -> Style:
    """Return how the answer to `prompt`, rendered by `template`, will be written; `tools`: whether there are any."""
    family = next((name for name, marks in TOOL_STYLES.items() if all(mark in template for mark in marks)), "")
    if tools and not knows_tools(template):
        family = "hermes"  # as the model is told
    if not tools and family != "gpt-oss":  # whose answers are always marked
        family = ""
    reasons = THINKING[1] in template
    return Style(family, THINKING if reasons else None, open=reasons and prompt.rstrip().endswith(THINKING[0]))


def knows_tools(template: str) -> bool:
    """Return whether a template tells the model of tools by itself."""
    return "tools" in template


def turns(messages: Sequence[Message], tools: Sequence[Tool], template: str) -> list[dict[str, Any]]:
    """Return messages as templates want them. To one that knows no tools, they are told in the first message."""
    told = [_turn(message) for message in messages]
    if tools and not knows_tools(template):
        listed = "\n".join(msgspec.json.encode(offer).decode() for offer in offers(tools) or ())
        text = _TOLD.format(tools=listed)
        if told and told[0]["role"] == "system":
            told[0] |= {"content": f"{told[0]['content']}\n\n{text}"}
        else:
            told.insert(0, {"role": "system", "content": text})
    return told


def offers(tools: Sequence[Tool]) -> list[dict[str, Any]] | None:
    """Return tools as templates want them; None, not an empty list, for none: templates ask for that."""
    return [
        {
            "type": "function",
            "function": {"name": t.name, "description": t.description, "parameters": t.parameters or _NO_ARGUMENTS},
        }
        for t in tools
    ] or None


_NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}}


def gentler(told: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the same conversation for stricter templates: turns of one role in a row as one, then no system turn."""
    joined = _joined(told)
    yield joined
    if [turn["role"] for turn in joined[:2]] == ["system", "user"]:
        system, user, *rest = joined
        yield [{**user, "content": f"{system['content']}\n\n{user['content']}"}, *rest]


def _joined(told: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    for turn in told:
        plain = turn.keys() == {"role", "content"}
        if plain and turns and turns[-1].keys() == turn.keys() and turns[-1]["role"] == turn["role"]:
            turns[-1] = {**turn, "content": f"{turns[-1]['content']}\n\n{turn['content']}"}
        else:
            turns.append(turn)
    return turns


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        turn["reasoning_content"] = message.reasoning
    if message.tool_calls:
        turn["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": _arguments(c.arguments)}}
            for c in message.tool_calls
        ]
    if message.role == "tool":
        turn |= {"tool_call_id": message.tool_call_id, "name": message.tool_name}
    return turn


def _arguments(text: str) -> Any:
    """Return a call's arguments as templates want them, an object; as they came, if they are none."""
    try:
        arguments = msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, RecursionError):
        return text
    return arguments if isinstance(arguments, dict) else text  # pyright: ignore[reportUnknownVariableType]
