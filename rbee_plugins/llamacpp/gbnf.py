"""Reads llama.cpp's grammar notation, GBNF, and writes it as a grammar for llguidance. Pure.

llama.cpp's own matcher is not used: an ambiguous grammar makes it keep twice as many states with each character, deep
nesting overflows its stack, and a token that it did not expect aborts the process: docs/adr/0018.

What a rule means without recursion is a regular expression and becomes a terminal, matched at once; the rest stays
rules. Where a terminal could end in two places, it is the later one, as in the grammars of programming languages.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from rbee_core.errors import InvalidRequest, shorten

DEPTH_LIMIT, REPEAT_LIMIT, PARTS_LIMIT = 64, 2000, 20_000
NESTING_LIMIT = 2000
"""How deep all rules together may be nested: llguidance goes down so far on its stack, if each leads to the next."""

ROOT = "root"

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_SPACE, _SPACE_AND_LINES = re.compile(r"(?:[ \t]|#[^\r\n]*)*"), re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_REPEAT = re.compile(r"\*|\+|\?|\{\s*(\d+)\s*(,?)\s*(\d*)\s*\}")
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([nrt\\\"\[\]]))")
_PLAIN = {"n": 10, "r": 13, "t": 9}


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of, or outside of, some ranges."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Ref:
    """Another rule."""

    name: str


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other."""

    parts: "tuple[Part, ...]"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of them."""

    parts: "tuple[Part, ...]"


@dataclass(frozen=True, slots=True)
class Repeat:
    """At least `least` times, at most `most` times unless that is None."""

    part: "Part"
    least: int
    most: int | None


Part = Chars | Ref | Sequence | Choice | Repeat


def as_lark(text: str) -> str:
    """Return what `text` says in llguidance's own notation. Raises `InvalidRequest`, naming the line that is wrong."""
    rules = _Reader(text).rules()
    return _Writer(rules).text()


