"""The turns of a conversation in this dialect, and as the internal request has them."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from rbee_core.dialects.fields import Foreign, refusal, wrong

ROLES = ("user", "assistant", "system")
_BILLING = re.compile(r"\Ax-anthropic-billing-header:[^\n]*(?:\n|\Z)")
"""Claude Code's first line, which is another in every turn: left in, no turn would find the prompt of the last one."""


class Block(Foreign):
    """A part of a turn: text, a call of a tool, its result, or what the model thought. Only text can be read."""

    type: str
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None
    tool_use_id: str | None = None
    content: Any = None


Content = str | list[Block] | None


class Turn(Foreign):
    """One turn."""

    role: str
    content: str | list[Block]


def internal(system: Content, turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Return a conversation as fields of `wire.ChatMessage`. Raises `InvalidRequest` for what cannot be read."""
    told = _system(system)
    messages: list[dict[str, Any]] = [{"role": "system", "content": told}] if told else []
    called: dict[str, str] = {}
    for number, turn in enumerate(turns):
        messages += _turn(turn, f"messages[{number}]", called)
    if turns[-1].role == "assistant":
        raise refusal(
            f"messages[{len(turns) - 1}]", "an answer cannot be begun for the model, end with a turn of a user"
        )
    return messages


def _system(content: Content) -> str:
    """Return the system's text without the line that says what a client is billed for."""
    blocks = [Block("text", text=content)] if isinstance(content, str) else content or ()
    texts = [_BILLING.sub("", _text(block, f"system[{number}]")) for number, block in enumerate(blocks)]
    return "\n".join(text for text in texts if text)


def _turn(turn: Turn, where: str, called: dict[str, str]) -> Iterator[dict[str, Any]]:
    if turn.role not in ROLES:
        raise wrong(f"{where}.role", f"it must be one of {', '.join(ROLES)}")
    if isinstance(turn.content, str):
        yield {"role": turn.role, "content": turn.content}
    elif turn.role == "assistant":
        yield _assistant(turn.content, f"{where}.content", called)
    else:
        yield from _said_to_it(turn.role, turn.content, f"{where}.content", called)


def _assistant(blocks: Sequence[Block], where: str, called: dict[str, str]) -> dict[str, Any]:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for number, block in enumerate(blocks):
        match block.type:
            case "thinking":
                thoughts.append(block.thinking or "")
            case "redacted_thinking":  # which nobody can read, and no model here writes
                pass
            case "tool_use":
                call = _call(block, f"{where}[{number}]")
                called[call["id"]] = call["name"]
                calls.append(call)
            case _:
                texts.append(_text(block, f"{where}[{number}]"))
    said = {"role": "assistant", "content": "\n".join(texts), "reasoning": "\n".join(thoughts)}
    return said | {"tool_calls": calls}


def _said_to_it(role: str, blocks: Sequence[Block], where: str, called: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield a turn for each result of a call, and one for the texts between them, in the order in which they stand."""
    texts: list[str] = []
    for number, block in enumerate(blocks):
        if block.type != "tool_result":
            texts.append(_text(block, f"{where}[{number}]"))
            continue
        if texts:
            yield {"role": role, "content": "\n".join(texts)}
            texts = []
        identity = block.tool_use_id or ""
        result = _result(block.content, f"{where}[{number}].content")
        yield {"role": "tool", "content": result, "tool_call_id": identity, "tool_name": called.get(identity, "")}
    if texts or not blocks:
        yield {"role": role, "content": "\n".join(texts)}


def _call(block: Block, where: str) -> dict[str, Any]:
    if not block.name:
        raise wrong(f"{where}.name", "a call names its tool")
    if not isinstance(block.input, dict | None):
        raise wrong(f"{where}.input", "it must be an object")
    return {
        "id": block.id or "",
        "name": block.name,
        "arguments": msgspec.json.encode(block.input or {}).decode(),  # pyright: ignore[reportUnknownMemberType]
    }


def _result(content: Any, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    try:
        blocks = msgspec.convert(content, list[Block])
    except msgspec.ValidationError:
        raise wrong(where, "it must be a text, or parts of text") from None
    return "\n".join(_text(block, f"{where}[{number}]") for number, block in enumerate(blocks))


def _text(block: Block, where: str) -> str:
    """Return what a part says. Raises `InvalidRequest` for one that is no text, such as an image."""
    if block.type != "text":
        raise refusal(f"{where}.{block.type}", "models are given text only")
    return block.text or ""
