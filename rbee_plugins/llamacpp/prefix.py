"""Where a new prompt can start from: which computed tokens it shares, and why not more. Pure.

Tokens that were computed for one request can serve another that begins with the same ones. The place with the longest
such beginning is taken, or the saved state; what would be lost there is looked at, so that a short match does not
destroy a long memory. Some memories cannot be cut back to every beginning: those serve what they can be cut back to.
"""

from array import array
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rbee_plugins.llamacpp.states import Saved, as_array

WORTH_TOKENS = 16
"""A shared beginning that is shorter is not worth being copied."""

WORTH_PART = 16
"""A state is restored as a whole: not for less than this part of it."""

EVICTED_TOKENS = 1 << 16
"""Of texts that had to go, remembered to say so: 256 KiB."""

_EVICTIONS_KEPT = 16

ASKED_NOT_TO = "asked not to"
NOT_CUTTABLE = "not cuttable"


@dataclass(slots=True)
class Held:
    """What a sequence's memory holds: computed tokens in order. `used` grows with each use, for the least recent.

    It can be emptied, but not be cut back to fewer than `floor` tokens.
    """

    sequence: int
    tokens: list[int] = field(default_factory=list[int])
    used: int = 0
    floor: int = 0


@dataclass(frozen=True, slots=True)
class Start:
    """A new request runs in `sequence` and finds `kept` tokens of its prompt in `source`, which may be another one.

    Where there is a `state`, that is to be restored, and they are in it. `why` says in half a sentence why it was not
    more; "" where nothing more could have been.
    """

    sequence: int
    source: int
    kept: int
    why: str = ""
    state: Saved[Any] | None = None


class Evictions:
    """The last texts that had to go, to be able to say so: of each as much as fits into `EVICTED_TOKENS` for all."""

    def __init__(self) -> None:
        self._gone: deque[tuple[array[int], str]] = deque(maxlen=_EVICTIONS_KEPT)

    @property
    def tokens(self) -> int:
        """How many are remembered."""
        return sum(len(tokens) for tokens, _request in self._gone)

    def note(self, tokens: Sequence[int], kept: int, for_request: str) -> None:
        """Of this text all but the first `kept` tokens had to go for that request."""
        if len(tokens) - kept >= WORTH_TOKENS:
            self._gone.append((as_array(tokens[:EVICTED_TOKENS]), for_request))
            while self.tokens > EVICTED_TOKENS:
                self._gone.popleft()

    def of(self, prompt: Sequence[int], kept: int) -> str:
        """Return for which request a longer beginning of `prompt` than `kept` had to go, "" for none."""
        wanted = as_array(prompt)
        for tokens, request in reversed(self._gone):
            if shared(tokens, wanted) > kept + WORTH_TOKENS:
                return request
        return ""


@dataclass(frozen=True, slots=True)
class _Match:
    """`shared` tokens of the prompt are somewhere, and that can be cut back to `kept` of them."""

    shared: int
    kept: int
    of: int
    """How many tokens are there in all."""


def choose(
    prompt: Sequence[int],
    free: Iterable[Held],
    gone: Evictions,
    *,
    saved: Iterable[Saved[Any]] = (),
    reuse: bool = True,
    beside: Collection[int] = (),
) -> Start:
    """Return where `prompt` starts, among the sequences that are free and the `saved` states.

    It will be computed with those `beside` it. The last token is always computed: what follows it is wanted.
    """
    places = sorted(free, key=lambda held: held.used)
    spare = _spare(places, beside)
    if not reuse:
        return Start(spare.sequence, spare.sequence, 0, ASKED_NOT_TO)
    usable = prompt[:-1]
    matches = [(_match(held.tokens, held.floor, usable), held) for held in places]
    match, best = max(matches, key=lambda found: found[0].kept)
    kept = match.kept
    if kept < WORTH_TOKENS and best is not spare:
        kept, target, source = 0, spare, spare
    elif 2 * kept >= len(best.tokens) or best is spare:
        target = source = best
    else:  # most of what it holds is another text: that stays, and the beginning is copied
        target, source = spare, best
    known = [match for match, _held in matches]
    states = _states(usable, saved)
    known += [match for match, _state in states]
    worth = [
        (match, state) for match, state in states if match.kept >= max(kept + WORTH_TOKENS, match.of // WORTH_PART)
    ]
    if worth:
        match, state = max(worth, key=lambda found: found[0].kept)
        return Start(spare.sequence, spare.sequence, match.kept, _why(prompt, match.kept, known, gone), state)
    return Start(target.sequence, source.sequence, kept, _why(prompt, kept, known, gone))


def _states(usable: Sequence[int], saved: Iterable[Saved[Any]]) -> list[tuple[_Match, Saved[Any]]]:
    wanted = as_array(usable)
    return [(_match(state.tokens, state.floor, wanted), state) for state in saved]


def _match(tokens: Sequence[int], floor: int, usable: Sequence[int]) -> _Match:
    common = shared(tokens, usable)
    return _Match(common, common if common >= floor else 0, len(tokens))


def _spare(places: Sequence[Held], beside: Collection[int]) -> Held:
    """Return the place that can be given up, of those in the order of their last use: an empty or an older one.

    Of these the one next to a sequence that runs: llama.cpp reads the weights once for sequences whose numbers follow
    each other, and once more for each that stands apart.
    """
    old = [held for held in places if not held.tokens] or places[: (len(places) + 1) // 2]
    return max(old, key=lambda held: (held.sequence - 1 in beside) + (held.sequence + 1 in beside))


def _why(prompt: Sequence[int], kept: int, matches: Sequence[_Match], gone: Evictions) -> str:
    if kept >= len(prompt) - 1:
        return ""
    if request := gone.of(prompt, kept):
        return f"evicted for request {request}"
    longest = max(matches, key=lambda match: match.shared)
    if longest.shared > max(kept, longest.kept):
        return NOT_CUTTABLE
    return f"differs at token {longest.shared}" if longest.shared < longest.of else ""


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens both begin with. Both are of one kind."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:  # they are equal up to low, and differ within high
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
