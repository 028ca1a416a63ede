"""gpt-oss's notation: messages in channels. Analysis is reasoning, what goes to a function a call, the rest text."""

from collections.abc import Callable

from rbee_core.dialects.parts import Reasoning
from rbee_core.dialects.reading.marks import split_at
from rbee_core.dialects.reading.notation import Notation

START, CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>")
TO = "to=functions."


class Harmony(Notation):
    """Control tokens come as text, see `rbee_core.backend.talk.MARKED_BY_TOKENS`."""

    def _begin(self) -> bool:
        if not self._text:
            return False
        if any(mark.startswith(self._text) for mark in (START, CHANNEL)) and self._text not in (START, CHANNEL):
            return False
        self._state = self._in_head if self._text.startswith((START, CHANNEL)) else self._in_answer
        return True

    def _in_head(self) -> bool:
        head, mark, rest = self._text.partition(MESSAGE)
        if not mark:
            return False
        self._text = rest
        if name := "".join(head.partition(TO)[2].partition("<")[0].split()[:1]):
            self._call(name)
            self._state = self._in_arguments
        else:
            self._state = self._in_thought if "analysis" in head else self._in_answer
        return True

    def _in_answer(self) -> bool:
        return self._body(self._say)

    def _in_thought(self) -> bool:
        return self._body(self._think)

    def _in_arguments(self) -> bool:
        return self._body(self._argue)

    def _body(self, tell: Callable[[str], None]) -> bool:
        before, mark, self._text = split_at(self._text, (*ENDS, START))
        tell(before)
        if mark:
            self._state = self._in_head
        return bool(mark)

    def _think(self, text: str) -> None:
        if text:
            self._parts.append(Reasoning(text))

    def _finish(self) -> None:
        if self._state == self._in_thought:
            self._think(self._text)
        elif self._state == self._in_arguments:
            self._argue(self._text)
        elif self._state in (self._in_answer, self._begin):
            self._say(self._text)
        self._text = ""
