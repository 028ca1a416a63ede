"""Asking a hub: small answers, read whole into memory, under one deadline for all that one look-up asks.

As wary as the transfer of large files, and with the same connections: bounded, never decoded, redirected only where
that is. Blocks; who calls it has a thread for it.
"""

import http.client
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from rbee_core.backend import http_stream
from rbee_core.errors import DownloadFailed, shorten

_CONNECT_TIMEOUT_S = 5.0
_DELAYS_S = (0.1, 0.4)
_CHUNK_BYTES = 64 * 1024
_TRANSIENT = frozenset({408, 425, 429})
_LATER = "check the network, or try again later"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a hub answered, redirects followed. `headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Hub:
    """One look-up at one hub, which may take until `until` on the monotonic clock; `limit_s` is what it had.

    `headers` may hold a token; they go to the origin that is asked, and to no other.
    """

    endpoint: str
    headers: Mapping[str, str] = field(repr=False)
    until: float
    limit_s: float

    def ask(self, url: str, about: str, *, limit_bytes: int) -> Answer:
        """Return the answer to a GET of `url`, an error status included; what may pass is asked three times.

        `about` says in messages what is asked about. Raises `DownloadFailed`: nobody answers, not in time, more than
        `limit_bytes`, encoded, or from a place that must not be asked.
        """
        for delay_s in (*_DELAYS_S, None):
            try:
                answer = self._ask(url, about, limit_bytes)
            except (OSError, http.client.HTTPException, ValueError) as error:
                why = _reason(error)
            else:
                if answer.status not in _TRANSIENT and answer.status < 500:
                    return answer
                why = f"it answered {answer.status}"
            if time.monotonic() + (delay_s or 0.0) >= self.until:
                late = f"{self.endpoint} did not answer about {about} within {self.limit_s:g} s"
                raise DownloadFailed(late, hint=_LATER)
            if delay_s is None:
                raise DownloadFailed(f"Cannot ask {self.endpoint} about {about}: {why}", hint=_LATER)
            time.sleep(delay_s)
        raise AssertionError("the last round returns or raises")

    def _ask(self, url: str, about: str, limit_bytes: int) -> Answer:
        left_s = max(0.001, self.until - time.monotonic())
        with http_stream.get(
            url,
            {"Accept-Encoding": "identity"},
            self.headers,
            cancel=threading.Event(),
            connect_timeout_s=min(left_s, _CONNECT_TIMEOUT_S),
            stall_timeout_s=left_s,
            until=self.until,
        ) as stream:
            encoding = stream.headers.get("content-encoding", "identity").strip().lower()
            if encoding not in ("", "identity"):
                why = (
                    f"The hub sent its answer about {about} as {shorten(encoding, 20)!r}, though asked not to encode it"
                )
                raise DownloadFailed(why, hint="a proxy on the way may be changing answers")
            return Answer(stream.status, stream.headers, self._body(stream, about, limit_bytes))

    def _body(self, stream: http_stream.Stream, about: str, limit_bytes: int) -> bytes:
        data = bytearray()
        while piece := stream.read(_CHUNK_BYTES):
            data += piece
            if len(data) > limit_bytes:
                why = f"The hub's answer about {about} is longer than {limit_bytes} bytes"
                raise DownloadFailed(why, hint="is HF_ENDPOINT right?")
        announced = stream.headers.get("content-length", "")
        if time.monotonic() >= self.until or (announced.isdecimal() and len(data) < int(announced)):
            raise ConnectionError("the connection ended too early")
        return bytes(data)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, ConnectionError) and str(error):
        return str(error)
    return type(error).__name__  # the text may hold a header, and so a token
