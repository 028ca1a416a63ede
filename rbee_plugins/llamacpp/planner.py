"""Which tokens the next call of llama.cpp computes. Pure: no native calls, no clock, no threads.

A call carries one token of every request that generates, and prompt tokens of those that wait: as many as the pace
allows, shared fairly. A request that is computed by itself gets calls of its own, in rounds with everybody else.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

GAP = 4.0
"""How many times its usual pause a text may pause while others' prompts are read; below the promised 5, for noise."""

FEWEST_TOKENS = 8
"""Of prompts in a call, however slow they are: every request gets on."""

FIRST_TOKENS = 16
"""Of prompts in a call beside others while nothing was measured yet."""

FIRST_BYTES_S = 5e8
"""Of states that are saved or restored in a second, while nothing was measured yet."""

_NEW = 0.25  # the weight of the newest measurement
_TELLING_BYTES = 1 << 20  # what is smaller says little of how fast it goes
_MOST_AT_ONCE = 4  # times what is known: one call in which the machine slept says nothing of the others


class Lane(Protocol):
    """A request as the planner sees it: how many tokens of its prompt are not computed yet, 0 once it generates."""

    @property
    def unread(self) -> int:
        """Prompt tokens that are still to be computed."""
        ...

    @property
    def alone(self) -> bool:
        """Whether nothing else may be in its calls, so that its numbers depend on nobody."""
        ...


L = TypeVar("L", bound=Lane)


@dataclass(frozen=True, slots=True)
class Share(Generic[L]):
    """So many tokens of this request are in the call, and behind them a `draft` of what may come next."""

    lane: L
    tokens: int
    draft: Sequence[int] = ()


class Pace:
    """How many prompt tokens may ride along with those who generate: learned from how long calls took."""

    def __init__(self, most_tokens: int) -> None:
        self._most = most_tokens
        self._step_s: dict[int, float] = {}  # by how many generate: a call without prompt tokens
        self.token_s = 0.0
        """What each prompt token adds; 0.0 if unknown."""
        self._bytes_s = FIRST_BYTES_S  # of states that are moved in a second
        self._moved_s = 0.0  # spent on that since the last call

    def room(self, generating: int) -> int:
        """Return the number of prompt tokens for a call beside `generating` others."""
        if not generating:
            return self._most
        step_s = self.step_s(generating)
        if not step_s or not self.token_s:
            return min(FIRST_TOKENS, self._most)
        fit = min(((GAP - 1) * step_s - self._moved_s) / self.token_s, self._most)
        return max(min(FEWEST_TOKENS, self._most), int(fit))

    def step_s(self, generating: int) -> float:
        """Return the seconds of a call without prompt tokens for so many, or for the nearest number; 0.0 if unknown."""
        known = self._step_s
        return known[min(known, key=lambda count: abs(count - generating))] if known else 0.0

    def plain_s(self, generating: int) -> float:
        """Return the seconds of a call without prompt tokens for exactly so many; 0.0 if unknown."""
        return self._step_s.get(generating, 0.0)

    def expected_s(self, generating: int, prompt_tokens: int) -> float:
        """Return how long a call will take, infinite while that is not known."""
        step_s = self.step_s(generating) if generating else 0.0
        if (generating and not step_s) or (prompt_tokens and not self.token_s):
            return math.inf
        return step_s + prompt_tokens * self.token_s

    def move_bytes(self, generating: int) -> float:
        """Return how many bytes of states may be moved before the next call, beside so many who wait for it."""
        if not generating:
            return math.inf
        return max(0.0, (GAP - 1) * self.step_s(generating) - self._moved_s) * self._bytes_s

    def moved(self, size_bytes: int, seconds: float) -> None:
        """So much of states was saved or restored in that time."""
        self._moved_s += seconds
        if size_bytes >= _TELLING_BYTES and seconds > 0:
            self._bytes_s = _mixed(self._bytes_s, size_bytes / seconds)

    def begin(self) -> None:
        """A call begins: those who waited for it have waited."""
        self._moved_s = 0.0

    def took(self, seconds: float, generating: int, prompt_tokens: int) -> None:
        """Learn from a call."""
        if not prompt_tokens:
            self._step_s[generating] = _mixed(self._step_s.get(generating, 0.0), seconds)
        elif prompt_tokens >= FEWEST_TOKENS:
            extra_s = seconds - (self.step_s(generating) if generating else 0.0)
            self.token_s = _mixed(self.token_s, max(extra_s, 0.0) / prompt_tokens)


