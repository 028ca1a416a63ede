"""Tools and calls in this dialect."""

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta

from rbee_core import wire
from rbee_core.dialects import parts
from rbee_core.dialects.fields import Foreign, refusal, wrong
from rbee_core.dialects.talk import Moment
from rbee_core.dialects.tools import Choice, Offer

Name = Annotated[str, Meta(min_length=1, max_length=256)]


class FunctionIn(Foreign):
    """A function that is offered."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolIn(Foreign):
    """A tool that is offered. Only functions can be called."""

    type: str
    function: FunctionIn | None = None


class FunctionName(Foreign):
    """The function that has to be called."""

    name: Name


class ToolChoice(Foreign):
    """The tool that has to be called."""

    type: str
    function: FunctionName | None = None


def offer_of(tools: Sequence[ToolIn], choice: str | ToolChoice | None, *, parallel: bool) -> Offer:
    """Return what is offered. Raises `InvalidRequest` for a tool that is no function."""
    offered = tuple(_tool(tool, f"tools[{number}]") for number, tool in enumerate(tools))
    return Offer(offered, _choice(choice), parallel)


def _tool(tool: ToolIn, where: str) -> wire.Tool:
    if tool.type != "function":
        raise refusal(f"{where}.type", f"a tool is a function, not {tool.type!r}")
    if tool.function is None:
        raise wrong(f"{where}.function", "it has to be there")
    function = tool.function
    return wire.Tool(name=function.name, description=function.description or "", parameters=function.parameters or {})


def _choice(choice: str | ToolChoice | None) -> Choice:
    match choice:
        case "none" | "auto" | "required":
            return Choice(choice)
        case ToolChoice(function=FunctionName(name=name)):
            return Choice("required", name)
        case None:
            return Choice()
        case _:
            raise wrong("tool_choice", "it must be `none`, `auto`, `required`, or name a function")


def call_id(moment: Moment, answer: int, call: int) -> str:
    """Return the name of a call: the same whenever it is asked for, another for every call."""
    return f"call_{moment.request_id}_{answer}_{call}"


def call_delta(moment: Moment, answer: int, part: parts.CallBegins | parts.Arguments) -> dict[str, Any]:
    """Return the piece of a call that a chunk says."""
    if isinstance(part, parts.Arguments):
        return {"index": part.index, "function": {"arguments": part.text}}
    function = {"name": part.name, "arguments": ""}
    return {"index": part.index, "id": call_id(moment, answer, part.index), "type": "function", "function": function}


def whole_calls(moment: Moment, answer: int, collected: parts.Collected) -> list[dict[str, Any]]:
    """Return the calls of one answer."""
    return [
        {
            "id": call_id(moment, answer, number),
            "type": "function",
            "function": {"name": name, "arguments": "".join(arguments)},
        }
        for number, (name, arguments) in enumerate(collected.calls)
    ]
