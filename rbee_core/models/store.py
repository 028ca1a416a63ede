"""The model files that rbee fetched, and the manifest that lies beside each model.

Layout: ``models/<provider>/<owner>/<name>/<commit>/`` holds the files under the hub's own names; next to them one
``<something>.rbee.json`` per reference says which files belong to it and what their checksums are. A manifest is
written only when every file is whole, so that a manifest means a model.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from rbee_core.backend import RemoteModel
from rbee_core.backend.files import checksum_of, new_digest
from rbee_core.domain.model_ref import parse
from rbee_core.errors import InvalidRequest
from rbee_core.models.paths import safe_child

SUFFIX = ".rbee.json"
_CHUNK_BYTES = 1 << 20

log = logging.getLogger(__name__)


class ManifestFile(msgspec.Struct, frozen=True):
    """One file of a fetched model. `name` is relative to the manifest's folder; one of the checksums is ""."""

    name: str
    size_bytes: int
    sha256: str = ""
    git_sha1: str = ""


class Manifest(msgspec.Struct, frozen=True):
    """A fetched model: enough to enter it in a new catalog and to check every byte of it."""

    reference: str
    provider: str
    revision: str
    format: str
    entry: str
    downloaded_at_unix: int
    files: list[ManifestFile]

    @property
    def size_bytes(self) -> int:
        """Sum of all files."""
        return sum(f.size_bytes for f in self.files)


def folder_for(models_dir: Path, model: RemoteModel) -> Path:
    """Return where the files of `model` belong. Raises `InvalidRequest` for names that are not fit for a path."""
    ref = parse(model.reference)
    parts = [part for part in (model.provider, ref.owner, ref.name, model.revision) if part]
    return safe_child(models_dir, *parts)


def manifest_path(folder: Path, reference: str) -> Path:
    """Return where the manifest of `reference` lies; the name only has to differ from others'."""
    return folder / f"{hashlib.sha256(reference.encode()).hexdigest()[:16]}{SUFFIX}"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a manifest whole or not at all, and on the disk for good."""
    path = manifest_path(folder, manifest.reference)
    partial = path.with_suffix(".new")
    with partial.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def manifests(models_dir: Path) -> Iterator[tuple[Path, Manifest]]:
    """Yield every readable manifest with its path; of two for one reference, the newer one last."""
    found = [(path, manifest) for path in sorted(models_dir.rglob(f"*{SUFFIX}")) if (manifest := _read(path))]
    yield from sorted(found, key=lambda item: item[1].downloaded_at_unix)


def manifest_of(models_dir: Path, reference: str, local_path: Path) -> tuple[Path, Manifest] | None:
    """Return the manifest of a fetched model whose files lie at `local_path`, or above it."""
    top = models_dir.resolve()
    for folder in (local_path, *local_path.parents):
        if folder == top or not folder.is_relative_to(top):
            return None
        path = manifest_path(folder, reference)
        if manifest := _read(path):
            return path, manifest
    return None


def _read(path: Path) -> Manifest | None:
    """Return a manifest, None if there is none; one that names files outside its folder counts as unreadable."""
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
        for name in [f.name for f in manifest.files] + [manifest.entry or "x"]:
            safe_child(path.parent, *name.split("/"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.MsgspecError, InvalidRequest):
        log.warning("%s cannot be read; its model is not listed", path)
        return None
    return manifest


def missing(folder: Path, manifest: Manifest) -> list[str]:
    """Return the names of files that are not there, or not of their size; reads no contents."""
    return [f.name for f in manifest.files if _size(folder / f.name) != f.size_bytes]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def damaged(folder: Path, manifest: Manifest, progress: Callable[[int], None]) -> list[str]:
    """Return the names of files whose bytes are not the ones that were fetched; `progress` gets bytes read."""
    return [f.name for f in manifest.files if not _is_right(folder / f.name, f, progress)]


def _is_right(path: Path, file: ManifestFile, progress: Callable[[int], None]) -> bool:
    if _size(path) != file.size_bytes:
        return False
    digest = new_digest(file)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            progress(len(chunk))
    return digest.hexdigest() == checksum_of(file)


def remove(models_dir: Path, manifest_file: Path, manifest: Manifest) -> int:
    """Remove a fetched model, manifest first, but no file that another manifest names; return the bytes freed."""
    folder, freed = manifest_file.parent, 0
    manifest_file.unlink(missing_ok=True)
    shared = {
        f.name for path, other in manifests(models_dir) if path.parent == folder for f in other.files
    }  # fmt: skip
    for file in manifest.files:
        if file.name not in shared:
            freed += max(0, _size(folder / file.name))
            (folder / file.name).unlink(missing_ok=True)
    for empty in (folder, *folder.parents):
        if empty == models_dir or any(empty.iterdir()):
            break
        empty.rmdir()
    return freed
