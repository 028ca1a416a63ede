"""Finding marks in a text that comes in pieces."""

from collections.abc import Sequence


def split_at(text: str, marks: Sequence[str]) -> tuple[str, str, str]:
    """Return what is surely before any of `marks`, the earliest mark ("" if there is none), and the rest.

    Without a mark, the rest is the end of the text that may become one. Of marks at one place the longest counts.
    """
    found = [(at, -len(mark), mark) for mark in marks if (at := text.find(mark)) >= 0]
    if found:
        at, _, mark = min(found)
        return text[:at], mark, text[at + len(mark) :]
    held = max(held_back(text, mark) for mark in marks)
    return text[: len(text) - held], "", text[len(text) - held :]


def held_back(text: str, mark: str) -> int:
    """Return how many characters at the end of `text` are the beginning of `mark`."""
    for length in range(min(len(mark) - 1, len(text)), 0, -1):
        if text.endswith(mark[:length]):
            return length
    return 0
