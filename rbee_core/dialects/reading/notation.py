"""What every notation of calls does, and those that write a call as a JSON object."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from rbee_core import wire
from rbee_core.dialects.parts import Arguments, CallBegins, Part, Text
from rbee_core.dialects.reading.json_text import BLANKS, Broken, CallObject
from rbee_core.dialects.reading.marks import held_back, split_at


class Notation(ABC):
    """Reads one answer. A subclass has states: functions that take from `_text` and say whether to go on."""

    def __init__(self, tools: Sequence[wire.Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._text = ""
        self._parts: list[Part] = []
        self._state: Callable[[], bool] = self._begin
        self._calls = 0

    def take(self, text: str) -> Sequence[Part]:
        """Return the parts that `text` completes."""
        self._text += text
        while self._state():
            pass
        return self._flushed()

    def close(self) -> Sequence[Part]:
        """Return what was held back, at the end of the answer."""
        self._finish()
        return self._flushed()

    @abstractmethod
    def _begin(self) -> bool:
        """The state at the beginning of the answer."""

    def _finish(self) -> None:
        """Say what is held back, unless it is part of a call."""
        self._say(self._text)
        self._text = ""

    def _say(self, text: str) -> None:
        if text:
            self._parts.append(Text(text))

    def _call(self, name: str) -> None:
        self._parts.append(CallBegins(self._calls, name))
        self._calls += 1

    def _argue(self, text: str) -> None:
        if text:
            self._parts.append(Arguments(self._calls - 1, text))

    def _flushed(self) -> Sequence[Part]:
        parts, self._parts = self._parts, []
        return parts


class Objects(Notation):
    """Calls are objects behind a mark, or, with `bare`, an answer that is nothing else."""

    opening: tuple[str, ...] = ()
    bare = False
    key = "arguments"
    """The word for the arguments that counts, where an object has both that models use."""
    inside: tuple[str, ...] = ()
    """What may stand between the mark and the first object, beside blanks."""
    between: tuple[str, ...] = ()
    """What may stand between objects and behind the last one."""

    def __init__(self, tools: Sequence[wire.Tool]) -> None:
        super().__init__(tools)
        self._object = CallObject(self.key)
        self._mark = self._raw = self._early = ""

    def _begin(self) -> bool:
        text = self._text.lstrip(BLANKS)
        if not text:
            return False
        if self.bare and text[0] == "{":
            self._mark = self._raw = ""
            self._open()
        else:
            self._state = self._in_text
        return True

    def _in_text(self) -> bool:
        before, mark, self._text = split_at(self._text, self.opening)
        self._say(before)
        if not mark:
            return False
        self._see(mark)
        return True

    def _see(self, mark: str) -> None:
        self._mark = self._raw = mark
        self._state = self._behind_mark

    def _behind_mark(self) -> bool:
        """Behind an opening mark, where an object begins."""
        return self._skip_to_object()

    def _skip_to_object(self) -> bool:
        before = self._text
        there = self._skip(self.inside)
        self._raw += before[: len(before) - len(self._text)]
        if there:
            self._open()
        return there

    def _skip(self, words: Sequence[str]) -> bool:
        """Drop blanks and `words`; whether something else is left, which cannot become one of them."""
        while True:
            self._text = self._text.lstrip(BLANKS)
            word = next((word for word in words if self._text.startswith(word)), None)
            if word is None:
                break
            self._text = self._text[len(word) :]
        return bool(self._text) and not any(held_back(self._text, word) == len(self._text) for word in words)

    def _open(self) -> None:
        self._object, self._early, self._state = CallObject(self.key), "", self._in_object

    def _in_object(self) -> bool:
        text, self._text = self._text, ""
        named = self._object.name
        try:
            arguments, rest = self._object.take(text)
        except Broken:  # what looked like a call is none: it is text, and may have marks in it
            self._say(self._mark)
            self._text, self._state = self._raw[len(self._mark) :] + text, self._in_text
            return True
        if not named:
            self._raw += text[: len(text) - len(rest)]
            self._early += arguments
            if self._object.name:
                self._call(self._object.name)
                self._argue(self._early)
        else:
            self._argue(arguments)
        if self._object.over:
            self._text, self._state = rest, self._behind_object
        return self._object.over

    def _behind_object(self) -> bool:
        if not self._skip(self.between) or any(held_back(self._text, mark) == len(self._text) for mark in self.opening):
            return False
        mark = next((mark for mark in self.opening if self._text.startswith(mark)), "")
        self._text = self._text[len(mark) :]
        if mark:
            self._see(mark)
        elif self._text[0] == "{":
            self._mark = self._raw = ""
            self._open()
        else:
            self._state = self._in_text
        return True

    def _finish(self) -> None:
        if self._state == self._in_object:
            self._say("" if self._object.name else self._raw)
            self._argue(self._object.close() if self._object.name else "")
        elif self._state == self._behind_mark:
            self._say(self._raw + self._text)
        elif self._state != self._behind_object:
            super()._finish()
        self._text = ""


class Hermes(Objects):
    """``<tool_call>{"name": …, "arguments": …}</tool_call>``, of Qwen, Hermes and whoever is told of tools by rbee."""

    opening = ("<tool_call>",)
    between = ("</tool_call>",)


class LlamaJson(Objects):
    """An answer that is ``{"name": …, "parameters": …}`` and nothing else; several with semicolons."""

    opening = ("<|python_tag|>",)
    between = (";", "<|eom_id|>", "<|eot_id|>")
    bare = True
    key = "parameters"
