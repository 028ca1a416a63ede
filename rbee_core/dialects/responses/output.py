"""What an answer is made of in this dialect: items, and the events by which each comes into being."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from rbee_core import wire
from rbee_core.dialects import parts
from rbee_core.dialects.openai.figures import likelihood
from rbee_core.dialects.responses.freeform import FreeText

_encode = msgspec.json.encode


class Events:
    """Numbers the events of one answer."""

    def __init__(self) -> None:
        self._number = 0

    def tell(self, kind: str, **said: Any) -> bytes:
        """Return an event by its name."""
        name = kind if kind == "error" else f"response.{kind}"
        data = _encode({"type": name, "sequence_number": self.next(), **said})
        return b"event: %b\ndata: %b\n\n" % (name.encode(), data)

    def next(self) -> int:
        """Return the number of the next event, which is to be told now."""
        self._number += 1
        return self._number - 1


class Item(ABC):
    """One item of an answer. `kind`, and how its name begins and its deltas are called; `of_part` where it has one."""

    kind: ClassVar[str]
    prefix: ClassVar[str]
    deltas: ClassVar[str]
    of_part: ClassVar[bool] = False

    def __init__(self, events: Events, name: str, index: int) -> None:
        self.identity = f"{self.prefix}_{name}_{index}"
        self._events = events
        self._texts: list[str] = []
        self._place: dict[str, Any] = {"item_id": self.identity, "output_index": index}
        if self.of_part:
            self._place |= {"content_index": 0}
        kind = f"response.{self.deltas}.delta"
        front = _encode({"type": kind, **self._place}).removesuffix(b"}")
        self._front = b"event: %b\ndata: %b" % (kind.encode(), front)

    @abstractmethod
    def told(self, status: str) -> dict[str, Any]:
        """Return the item as far as it is."""

    @abstractmethod
    def done(self) -> bytes:
        """Return the events that say all of the text again."""

    def begin(self) -> bytes:
        """Return the event that the item begins with."""
        return self._tell_item("output_item.added", "in_progress")

    def end(self, status: str) -> bytes:
        """Return the events that the item ends with."""
        return self.done() + self._tell_item("output_item.done", status)

    def piece(self, text: str, likely: wire.Logprobs | None = None) -> bytes:
        """Return a piece of the text; put together by hand, as it is paid for with every token."""
        del likely
        self._texts.append(text)
        return b'%b,"delta":%b,"sequence_number":%d}\n\n' % (self._front, _encode(text), self._events.next())

    @property
    def text(self) -> str:
        """What was said so far."""
        return "".join(self._texts)

    def _tell_item(self, kind: str, status: str) -> bytes:
        return self._events.tell(kind, output_index=self._place["output_index"], item=self.told(status))


class Parted(Item):
    """An item whose text is its only part."""

    of_part = True

    @abstractmethod
    def part(self) -> dict[str, Any]:
        """Return the part as far as it is."""

    def begin(self) -> bytes:
        """Return the events that the item and its part begin with."""
        return super().begin() + self._events.tell("content_part.added", **self._place, part=self.part())

    def done(self) -> bytes:
        """Return the events that the part ends with."""
        said = {key: value for key, value in self.part().items() if key in ("text", "logprobs")}
        return self._events.tell(f"{self.deltas}.done", **self._place, **said) + self._events.tell(
            "content_part.done", **self._place, part=self.part()
        )

    def _parts(self) -> list[dict[str, Any]]:
        """Return the parts of the item: none while there is nothing in it."""
        return [self.part()] if self._texts else []


class Message(Parted):
    """What the model says."""

    kind, prefix, deltas = "message", "msg", "output_text"

    def __init__(self, events: Events, name: str, index: int) -> None:
        super().__init__(events, name, index)
        self._likely: list[dict[str, Any]] = []

    def piece(self, text: str, likely: wire.Logprobs | None = None) -> bytes:
        """Return a piece of the text, with what is known of its token."""
        said = [likelihood(likely)] if likely else []
        self._likely += said
        self._texts.append(text)
        told = (self._front, _encode(said), _encode(text), self._events.next())
        return b'%b,"logprobs":%b,"delta":%b,"sequence_number":%d}\n\n' % told

    def part(self) -> dict[str, Any]:
        """Return the text."""
        return {"type": "output_text", "annotations": [], "logprobs": list(self._likely), "text": self.text}

    def told(self, status: str) -> dict[str, Any]:
        """Return the message."""
        said = {"type": self.kind, "status": status, "role": "assistant", "content": self._parts()}
        return {"id": self.identity, **said}


class Thought(Parted):
    """What the model thinks before it answers; it has no summary."""

    kind, prefix, deltas = "reasoning", "rs", "reasoning_text"

    def part(self) -> dict[str, Any]:
        """Return the text."""
        return {"type": "reasoning_text", "text": self.text}

    def told(self, status: str) -> dict[str, Any]:
        """Return the item; nobody can read what is encrypted, so nothing is."""
        said = {"type": self.kind, "status": status, "summary": [], "content": self._parts()}
        return {"id": self.identity, **said, "encrypted_content": None}


class Call(Item):
    """A call of a function."""

    kind, prefix, deltas = "function_call", "fc", "function_call_arguments"
    field: ClassVar[str] = "arguments"

    def __init__(self, events: Events, name: str, index: int, tool: str) -> None:
        super().__init__(events, name, index)
        self._call_id = f"call_{name}_{index}"
        self._tool = tool

    def told(self, status: str) -> dict[str, Any]:
        """Return the call."""
        said = {"status": status, "call_id": self._call_id, "name": self._tool, self.field: self.text}
        return {"id": self.identity, "type": self.kind, **said}

    def done(self) -> bytes:
        """Return the event that says all arguments again."""
        return self._events.tell(f"{self.deltas}.done", **self._place, **{self.field: self.text})


class CustomCall(Call):
    """A call of a custom tool, whose free text the model wrote as an argument."""

    kind, prefix, deltas, field = "custom_tool_call", "ctc", "custom_tool_call_input", "input"

    def __init__(self, events: Events, name: str, index: int, tool: str) -> None:
        super().__init__(events, name, index, tool)
        self._free = FreeText()

    def piece(self, text: str, likely: wire.Logprobs | None = None) -> bytes:
        """Return the piece of the free text that a piece of the arguments completes."""
        said = self._free.take(text)
        return super().piece(said, likely) if said else b""

    def done(self) -> bytes:
        """Return the event that says all of it again, after what was held back."""
        rest = self._free.close()
        return (super().piece(rest) if rest else b"") + super().done()


class Output:
    """The items of one answer, put together from its parts; `customs` are the tools that take a free text."""

    def __init__(self, events: Events, name: str, customs: frozenset[str]) -> None:
        self._events = events
        self._name = name
        self._customs = customs
        self._done: list[dict[str, Any]] = []
        self._open: Item | None = None

    def take(self, said: Sequence[parts.Part]) -> bytes:
        """Return the events of further parts."""
        return b"".join(map(self._take, said))

    def told(self, status: str) -> list[dict[str, Any]]:
        """Return all items; the one that is not whole has `status`."""
        return [*self._done, *([self._open.told(status)] if self._open else [])]

    def _take(self, part: parts.Part) -> bytes:
        match part:
            case parts.Text(text, likely):
                return self._piece(Message, text, likely) if text or likely else b""
            case parts.Reasoning(text):
                return self._piece(Thought, text) if text else b""
            case parts.CallBegins(_, tool):
                kind = CustomCall if tool in self._customs else Call
                return self._close() + self._begin(kind(self._events, self._name, len(self._done), tool))
            case parts.Arguments(_, text):
                return self._open.piece(text) if self._open and text else b""
            case parts.End(reason):
                return self._close("incomplete" if reason == "length" else "completed")

    def _piece(self, kind: type[Message | Thought], text: str, likely: wire.Logprobs | None = None) -> bytes:
        if self._open and self._open.kind == kind.kind:
            return self._open.piece(text, likely)
        ending = self._close()
        item = kind(self._events, self._name, len(self._done))
        return ending + self._begin(item) + item.piece(text, likely)

    def _begin(self, item: Item) -> bytes:
        self._open = item
        return item.begin()

    def _close(self, status: str = "completed") -> bytes:
        if self._open is None:
            return b""
        item, self._open = self._open, None
        ending = item.end(status)
        self._done.append(item.told(status))
        return ending
