"""Whether guesses are worth being computed, and how many: what they bring against what they cost. Pure.

A call that computes a token of a text can compute guesses of the next ones with it, and those that prove right need no
calls of their own. What a call of several rows takes is measured, as a multiple of one without guesses; what it brings
follows from how often guesses were right. Drafts are added only where everybody in the call gains by it, so who shares
calls with others never waits for their guesses, and where many share a processor nobody drafts at all.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from rbee_plugins.llamacpp.drafts import Lookup, Record
from rbee_plugins.llamacpp.planner import Lane, Pace, Share

LENGTHS = (1, 2, 4, 8, 16)
"""Of drafts: few, so that what each costs is soon known."""

MOST_DRAFTED = LENGTHS[-1]
"""Tokens in one call, of all drafts together: each needs room for its logits."""

WORTH = 1.05
"""How much faster it has to be: what is measured is never quite right."""

_FORGOTTEN_CALLS = 2000
"""So many later, what a length cost is measured again: what else the machine did may be over."""

_MOST_IN_A_ROW = 32
"""After so many calls with drafts there is one without: the measure of all costs may be an old one."""

_NEW = 0.25  # the weight of the newest measurement
_MOST_AT_ONCE = 4  # times what is known
_GUESSED = 0.25  # of a call, for each token more: until something is known


class Writer(Lane, Protocol):
    """A request as it is looked at here. `room` is how many tokens may follow the next one."""

    @property
    def room(self) -> int:
        """More tokens cannot be used, and might not fit the context."""
        ...

    @property
    def lookup(self) -> Lookup | None:
        """What guesses; None for a text that is not to be guessed ahead."""
        ...


W = TypeVar("W", bound=Writer)


class Costs:
    """What calls with drafts take, as multiples of calls of as many texts without."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[float, int]] = {}
        self._calls = 0

    def passed(self) -> None:
        """Another call is made."""
        self._calls += 1

    def ratio(self, texts: int, length: int, guess: float) -> float:
        """Return it for drafts of `length` tokens; unknown ones cost `guess` for each token beyond a known one."""
        if not length:
            return 1.0
        if (exact := self._get(texts, length)) is not None:
            return exact
        around = [(0, 1.0), *((n, cost) for n in LENGTHS if (cost := self._get(texts, n)) is not None)]
        below = max(point for point in around if point[0] < length)
        above = min((point for point in around if point[0] > length), default=None)
        slope = (above[1] - below[1]) / (above[0] - below[0]) if above else guess
        return below[1] + (length - below[0]) * max(slope, 0.0)

    def _get(self, texts: int, length: int) -> float | None:
        cost, call = self._known.get((texts, length), (0.0, 0))
        return cost if cost and self._calls - call < _FORGOTTEN_CALLS else None

    def took(self, texts: int, length: int, ratio: float, guess: float) -> None:
        """Learn from a call. The first one counts no more than what was expected: it may have had more to do."""
        if length in LENGTHS:  # not where a text is near its end
            known = self.ratio(texts, length, guess)
            mixed = known + _NEW * (min(ratio, _MOST_AT_ONCE * known) - known)
            self._known[texts, length] = (mixed, self._calls)


class Speculation:
    """Adds drafts to calls. One for a loop's whole life; `lookup` may be called in any thread."""

    def __init__(self) -> None:
        self._record = Record()
        self._costs = Costs()
        self._in_a_row = 0

    def lookup(self, prompt: Sequence[int]) -> Lookup:
        """Return what guesses for one text."""
        return Lookup(prompt, self._record)

    def added(self, shares: Sequence[Share[W]], pace: Pace) -> Sequence[Share[W]]:
        """Return `shares` with the drafts that pay; none while prompts are read, or anybody would be slower for it."""
        lookups = [share.lane.lookup for share in shares if share.lane.lookup and not share.lane.unread]
        if len(lookups) < len(shares) or not pace.plain_s(len(shares)):
            return shares
        rooms = [share.lane.room for share in shares]
        length = self._length(lookups, rooms, pace) if self._in_a_row < _MOST_IN_A_ROW else 0
        if not length:
            self._in_a_row = 0
            return shares
        self._in_a_row += 1
        drafts = [lookup.draft(min(length, room)) for lookup, room in zip(lookups, rooms, strict=True)]
        return [replace(share, draft=draft) for share, draft in zip(shares, drafts, strict=True)]

    def _length(self, lookups: Sequence[Lookup], rooms: Sequence[int], pace: Pace) -> int:
        """Return how long the drafts are to be, 0 for none."""
        self._costs.passed()
        texts, most, hopes = len(lookups), MOST_DRAFTED // len(lookups), list[list[float]]()
        for lookup, room in zip(lookups, rooms, strict=True):
            hopes.append(lookup.hopes(min(most, room)))
            if hopes[-1][-1] < WORTH:  # whatever guesses cost, this one would wait for the others'
                return 0
        best, best_speed, each = 0, 0.0, _each(pace, texts)
        for length in LENGTHS:
            if length > most:
                break
            ratio = self._costs.ratio(texts, length, each)
            brings = [hope[min(length, len(hope) - 1)] for hope in hopes]
            if min(brings) >= WORTH * ratio and sum(brings) > best_speed * ratio:
                best, best_speed = length, sum(brings) / ratio
        return best

    def expected_s(self, shares: Sequence[Share[W]], pace: Pace) -> float:
        """Return how long a call with drafts will take."""
        texts = len(shares)
        return pace.plain_s(texts) * self._costs.ratio(texts, _longest(shares), _each(pace, texts))

    def took(self, seconds: float, shares: Sequence[Share[W]], pace: Pace) -> None:
        """Learn from a call that read no prompts. One without drafts takes no longer: so it tells of that too."""
        texts = len(shares)
        if seconds < pace.plain_s(texts):
            pace.took(seconds, texts, 0)
        if plain_s := pace.plain_s(texts):
            self._costs.took(texts, _longest(shares), max(1.0, seconds / plain_s), _each(pace, texts))


def _each(pace: Pace, texts: int) -> float:
    """Return what a token more in each draft costs, as far as reading prompts has shown it."""
    plain_s = pace.plain_s(texts)
    return texts * pace.token_s / plain_s if pace.token_s and plain_s else texts * _GUESSED


def _longest(shares: Sequence[Share[W]]) -> int:
    return max(len(share.draft) for share in shares)
