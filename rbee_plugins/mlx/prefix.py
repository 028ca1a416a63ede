"""Which beginnings of prompts were computed before, and why one was not there. Pure: it looks into no memory.

Only whole chunks of a prompt are kept, as they were computed the first time: then the numbers are the same to the last
bit, and a prompt that was seen before cannot change the text. Tokens that were generated are computed again when they
come back in a prompt, because chunks round differently from single tokens.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

WORTH_TOKENS = 16
"""A shared beginning that is shorter is not worth being copied."""

_EVICTIONS_KEPT = 16
_EVICTED_TOKENS = 4096  # of each, from its beginning: what a prompt is compared with


class Memory(Protocol):
    """What was computed of one text."""

    @property
    def cuttable(self) -> bool:
        """Whether its last tokens can be forgotten."""
        ...

    @property
    def size_bytes(self) -> int:
        """What it takes."""
        ...

    def copy(self) -> Self:
        """Return another one that holds the same."""
        ...

    def cut(self, tokens: int) -> None:
        """Forget so many of the last tokens."""
        ...


M = TypeVar("M", bound=Memory)


@dataclass(frozen=True, slots=True)
class Found(Generic[M]):
    """A memory of `tokens` of the prompt, None for none; `why` says in half a sentence why it was not more."""

    memory: M | None
    tokens: int = 0
    why: str = ""


class Prefixes(Generic[M]):
    """Kept beginnings of prompts, the one that was used last at the end; `room_bytes` for all together."""

    def __init__(self, chunk_tokens: int, room_bytes: int) -> None:
        self._chunk = chunk_tokens
        self._room = room_bytes
        self._kept: list[tuple[list[int], M]] = []
        self._evicted: deque[tuple[list[int], str]] = deque(maxlen=_EVICTIONS_KEPT)

    def whole(self, tokens: int) -> int:
        """Return how many of so many tokens are in whole chunks."""
        return tokens - tokens % self._chunk

    def find(self, prompt: Sequence[int]) -> Found[M]:
        """Return a copy of the longest memory that begins as `prompt` does. The last token is always computed."""
        most, best, why = 0, None, ""
        for kept in self._kept:
            tokens, memory = kept
            alike = shared(tokens, prompt[:-1])
            usable = self.whole(alike) if memory.cuttable else alike * (alike == len(tokens))
            if usable > most or best is None:
                most, best = usable, kept
                reason = f"differs at token {alike}" if memory.cuttable else "not cuttable"
                differs = WORTH_TOKENS <= alike < min(len(tokens), len(prompt) - 1)
                why = reason if differs else ""
        for tokens, request in reversed(self._evicted):
            if shared(tokens, prompt) > most + WORTH_TOKENS:
                why = f"evicted for request {request}" if request else "evicted for another request"
                break
        if best is None or most < WORTH_TOKENS:
            return Found(None, 0, why)
        self._kept.remove(best)
        self._kept.append(best)
        found = best[1].copy()
        found.cut(len(best[0]) - most)
        return Found(found, most, why)

    def keep(self, tokens: list[int], memory: M, request_id: str = "") -> None:
        """Keep a copy of `memory`, which holds `tokens`, whole chunks; others go if there is no room for all."""
        if len(tokens) < WORTH_TOKENS or memory.size_bytes > self._room:
            return
        if any(known[: len(tokens)] == tokens and (memory.cuttable or known == tokens) for known, _ in self._kept):
            return
        if memory.cuttable:  # what is a part of it is of no more use
            self._kept = [kept for kept in self._kept if kept[0] != tokens[: len(kept[0])]]
        self._kept.append((tokens, memory.copy()))
        while sum(kept.size_bytes for _, kept in self._kept) > self._room:
            gone, _ = self._kept.pop(0)
            self._evicted.append((gone[:_EVICTED_TOKENS], request_id))


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
