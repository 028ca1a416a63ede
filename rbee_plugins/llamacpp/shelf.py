"""States of prompts on disk: what a worker that ends leaves to the next one of the same model.

A file is one text: what it is of, its tokens, its state, and a digest of all that. One that is damaged, or of what is
not any more, is removed; nothing in it is believed before its digest was looked at.
"""

import hashlib
import logging
import os
import stat
import time
from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from rbee_core.backend import LocalModel, OnDisk, Tuning
from rbee_plugins.llamacpp.states import Saved, as_array

SUFFIX, PARTIAL = ".prompt", ".new"
TAKE_WITHIN_S = 5.0
"""A load does not take longer for what is on disk: the rest stays there."""

_MAGIC = b"rbee prompt 1\n"
_LENGTH_BYTES = 4
_MOST_HEADER_BYTES = 1 << 16
_PIECE_BYTES = 4 << 20
_TOKEN_BYTES = 4
_DIGEST_BYTES = hashlib.sha256().digest_size
_ABANDONED_NS = 3600 * 10**9
_APART_NS = 1_000_000  # of what is left at one time, in the order of its use

log = logging.getLogger(__name__)


class Kind(Struct, frozen=True, forbid_unknown_fields=True):
    """What a state is of. `way` says all of the context that shows in it, `model` the version of what is at `path`."""

    path: str
    model: str
    llama_cpp: str
    way: str

    def outdates(self, other: "Kind") -> bool:
        """Whether there can be no use for the other one: its model, or llama.cpp, has been replaced by this one's."""
        return self.llama_cpp != other.llama_cpp or (self.path == other.path and self.model != other.model)


def kind_of(
    model: LocalModel, version: str, llama_cpp: str, tuning: Tuning, *, context_tokens: int, accelerator: str
) -> Kind:
    """Return the kind of what a context for `model` holds, a version of which its hive knows under that name."""
    adapters = [(a.path, a.scale, *_version(Path(a.path))) for a in tuning.lora]
    way = (context_tokens, accelerator, tuning.cache_type_k, tuning.cache_type_v, tuning.flash_attention, adapters)
    return Kind(str(model.path), version, llama_cpp, msgspec.json.encode(way).decode())


def _version(path: Path) -> tuple[int, ...]:
    seen = path.stat()
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns


class _Header(Struct, frozen=True, forbid_unknown_fields=True):
    kind: Kind
    tokens: Annotated[int, Meta(ge=1)]
    floor: Annotated[int, Meta(ge=0)]
    state_bytes: Annotated[int, Meta(ge=1)]


class _UselessError(ValueError):
    """A file is damaged, or of what is not any more."""


class _LateError(Exception):
    """There is no more time for it."""


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    size_bytes: int
    used_ns: int


