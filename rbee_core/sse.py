"""Reading server-sent events: bytes in, structs out. The other direction is `rbee_core.http.stream`."""

import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from itertools import chain
from typing import Generic, TypeVar

import msgspec

from rbee_core.errors import DeadlineExceeded

EVENT_LIMIT_BYTES = 1 << 20

T = TypeVar("T")


class EventParser(Generic[T]):
    """Cuts the bytes of a stream into events of one shape, wherever the network cut them.

    Knows the part of SSE that our servers use: one ``data:`` line an event, comment lines, and ``[DONE]``.
    """

    def __init__(self, shape: type[T]) -> None:
        self._rest = b""
        self._decode = msgspec.json.Decoder(shape).decode
        self._broken: ValueError | None = None
        self.done = False

    def feed(self, chunk: bytes) -> list[T]:
        """Return the events that `chunk` completes, up to what is no event of ours; `check` then raises that."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > EVENT_LIMIT_BYTES:
            self._break(ValueError("an event is too large"))
        events: list[T] = []
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                self.done = True
            elif data:
                try:
                    events.append(self._decode(data))
                except ValueError as error:
                    self._break(error)
                    break
        return events

    def _break(self, error: ValueError) -> None:
        self._broken, self.done = error, True

    def check(self) -> None:
        """Raise `ValueError` if something came that is no event of ours."""
        if self._broken is not None:
            raise self._broken


def groups(chunks: Iterable[bytes], shape: type[T], stall_s: float) -> Iterator[list[T]]:
    """Yield the events as they arrive, those together that arrived together; never an empty list.

    Bytes that are no event, such as keep-alive comments, are no sign of progress. Raises `DeadlineExceeded` after
    `stall_s` without an event, `ValueError` for what is no event.
    """
    parser = EventParser(shape)
    last = time.monotonic()
    for chunk in chunks:
        if events := parser.feed(chunk):
            yield events
            last = time.monotonic()
        elif time.monotonic() - last > stall_s:
            raise stalled(stall_s)
        if parser.done:
            parser.check()
            return


async def groups_as_they_come(chunks: AsyncIterable[bytes], shape: type[T], stall_s: float) -> AsyncIterator[list[T]]:
    """Yield what `groups` does, on an event loop."""
    parser = EventParser(shape)
    last = time.monotonic()
    async for chunk in chunks:
        if events := parser.feed(chunk):
            yield events
            last = time.monotonic()
        elif time.monotonic() - last > stall_s:
            raise stalled(stall_s)
        if parser.done:
            parser.check()
            return


def events(chunks: Iterable[bytes], shape: type[T], stall_s: float) -> Iterator[T]:
    """Yield the events one by one; raises as `groups` does."""
    return chain.from_iterable(groups(chunks, shape, stall_s))


class Stalled(DeadlineExceeded):
    """Raised for a stream that went silent; whoever set a deadline of his own can tell the two apart."""


def stalled(stall_s: float, who: str = "No sign of life came") -> Stalled:
    """Return the error of a stream that went silent: no token, and nothing of the prompt read."""
    return Stalled(
        f"{who} for {stall_s:g} s",
        hint="a slow machine needs a larger token_stall_timeout_s: set RBEE_TOKEN_STALL_TIMEOUT_S, restart the hive",
    )
