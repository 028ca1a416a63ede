"""Following JSON text that comes in pieces: one value, and the object in which most models write a call."""

import json

BLANKS = " \t\r\n"
NAMES, ARGUMENTS = ("name", "function"), ("arguments", "parameters")
KEYS = frozenset({*NAMES, *ARGUMENTS, "type", "id"})


class Value:
    """Follows one JSON value. It checks nothing but where the value ends."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_text = self._escaped = self._begun = False
        self._scalar = False
        self.over = False

    def take(self, text: str) -> int:
        """Return how many characters of `text` belong to the value; `over` once it has ended."""
        for at, character in enumerate(text):
            if self._scalar and character in ",]}" + BLANKS:
                self.over = True
                return at
            self._step(character)
            if self.over:
                return at + 1
        return len(text)

    def _step(self, character: str) -> None:
        if self._in_text:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._in_text, self.over = False, self._depth == 0
        elif character == '"':
            self._in_text = self._begun = True
        elif character in "{[":
            self._depth, self._begun = self._depth + 1, True
        elif character in "}]":
            self._depth -= 1
            self.over = self._depth <= 0
        elif not self._begun and character not in BLANKS:
            self._begun = self._scalar = True


class Broken(ValueError):
    """Raised by what is no call."""


class CallObject:
    """Reads ``{"name": …, "arguments": {…}}``, in whatever order. Arguments come as they are written.

    `name` is "" until it is known; `over` once the object has ended. Raises `Broken` for what can be no call; what goes
    wrong behind the name only ends it. Arguments that come as a string are what the string says. Those under `key`
    count; without any, those under the other word for it, which are known once the object has ended.
    """

    def __init__(self, key: str = "arguments") -> None:
        self._own = key
        self._begun = False
        self._had: set[str] = set()
        self._other: list[str] = []
        self._text = ""
        self._state = self._before
        self._key = ""
        self._value = Value()
        self._read: list[str] = []
        self.name = ""
        self.over = False

    def take(self, text: str) -> tuple[str, str]:
        """Return the piece of the arguments that `text` completes, and what of it lies behind the object."""
        self._text += text
        arguments: list[str] = []
        try:
            while not self.over and self._state(arguments):
                pass
        except Broken:
            if not self.name:
                raise
            self.over = True
        if not self.over:
            return "".join(arguments), ""
        arguments.append(self.close())
        rest, self._text = self._text, ""
        return "".join(arguments), rest

    def close(self) -> str:
        """Return the arguments that are known at the object's end only, or at the answer's."""
        other, self._other = "".join(self._other), []
        return "" if self._begun else other

    def _skip(self, also: str = "") -> bool:
        """Drop blanks; whether anything is left."""
        self._text = self._text.lstrip(BLANKS + also)
        return bool(self._text)

    def _before(self, arguments: list[str]) -> bool:
        del arguments
        if not self._skip():
            return False
        if self._text[0] != "{":
            raise Broken
        self._text = self._text[1:]
        self._state = self._at_key
        return True

    def _at_key(self, arguments: list[str]) -> bool:
        del arguments
        if not self._skip(","):
            return False
        if self._text[0] == "}":
            self._text, self.over = self._text[1:], True
            if not self.name:
                raise Broken
            return False
        if self._text[0] != '"':
            raise Broken
        end = _text_end(self._text)
        if not end:
            return False
        after = self._text[end:].lstrip(BLANKS)
        if not after:
            return False
        if after[0] != ":":
            raise Broken
        self._key, self._text = _said(self._text[:end]), after[1:]
        if self._key not in KEYS:
            raise Broken
        self._value, self._read, self._state = Value(), [], self._in_value
        return True

    def _in_value(self, arguments: list[str]) -> bool:
        if not self._read and not self._skip():
            return False
        took = self._value.take(self._text)
        piece, self._text = self._text[:took], self._text[took:]
        if piece:
            self._read.append(piece)
        whole = "".join(self._read) if self._value.over else ""
        if self._key in ARGUMENTS and self._key not in self._had:
            into = arguments if self._key == self._own else self._other
            quoted = "".join(self._read[:1])[:1] == '"'
            if piece and not quoted:
                into.append(piece)
            elif self._value.over and quoted:
                into.append(_said(whole))
            self._begun = self._begun or bool(arguments)
        elif self._value.over and self._key in NAMES:
            self.name = _said(whole)
        if self._value.over:
            self._had.add(self._key)
            self._state = self._at_key
        return self._value.over


def _text_end(text: str) -> int:
    """Return where the string ends that `text` begins with; 0 if it is not whole."""
    value = Value()
    end = value.take(text)
    return end if value.over else 0


def _said(quoted: str) -> str:
    """Return what a JSON string says; half a character, which JSON can write and nobody can send on, is broken."""
    try:
        said = json.loads(quoted, strict=False)
        str.encode(said)
    except (ValueError, TypeError):
        raise Broken from None
    return said