class Shelf:
    """The folder, as a worker with states of one `kind` uses it. No method raises `OSError`."""

    def __init__(self, place: OnDisk, kind: Kind, clock: Callable[[], float] = time.monotonic) -> None:
        self._place = place
        self._kind = kind
        self._clock = clock
        self._mine: list[Saved[Path]] = []
        self._left: list[Saved[Path]] = []
        self._deadline = 0.0
        self._opened_ns = 0
        self._name = hashlib.sha256(msgspec.json.encode(kind)).hexdigest()[:16]

    # What was left.

    def take(self, room_bytes: int) -> list[Saved[bytearray]]:
        """Return what was left of this kind, the last used last: as many as there is room for."""
        self._deadline = self._clock() + TAKE_WITHIN_S
        self._sweep()
        self._make_room(0, time.time_ns())  # the limit may have been larger
        taken: list[Saved[bytearray]] = []
        for file in reversed(self._files()):
            if self._late():
                break
            if (found := self._taken(file, room_bytes)) is not None:
                room_bytes -= found.size_bytes
                taken.append(found)
        if taken:
            log.info("%d prompts were on disk, %d bytes", len(taken), sum(found.size_bytes for found in taken))
        return taken[::-1]

    def _taken(self, file: _File, room_bytes: int) -> Saved[bytearray] | None:
        try:
            with _opened(file.path) as source:
                found = self._read(source, room_bytes)
        except _UselessError as error:
            log.info("%s is removed: %s", file.path.name, error)
            _remove(file.path)
            return None
        except (OSError, MemoryError):  # another worker's eviction, above all
            return None
        if found is not None:
            self._mine.append(Saved(found.tokens, file.path, found.state_bytes, found.floor))
        return found

    def _read(self, source: BufferedReader, room_bytes: int) -> Saved[bytearray] | None:
        """Return what is in a file; None if it is of another kind, or too large. Raises `_UselessError`."""
        digest = hashlib.sha256()
        header = _header(source, digest)
        if self._kind.outdates(header.kind):
            raise _UselessError("its model or llama.cpp is another one now")
        size_bytes = header.tokens * _TOKEN_BYTES + header.state_bytes
        if os.fstat(source.fileno()).st_size != source.tell() + size_bytes + _DIGEST_BYTES:
            raise _UselessError("it is not as long as it says")
        if header.kind != self._kind or size_bytes > room_bytes:
            return None
        tokens, state = bytearray(header.tokens * _TOKEN_BYTES), bytearray(header.state_bytes)
        for part in (tokens, state):
            for piece in _pieces(part):
                if self._late():
                    return None
                if source.readinto(piece) != len(piece):
                    raise _UselessError("it ends too early")
                digest.update(piece)
        if source.read(_DIGEST_BYTES) != digest.digest():
            raise _UselessError("it is damaged")
        return Saved(array("i", bytes(tokens)), state, header.state_bytes, header.floor)

    # What is left.

    def open(self) -> None:
        """Begin to leave something: from now on there is only so much time."""
        self._deadline = self._clock() + self._place.within_s
        self._opened_ns = time.time_ns()

    def keep(self, tokens: Sequence[int], floor: int, size_bytes: int, state: Callable[[], Any]) -> bool:
        """Leave a text, whose `state` has that size; whether there is time and room for others.

        Begin with the one that was used last: none that is older takes its place.
        """
        text = Saved(as_array(tokens), self._path(tokens), size_bytes, floor)
        if any(other.serves(text.tokens) for other in self._left):
            _remove(text.state)  # or a conversation would stand there once for each turn
            return True
        used_ns, self._opened_ns = self._opened_ns, self._opened_ns - _APART_NS
        try:
            if text.state.exists():
                os.utime(text.state, ns=(used_ns, used_ns))
            elif not self._written(text, state, used_ns):
                return False
        except (OSError, _LateError) as error:
            log.info("no more prompts are left on disk: %s", error)
            return False
        self._left.append(text)
        for old in [old for old in self._mine if len(old.tokens) < len(text.tokens) and text.serves(old.tokens)]:
            _remove(old.state)
        return True

    def _written(self, text: Saved[Path], state: Callable[[], Any], used_ns: int) -> bool:
        """Whether there was room for it. Raises `OSError` and `_LateError`."""
        self._check_time()
        head = msgspec.json.encode(_Header(self._kind, len(text.tokens), text.floor, text.state_bytes))
        head = _MAGIC + len(head).to_bytes(_LENGTH_BYTES, "little") + head
        if not self._make_room(len(head) + text.size_bytes + _DIGEST_BYTES, used_ns):
            log.info("no more prompts are left on disk: there is no more room")
            return False
        if (held := state()) is not None:
            self._write(text.state, (head, text.tokens.tobytes(), held), used_ns)
        return True

    def _path(self, tokens: Sequence[int]) -> Path:
        digest = hashlib.sha256(as_array(tokens).tobytes()).hexdigest()[:32]
        return self._place.folder / f"{self._name}-{digest}{SUFFIX}"

    def _write(self, path: Path, parts: Sequence[Any], used_ns: int) -> None:
        """Write a file whole or not at all."""
        self._prepare()
        partial = path.with_suffix(f".{os.getpid()}{PARTIAL}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            with os.fdopen(os.open(partial, flags, 0o600), "wb", buffering=0) as file:
                digest = hashlib.sha256()
                for piece in (piece for part in parts for piece in _pieces(part)):
                    self._check_time()
                    digest.update(piece)
                    _write_all(file, piece)
                _write_all(file, memoryview(digest.digest()))
            os.utime(partial, ns=(used_ns, used_ns))
            partial.replace(path)
        except BaseException:
            _remove(partial)
            raise

    def _prepare(self) -> None:
        """Have the folder, for its owner alone: people's prompts are in it."""
        folder = self._place.folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(folder.stat().st_mode) & 0o077:
            folder.chmod(0o700)

    # The folder.

    def _files(self) -> list[_File]:
        """Return what lies there, the last used last."""
        found: list[_File] = []
        with suppress(OSError), os.scandir(self._place.folder) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX):
                    with suppress(OSError):
                        seen = entry.stat(follow_symlinks=False)
                        found.append(_File(Path(entry.path), seen.st_size, seen.st_mtime_ns))
        return sorted(found, key=lambda file: file.used_ns)

    def _make_room(self, size_bytes: int, used_ns: int) -> bool:
        """Remove what was used before that and is in the way of so many bytes; whether they have room then."""
        limit_bytes, files = self._place.limit_bytes - size_bytes, self._files()
        total_bytes = sum(file.size_bytes for file in files)
        if limit_bytes < 0:
            return False
        for file in files:
            if total_bytes <= limit_bytes or file.used_ns >= used_ns:
                break
            _remove(file.path)
            total_bytes -= file.size_bytes
        return total_bytes <= limit_bytes

    def _sweep(self) -> None:
        """Remove what a worker had begun to write when it was killed."""
        with suppress(OSError), os.scandir(self._place.folder) as entries:
            for entry in entries:
                if entry.name.endswith(PARTIAL) and time.time_ns() - entry.stat().st_mtime_ns > _ABANDONED_NS:
                    _remove(Path(entry.path))

    def _late(self) -> bool:
        return self._clock() > self._deadline

    def _check_time(self) -> None:
        if self._late():
            raise _LateError("there is no more time")


