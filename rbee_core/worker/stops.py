"""Stop strings over streamed text: what may be sent now, and when a stop string is complete."""

from collections.abc import Sequence


class StopFinder:
    """Feeds on pieces of text; holds back only what could still become a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = ""
        """The stop string that ended the text."""

    def feed(self, text: str) -> tuple[str, bool]:
        """Return the text to send, and whether a stop string ended it. The stop string itself is not sent.

        The one that is complete first counts, so that it does not matter how the text was cut into pieces.
        """
        if not self._stops:
            return text, False
        self._held += text
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            _, start, self.found = min(found)
            return self._held[:start], True
        keep = max(self._overlap(stop) for stop in self._stops)
        send, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return send, False

    def rest(self) -> str:
        """Return what was held back, once no more text comes."""
        rest, self._held = self._held, ""
        return rest

    def _overlap(self, stop: str) -> int:
        """Return how long a beginning of `stop` the held text ends with."""
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(stop[:n])), 0)
