"""Reads one answer as its style says, or, where a call was forced, as that."""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, cast

from rbee_core import wire
from rbee_core.dialects.parts import Arguments, CallBegins, End, Part, Reader, Reasoning, Text
from rbee_core.dialects.reading.harmony import Harmony
from rbee_core.dialects.reading.json_text import BLANKS, Broken, CallObject
from rbee_core.dialects.reading.marks import held_back, split_at
from rbee_core.dialects.reading.mistral import Mistral
from rbee_core.dialects.reading.notation import Hermes, LlamaJson, Notation
from rbee_core.dialects.reading.xml import QwenXml

NOTATIONS: Mapping[str, type[Notation]] = {
    "hermes": Hermes,
    "qwen3-xml": QwenXml,
    "mistral": Mistral,
    "llama-json": LlamaJson,
    "gpt-oss": Harmony,
}
"""By the words of `rbee_core.backend.talk.TOOL_STYLES`; what is written in another one is text."""


class StyledReader(Reader):
    """Reads an answer as the style says that comes before its first token; without one, all of it is text.

    Calls beyond `most_calls`, and what stands behind them, are left out.
    """

    def __init__(self, tools: Sequence[wire.Tool], most_calls: int | None = None) -> None:
        self._tools = tools
        self._most_calls = most_calls
        self._thoughts: Thoughts | None = None
        self._notation: Notation | None = None
        self._held: list[wire.Logprobs] = []
        self._thought_tokens = self._calls = 0
        self._full = False

    def feed(self, event: wire.StreamEvent) -> Sequence[Part]:
        """Return the parts that `event` completes."""
        if event.style is not None:
            self._begin(event.style)
            return ()
        if self._thoughts is None and self._notation is None:
            return super().feed(event)
        if event.token is not None:
            return self._likely(self._read(event.token), event.logprobs)
        return [*self._rest(), self._end(event)] if event.done else ()

    def _begin(self, style: wire.Style) -> None:
        kind = NOTATIONS.get(style.tools)
        self._notation = kind(self._tools) if kind else None
        if style.reasoning and style.tools != "gpt-oss":
            self._thoughts = Thoughts(style.reasoning, open_=style.open)

    def _read(self, token: str) -> list[Part]:
        thought, text = self._thoughts.take(token) if self._thoughts else ("", token)
        parts: list[Part] = [Reasoning(thought)] if thought else []
        if text:
            parts += self._notation.take(text) if self._notation else [Text(text)]
        return self._counted(parts, 1)

    def _rest(self) -> list[Part]:
        thought, text = self._thoughts.close() if self._thoughts else ("", "")
        parts: list[Part] = [Reasoning(thought)] if thought else []
        if self._notation:
            parts += [*self._notation.take(text), *self._notation.close()]
        elif text:
            parts.append(Text(text))
        return self._counted(parts, 0)

    def _counted(self, parts: list[Part], tokens: int) -> list[Part]:
        if self._most_calls is not None:
            parts = self._within(parts, self._most_calls)
        self._calls += sum(isinstance(part, CallBegins) for part in parts)
        if any(isinstance(part, Reasoning) for part in parts):
            self._thought_tokens += tokens
        return parts

    def _within(self, parts: list[Part], most: int) -> list[Part]:
        begins = [at for at, part in enumerate(parts) if isinstance(part, CallBegins) and part.index >= most]
        if begins:
            self._full = True
            return parts[: begins[0]]
        return [] if self._full else parts

    def _likely(self, parts: list[Part], likely: wire.Logprobs | None) -> Sequence[Part]:
        """Put probabilities to the text of the answer; those of tokens that are no part of it are left out."""
        if likely is None:
            return parts
        self._held.append(likely)
        texts = [at for at, part in enumerate(parts) if isinstance(part, Text)]
        if texts:
            text = cast("Text", parts[texts[0]]).text
            *early, last = self._held
            parts[texts[0] : texts[0] + 1] = [*(Text("", one) for one in early), Text(text, last)]
        if parts:
            self._held = []
        return parts

    def _end(self, event: wire.StreamEvent) -> End:
        reason = "length" if event.finish_reason == "length" else "tool_calls" if self._calls else "stop"
        return End(reason, event, self._thought_tokens)


