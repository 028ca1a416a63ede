"""The items of a conversation in this dialect, and the turns that the internal request makes of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from rbee_core import wire
from rbee_core.dialects.fields import Foreign, as_internal, refusal, wrong
from rbee_core.dialects.openai.messages import ContentPart, text_of
from rbee_core.dialects.responses import freeform

ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
Content = str | list[ContentPart] | None


class Item(Foreign):
    """One item: a message, a call of a tool, its result, or what the model thought."""

    type: str | None = None
    role: str | None = None
    content: Content = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | dict[str, Any] | None = None
    input: str | None = None
    output: Content = None
    summary: list[ContentPart] | None = None


def internal(instructions: str | None, said: str | Sequence[Item]) -> list[dict[str, Any]]:
    """Return a conversation as fields of `wire.ChatMessage`. Raises `InvalidRequest` for what cannot be read."""
    turns = _Turns(instructions)
    if isinstance(said, str):
        turns.add({"role": "user", "content": said})
    else:
        for number, item in enumerate(said):
            turns.take(item, f"input[{number}]")
    return turns.told


class _Turns:
    """Puts items together that are one turn of the model: what it thought, what it said, the tools that it called."""

    def __init__(self, instructions: str | None) -> None:
        self.told: list[dict[str, Any]] = []
        self._thought = ""
        self._called: dict[str, str] = {}
        if instructions:
            self.add({"role": "system", "content": instructions})

    def add(self, turn: Mapping[str, Any]) -> None:
        """Take a turn that nothing is added to."""
        self._thought = ""
        self.told.append(dict(turn))

    def take(self, item: Item, where: str) -> None:
        """Take the next item."""
        match item.type:
            case None | "message":
                self._message(item, where)
            case "reasoning":
                parts = item.content or item.summary
                self._thought = text_of(parts if isinstance(parts, str) else _readable(parts), f"{where}.content")
            case "function_call":
                self._call(item, _arguments(item.arguments), where)
            case "custom_tool_call":
                self._call(item, freeform.written(item.input or ""), where)
            case "function_call_output" | "custom_tool_call_output":
                self._result(item, where)
            case "item_reference":
                raise refusal(f"{where}.item_reference", "a hive keeps no conversations: send the item itself")
            case _:
                raise refusal(
                    f"{where}.{item.type}", "models are given messages, calls of the client's tools and results"
                )

    def _message(self, item: Item, where: str) -> None:
        role = ROLES.get(item.role or "")
        if role is None:
            raise wrong(f"{where}.role", f"it must be one of {', '.join(ROLES)}")
        content = text_of(item.content, f"{where}.content")
        if role == "assistant":
            self.told.append(self._by_the_model(content))
        else:
            self.add({"role": role, "content": content})

    def _call(self, item: Item, arguments: str, where: str) -> None:
        if not item.name:
            raise wrong(f"{where}.name", "a call names its tool")
        identity = item.call_id or ""
        names = (("name", f"{where}.name"), ("id", f"{where}.call_id"))
        call = as_internal(wire.ToolCall, names, name=item.name, arguments=arguments, id=identity)
        self._called[identity] = item.name
        if self._thought or not self.told or self.told[-1]["role"] != "assistant":
            self.told.append(self._by_the_model(""))
        self.told[-1]["tool_calls"].append(call)

    def _result(self, item: Item, where: str) -> None:
        identity = item.call_id or ""
        said = {"role": "tool", "content": text_of(item.output, f"{where}.output"), "tool_call_id": identity}
        self.add(said | {"tool_name": self._called.get(identity, "")})

    def _by_the_model(self, content: str) -> dict[str, Any]:
        thought, self._thought = self._thought, ""
        return {"role": "assistant", "content": content, "reasoning": thought, "tool_calls": []}


def _readable(parts: Sequence[ContentPart] | None) -> list[ContentPart]:
    """Return what was thought as parts of text, under whichever name."""
    return [ContentPart(type="text", text=part.text) for part in parts or ()]


def _arguments(said: str | dict[str, Any] | None) -> str:
    """Return the arguments of a call as JSON text; an object where a client forgot that."""
    return said if isinstance(said, str) else msgspec.json.encode(said or {}).decode()
