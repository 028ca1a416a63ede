"""The unfinished copy of one file on disk: locked, hashed as it grows, visible under its name only when it is right.

Beside the destination lie ``<name>.part`` and ``<name>.part.json``, which says what the part is a part of. A part is
always re-read before it is trusted: the process that wrote it may have been killed at any point.
"""

import errno
import fcntl
import os
import secrets
import stat
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from rbee_core.backend.base import RemoteFile
from rbee_core.backend.files import checksum_of, new_digest
from rbee_core.errors import DownloadFailed, HomeUnusable, InsufficientDisk, RequestCanceled

CHUNK_BYTES = 2 * 1024 * 1024
_WORTH_A_THREAD_BYTES = 128 * 1024
_LOCK_POLL_S = 0.1
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
ReportBytes = Callable[[int, int], None]
"""Takes the bytes there are and the bytes there will be."""


class _Sidecar(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str
    etag: str
    checksum: str
    size_bytes: int


def is_right(path: Path, file: RemoteFile, cancel: threading.Event) -> bool:
    """Return whether `path` is a regular file with the announced size and checksum."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size != file.size_bytes:
            return False
        digest = new_digest(file)
        for chunk in _chunks(fd, cancel):
            digest.update(chunk)
        return digest.hexdigest() == checksum_of(file)
    finally:
        os.close(fd)


def _chunks(fd: int, cancel: threading.Event) -> Iterator[bytes]:
    offset = 0
    while chunk := os.pread(fd, CHUNK_BYTES, offset):
        if cancel.is_set():
            raise RequestCanceled
        yield chunk
        offset += len(chunk)


class Partial:
    """Owns the part of one file while its lock is held. Not for two threads at a time."""

    def __init__(self, file: RemoteFile, path: Path, fd: int, *, shared: bool) -> None:
        self._file = file
        self._path = path
        self._fd = fd
        self._shared = shared
        self._sidecar = path.with_name(f"{path.name}.json")
        self._digest = new_digest(file)
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="transfer-hash")
        self._hashing: Future[None] | None = None
        self.size_bytes = 0
        self.etag = ""

    def load(self, cancel: threading.Event, progress: ReportBytes) -> None:
        """Hash what an earlier process left, or drop it when it belongs to something else."""
        with disk_errors(self._path, self._file.size_bytes):
            known = self._read_sidecar()
            if known is None or os.fstat(self._fd).st_size > self._file.size_bytes:
                self._truncate()
                return
            for chunk in _chunks(self._fd, cancel):
                self._digest.update(chunk)
                self.size_bytes += len(chunk)
                progress(self.size_bytes, self._file.size_bytes)
            self.etag = known.etag

    def _read_sidecar(self) -> _Sidecar | None:
        try:
            known = msgspec.json.decode(self._sidecar.read_bytes(), type=_Sidecar)
        except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
            return None
        return known if known == self._identity(known.etag) else None

    def _identity(self, etag: str) -> _Sidecar:
        file = self._file
        return _Sidecar(file.url, etag, checksum_of(file), file.size_bytes)

    def restart(self, etag: str = "") -> None:
        """Forget everything that was written; what follows is of the version that `etag` names."""
        with disk_errors(self._path, self._file.size_bytes):
            self._truncate()
            self.etag = etag
            if self._shared and etag:
                fresh = self._sidecar.with_name(f"{self._sidecar.name}.{secrets.token_hex(4)}")
                fresh.write_bytes(msgspec.json.encode(self._identity(etag)))
                fresh.replace(self._sidecar)

    def _truncate(self) -> None:
        self._settle()
        os.ftruncate(self._fd, 0)
        self._sidecar.unlink(missing_ok=True)
        self._digest = new_digest(self._file)
        self.size_bytes = 0
        self.etag = ""

    def append(self, data: bytes) -> None:
        """Write and hash the next bytes of the file."""
        with disk_errors(self._path, self._file.size_bytes):
            rest = memoryview(data)
            while rest:
                written = os.pwrite(self._fd, rest, self.size_bytes + len(data) - len(rest))
                rest = rest[written:]
        self._hash(data)
        self.size_bytes += len(data)

    def _hash(self, data: bytes) -> None:
        """Hash while the caller waits for the next bytes: on a fast line hashing would cost a third of the speed."""
        self._settle()
        if len(data) < _WORTH_A_THREAD_BYTES:
            self._digest.update(data)
        else:
            self._hashing = self._hasher.submit(self._digest.update, data)

    def _settle(self) -> None:
        if self._hashing:
            self._hashing.result()
            self._hashing = None

    def is_right(self) -> bool:
        """Return whether all of the file is here, with the announced checksum."""
        self._settle()
        return self.size_bytes == self._file.size_bytes and self._digest.hexdigest() == checksum_of(self._file)

    def commit(self, destination: Path) -> None:
        """Make the file visible. The order is the promise: a name never appears before its bytes are on disk."""
        with disk_errors(destination, self._file.size_bytes):
            os.fsync(self._fd)
            self._path.replace(destination)
            sync_folder(destination.parent)
            self._sidecar.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the part: its space is needed, or it cannot be resumed."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
            self._sidecar.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the lock; a part that nobody could find again is removed."""
        self._hasher.shutdown()
        if not self._shared:
            self.discard()
        os.close(self._fd)


@contextmanager
def lock_partial(
    file: RemoteFile, destination: Path, cancel: threading.Event, waiting: Callable[[int], None]
) -> Generator[Partial]:
    """Yield the part of `destination`, waiting while another process or thread writes it.

    `waiting` is called with the size the other one has reached. Raises `RequestCanceled`. Where flock excludes
    nobody (some network file systems) the part gets a name of its own and is not resumed.
    """
    path = destination.with_name(f"{destination.name}.part")
    with disk_errors(path, file.size_bytes):
        destination.parent.mkdir(parents=True, exist_ok=True)
        fd = _open(path)
        while not _try_lock(path, fd):
            waiting(os.fstat(fd).st_size)
            os.close(fd)
            if cancel.wait(_LOCK_POLL_S):
                raise RequestCanceled
            fd = _open(path)
        shared = _lock_excludes(path)
        if not shared:
            os.close(fd)
            path.unlink(missing_ok=True)
            path = destination.with_name(f"{destination.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
            fd = _open(path)
    partial = Partial(file, path, fd, shared=shared)
    try:
        yield partial
    finally:
        partial.close()


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _try_lock(path: Path, fd: int) -> bool:
    """Lock `fd`; False while another holds it, or when it turned into a finished file in between."""
    try:
        return _flock(fd) and os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _lock_excludes(path: Path) -> bool:
    probe = _open(path)
    try:
        return not _flock(probe)
    finally:
        os.close(probe)


def _flock(fd: int) -> bool:
    """Return False while another descriptor holds the lock; a file system without locks refuses nobody."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def sync_folder(folder: Path) -> None:
    """Put the folder's entries on disk, so that a rename survives a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def disk_errors(path: Path, need_bytes: int) -> Generator[None]:
    """Turn the disk's errors into ours, so that they are not taken for the network's."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise InsufficientDisk(need_bytes=need_bytes, have_bytes=0) from error
        why = (error.strerror or type(error).__name__).lower()
        if error.errno in _FORBIDDEN:
            raise HomeUnusable(path=str(path.parent), why=why) from error
        raise DownloadFailed(f"Cannot write {path}: {why}", hint="check the disk and its permissions") from error