class Thoughts:
    """Tells what a model thinks, between two marks at the beginning of its answer, from what it says.

    Blanks behind the marks are no part of either.
    """

    def __init__(self, marks: tuple[str, str], *, open_: bool) -> None:
        self._first, self._last = marks
        self._text = ""
        self._where = "within" if open_ else "before"
        self._blanks = open_

    def take(self, text: str) -> tuple[str, str]:
        """Return the reasoning and the text that `text` completes."""
        self._text += text
        if self._where == "before":
            self._look_for_first()
        thought = self._thought() if self._where == "within" else ""
        return thought, self._answer() if self._where == "behind" else ""

    def close(self) -> tuple[str, str]:
        """Return what was held back."""
        text, self._text = self._text, ""
        return (text, "") if self._where == "within" else ("", text if self._where == "before" else "")

    def _look_for_first(self) -> None:
        text = self._text.lstrip(BLANKS)
        if text.startswith(self._first):
            self._text, self._where, self._blanks = text[len(self._first) :], "within", True
        elif text and held_back(text, self._first) != len(text):
            self._where, self._blanks = "behind", False

    def _thought(self) -> str:
        thought, mark, self._text = split_at(self._without_blanks(), (self._last,))
        if mark:
            self._where, self._blanks = "behind", True
        return thought

    def _answer(self) -> str:
        answer, self._text = self._without_blanks(), ""
        return answer

    def _without_blanks(self) -> str:
        if self._blanks:
            self._text = self._text.lstrip(BLANKS)
            self._blanks = not self._text
        return self._text


class EitherReader(Reader):
    """Reads an answer that a grammar held to be JSON: one call of a tool of these `names`, or an answer of that form.

    Which of them it is shows once a call's name and the first of its arguments are there.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._object = CallObject()
        self._early: list[wire.StreamEvent] = []
        self._arguments = ""
        self._kind: Literal["", "text", "call"] = ""

    def feed(self, event: wire.StreamEvent) -> Sequence[Part]:
        """Return the parts that `event` completes."""
        if self._kind == "text" or not (event.token or event.done):
            return super().feed(event)
        if event.done:
            reason = "length" if event.finish_reason == "length" else "tool_calls" if self._kind else "stop"
            return [*self._as_text(), End(reason, event)]
        return self._argue(event.token or "") if self._kind else self._look(event)

    def _look(self, event: wire.StreamEvent) -> Sequence[Part]:
        self._early.append(event)
        try:
            self._arguments += self._object.take(event.token or "")[0]
        except Broken:
            return self._as_text()
        if self._object.name and (self._object.name not in self._names or (self._object.over and not self._arguments)):
            return self._as_text()
        if not (self._object.name and self._arguments):
            return ()
        self._kind, self._early = "call", []
        return [CallBegins(0, self._object.name), Arguments(0, self._arguments)]

    def _argue(self, token: str) -> Sequence[Part]:
        text = "" if self._object.over else self._object.take(token)[0]
        return [Arguments(0, text)] if text else ()

    def _as_text(self) -> Sequence[Part]:
        self._kind = self._kind or "text"
        early, self._early = self._early, []
        return [Text(one.token or "", one.logprobs) for one in early]


class ForcedReader(Reader):
    """Reads an answer that a grammar held to be one call: of `name`, or, without one, of a tool that it names first."""

    def __init__(self, name: str = "") -> None:
        self._object = None if name else CallObject()
        self._name, self._begun, self._early = name, False, ""

    def feed(self, event: wire.StreamEvent) -> Sequence[Part]:
        """Return the parts that `event` completes."""
        if event.done:
            reason = "length" if event.finish_reason == "length" else "tool_calls"
            return [*self._begin(), End(reason, event)]
        if not event.token:
            return ()
        text = event.token
        if self._object is not None:
            text, _ = self._object.take(text)
            self._name = self._object.name
        self._early += text
        parts: list[Part] = [*self._begin()]
        if self._begun and self._early:
            parts.append(Arguments(0, self._early))
            self._early = ""
        return parts

    def _begin(self) -> Sequence[Part]:
        if self._begun or not self._name:
            return ()
        self._begun = True
        return (CallBegins(0, self._name),)
