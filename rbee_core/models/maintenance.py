"""Looking after the models of an RBEE_HOME: whether each is whole, and what interrupted downloads left behind.

Needs no hive, and may run beside one. Reports what is wrong and deletes no model, whatever it finds.
"""

import fcntl
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rbee_core.models import store
from rbee_core.models.catalog import Catalog, CatalogRow, row_of

Status = Literal["ok", "in place", "missing", "damaged", "unlisted"]
Found = tuple[Path, store.Manifest]
# What a killed transfer leaves beside its part, and a killed writer of a manifest.
STRAYS = ("*.part.json", "*.part.json.*", "*.rbee.new")


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one model. `files` are those that are missing or damaged."""

    reference: str
    status: Status
    local_path: str
    files: tuple[str, ...] = ()

    @property
    def wrong(self) -> bool:
        """Whether catalog and files disagree."""
        return self.status not in ("ok", "in place")


def bytes_to_verify(models_dir: Path, only: Collection[str] = ()) -> int:
    """Return how much `verify` will read."""
    return sum(m.size_bytes for _, m in store.manifests(models_dir) if not only or m.reference in only)


def verify(
    catalog: Catalog, models_dir: Path, progress: Callable[[int], None], only: Collection[str] = ()
) -> Iterator[Finding]:
    """Yield what each model is like, reading every byte that rbee fetched; `progress` gets the bytes read.

    `only` names the models to look at, if not all.

    A whole model that the catalog does not list, or lists elsewhere, is entered there; nothing else is changed.
    """
    rows = {row.reference: row for row in catalog.rows()}
    fetched = {manifest.reference: (path, manifest) for path, manifest in store.manifests(models_dir)}
    for reference in sorted(rows.keys() | fetched.keys()):
        if only and reference not in only:
            continue
        row, found = rows.get(reference), fetched.get(reference)
        if row is not None and row.fetched:
            found = store.manifest_of(models_dir, reference, Path(row.local_path)) or found
        elif row is not None:
            found = None
        yield _verify(catalog, row, found, progress)


def _verify(catalog: Catalog, row: CatalogRow | None, found: Found | None, progress: Callable[[int], None]) -> Finding:
    if found is None:
        assert row is not None
        there = not row.fetched and Path(row.local_path).exists()
        return Finding(row.reference, "in place" if there else "missing", row.local_path)
    folder, manifest = found[0].parent, found[1]
    entry = row_of(folder, manifest)
    if gone := store.missing(folder, manifest):
        return Finding(entry.reference, "missing", entry.local_path, tuple(gone))
    if bad := store.damaged(folder, manifest, progress):
        return Finding(entry.reference, "damaged", entry.local_path, tuple(bad))
    if row is not None and row.local_path == entry.local_path:
        return Finding(entry.reference, "ok", entry.local_path)
    catalog.add(entry)
    return Finding(entry.reference, "unlisted", entry.local_path)


def prune(models_dir: Path, *, older_than_s: float, now_unix: float) -> list[tuple[Path, int]]:
    """Remove what unfinished downloads left, if untouched for so long; return each file and its bytes.

    A part that is being written is somebody's, and stays, as does what says whose it is.
    """

    def is_old(path: Path) -> bool:
        with suppress(FileNotFoundError):
            return now_unix - path.stat().st_mtime >= older_than_s
        return False

    parts = [part for part in sorted(models_dir.rglob("*.part")) if is_old(part)]
    freed = [found for part in parts if (found := _remove_unless_used(part))]
    removed = {path for path, _ in freed}
    strays = sorted({path for pattern in STRAYS for path in models_dir.rglob(pattern)})
    unused = [p for p in strays if _part_of(p) in removed or (is_old(p) and not _part_of(p).exists())]
    return freed + [_remove(path) for path in unused]


def _part_of(sidecar: Path) -> Path:
    """Return the part that `a.gguf.part.json` or `a.gguf.part.json.12ab` tells about."""
    return sidecar.with_name(f"{sidecar.name.partition('.part.')[0]}.part")


def _remove_unless_used(part: Path) -> tuple[Path, int] | None:
    fd = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _remove(part)
    except BlockingIOError:
        return None
    finally:
        os.close(fd)


def _remove(path: Path) -> tuple[Path, int]:
    size_bytes = path.stat().st_size
    path.unlink()
    return path, size_bytes
