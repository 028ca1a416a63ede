"""The model catalog: `models.db`, a SQLite index over model files. The files are the truth.

A missing, older or damaged database is rebuilt from the manifests that lie beside downloaded models; a damaged one is
kept aside. All methods block for a moment: call them off the event loop.
"""

import errno
import fcntl
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rbee_core.backend import LocalModel
from rbee_core.domain.model_ref import OF_PLACES, parse
from rbee_core.errors import CatalogUnusable, InsufficientDisk
from rbee_core.models import store

APPLICATION_ID = 0x72626565  # "rbee"
SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 5.0
_LOCK_POLL_S = 0.05
_ROOM_BYTES = 256 * 1024
"""With less, a write-ahead log cannot be begun: then a write that fails has failed for want of room."""
_OF_THE_DISK = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY})
_CREATE = """
CREATE TABLE IF NOT EXISTS models (
    reference TEXT PRIMARY KEY,
    provider TEXT NOT NULL,
    local_path TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    downloaded_at_unix INTEGER NOT NULL,
    format TEXT NOT NULL DEFAULT '',
    sha256 TEXT NOT NULL DEFAULT '',
    revision TEXT NOT NULL DEFAULT ''
)
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogRow:
    """One model that this node has: fetched by rbee into its own folders, or of somebody else and used in place.

    `revision` is the version that the hub named when it was fetched, "" for files used in place; `sha256` is "" for
    those too, as nobody announced a hash, and where the hub has none.
    """

    reference: str
    provider: str
    local_path: str
    size_bytes: int
    downloaded_at_unix: int
    format: str = ""
    sha256: str = ""
    revision: str = ""

    @property
    def fetched(self) -> bool:
        """Whether rbee fetched the files: it checks them then, fetches them again when they are gone, removes them."""
        return self.revision != ""

    @property
    def place(self) -> str:
        """Where its files really lie; two rows of one place are one model with two names."""
        return os.path.realpath(self.local_path) if parse(self.reference).scheme in OF_PLACES else self.reference

    @property
    def model(self) -> LocalModel:
        """The model as backends are given it."""
        return LocalModel(self.reference, Path(self.local_path), self.format, self.size_bytes)


_COLUMNS = tuple(field.name for field in fields(CatalogRow))


def row_of(folder: Path, manifest: store.Manifest) -> CatalogRow:
    """Return the row of a model that rbee fetched into `folder`."""
    entry = next((f for f in manifest.files if f.name == manifest.entry), None)
    return CatalogRow(
        reference=manifest.reference,
        provider=manifest.provider,
        local_path=str(folder / manifest.entry) if manifest.entry else str(folder),
        size_bytes=manifest.size_bytes,
        downloaded_at_unix=manifest.downloaded_at_unix,
        format=manifest.format,
        sha256=entry.sha256 if entry else "",
        revision=manifest.revision,
    )


class Catalog:
    """The open catalog. One connection, used by one thread at a time; other processes may have it open too."""

    def __init__(self, path: Path, models_dir: Path, *, lock_wait_s: float = BUSY_TIMEOUT_S) -> None:
        self._path = path
        self._models_dir = models_dir
        self._lock = threading.Lock()
        self._reads_only = False
        with _errors(path), _alone(models_dir, lock_wait_s):
            self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        existed = self._path.exists()
        if existed and not _is_healthy(self._path):
            aside = self._path.with_name(f"{self._path.name}.corrupt-{int(time.time())}")
            log.warning("the model catalog is damaged; kept as %s and rebuilt from the model files", aside.name)
            self._path.replace(aside)
            for extra in ("-wal", "-shm"):
                self._path.with_name(self._path.name + extra).unlink(missing_ok=True)
            existed = False
        try:
            return self._writable(existed)
        except sqlite3.OperationalError as error:
            if not (existed and _is_full(error, self._path)):
                raise
            log.warning("the disk is full: the model catalog is read, and nothing is entered")
            self._reads_only = True
            return _look_at(self._path)

    def _reopen(self) -> None:
        """Open it for writing where a full disk did not let us at the start."""
        if self._reads_only:
            db = self._writable(existed=True)
            self._db.close()
            self._db, self._reads_only = db, False

    def _writable(self, existed: bool) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, check_same_thread=False, isolation_level=None)
        try:
            self._prepare(db, existed)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection, existed: bool) -> None:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        if _pragma(db, "user_version") == 0:
            db.execute(_CREATE)
            db.execute(f"PRAGMA application_id={APPLICATION_ID}")
            db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        if not existed:
            self._adopt(db)

    def _adopt(self, db: sqlite3.Connection) -> None:
        """Enter every model whose manifest lies beside whole files."""
        for path, manifest in store.manifests(self._models_dir):
            if not store.missing(path.parent, manifest):
                _insert(db, row_of(path.parent, manifest))

    def close(self) -> None:
        """Close the database, folding its write-ahead log in."""
        with self._lock:
            self._db.close()

    def rows(self) -> list[CatalogRow]:
        """Return every model, by reference."""
        return self._select("ORDER BY reference")

    def find(self, reference: str) -> CatalogRow | None:
        """Return the model with this canonical reference."""
        return next(iter(self._select("WHERE reference = ?", reference)), None)

    def _select(self, which: str, *values: str) -> list[CatalogRow]:
        with self._lock, _errors(self._path):
            found = self._db.execute(f"SELECT {', '.join(_COLUMNS)} FROM models {which}", values).fetchall()  # noqa: S608
        return [CatalogRow(**dict(zip(_COLUMNS, row, strict=True))) for row in found]

    def is_missing(self, row: CatalogRow) -> bool:
        """Return whether the model's files are gone or incomplete; reads no contents."""
        if not row.fetched:
            return not Path(row.local_path).exists()
        found = store.manifest_of(self._models_dir, row.reference, Path(row.local_path))
        return found is None or bool(store.missing(found[0].parent, found[1]))

    def add(self, row: CatalogRow) -> None:
        """Enter or replace a model. Durable when it returns."""
        with self._lock, _errors(self._path):
            self._reopen()
            _insert(self._db, row)

    def remove(self, reference: str) -> None:
        """Forget a model; its files are the caller's to remove."""
        with self._lock, _errors(self._path):
            self._reopen()
            self._db.execute("DELETE FROM models WHERE reference = ?", (reference,))