@contextmanager
def _opened(path: Path) -> Generator[BufferedReader]:
    """Open a file of our own. Raises `_UselessError` for anything else, which is not waited for either."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    seen = os.fstat(fd)
    if not stat.S_ISREG(seen.st_mode) or seen.st_uid != os.geteuid():
        os.close(fd)
        raise _UselessError("it is no file of this user's")
    with os.fdopen(fd, "rb") as file:
        yield file


def _header(source: BufferedReader, digest: Any) -> _Header:
    """Read up to the tokens. Raises `_UselessError`."""
    begin = source.read(len(_MAGIC) + _LENGTH_BYTES)
    length = int.from_bytes(begin[len(_MAGIC) :], "little")
    if not begin.startswith(_MAGIC) or length > _MOST_HEADER_BYTES:
        raise _UselessError("it is none of this version of rbee")
    text = source.read(length)
    for part in (begin, text):
        digest.update(part)
    try:
        return msgspec.json.decode(text, type=_Header)
    except (msgspec.DecodeError, RecursionError):
        raise _UselessError("its header cannot be read") from None


def _pieces(data: Any) -> Iterator[memoryview]:
    view = memoryview(data).cast("B")
    for start in range(0, len(view), _PIECE_BYTES):
        yield view[start : start + _PIECE_BYTES]


def _write_all(file: Any, piece: memoryview) -> None:
    """Write it all: a disk that is nearly full takes a part and says so."""
    while piece:
        piece = piece[file.write(piece) :]


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
