"""Tools that a request offers, and what its client says of whether they are to be called.

A call that is forced is held to a grammar, so that any model's call can be parsed: all of the text is the arguments of
the one tool that may be called, or an object that names one of several. Where the answer has to fit a schema and tools
may be called, it fits that or is such an object. Otherwise an answer is read as its style says.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from rbee_core import wire
from rbee_core.dialects.fields import wrong
from rbee_core.dialects.parts import Reader
from rbee_core.dialects.reading.reader import EitherReader, ForcedReader, StyledReader

NOTHING: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
ANY_OBJECT: dict[str, Any] = {"type": "object"}
"""The schema of JSON of whatever kind; a call is such an object already."""
FORMS = ("grammar", "json_schema", "regex")


class Choice(msgspec.Struct, frozen=True):
    """Whether tools are to be called: `none`, `auto` as the model likes, `required`; of `name`, if there is one."""

    mode: Literal["none", "auto", "required"] = "auto"
    name: str = ""


class Offer(msgspec.Struct, frozen=True):
    """The tools of one request, and what is to become of them. Without `parallel`, only the first call is told."""

    tools: Sequence[wire.Tool] = ()
    choice: Choice = Choice()
    parallel: bool = True

    def fields(self, schema: dict[str, Any] | None = None, param: str = "tool_choice") -> dict[str, Any]:
        """Return the fields of the internal request that say it; `param` is the foreign field that chooses.

        `schema` is what an answer has to fit that is no call.
        Raises `InvalidRequest` for a choice that cannot be made.
        """
        names = [tool.name for tool in self.tools]
        if self.choice.name and self.choice.name not in names:
            raise wrong(param, f"no tool is called {self.choice.name!r}")
        if self.choice.mode == "required" and not self.tools:
            raise wrong(param, "there is no tool that could be called")
        if self.choice.mode == "none":
            return {}
        offered: dict[str, Any] = {"tools": list(self.tools)}
        if self.choice.mode == "required":
            offered |= {**dict.fromkeys(FORMS), "json_schema": self._schema()}
        elif self.tools and schema not in (None, ANY_OBJECT):
            offered["json_schema"] = self._calls(schema)
        return offered

    def reader(self, wanted: wire.TextWanted) -> Reader:
        """Return what reads an answer to `wanted`, which was made with these fields."""
        if self.choice.mode == "required":
            return ForcedReader(self._only())
        if self.tools and self.choice.mode == "auto" and wanted.json_schema is not None:
            return EitherReader([tool.name for tool in self.tools])
        if any(getattr(wanted, form) is not None for form in FORMS):
            return Reader()  # all of it fits what was asked for, so nothing of it is a mark
        return StyledReader(self.tools, most_calls=None if self.parallel else 1)

    def _only(self) -> str:
        """Return the name of the tool that has to be called, "" if there is a choice."""
        return self.choice.name or (self.tools[0].name if len(self.tools) == 1 else "")

    def _schema(self) -> dict[str, Any]:
        """Return the schema that makes a call of whatever the model writes."""
        if only := self._only():
            return next(tool.parameters for tool in self.tools if tool.name == only) or NOTHING
        return self._calls()

    def _calls(self, answer: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the schema of an object that names a tool, or of an `answer`."""
        forms = [_call(number, tool.name) for number, tool in enumerate(self.tools)]
        schemas = {f"tool{n}": _moved(t.parameters or NOTHING, f"#/$defs/tool{n}") for n, t in enumerate(self.tools)}
        if answer is not None:
            forms.insert(0, {"$ref": "#/$defs/answer"})
            schemas["answer"] = _moved(answer, "#/$defs/answer")
        return {"anyOf": forms, "$defs": schemas}


def _call(number: int, name: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "arguments": {"$ref": f"#/$defs/tool{number}"}},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(schema: Any, place: str) -> Any:
    """Return a schema that stands at `place` of a larger one: its references into itself lead there."""
    match schema:
        case dict():
            return {key: _moved_reference(key, value, place) for key, value in schema.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case list():
            return [_moved(value, place) for value in schema]  # pyright: ignore[reportUnknownVariableType]
        case _:
            return schema


def _moved_reference(key: str, value: Any, place: str) -> Any:
    if key == "$ref" and isinstance(value, str) and value.startswith("#"):
        return place + value[1:]
    return _moved(value, place)