def inspect(path: Path) -> int | None:
    """Return how many models a catalog lists, None if there is none; changes nothing, not even a damaged one.

    Raises `CatalogUnusable` for one that is damaged, locked or too new.
    """
    with _errors(path):
        if not path.exists():
            return None
        if not _is_healthy(path):
            raise CatalogUnusable(f"{path} is damaged", hint="it is kept aside and rebuilt at the next start")
        with closing(_look_at(path)) as db:
            return int(db.execute("SELECT count(*) FROM models").fetchone()[0])


def _is_healthy(path: Path) -> bool:
    """Return whether the file is a whole catalog of ours. A file of no bytes is lost, not empty."""
    if path.stat().st_size == 0:
        return False
    try:
        with closing(_look_at(path)) as db:
            version = _pragma(db, "user_version")
            ours = _pragma(db, "application_id") == APPLICATION_ID
            if ours and version > SCHEMA_VERSION:
                raise CatalogUnusable(
                    f"{path.name} was written by a newer rbee (schema {version}, known is {SCHEMA_VERSION})",
                    hint="update rbee, or set another RBEE_HOME",
                )
            return ours and db.execute("PRAGMA quick_check").fetchone() == ("ok",) and _is_in_shape(db)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        return False


def _is_in_shape(db: sqlite3.Connection) -> bool:
    """Return whether the table has our columns, and every value its column's type: SQLite itself minds neither."""
    if not {name for (name,) in db.execute("SELECT name FROM pragma_table_info('models')")} >= set(_COLUMNS):
        return False
    of_wrong_type = " OR ".join(
        f"typeof({f.name}) != '{'integer' if f.type in (int, 'int') else 'text'}'" for f in fields(CatalogRow)
    )
    return db.execute(f"SELECT 1 FROM models WHERE {of_wrong_type} LIMIT 1").fetchone() is None  # noqa: S608


def _is_full(error: Exception, path: Path) -> bool:
    """Return whether a write failed for want of space. SQLite says so, or speaks of the disk in general."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or "full" in str(error):
        return True
    return code in _OF_THE_DISK and _free_bytes(path) < _ROOM_BYTES


def _free_bytes(path: Path) -> int:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:  # there is no such folder
        return _ROOM_BYTES


def _look_at(path: Path) -> sqlite3.Connection:
    """Open a catalog for reading. Without a write-ahead log nobody has it open, and none is to be made.

    An empty one is a full disk's: it could not be begun.
    """
    log_file = path.with_name(f"{path.name}-wal")
    mode = "mode=ro" if log_file.exists() and log_file.stat().st_size else "mode=ro&immutable=1"
    return sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True, timeout=BUSY_TIMEOUT_S, check_same_thread=False)


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _insert(db: sqlite3.Connection, row: CatalogRow) -> None:
    values = asdict(row)
    marks = ", ".join("?" for _ in values)
    db.execute(f"INSERT OR REPLACE INTO models ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))  # noqa: S608


@contextmanager
def _alone(folder: Path, wait_s: float) -> Generator[None]:
    """Keep other processes from opening a catalog meanwhile: one that is half made looks like a damaged one.

    Raises `CatalogUnusable` if another one keeps this one out for longer than `wait_s`.
    """
    fd, until = os.open(folder, os.O_RDONLY | os.O_DIRECTORY), time.monotonic() + wait_s
    try:
        while not _try_lock(fd):
            if time.monotonic() >= until:
                hint = "a halted rbee may: end it, or let it go on"
                raise CatalogUnusable(f"Another program holds the lock of {folder}", hint=hint, path=str(folder))
            time.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _errors(path: Path) -> Generator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        if _is_full(error, path):
            raise InsufficientDisk(need_bytes=_ROOM_BYTES, have_bytes=_free_bytes(path)) from error
        raise CatalogUnusable(
            f"The model catalog cannot be used: {error}", hint=f"see what else has {path} open", path=str(path)
        ) from error
