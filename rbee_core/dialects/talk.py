"""What every codec is: one request being answered in a foreign dialect."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from msgspec import Struct

from rbee_core import wire
from rbee_core.dialects.parts import Part, Reader
from rbee_core.dialects.tools import Offer
from rbee_core.errors import RbeeError


class Moment(Struct, frozen=True):
    """What a codec cannot know by itself: the request's name, the time in whole Unix seconds, and who answers."""

    request_id: str
    now_unix: int
    fingerprint: str


class Talk(ABC):
    """One request being answered. A subclass builds itself from a body, in a function that may raise `InvalidRequest`.

    `wanted` are the internal requests, one for each answer that was asked for; `streams` says whether the client wants
    events; `offer` are the tools that may be called. Then, in this order: `begins` once for a stream; `tells` for the
    parts of each answer as they come; and either `ends`, or `fails`, for a stream, and `whole` for one in one piece.
    """

    media: ClassVar[str] = "text/event-stream"

    wanted: Sequence[wire.PoolInference]
    streams: bool
    offer: Offer = Offer()

    def reader(self, index: int) -> Reader:
        """Return what reads answer number `index`."""
        return self.offer.reader(self.wanted[index])

    @abstractmethod
    def begins(self) -> bytes:
        """Return what a stream begins with, before any answer."""

    @abstractmethod
    def still_here(self) -> bytes:
        """Return what a silent stream says."""

    @abstractmethod
    def tells(self, index: int, said: Sequence[Part]) -> bytes:
        """Take parts of answer number `index`, and return them as events of a stream (b"" where there is none)."""

    @abstractmethod
    def ends(self) -> bytes:
        """Return what a stream ends with, once every answer has had its `End`."""

    @abstractmethod
    def fails(self, error: RbeeError) -> bytes:
        """Return how a stream ends that has begun and cannot go on."""

    @abstractmethod
    def whole(self) -> bytes:
        """Return the answer in one piece, as JSON, once every answer has had its `End`."""
