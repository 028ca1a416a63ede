"""Tools in this dialect: functions, and custom ones that take a free text."""

from collections.abc import Sequence
from typing import Any, Literal

from rbee_core import wire
from rbee_core.dialects import fields
from rbee_core.dialects.fields import Foreign
from rbee_core.dialects.responses import freeform
from rbee_core.dialects.tools import Choice, Offer

KINDS = ("function", "custom")
RUNS_NONE = "a hive runs no tools: models know functions and custom tools, which the client runs"


class Grammar(Foreign):
    """What the free text of a custom tool has to be."""

    type: Literal["text", "grammar"]
    syntax: Literal["lark", "regex"] | None = None
    definition: str | None = None


class Tool(Foreign):
    """A tool that the client runs, or one of OpenAI's own."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: Grammar | None = None

    def told(self) -> dict[str, Any]:
        """Return the tool as a response repeats it."""
        said = {"type": self.type, "name": self.name, "description": self.description}
        if self.type == "function":
            return said | {"parameters": self.parameters, "strict": self.strict}
        form = self.format or Grammar("text")
        shown = {"type": form.type, "syntax": form.syntax, "definition": form.definition}
        return said | {"format": {key: value for key, value in shown.items() if value is not None}}


class ToolName(Foreign):
    """A tool that may be called."""

    type: str
    name: str | None = None


class ToolChoice(Foreign):
    """The tool that has to be called, or those that may be."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] = "auto"
    tools: list[ToolName] | None = None


Chosen = Literal["none", "auto", "required"] | ToolChoice | None


def offer_of(tools: Sequence[Tool], choice: Chosen, *, parallel: bool) -> Offer:
    """Return what is offered. Raises `InvalidRequest` for a tool that no client runs, and for a choice of one."""
    offered = [_tool(tool, f"tools[{number}]") for number, tool in enumerate(tools)]
    match choice:
        case None:
            return Offer(offered, parallel=parallel)
        case ToolChoice(type="allowed_tools"):
            names = {_name(one, f"tool_choice.tools[{number}]") for number, one in enumerate(choice.tools or ())}
            allowed = [tool for tool in offered if tool.name in names]
            return Offer(allowed, Choice(choice.mode), parallel)
        case ToolChoice():
            return Offer(offered, Choice("required", _name(choice, "tool_choice")), parallel)
        case _:
            return Offer(offered, Choice(choice), parallel)


def customs(tools: Sequence[Tool]) -> frozenset[str]:
    """Return the names of the tools whose calls are free texts."""
    return frozenset(tool.name for tool in tools if tool.type == "custom" and tool.name)


def told(choice: Chosen) -> Any:
    """Return a choice as a response repeats it."""
    if not isinstance(choice, ToolChoice):
        return choice or "auto"
    if choice.type != "allowed_tools":
        return {"type": choice.type, "name": choice.name}
    names = [{"type": one.type, "name": one.name} for one in choice.tools or ()]
    return {"type": choice.type, "mode": choice.mode, "tools": names}


def _name(named: ToolName | ToolChoice, where: str) -> str:
    if named.type not in KINDS:
        raise fields.refusal(f"{where}.{named.type}", RUNS_NONE)
    if not named.name:
        raise fields.wrong(f"{where}.name", "it names a tool")
    return named.name


def _tool(tool: Tool, where: str) -> wire.Tool:
    if tool.type not in KINDS:
        raise fields.refusal(f"{where}.{tool.type}", RUNS_NONE)
    if not tool.name:
        raise fields.wrong(f"{where}.name", "a tool has a name")
    said = {"description": tool.description, "parameters": tool.parameters}
    if tool.type == "custom":
        said = _as_function(tool, f"{where}.format")
    return fields.as_internal(wire.Tool, (("name", f"{where}.name"),), name=tool.name, **said)


def _as_function(tool: Tool, where: str) -> dict[str, Any]:
    """Return a custom tool as the model is told of it: a function of one text, and in words what that has to be."""
    form = tool.format or Grammar("text")
    if form.type == "text":
        return {"description": tool.description, "parameters": freeform.schema(None)}
    if not form.syntax or not form.definition:
        raise fields.wrong(where, "a grammar has a `syntax` and a `definition`")
    fits = f"`{freeform.ARGUMENT}` fits this {form.syntax} grammar:\n{form.definition}"
    pattern = form.definition if form.syntax == "regex" else None
    return {"description": f"{tool.description or ''}\n{fits}".lstrip(), "parameters": freeform.schema(pattern)}
