"""Saved states of texts that had to leave their sequence: bounded in bytes, the least recently used go first. Pure."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

WORTH_SAVING = 128
"""Tokens that are lost otherwise. Fewer are computed in a moment, and saving takes time from whoever comes."""

MOST_STATES = 64
"""Each is looked at for each new prompt."""

S = TypeVar("S")


@dataclass(slots=True, eq=False)
class Saved(Generic[S]):
    """What a sequence held: computed tokens in order, and the state from which it holds them again.

    Cut back to fewer than `floor` tokens it cannot be. `used` grows with each use, for the least recent.
    """

    tokens: "array[int]"
    state: S
    state_bytes: int
    floor: int = 0
    used: int = 0

    @property
    def size_bytes(self) -> int:
        """What it takes."""
        return self.state_bytes + len(self.tokens) * self.tokens.itemsize

    def serves(self, tokens: "array[int]") -> bool:
        """Whether it begins with these tokens, and can be cut back to them."""
        return self.floor <= len(tokens) and self.tokens[: len(tokens)] == tokens


class States(Generic[S]):
    """Saved states of `limit_bytes` at most, 0 for none."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._saved: list[Saved[S]] = []
        self._uses = 0

    def __iter__(self) -> Iterator[Saved[S]]:
        return iter(self._saved)

    @property
    def size_bytes(self) -> int:
        """What all of them take."""
        return sum(saved.size_bytes for saved in self._saved)

    def lack(self, tokens: Sequence[int]) -> bool:
        """Whether a text with these tokens could not go on from any of them, or only from much before its end."""
        wanted = as_array(tokens)
        nearly = len(wanted) - WORTH_SAVING
        return not any(
            saved.serves(wanted) or (len(saved.tokens) > nearly and _begins(wanted, saved.tokens))
            for saved in self._saved
        )

    def make_room(self, tokens: Sequence[int], state_bytes: int, floor: int = 0) -> "list[Saved[S]] | None":
        """Let go of what is in the way of a state of that size, and return it; None if it can never fit.

        What the new one serves too goes first, and that is no loss: it is not returned.
        """
        new = as_array(tokens)
        size_bytes = state_bytes + len(new) * new.itemsize
        if size_bytes > self.limit_bytes:
            return None
        self._saved = [old for old in self._saved if not (len(old.tokens) >= floor and _begins(new, old.tokens))]
        lost: list[Saved[S]] = []
        while self._saved and (self.size_bytes + size_bytes > self.limit_bytes or len(self._saved) >= MOST_STATES):
            lost.append(min(self._saved, key=lambda saved: saved.used))
            self._saved.remove(lost[-1])
        return lost

    def add(self, tokens: Sequence[int], state: S, state_bytes: int, floor: int = 0) -> None:
        """Keep a state that there is room for."""
        saved = Saved(as_array(tokens), state, state_bytes, floor)
        self._saved.append(saved)
        self.use(saved)

    def use(self, saved: Saved[S]) -> None:
        """It was of use."""
        self._uses += 1
        saved.used = self._uses

    def drop(self, saved: Saved[S]) -> None:
        """Let go of one that is of no use, if it has not gone already."""
        self._saved = [other for other in self._saved if other is not saved]


def as_array(tokens: Sequence[int]) -> "array[int]":
    """Return tokens as they are kept for long: four bytes each."""
    return tokens if isinstance(tokens, array) else array("i", tokens)


def _begins(text: "array[int]", beginning: "array[int]") -> bool:
    return text[: len(beginning)] == beginning
