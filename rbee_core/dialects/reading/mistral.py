"""Mistral's notations: ``[TOOL_CALLS]`` with a list of objects, or, newer, with a name and its arguments."""

import re

from rbee_core.dialects.reading.json_text import BLANKS, Value
from rbee_core.dialects.reading.notation import Objects

NAME = re.compile(r"[\w.:/-]{1,256}")
MARK, ARGS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"


class Mistral(Objects):
    """Both notations; which one it is, what stands behind the mark says."""

    opening = (MARK,)
    inside = ("[",)
    between = (",", "]")

    def _behind_mark(self) -> bool:
        text = self._text.lstrip(BLANKS)
        if not text:
            return False
        if text[0] in "[{":
            self._state = self._skip_to_object
            return True
        self._state = self._at_name
        return True

    def _at_name(self) -> bool:
        """A name, perhaps an id, and then the arguments."""
        at = self._text.find("{")
        if at < 0:
            return False
        name = self._text[:at].partition(ARGS)[0].partition(CALL_ID)[0].strip(BLANKS)
        if not NAME.fullmatch(name):
            self._say(self._mark)
            self._state = self._in_text
            return True
        self._call(name)
        self._text, self._value, self._state = self._text[at:], Value(), self._in_arguments
        return True

    def _in_arguments(self) -> bool:
        took = self._value.take(self._text)
        self._argue(self._text[:took])
        self._text = self._text[took:]
        if self._value.over:
            self._state = self._behind_object
        return self._value.over

    def _finish(self) -> None:
        if self._state == self._at_name:
            self._say(self._raw + self._text)
            self._text = ""
        elif self._state == self._skip_to_object:
            self._say(self._raw)
        else:
            super()._finish()