class _Reader:
    """Reads one grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._parts = 0
        self._deepest = 0  # of the rule that is being read
        self._nested = 0

    def rules(self) -> dict[str, Part]:
        """Return the rules by name. Later ones with the same name count, as in llama.cpp."""
        rules: dict[str, Part] = {}
        self._skip(lines=True)
        while self._at < len(self._text):
            name = self._name()
            self._skip()
            self._expect("::=")
            self._skip(lines=True)
            self._deepest = 0
            rules[name] = self._choice(depth=0)
            self._nested += 1 + self._deepest
            if self._nested > NESTING_LIMIT:
                raise self._wrong(f"its rules together are nested more than {NESTING_LIMIT} deep")
            if self._at < len(self._text) and self._text[self._at] not in "\r\n":
                raise self._wrong("this does not belong here")
            self._skip(lines=True)
        self._check_names(rules)
        return rules

    def _check_names(self, rules: dict[str, Part]) -> None:
        if ROOT not in rules:
            raise InvalidRequest("The grammar has no rule root", hint="its first rule is `root ::= …`")
        missing = sorted({ref for part in rules.values() for ref in refs(part)} - rules.keys())
        if missing:
            raise InvalidRequest(f"The grammar has no rule {shorten(missing[0])}, which another one uses")

    def _choice(self, depth: int) -> Part:
        self._deepen(depth)
        found = [self._sequence(depth)]
        while self._text.startswith("|", self._at):
            self._at += 1
            self._skip(lines=True)
            found.append(self._sequence(depth))
        return found[0] if len(found) == 1 else Choice(tuple(found))

    def _sequence(self, depth: int) -> Part:
        parts: list[Part] = []
        while (part := self._one(depth)) is not None:
            self._parts += 1
            if self._parts > PARTS_LIMIT:
                raise self._wrong(f"it has more than {PARTS_LIMIT} parts")
            self._skip(lines=depth > 0)
            parts.append(self._repeated(part, depth))
            self._skip(lines=depth > 0)
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _one(self, depth: int) -> Part | None:
        match self._text[self._at : self._at + 1]:
            case '"':
                return self._literal()
            case "[":
                return self._class()
            case ".":
                self._at += 1
                return Chars("(?s:.)")
            case "(":
                self._at += 1
                self._skip(lines=True)
                inner = self._choice(depth + 1)
                self._expect(")")
                return inner
            case "<" | "!":
                raise self._wrong("tokens by name or number are not supported, only characters")
            case first if first and _NAME.match(first):
                return Ref(self._name())
            case _:
                return None

    def _deepen(self, depth: int) -> None:
        self._deepest = max(self._deepest, depth)
        if depth > DEPTH_LIMIT:
            raise self._wrong(f"it is nested more than {DEPTH_LIMIT} deep")

    def _repeated(self, part: Part, depth: int) -> Part:
        while found := _REPEAT.match(self._text, self._at):
            depth += 1
            self._deepen(depth)
            least, most = _times(found)
            if max(least, most or 0) > REPEAT_LIMIT:
                raise self._wrong(f"it repeats something more than {REPEAT_LIMIT} times")
            self._at = found.end()
            part = Repeat(part, least, most)
            self._skip()
        return part

    def _literal(self) -> Part:
        self._at += 1
        found: list[Part] = []
        while not self._text.startswith('"', self._at):
            found.append(Chars(_spelled(self._character())))
        self._at += 1
        self._parts += len(found)
        return found[0] if len(found) == 1 else Sequence(tuple(found))

    def _class(self) -> Part:
        self._at += 1
        negated = self._text.startswith("^", self._at)
        self._at += negated
        ranges: list[str] = []
        while not self._text.startswith("]", self._at):
            first = last = self._character()
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                last = self._character()
            if last < first:
                raise self._wrong("a range ends before it begins")
            ranges.append(_spelled(first) if first == last else f"{_spelled(first)}-{_spelled(last)}")
        self._at += 1
        if not ranges:
            raise self._wrong("an empty [] matches nothing")
        return Chars(f"[{'^' if negated else ''}{''.join(ranges)}]")

    def _character(self) -> int:
        if self._at >= len(self._text):
            raise self._wrong("it ends within a text or a class of characters")
        if self._text[self._at] != "\\":
            self._at += 1
            return ord(self._text[self._at - 1])
        found = _ESCAPE.match(self._text, self._at)
        if found is None:
            raise self._wrong("it has an unknown escape")
        self._at = found.end()
        code = found[1] or found[2] or found[3]
        value = int(code, 16) if code else _PLAIN.get(found[4], ord(found[4][0]))
        if value > 0x10FFFF or 0xD800 <= value <= 0xDFFF:
            raise self._wrong("it escapes what is no character")
        return value

    def _name(self) -> str:
        found = _NAME.match(self._text, self._at)
        if found is None:
            raise self._wrong("a rule's name is expected")
        self._at = found.end()
        return found[0]

    def _expect(self, what: str) -> None:
        if not self._text.startswith(what, self._at):
            raise self._wrong(f"{what} is expected")
        self._at += len(what)

    def _skip(self, *, lines: bool = False) -> None:
        found = (_SPACE_AND_LINES if lines else _SPACE).match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _wrong(self, why: str) -> InvalidRequest:
        line = self._text.count("\n", 0, self._at) + 1
        rest = shorten(self._text[self._at : self._at + 30].partition("\n")[0])
        return InvalidRequest(f"The grammar is wrong in line {line}, before {rest!r}: {why}")


def _times(found: re.Match[str]) -> tuple[int, int | None]:
    match found[0]:
        case "*":
            return 0, None
        case "+":
            return 1, None
        case "?":
            return 0, 1
        case _:
            least = int(found[1])
            return least, (int(found[3]) if found[3] else None) if found[2] else least


def _spelled(code: int) -> str:
    return f"\\u{{{code:x}}}"


def refs(part: Part) -> Iterator[str]:
    """Yield the rules that `part` names."""
    match part:
        case Ref(name):
            yield name
        case Sequence(parts) | Choice(parts):
            for one in parts:
                yield from refs(one)
        case Repeat(inner):
            yield from refs(inner)
        case Chars():
            pass


def recursive(rules: dict[str, Part]) -> set[str]:
    """Return the rules that are not regular: they lead to themselves, or to one that does."""
    uses = {name: set(refs(part)) for name, part in rules.items()}
    users: dict[str, list[str]] = {name: [] for name in rules}
    for name, used in uses.items():
        for one in used:
            users[one].append(name)
    unclear = {name: len(used) for name, used in uses.items()}
    regular = [name for name, count in unclear.items() if not count]
    for name in regular:  # grows on the way
        for user in users[name]:
            unclear[user] -= 1
            if not unclear[user]:
                regular.append(user)
    return rules.keys() - set(regular)


@dataclass(slots=True)
class _Writer:
    """Writes rules as text: regular ones in upper case, as terminals; parts of others that are regular, as new ones."""

    rules: dict[str, Part]
    terminals: list[str] = field(default_factory=list[str])

    def text(self) -> str:
        """Return the grammar."""
        kept = recursive(self.rules)
        names = {
            name: "start" if name == ROOT else f"{'r' if name in kept else 'R'}{number}"
            for number, name in enumerate(self.rules)
        }
        lines: list[str] = []
        for name, part in self.rules.items():
            if name in kept:
                lines.append(f"{names[name]}: {self._rule(part, names, kept)}")
            elif name == ROOT:
                lines.append(f"start: {self._terminal(part, names)}")
            else:
                lines.append(f"{names[name]}: {_regular(part, names)}")
        return "\n".join([*lines, *self.terminals, ""])

    def _terminal(self, part: Part, names: dict[str, str]) -> str:
        name = f"T{len(self.terminals)}"
        self.terminals.append(f"{name}: {_regular(part, names)}")
        return name

    def _rule(self, part: Part, names: dict[str, str], kept: set[str]) -> str:
        """Return `part`, of a recursive rule; what stands together and is regular becomes one terminal."""
        if not kept.intersection(refs(part)):
            return self._terminal(part, names)
        match part:
            case Ref(name):
                return names[name]
            case Sequence(parts):
                return " ".join(self._rule(one, names, kept) for one in _grouped(parts, kept))
            case Choice(parts):
                return f"({' | '.join(self._rule(one, names, kept) for one in parts)})"
            case Repeat(inner, least, most):
                return f"({self._rule(inner, names, kept)}){_braces(least, most)}"
            case Chars():
                raise AssertionError(part)


def _grouped(parts: tuple[Part, ...], kept: set[str]) -> list[Part]:
    """Return `parts` with those that stand together and are regular as one."""
    groups: list[Part] = []
    run: list[Part] = []
    for part in parts:
        if kept.intersection(refs(part)):
            groups += [*([Sequence(tuple(run))] if run else []), part]
            run = []
        else:
            run.append(part)
    return [*groups, *([Sequence(tuple(run))] if run else [])]


def _regular(part: Part, names: dict[str, str]) -> str:
    match part:
        case Chars(pattern):
            return f"/{pattern}/"
        case Ref(name):
            return names[name]
        case Sequence(parts):
            return _joined(parts, names)
        case Choice(parts):
            return f"({' | '.join(_regular(one, names) for one in parts)})"
        case Repeat(inner, least, most):
            return f"({_regular(inner, names)}){_braces(least, most)}"


def _joined(parts: tuple[Part, ...], names: dict[str, str]) -> str:
    """Return a sequence; neighbouring characters become one expression."""
    pieces: list[str] = []
    open_run = False
    for part in parts:
        if isinstance(part, Chars) and open_run:
            pieces[-1] = f"{pieces[-1][:-1]}{part.pattern}/"
        else:
            pieces.append(_regular(part, names))
        open_run = isinstance(part, Chars)
    return " ".join(pieces) or '""'


def _braces(least: int, most: int | None) -> str:
    return f"{{{least},{'' if most is None else most}}}"
