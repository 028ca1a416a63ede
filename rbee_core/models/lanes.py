"""The rest of a long file over several connections at once, handed back in order.

An accelerator and no second protocol: it asks for pieces of what a single stream has begun, with that stream's address
and entity tag, and ends at whatever is not exactly the piece asked for. The single stream, which knows all the rules,
goes on from there. As pieces come in order, the part on disk stays a beginning of the file, whatever happens.
"""

import http.client
import logging
import socket
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

from rbee_core.backend import http_stream
from rbee_core.errors import RequestCanceled

LANES = 4
_WINDOW_PIECES = LANES + 2  # what may be in memory, and so be lost when the process is killed
_CANCEL_POLL_S = 0.1
_LEAVE_S = 0.8

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Location:
    """What a single stream found: where the file really lies, and which version of it.

    `headers` may hold a token; they belong to the origin of `url`.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    etag: str
    size_bytes: int
    connect_timeout_s: float
    stall_timeout_s: float


def pieces(source: Location, start: int, piece_bytes: int, cancel: threading.Event) -> Generator[bytes]:
    """Yield the file from byte `start` on, in pieces; the last one may be shorter.

    Ends early, without a word, when a piece cannot be had. Closing the generator ends the connections. Raises
    `RequestCanceled` soon after `cancel` is set.
    """
    desk = _Desk(source, start, piece_bytes)
    # Daemons, as nothing ends a connection that is being made before its timeout.
    threads = [threading.Thread(target=desk.work, name=f"transfer-lane-{n}", daemon=True) for n in range(LANES)]
    try:
        for thread in threads:
            thread.start()
        while data := desk.take(cancel):
            yield data
    except RuntimeError:
        return  # the system has no more threads
    finally:
        desk.close()
        until = time.monotonic() + _LEAVE_S
        for thread in threads:
            if thread.ident:
                thread.join(max(0.0, until - time.monotonic()))


class _Desk:
    """Where the lanes learn what to fetch next and put what they have fetched."""

    def __init__(self, source: Location, start: int, piece_bytes: int) -> None:
        self._source = source
        self._piece_bytes = piece_bytes
        self._changed = threading.Condition()
        self._asked = self._taken = start
        self._end = source.size_bytes  # nothing from here on will come
        self._lanes = LANES
        self._arrived: dict[int, bytes] = {}
        self._sockets: set[socket.socket] = set()

    def take(self, cancel: threading.Event) -> bytes:
        """Return the next piece; empty when there is none."""
        with self._changed:
            while self._taken not in self._arrived:
                if cancel.is_set():
                    raise RequestCanceled
                if self._taken >= self._end:
                    return b""
                self._changed.wait(_CANCEL_POLL_S)
            data = self._arrived.pop(self._taken)
            self._taken += len(data)
            self._changed.notify_all()
            return data

    def close(self) -> None:
        """Send the lanes home, also those that wait for bytes."""
        self._end_at(0)
        with self._changed:
            for sock in self._sockets:
                http_stream.hang_up(sock)

    def work(self) -> None:
        """Fetch pieces until there are no more: the life of one lane."""
        source = self._source
        try:
            while self._asked < self._end:
                connection = http_stream.connect(source.url, source.connect_timeout_s, source.stall_timeout_s)
                self._use(connection, connection.sock)
        except Exception as error:  # noqa: BLE001  # whatever it is, the single stream will meet it and say it
            log.debug("a lane ends: %s", type(error).__name__)
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._changed:
            self._lanes -= 1
            if not self._lanes:
                self._end_at(self._asked)

    def _use(self, connection: http.client.HTTPConnection, sock: socket.socket) -> None:
        """Fetch pieces for as long as the connection lasts."""
        with self._changed:
            self._sockets.add(sock)
        try:
            reusable = True
            while reusable and (piece := self._next_piece()):
                reusable = self._bring(connection, *piece)
        finally:
            with self._changed:
                self._sockets.discard(sock)
            connection.close()

    def _bring(self, connection: http.client.HTTPConnection, first: int, length: int) -> bool:
        """Fetch one piece; return whether the connection can bring another."""
        try:
            data, reusable = self._fetch(connection, first, length)
        except BaseException:
            self._end_at(first)
            raise
        with self._changed:
            self._arrived[first] = data
            self._changed.notify_all()
        return reusable

    def _next_piece(self) -> tuple[int, int] | None:
        window = _WINDOW_PIECES * self._piece_bytes
        with self._changed:
            self._changed.wait_for(lambda: self._asked >= self._end or self._asked < self._taken + window)
            if self._asked >= self._end:
                return None
            first = self._asked
            length = min(self._piece_bytes, self._end - first)
            self._asked += length
            return first, length

    def _end_at(self, first: int) -> None:
        with self._changed:
            self._end = min(self._end, first)
            self._changed.notify_all()

    def _fetch(self, connection: http.client.HTTPConnection, first: int, length: int) -> tuple[bytes, bool]:
        """Return the piece, and whether the connection can bring another."""
        source, last = self._source, first + length - 1
        wanted = {"Range": f"bytes={first}-{last}", "If-Range": source.etag}
        connection.request("GET", http_stream.path_of(source.url), headers={**source.headers, **wanted})
        response = connection.getresponse()
        right = (
            response.status == 206
            and response.getheader("Content-Range") == f"bytes {first}-{last}/{source.size_bytes}"
            and response.getheader("ETag", source.etag) == source.etag
            and response.getheader("Content-Encoding", "identity") == "identity"
        )
        data = response.read(length) if right else b""
        if len(data) != length:
            raise http.client.HTTPException("another answer than the piece")
        ended = not response.read(1)  # of a chunked body too
        return data, ended and not response.will_close
