"""The free text that a custom tool takes. Models write arguments, so it is the one argument of a function for them."""

import json
import re
from typing import Any

import msgspec

ARGUMENT = "input"
_HEAD = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_WHOLE = re.compile(r'(?:[^"\\]|\\(?:u[0-9a-fA-F]{4}|[^u]))*', re.DOTALL)
_HALF = re.compile(r"(?<!\\)(?:\\\\)*(\\u[dD][89abAB][0-9a-fA-F]{2})\Z")
"""The first half of a character that is written as two; the other one may follow."""


def schema(pattern: str | None) -> dict[str, Any]:
    """Return the schema of such arguments; the text is all of what `pattern`, a regular expression, says."""
    text = {"type": "string"} | ({"pattern": f"^(?:{pattern})$"} if pattern else {})
    return {"type": "object", "properties": {ARGUMENT: text}, "required": [ARGUMENT], "additionalProperties": False}


def written(text: str) -> str:
    """Return the arguments that say `text`."""
    return msgspec.json.encode({ARGUMENT: text}).decode()


class FreeText:
    """Reads the text out of arguments that come in pieces.

    Arguments of another shape are held back to their end: what was written is the text then.
    """

    def __init__(self) -> None:
        self._held = ""
        self._state = "before"

    def take(self, arguments: str) -> str:
        """Return the piece of the text that `arguments` completes."""
        if self._state == "behind":
            return ""
        self._held += arguments
        if self._state == "before":
            head = _HEAD.match(self._held)
            if not head:
                return ""
            self._held, self._state = self._held[head.end() :], "within"
        return self._within()

    def close(self) -> str:
        """Return what was held back."""
        state, self._state = self._state, "behind"
        return _only(self._held) if state == "before" else ""

    def _within(self) -> str:
        found = _WHOLE.match(self._held)
        end = found.end() if found else 0
        if self._held[end : end + 1] == '"':
            self._state = "behind"
        elif half := _HALF.search(self._held, 0, end):
            end = half.start(1)
        said, self._held = self._held[:end], self._held[end:]
        return _read(said)


def _read(quoted: str) -> str:
    """Return what stands between the quotes of a JSON string; half a character, which nobody can send on, is a mark."""
    try:
        said: str = json.loads(f'"{quoted}"', strict=False)
    except ValueError:
        return quoted
    return said.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _only(arguments: str) -> str:
    """Return the only text of an object, whatever its name is; else all of it as it was written."""
    try:
        said = msgspec.json.decode(arguments, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        return arguments
    texts = list(said.values())
    return texts[0] if len(texts) == 1 and isinstance(texts[0], str) else arguments
