"""Guesses how a text goes on from what stands in it already, and learns how often that is right. Pure.

A text that quotes (an edit, a summary, code, rows of JSON) says again what its prompt said, or what it said itself. So
the last tokens are looked up in all that stands before them, and what followed there may follow here. A guess costs
nothing until it is computed, so it is compared with the text even where nobody drafted it: how far guesses can be
trusted is known before the first one is paid for.
"""

from collections.abc import Sequence

GRAMS = (4, 2)
"""How many last tokens are looked up, the longest first: the more of them stand elsewhere, the better the guess."""

MOST_GRAMS = 32_768
"""Of each length, as many are known: the newest."""

_LOOK_BACK = 64  # tokens at most that are compared before a place that was found
_LIKE_PRIOR = 4  # a first guess of a rate counts as much as so many tokens
_LIKE_ELSEWHERE = 8  # what other texts have taught counts for a new one
_MEMORY = 32  # older tokens count less and less: a text may begin to quote, and cease to
_KINDS = [*range(8), *(5 + count.bit_length() for count in range(8, _LOOK_BACK + 1))]
_HOPELESS = 0.01


class Record:
    """How often guesses were right, by how many tokens before them were the same as before the place they are from."""

    def __init__(self, elsewhere: "Record | None" = None) -> None:
        """Begin with what is known from `elsewhere`, which learns all this one learns."""
        self._elsewhere = elsewhere
        kinds = range(_KINDS[-1] + 1)
        self.rates: list[float] = list(elsewhere.rates) if elsewhere else [kind / (kind + 2) for kind in kinds]
        self._seen = [_LIKE_ELSEWHERE if elsewhere else _LIKE_PRIOR for _ in kinds]

    def rate(self, matched: int) -> float:
        """Return how likely a guess is right that so many equal tokens stand before."""
        return self.rates[_KINDS[min(matched, _LOOK_BACK)]]

    def note(self, matched: int, *, right: bool) -> None:
        """Learn from one."""
        kind = _KINDS[min(matched, _LOOK_BACK)]
        self._seen[kind] = min(self._seen[kind] + 1, _MEMORY)
        self.rates[kind] += (right - self.rates[kind]) / self._seen[kind]
        if self._elsewhere is not None:
            self._elsewhere.note(matched, right=right)


class Lookup:
    """One text, and the place in it where what comes next may stand already. A moment's work for each token."""

    def __init__(self, tokens: Sequence[int], record: Record) -> None:
        """Know the prompt. Takes half a microsecond for each of its tokens."""
        self._tokens = list(tokens)
        self._record = Record(record)
        self._grams = [Grams(size, tokens) for size in GRAMS]
        self._place = -1  # of the token that should come next; -1 where none is known
        self._matched = 0

    def follow(self, token: int) -> None:
        """Learn what really came next."""
        right = False
        if self._place >= 0:
            right = self._tokens[self._place] == token
            self._record.note(self._matched, right=right)
        self._tokens.append(token)
        found = [grams.swap(self._tokens) for grams in self._grams]
        if right:
            self._place, self._matched = self._place + 1, self._matched + 1
        if not right or self._matched < GRAMS[0]:
            self._look(max(found), right=right)

    def _look(self, found: int, *, right: bool) -> None:
        """Take the place that was `found`, if it is better than the one there was."""
        if found >= 0 and (matched := self._same_before(found)) > (self._matched if right else 0):
            self._place, self._matched = found, matched
        elif not right and self._matched >= GRAMS[-1]:
            self._place, self._matched = self._place + 1, 0  # perhaps only this one token was exchanged
        elif not right:
            self._place, self._matched = -1, 0

    def _same_before(self, place: int) -> int:
        tokens, count = self._tokens, 0
        while count < min(place, _LOOK_BACK) and tokens[place - 1 - count] == tokens[-1 - count]:
            count += 1
        return count

    def hopes(self, most: int) -> list[float]:
        """Return how many tokens can be expected of a call with a draft of 0, 1 … `most` tokens: 1.0 without any."""
        expected, chance = [1.0], 1.0
        rate, matched = self._record.rate, self._matched
        while len(expected) <= most and self._place >= 0 and chance > _HOPELESS:
            chance *= rate(matched)
            matched += 1
            expected.append(expected[-1] + chance)
        return expected + [expected[-1]] * (most + 1 - len(expected))

    def draft(self, count: int) -> list[int]:
        """Return so many tokens that may come next; none where no place is known."""
        if self._place < 0:
            return []
        ahead = self._tokens[self._place : self._place + count]
        if missing := count - len(ahead):  # what was said last is being said again and again
            ahead += (ahead * (missing // len(ahead) + 1))[:missing]
        return ahead


class Grams:
    """Where each sequence of `size` tokens stood last, of those that were seen lately."""

    def __init__(self, size: int, tokens: Sequence[int]) -> None:
        """Know all of `tokens`, or as many of the last ones as may be known."""
        self._size = size
        start = max(0, len(tokens) - MOST_GRAMS // 2 - size + 1)
        columns = [tokens[start + n :] for n in range(size)]
        self._new = {gram: start + size + n for n, gram in enumerate(zip(*columns, strict=False))}
        self._old: dict[tuple[int, ...], int] = {}

    def swap(self, tokens: Sequence[int]) -> int:
        """Return what stands behind the last place of the last tokens, -1 for none; and remember this one."""
        gram = tuple(tokens[-self._size :])
        found = self._new.get(gram)
        if found is None:
            found = self._old.get(gram, -1)
        if len(self._new) >= MOST_GRAMS // 2:
            self._old, self._new = self._new, {}
        self._new[gram] = len(tokens)
        return found
