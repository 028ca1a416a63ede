"""What a transfer decides: what an answer of the server means, and when to try again. Pure: no I/O, no clock.

`judge` is the whole protocol with a server; `transfer.py` carries its answers out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from rbee_core.backend.base import RemoteFile
from rbee_core.errors import AccessDenied, DownloadFailed, ModelNotFound, RbeeError, shorten

# An attempt that brought this much was no failure of the server: a long file on a bad line gets new attempts.
PROGRESS_RESETS_ATTEMPTS_BYTES = 16 * 1024 * 1024
# One connection that is this fast has the disk and the hash to wait for: 100 MB/s is what a gigabit brings.
_FAST_BYTES_PER_S = 100_000_000
_WORTHWHILE_GAIN = 1.2
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,512}"')
_RETRIED = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """Bounds of one transfer; attempts are those in a row that brought next to nothing."""

    attempts: int = 6
    first_delay_s: float = 0.1
    max_delay_s: float = 3.2
    max_retry_after_s: float = 60.0
    connect_timeout_s: float = 5.0
    stall_timeout_s: float = 60.0
    spare_disk_percent: int = 5
    trial_bytes: int = 8 * 1024 * 1024
    """What one connection fetches before several are tried."""


@dataclass(frozen=True, slots=True)
class Body:
    """Write what follows at `offset`; 0 starts the file over, whatever was asked for."""

    offset: int
    etag: str


@dataclass(frozen=True, slots=True)
class Again:
    """Nothing came of it; try again after a while, `from_zero` without what is there."""

    why: str
    retry_after: str = ""
    from_zero: bool = False


@dataclass(frozen=True, slots=True)
class Wrong:
    """The server holds another file than the one announced."""

    why: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Trying again cannot help."""

    error: RbeeError


Answer = Body | Again | Wrong | Refused


def request_headers(offset: int, etag: str) -> dict[str, str]:
    """Return the headers that ask for the file from `offset`, unless it is no longer the one with `etag`."""
    headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": etag}
    return headers


def can_resume(etag: str) -> bool:
    """Return whether a server may be asked for the rest: If-Range takes strong entity tags only (RFC 9110)."""
    return bool(_STRONG_ETAG.fullmatch(etag))


def judge(
    file: RemoteFile, *, offset: int, etag: str, status: int, headers: Mapping[str, str], at_origin: bool
) -> Answer:
    """Return what to do about an answer to a request for `file` from `offset`.

    `headers` have lower-case names. `at_origin` is False after a redirect elsewhere: a 403 there is an expired
    signature, which the next attempt renews, and says nothing about the caller's rights.
    """
    if status in (200, 206):
        return _judge_body(file, offset, etag, status, headers)
    if status == 416 and offset:
        return Again("the server has less of the file than this node", from_zero=True)
    if status in _RETRIED or status >= 500:
        return Again(f"the server answered {status}", headers.get("retry-after", ""))
    if not at_origin and status >= 400:
        return Again(f"the server behind the hub answered {status}")
    return Refused(_refusal(file, status))


def _judge_body(file: RemoteFile, offset: int, etag: str, status: int, headers: Mapping[str, str]) -> Answer:
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        why = f"the server sent {file.name} as {shorten(encoding, 20)!r}, though asked not to encode it"
        return Refused(DownloadFailed(why, hint="a proxy on the way may be changing downloads"))
    if status == 206:
        return _judge_part(file, offset, etag, headers)
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) != file.size_bytes:
        return Wrong(f"{shorten(length, 20)} bytes instead of {file.size_bytes}")
    return Body(0, headers.get("etag", ""))


def _judge_part(file: RemoteFile, offset: int, etag: str, headers: Mapping[str, str]) -> Answer:
    match = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    if not offset or not match or int(match[1]) != offset:
        return Again("the server sent another part than the one asked for", from_zero=True)
    if headers.get("etag", etag) != etag:
        return Again("the file changed on the server", from_zero=True)
    if match[3] != "*" and int(match[3]) != file.size_bytes:
        return Wrong(f"{match[3]} bytes instead of {file.size_bytes}")
    return Body(offset, etag)


def _refusal(file: RemoteFile, status: int) -> RbeeError:
    if status in (401, 403):
        hint = "accept the model's terms on its page, then set HF_TOKEN to a token that may read it"
        return AccessDenied(f"The hub refuses {file.name} ({status})", hint=hint)
    if status in (404, 410):
        return ModelNotFound(reference=file.name, why=f"the hub answered {status} for {file.url}")
    return DownloadFailed(f"Cannot fetch {file.name}: the server answered {status}", hint="try again later")


def delay_s(failures: int, options: TransferOptions, *, jitter: float, retry_after_s: float | None = None) -> float:
    """Return how long to wait after the `failures`-th failure in a row; `jitter` is a factor of 0.5 to 1.5.

    A server's own Retry-After is a floor, up to a bound: a hostile one must not park a transfer for a day.
    """
    delay = min(options.first_delay_s * 2 ** (failures - 1), options.max_delay_s) * jitter
    return max(delay, min(retry_after_s or 0.0, options.max_retry_after_s))


def retry_after_s(value: str, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header means at `now`: a number or an HTTP date; None for neither."""
    if value.isdecimal() and len(value) < 10:
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, IndexError):
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - now).total_seconds())


def lanes_may_pay(bytes_per_s: float, received_bytes: int, left_bytes: int, options: TransferOptions) -> bool:
    """Return whether to go on over several connections, after one alone has brought `received_bytes`."""
    enough = received_bytes >= options.trial_bytes and left_bytes >= 4 * options.trial_bytes
    return enough and bytes_per_s < _FAST_BYTES_PER_S


def lanes_pay(bytes_per_s: float, alone_bytes_per_s: float) -> bool:
    """Return whether several connections are worth more than the one alone was."""
    return bytes_per_s >= _WORTHWHILE_GAIN * alone_bytes_per_s
