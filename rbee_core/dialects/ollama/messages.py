"""The turns of a conversation in this dialect, and as the internal request has them."""

from collections.abc import Sequence
from typing import Any

import msgspec

from rbee_core import wire
from rbee_core.dialects.fields import Foreign, as_internal, refusal, wrong
from rbee_core.dialects.tools import Offer

ROLES = ("system", "user", "assistant", "tool")


class Function(Foreign):
    """The function that was called; its arguments are an object here."""

    name: str
    arguments: dict[str, Any] | str | None = None


class MadeCall(Foreign):
    """A call that the model made in an earlier turn."""

    function: Function
    id: str | None = None


class Turn(Foreign):
    """One turn."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[Any] | None = None
    tool_calls: list[MadeCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class Declared(Foreign):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Foreign):
    """A tool; all are functions."""

    function: Declared
    type: str | None = None


def internal(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Return the turns as fields of `wire.ChatMessage`. Raises `InvalidRequest` for what no model here can read.

    Calls have no names in this dialect, and templates may want them: they are counted, and a result belongs to the
    first call of its tool that has none yet.
    """
    open_calls: list[dict[str, str]] = []
    return [_message(turn, number, open_calls) for number, turn in enumerate(turns)]


def _message(turn: Turn, number: int, open_calls: list[dict[str, str]]) -> dict[str, Any]:
    where = f"messages[{number}]"
    if turn.role not in ROLES:
        raise wrong(f"{where}.role", f"it must be one of {', '.join(ROLES)}")
    if turn.images:
        raise refusal(f"{where}.images", "models are given text only")
    calls = [_call(call, f"call_{number}_{n}") for n, call in enumerate(turn.tool_calls or ())]
    open_calls += calls
    said = {"role": turn.role, "content": turn.content or "", "reasoning": turn.thinking or "", "tool_calls": calls}
    return said | _answered(turn, open_calls) if turn.role == "tool" else said


def _call(call: MadeCall, made_up: str) -> dict[str, str]:
    arguments = call.function.arguments
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
    return {"id": call.id or made_up, "name": call.function.name, "arguments": text}


def _answered(turn: Turn, open_calls: list[dict[str, str]]) -> dict[str, str]:
    """Return which call a result belongs to, and close that."""
    fits = (c for c in open_calls if turn.tool_call_id in (None, c["id"]) and turn.tool_name in (None, c["name"]))
    call = next(fits, None)
    if call is None:
        return {"tool_call_id": turn.tool_call_id or "", "tool_name": turn.tool_name or ""}
    open_calls.remove(call)
    return {"tool_call_id": call["id"], "tool_name": call["name"]}


def offer_of(declared: Sequence[Tool] | None) -> Offer:
    """Return the tools that the model may call as it likes: this dialect has no word for a choice."""
    return Offer([_tool(tool.function) for tool in declared or ()])


def _tool(said: Declared) -> wire.Tool:
    told = {"name": said.name, "description": said.description, "parameters": said.parameters}
    return as_internal(wire.Tool, (("name", "tools.function.name"),), **told)
