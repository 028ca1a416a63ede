"""Qwen3-Coder's notation: a function, and in it a parameter at a time, each between marks."""

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from rbee_core import wire
from rbee_core.dialects.reading.json_text import BLANKS
from rbee_core.dialects.reading.marks import split_at
from rbee_core.dialects.reading.notation import Notation

CALL, END = "<tool_call>", "</tool_call>"
FUNCTION, PARAMETER = "<function=", "<parameter="
END_FUNCTION, END_PARAMETER = "</function>", "</parameter>"


class QwenXml(Notation):
    """A parameter is told when it is whole: as text where the tool's schema says so, else as JSON if it is any."""

    def __init__(self, tools: Sequence[wire.Tool]) -> None:
        super().__init__(tools)
        self._name = self._key = ""
        self._arguments = 0

    def _begin(self) -> bool:
        before, mark, self._text = split_at(self._text, (CALL, FUNCTION))
        self._say(before)
        self._state = {"": self._begin, CALL: self._in_call, FUNCTION: self._in_name}[mark]
        return bool(mark)

    def _in_call(self) -> bool:
        """Between a call's mark and its function's, and behind a function."""
        self._text = self._text.lstrip(BLANKS)
        for mark, state in ((FUNCTION, self._in_name), (END, self._behind_call), (CALL, self._in_call)):
            if self._text.startswith(mark):
                self._text, self._state = self._text[len(mark) :], state
                return True
        if any(mark.startswith(self._text) for mark in (FUNCTION, END, CALL)):
            return False
        if not self._calls:
            self._say(CALL)
        self._state = self._begin
        return True

    def _behind_call(self) -> bool:
        self._text = self._text.lstrip(BLANKS)
        self._state = self._begin if self._text else self._behind_call
        return bool(self._text)

    def _in_name(self) -> bool:
        name, mark, rest = self._text.partition(">")
        if not mark:
            return False
        self._name, self._arguments, self._text = name.strip(), 0, rest
        if self._name:
            self._call(self._name)
            self._state = self._in_function
        else:
            self._say(FUNCTION + name + mark)
            self._state = self._begin
        return True

    def _in_function(self) -> bool:
        _, mark, self._text = split_at(self._text, (PARAMETER, END_FUNCTION, END))
        if mark == PARAMETER:
            self._state = self._in_key
        elif mark:
            self._argue("}" if self._arguments else "{}")
            self._state = self._in_call if mark == END_FUNCTION else self._behind_call
        return bool(mark)

    def _in_key(self) -> bool:
        key, mark, rest = self._text.partition(">")
        if mark:
            self._key, self._text, self._state = key.strip(), rest, self._in_value
        return bool(mark)

    def _in_value(self) -> bool:
        value, mark, rest = self._text.partition(END_PARAMETER)
        if not mark:
            return False
        key = msgspec.json.encode(self._key).decode()
        self._argue(f"{', ' if self._arguments else '{'}{key}: {self._as_json(value)}")
        self._arguments += 1
        self._text, self._state = rest, self._in_function
        return True

    def _as_json(self, value: str) -> str:
        text = value.removeprefix("\n").removesuffix("\n")
        if self._kind() != "string":
            try:
                msgspec.json.decode(text)
            except (msgspec.DecodeError, RecursionError):
                pass
            else:
                return text
        return msgspec.json.encode(text).decode()

    def _kind(self) -> Any:
        """Return the type that the tool's schema says of the parameter."""
        tool = self._tools.get(self._name)
        properties = tool.parameters.get("properties") if tool else None
        schema = cast("dict[str, Any]", properties).get(self._key) if isinstance(properties, dict) else None
        return cast("dict[str, Any]", schema).get("type") if isinstance(schema, dict) else None

    def _finish(self) -> None:
        if self._state == self._begin:
            super()._finish()
        elif self._state == self._in_call and not self._calls:
            self._say(CALL + self._text)
        elif self._state == self._in_name:
            self._say(FUNCTION + self._text)
        elif self._state in (self._in_function, self._in_key, self._in_value):
            self._argue("}" if self._arguments else "{}")
        self._text = ""
