"""Where a new prompt can start from: which computed tokens it shares, and why not more. Pure.

Tokens that were computed for one request can serve another that begins with the same ones. The place with the longest
such beginning is taken; what would be lost there is looked at, so that a short match does not destroy a long memory.
"""

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

WORTH_TOKENS = 16
"""A shared beginning that is shorter is not worth being copied."""

_EVICTIONS_KEPT = 16

ASKED_NOT_TO = "asked not to"
NOT_CUTTABLE = "not cuttable"


@dataclass(slots=True)
class Held:
    """What a sequence's memory holds: computed tokens in order. `used` grows with each use, for the least recent."""

    sequence: int
    tokens: list[int] = field(default_factory=list[int])
    used: int = 0


@dataclass(frozen=True, slots=True)
class Start:
    """A new request runs in `sequence` and finds `kept` tokens of its prompt in `source`, which may be another one.

    `why` says in half a sentence why it was not more; "" where nothing more could have been.
    """

    sequence: int
    source: int
    kept: int
    why: str = ""


class Evictions:
    """The last memories that had to go, to be able to say so."""

    def __init__(self) -> None:
        self._gone: deque[tuple[Sequence[int], str]] = deque(maxlen=_EVICTIONS_KEPT)

    def note(self, tokens: Sequence[int], kept: int, for_request: str) -> None:
        """Of this text all but the first `kept` tokens had to go for that request."""
        if len(tokens) - kept >= WORTH_TOKENS:
            self._gone.append((list(tokens), for_request))

    def of(self, prompt: Sequence[int], kept: int) -> str:
        """Return for which request a longer beginning of `prompt` than `kept` had to go, "" for none."""
        for tokens, request in reversed(self._gone):
            if shared(tokens, prompt) > kept + WORTH_TOKENS:
                return request
        return ""


def choose(
    prompt: Sequence[int],
    free: Iterable[Held],
    gone: Evictions,
    *,
    reuse: bool = True,
    beside: Collection[int] = (),
) -> Start:
    """Return where `prompt` starts, among the sequences that are free; it will be computed with those `beside` it.

    The last token is always computed: what follows it is wanted.
    """
    places = sorted(free, key=lambda held: held.used)
    spare = _spare(places, beside)
    if not reuse:
        return Start(spare.sequence, spare.sequence, 0, ASKED_NOT_TO)
    usable = prompt[:-1]
    matches = [(shared(held.tokens, usable), held) for held in places]
    kept, best = max(matches, key=lambda match: match[0])
    if kept < WORTH_TOKENS and best is not spare:
        kept, target, source = 0, spare, spare
    elif 2 * kept >= len(best.tokens) or best is spare:
        target = source = best
    else:  # most of what it holds is another text: that stays, and the beginning is copied
        target, source = spare, best
    return Start(target.sequence, source.sequence, kept, _why(prompt, kept, matches, gone))


def _spare(places: Sequence[Held], beside: Collection[int]) -> Held:
    """Return the place that can be given up, of those in the order of their last use: an empty or an older one.

    Of these the one next to a sequence that runs: llama.cpp reads the weights once for sequences whose numbers follow
    each other, and once more for each that stands apart.
    """
    old = [held for held in places if not held.tokens] or places[: (len(places) + 1) // 2]
    return max(old, key=lambda held: (held.sequence - 1 in beside) + (held.sequence + 1 in beside))


def _why(prompt: Sequence[int], kept: int, matches: Sequence[tuple[int, Held]], gone: Evictions) -> str:
    if kept >= len(prompt) - 1:
        return ""
    if request := gone.of(prompt, kept):
        return f"evicted for request {request}"
    longest, held = max(matches, key=lambda match: match[0])
    return f"differs at token {longest}" if longest < len(held.tokens) else ""


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
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
