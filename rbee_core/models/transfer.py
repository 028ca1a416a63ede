"""Bringing one file to this node, whole and verified, whatever happens on the way.

Owns the loop of attempts; what an answer means is decided in `transfer_rules`, the bytes lie in `partial`. Promises:
the destination appears only with the announced SHA-256 and all bytes on disk; what was fetched is kept for the next
attempt or process; versions of a file are never mixed; no more is read than was announced.

Blocking by design: call `fetch` in a thread. Hashing, writing and reading sockets release the interpreter lock.
"""

import http.client
import random
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rbee_core.backend import http_stream
from rbee_core.backend.base import RemoteFile
from rbee_core.backend.files import checksum_of
from rbee_core.backend.redirects import origin_of
from rbee_core.errors import ChecksumMismatch, DownloadFailed, InsufficientDisk, RequestCanceled
from rbee_core.models import lanes
from rbee_core.models.partial import CHUNK_BYTES, Partial, ReportBytes, disk_errors, is_right, lock_partial
from rbee_core.models.transfer_rules import (
    PROGRESS_RESETS_ATTEMPTS_BYTES,
    Again,
    Body,
    Refused,
    TransferOptions,
    Wrong,
    can_resume,
    delay_s,
    judge,
    lanes_may_pay,
    lanes_pay,
    request_headers,
    retry_after_s,
)

_PROGRESS_INTERVAL_S = 0.1
Tell = Callable[[str], None]
"""Takes what goes on besides fetching, for people."""


class _TryAgainError(Exception):
    def __init__(self, why: str, retry_after: str = "") -> None:
        super().__init__(why)
        self.retry_after = retry_after


class _WrongFileError(Exception):
    """The server's file is not the announced one, as far as its headers or its length tell."""


@dataclass(slots=True)
class _Job:
    file: RemoteFile
    cancel: threading.Event
    progress: ReportBytes
    trouble: Tell
    options: TransferOptions
    reported_at: float = 0.0
    lanes_pay: bool = True

    def report(self, done_bytes: int) -> None:
        """Pass progress on, ten times a second at most, but never lose the last word."""
        now = time.monotonic()
        if now - self.reported_at >= _PROGRESS_INTERVAL_S or done_bytes == self.file.size_bytes:
            self.reported_at = now
            self.progress(done_bytes, self.file.size_bytes)


def fetch(
    file: RemoteFile,
    destination: Path,
    *,
    cancel: threading.Event | None = None,
    progress: ReportBytes | None = None,
    here: ReportBytes | None = None,
    trouble: Tell | None = None,
    options: TransferOptions | None = None,
) -> None:
    """Make `destination` the announced file; return at once when it already is.

    `progress(bytes_done, bytes_total)` is called in this thread, at most ten times a second, and `here` in its place
    for bytes of an earlier run that are read again. `trouble` is told of every attempt that failed: why, and when the
    next one is. Setting `cancel` from another thread ends the call within a second and keeps what was fetched. Safe to
    call in several threads and processes at once: one fetches, the others wait and find the file there.

    Raises `DownloadFailed`, `ChecksumMismatch`, `InsufficientDisk`, `HomeUnusable`, `AccessDenied`, `ModelNotFound`
    or, after `cancel`, `RequestCanceled`.
    """
    if not checksum_of(file):
        raise DownloadFailed(f"The source names no checksum for {file.name}", hint="rbee fetches nothing unverified")
    job = _Job(file, cancel or threading.Event(), progress or _silent, trouble or _mute, options or TransferOptions())
    if is_right(destination, file, job.cancel):
        return
    with lock_partial(file, destination, job.cancel, job.report) as partial:
        if is_right(destination, file, job.cancel):  # another process finished it while this one waited
            partial.discard()
            return
        partial.load(job.cancel, here or _silent)
        _check_space(job, partial, destination)
        try:
            _fill(job, partial)
        except InsufficientDisk:
            partial.discard()  # the catalog and the logs need the space more
            raise
        partial.commit(destination)


def _silent(done_bytes: int, total_bytes: int) -> None:
    """Stand in for a progress callback that nobody gave."""


def _mute(text: str) -> None:
    """Stand in for somebody to tell."""


def _check_space(job: _Job, partial: Partial, destination: Path) -> None:
    spare = job.file.size_bytes * job.options.spare_disk_percent // 100
    need = job.file.size_bytes - partial.size_bytes + spare
    with disk_errors(destination, need):
        free = shutil.disk_usage(destination.parent).free
    if free < need:
        raise InsufficientDisk(need_bytes=need, have_bytes=free)


def _fill(job: _Job, partial: Partial) -> None:
    """Fetch until the part is the announced file; a wrong one is dropped and fetched once more."""
    why = ""
    for _ in range(2):
        try:
            _fetch_rest(job, partial)
        except _WrongFileError as wrong:
            why = str(wrong)
        else:
            if partial.is_right():
                return
            why = "other bytes than announced"
        partial.restart()
    raise ChecksumMismatch(
        f"{job.file.name} arrived twice with {why}",
        hint="the hub or a proxy on the way serves a damaged file; try again later or another endpoint",
        expected=checksum_of(job.file),
    )


