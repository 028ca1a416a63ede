"""The turns of a conversation in this dialect, and as the internal request has them."""

from collections.abc import Sequence
from typing import Any

import msgspec

from rbee_core.dialects.fields import Foreign, refusal, wrong

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
TEXTS = frozenset({"text", "input_text", "output_text", "refusal"})


class ContentPart(Foreign):
    """A part of a turn. Only text can be read."""

    type: str
    text: str | None = None
    refusal: str | None = None


class Function(Foreign):
    """The function that was called; `arguments` is JSON text, and an object where a client forgot that."""

    name: str
    arguments: str | dict[str, Any] | None = None


class MadeCall(Foreign):
    """A call that the model made in an earlier turn."""

    id: str | None = None
    type: str | None = None
    function: Function | None = None


class Turn(Foreign):
    """One turn."""

    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[MadeCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


def internal(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Return the turns as fields of `wire.ChatMessage`. Raises `InvalidRequest` for what no model here can read."""
    called: dict[str, str] = {}
    return [_message(turn, f"messages[{number}]", called) for number, turn in enumerate(turns)]


def _message(turn: Turn, where: str, called: dict[str, str]) -> dict[str, Any]:
    role = ROLES.get(turn.role)
    if role is None:
        raise wrong(f"{where}.role", f"it must be one of {', '.join(ROLES)}")
    calls = [_call(call, f"{where}.tool_calls[{n}]") for n, call in enumerate(turn.tool_calls or ())]
    called |= {call["id"]: call["name"] for call in calls}
    said = {
        "role": role,
        "content": text_of(turn.content, f"{where}.content"),
        "reasoning": turn.reasoning_content or turn.reasoning or "",
        "tool_calls": calls,
    }
    if role == "tool":
        identity = turn.tool_call_id or ""
        said |= {"tool_call_id": identity, "tool_name": turn.name or called.get(identity, "")}
    return said


def _call(call: MadeCall, where: str) -> dict[str, Any]:
    if call.function is None:
        raise refusal(f"{where}.{call.type or 'function'}", "calls are of functions")
    arguments = call.function.arguments
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
    return {"id": call.id or "", "name": call.function.name, "arguments": text}


def text_of(content: str | Sequence[ContentPart] | None, where: str) -> str:
    """Return what a content says. Raises `InvalidRequest` for a part that is no text, such as an image."""
    if content is None or isinstance(content, str):
        return content or ""
    for number, part in enumerate(content):
        if part.type not in TEXTS:
            raise refusal(f"{where}[{number}].{part.type}", "models are given text only")
    return "\n".join(part.text or part.refusal or "" for part in content)
