"""What answers are made of, whatever notation a model writes in: the typed parts that codecs turn into their events.

A `Reader` turns the events of one answer into parts. Where a model has no style that is known, all of it is text.
"""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from rbee_core import wire

Reason = Literal["stop", "length", "tool_calls"]


class Text(Struct, frozen=True):
    """A piece of the answer. `logprobs` are those of its token, where they were asked for."""

    text: str
    logprobs: wire.Logprobs | None = None


class Reasoning(Struct, frozen=True):
    """A piece of what the model thinks before it answers."""

    text: str


class CallBegins(Struct, frozen=True):
    """The model calls a tool: its `index`-th call in this answer, from 0."""

    index: int
    name: str


class Arguments(Struct, frozen=True):
    """A piece of the JSON text of a call's arguments."""

    index: int
    text: str


class End(Struct, frozen=True):
    """The last part. `figures` is the event that the worker ended with."""

    reason: Reason
    figures: wire.StreamEvent
    reasoning_tokens: int = 0


Part = Text | Reasoning | CallBegins | Arguments | End


class Reader:
    """Reads one answer. Feed it every event but errors, in order."""

    def feed(self, event: wire.StreamEvent) -> Sequence[Part]:
        """Return the parts that `event` completes."""
        if event.token is not None:
            return (Text(event.token, event.logprobs),)
        if event.done:
            return (End("length" if event.finish_reason == "length" else "stop", event),)
        return ()


class Collected:
    """The parts of one answer put together, for an answer in one piece."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self.logprobs: list[wire.Logprobs] = []
        self.calls: list[tuple[str, list[str]]] = []
        self.end: End | None = None

    @property
    def text(self) -> str:
        """The answer itself."""
        return "".join(self._texts)

    @property
    def reasoning(self) -> str:
        """What the model thought."""
        return "".join(self._thoughts)

    def add(self, parts: Sequence[Part]) -> None:
        """Take further parts."""
        for part in parts:
            match part:
                case Text():
                    self._texts.append(part.text)
                    if part.logprobs:
                        self.logprobs.append(part.logprobs)
                case Reasoning():
                    self._thoughts.append(part.text)
                case CallBegins():
                    self.calls.append((part.name, []))
                case Arguments():
                    self.calls[part.index][1].append(part.text)
                case End():
                    self.end = part