def _fetch_rest(job: _Job, partial: Partial) -> None:
    failures = 0
    while partial.size_bytes < job.file.size_bytes:
        before = partial.size_bytes
        try:
            _attempt(job, partial)
        except _TryAgainError as error:
            progressed = partial.size_bytes - before >= PROGRESS_RESETS_ATTEMPTS_BYTES
            failures = 1 if progressed else failures + 1
            if failures >= job.options.attempts:
                raise DownloadFailed(
                    f"Cannot fetch {job.file.name}: {error} (after {failures} attempts)",
                    hint="what has arrived is kept; run the command again to go on from there",
                ) from error
            _pause(job, failures, error)
        else:
            failures = 0  # it brought all that was left, or enough to try more connections


def _pause(job: _Job, failures: int, error: _TryAgainError) -> None:
    wanted = retry_after_s(error.retry_after, datetime.now(UTC)) if error.retry_after else None
    jitter = random.uniform(0.5, 1.5)  # noqa: S311  # spreads load, keeps no secret
    wait_s = delay_s(failures, job.options, jitter=jitter, retry_after_s=wanted)
    job.trouble(f"{error}; attempt {failures + 1} of {job.options.attempts} in {wait_s:.1f} s")
    if job.cancel.wait(wait_s):
        raise RequestCanceled


def _attempt(job: _Job, partial: Partial) -> None:
    """Ask for the rest once and take what comes."""
    if partial.size_bytes and not can_resume(partial.etag):
        partial.restart()
    try:
        _receive(job, partial)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if job.cancel.is_set():
            raise RequestCanceled from error
        raise _TryAgainError(_network_reason(error, job.options)) from error


def _network_reason(error: Exception, options: TransferOptions) -> str:
    if isinstance(error, TimeoutError):
        return f"no byte came for {options.stall_timeout_s:g} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, ConnectionError) and str(error):
        return str(error).lower()
    return f"the connection failed ({type(error).__name__})"  # the text may hold a header, and so a token


def _receive(job: _Job, partial: Partial) -> None:
    file, options = job.file, job.options
    with http_stream.get(
        file.url,
        request_headers(partial.size_bytes, partial.etag),
        file.headers,
        cancel=job.cancel,
        connect_timeout_s=options.connect_timeout_s,
        stall_timeout_s=options.stall_timeout_s,
    ) as stream:
        _prepare(job, partial, stream)
        alone = _read_alone(job, partial, stream)
    if job.cancel.is_set():
        raise RequestCanceled
    if alone:
        _read_by_lanes(job, partial, stream, alone)
    elif partial.size_bytes < file.size_bytes:
        raise _TryAgainError(f"the connection ended at {partial.size_bytes} of {file.size_bytes} bytes")


def _read_alone(job: _Job, partial: Partial, stream: http_stream.Stream) -> float:
    """Take what one connection brings: up to its end, which returns 0, or to where several should be tried.

    That returns the bytes a second of this one.
    """
    size, began, first = job.file.size_bytes, time.monotonic(), partial.size_bytes
    while data := stream.read(min(CHUNK_BYTES, size - partial.size_bytes + 1)):
        if partial.size_bytes + len(data) > size:
            raise _WrongFileError(f"more than the announced {size} bytes")
        _take(job, partial, data)
        received = partial.size_bytes - first
        speed = _speed(received, began)
        may_pay = job.lanes_pay and can_resume(partial.etag)
        if may_pay and lanes_may_pay(speed, received, size - partial.size_bytes, job.options):
            return speed
    return 0.0


def _read_by_lanes(job: _Job, partial: Partial, stream: http_stream.Stream, alone_bytes_per_s: float) -> None:
    """Go on from a stream over several connections, for as long as they do well; what is left is the next attempt's.

    They have the trial's length to get up to speed; what ends before a second one is over is not tried again.
    """
    options, trial, size = job.options, job.options.trial_bytes, job.file.size_bytes
    source = lanes.Location(
        stream.url, stream.sent_headers, partial.etag, size, options.connect_timeout_s, options.stall_timeout_s
    )
    job.lanes_pay = False
    warm = partial.size_bytes + trial
    began = 0.0
    with closing(lanes.pieces(source, partial.size_bytes, max(1, trial // 8), job.cancel)) as pieces:
        for data in pieces:
            _take(job, partial, data)
            if partial.size_bytes <= warm:
                began = time.monotonic()
            elif partial.size_bytes >= warm + trial:
                job.lanes_pay = lanes_pay(_speed(partial.size_bytes - warm, began), alone_bytes_per_s)
                if not job.lanes_pay:
                    return


def _speed(received_bytes: int, since: float) -> float:
    return received_bytes / max(time.monotonic() - since, 1e-6)


def _take(job: _Job, partial: Partial, data: bytes) -> None:
    partial.append(data)
    job.report(partial.size_bytes)
    if job.cancel.is_set():
        raise RequestCanceled


def _prepare(job: _Job, partial: Partial, stream: http_stream.Stream) -> None:
    """Bring the part into the state that the answer needs, or raise what the answer means."""
    answer = judge(
        job.file,
        offset=partial.size_bytes,
        etag=partial.etag,
        status=stream.status,
        headers=stream.headers,
        at_origin=origin_of(stream.url) == origin_of(job.file.url),
    )
    match answer:
        case Body(offset, etag):
            if offset == 0:
                partial.restart(etag)
        case Wrong(why):
            raise _WrongFileError(why)
        case Again(why, retry_after, from_zero):
            if from_zero:
                partial.restart()
            raise _TryAgainError(why, retry_after)
        case Refused(error):
            raise error
