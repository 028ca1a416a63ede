"""Cuts a long prompt where its tokens cannot tell, so that it is turned into tokens piece by piece. Pure.

llama.cpp looks for every special token in the rest of the text, from each place where one was found: with many of
them in one text that takes minutes, and nobody can stop it. Special tokens are found first and end what is before
them, so a text may be cut in front of one.
"""

import re
from collections.abc import Iterator, Sequence

PIECE_BYTES = 16 * 1024


def pieces(text: bytes, specials: Sequence[bytes], size_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
    """Yield `text` in pieces of at least `size_bytes`, each but the first beginning with one of `specials`."""
    start = 0
    if specials and len(text) > size_bytes:
        longest_first = sorted(specials, key=len, reverse=True)
        special = re.compile(b"|".join(map(re.escape, longest_first)))
        at = size_bytes
        while found := special.search(text, at):
            cut = found.start()
            at = cut + 1
            if not any(_spans(one, text, cut) for one in specials):
                yield text[start:cut]
                start, at = cut, cut + size_bytes
    yield text[start:]


def _spans(special: bytes, text: bytes, cut: int) -> bool:
    """Whether this one stands across the cut."""
    return special in text[max(0, cut - len(special) + 1) : cut + len(special) - 1]