class Planner(Generic[L]):
    """Takes turns and shares room. One for a loop's whole life.

    In each round everybody who generates gets a token, and one after the other gets on with reading: those that share,
    together, or one that is alone. So between two tokens of one text there is a token of each other, and one portion of
    prompts, whoever else waits with one.
    """

    def __init__(self, batch_tokens: int, alone_tokens: int) -> None:
        self._batch = batch_tokens
        self._alone = alone_tokens
        self._due: list[L | None] = []  # of this round; None for the call that is shared
        self._reads = False  # whether prompts are read in that call
        self._reader: L | None = None  # who read last, likewise
        self._rotation = 0

    def plan(self, lanes: Sequence[L], pace: Pace) -> list[Share[L]]:
        """Return what the next call computes; empty only if there are no lanes. Longest served waits longest."""
        while lanes:
            self._due = [turn for turn in self._due or self._round(lanes) if turn is None or turn in lanes]
            while self._due:
                turn = self._due.pop(0)
                if turn is not None:
                    return [Share(turn, min(turn.unread, self._alone) or 1)]
                if shares := self._shared(lanes, pace):
                    return shares
        return []

    def _round(self, lanes: Sequence[L]) -> list[L | None]:
        """Return whose turns make up the next round: first who reads, so that all who generate wait for that alone."""
        alone, together = [lane for lane in lanes if lane.alone], [lane for lane in lanes if not lane.alone]
        readers: list[L | None] = [lane for lane in alone if lane.unread]
        if any(lane.unread for lane in together):
            readers.insert(0, None)
        writers: list[L | None] = [lane for lane in alone if not lane.unread]
        if not readers:
            self._reads = False
            return [None, *writers]
        follows = next((n + 1 for n, reader in enumerate(readers) if reader is self._reader), 0)
        reader = self._reader = readers[follows % len(readers)]
        self._reads = reader is None
        return [None, *writers] if reader is None else [reader, None, *writers]

    def _shared(self, lanes: Sequence[L], pace: Pace) -> list[Share[L]]:
        """Return the call that those share who are not alone; empty if there is nothing in it."""
        writing = [Share(lane, 1) for lane in lanes if not (lane.alone or lane.unread)]
        reading = [lane for lane in lanes if lane.unread and not lane.alone]
        if not (reading and self._reads):
            return writing
        self._rotation += 1  # whoever is first gets what cannot be divided
        first = self._rotation % len(reading)
        reading = [*reading[first:], *reading[:first]]
        disturbed = len(writing) or int(any(lane.alone and not lane.unread for lane in lanes))
        room = min(pace.room(disturbed), self._batch - len(writing))
        if any(lane.alone and lane.unread for lane in lanes):  # who get no more than that in their turn
            room = min(room, self._alone * len(reading))
        portions = shared_out(room, [lane.unread for lane in reading])
        return writing + [Share(lane, tokens) for lane, tokens in zip(reading, portions, strict=True) if tokens]


def shared_out(room: int, wanted: Sequence[int]) -> list[int]:
    """Return how much of `room` each gets: as much as anybody else, but no more than it wants."""
    given, left = [0] * len(wanted), room
    smallest_first = sorted(range(len(wanted)), key=lambda n: wanted[n])
    for done, index in enumerate(smallest_first):
        waiting = len(wanted) - done
        given[index] = min(wanted[index], -(-left // waiting))
        left -= given[index]
    return given


def _mixed(known: float, new: float) -> float:
    return known + _NEW * (min(new, _MOST_AT_ONCE * known) - known) if known else new
