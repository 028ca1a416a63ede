"""From a model reference to files on this node.

Owns the order of the answers: the catalog, then the reference's source, which finds files in place or says what to
fetch. What was used is entered in the catalog, and a model that was fetched once is found there without asking anybody.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from rbee_core import aio
from rbee_core.backend import LocalModel, ModelRef, ModelSource, RemoteModel
from rbee_core.domain.model_ref import parse
from rbee_core.errors import InvalidRequest, ModelInUse, ModelNotFound, PluginFailed, RbeeError
from rbee_core.models import store
from rbee_core.models.catalog import Catalog, CatalogRow, row_of
from rbee_core.models.downloads import Download, Downloads
from rbee_core.models.maintenance import is_missing


class Provisioner:
    """Provides models for one hive."""

    def __init__(
        self,
        catalog: Catalog,
        sources: Mapping[str, ModelSource],
        aliases: Mapping[str, str],
        downloads: Downloads,
        models_dir: Path,
    ) -> None:
        self._catalog = catalog
        self._sources = sources
        self._aliases = aliases
        self._downloads = downloads
        self._models_dir = models_dir

    def canonical(self, reference: str) -> str:
        """Return the spelling under which the model is catalogued and its workers are registered."""
        ref = self._parse(reference)
        return self._sources[ref.scheme].canonical(ref)

    def _parse(self, reference: str) -> ModelRef:
        ref = parse(reference, self._aliases)
        if ref.scheme not in self._sources:
            known = ", ".join(f"{s}:" for s in sorted(self._sources))
            raise InvalidRequest.bad_reference(reference, f"no plugin knows {ref.scheme}: (known are {known})")
        return ref

    async def look(self, reference: str, formats: Sequence[str]) -> LocalModel | RemoteModel:
        """Return the model if it is on this node, else what would have to be fetched. Fetches nothing.

        `formats` are those that will do, best first. Raises `InvalidRequest`, `ModelNotFound`, `AccessDenied`,
        `DownloadFailed`.
        """
        ref = self._parse(reference)
        name = self._sources[ref.scheme].canonical(ref)
        row = await aio.off_loop(self._fetched, name)
        if row is not None and (not formats or row.format in formats):
            return LocalModel(row.reference, Path(row.local_path), row.format, row.size_bytes)
        found = await aio.off_loop(self._resolve, ref, formats)
        return msgspec.structs.replace(found, reference=name)

    def _resolve(self, ref: ModelRef, formats: Sequence[str]) -> LocalModel | RemoteModel:
        try:
            return self._sources[ref.scheme].resolve(ref, formats)
        except (RbeeError, OSError):
            raise
        except Exception as error:
            raise PluginFailed(what=f"model source of {ref.scheme}:", error=error) from error

    async def begin(self, reference: str, formats: Sequence[str]) -> LocalModel | Download:
        """Return the model if it is on this node, else the download that brings it, joined or started."""
        found = await self.look(reference, formats)
        if isinstance(found, RemoteModel):
            return self._downloads.start(found)
        await aio.off_loop(self._note_in_place, found)
        return found

    async def provide(self, reference: str, formats: Sequence[str]) -> LocalModel:
        """Return the model's files on this node, fetching them if needed."""
        found = await self.begin(reference, formats)
        if isinstance(found, LocalModel):
            return found
        row = await found.result()
        return LocalModel(row.reference, Path(row.local_path), row.format, row.size_bytes)

    async def remove(self, reference: str, users: Sequence[str]) -> int:
        """Forget a model and remove the files that rbee fetched for it; return the bytes freed.

        Files that others own (a path, a package, a shared cache) stay. `users` are workers that hold it. Raises
        `ModelInUse`, `ModelNotFound`.
        """
        name = self.canonical(reference)
        if users or self._downloads.runs(name):
            raise ModelInUse(reference=name, users=users or ["a running download"])
        return await aio.off_loop(self._remove, name)

    def _remove(self, name: str) -> int:
        row = self._catalog.find(name)
        fetched = [found for found in store.manifests(self._models_dir) if found[1].reference == name]
        if row is None and not fetched:
            raise ModelNotFound(reference=name, why="it is not in the catalog", hint="`rbee models list` shows all")
        freed = sum(store.remove(self._models_dir, *found) for found in fetched)
        self._catalog.remove(name)
        return freed

    def _fetched(self, name: str) -> CatalogRow | None:
        """Return the row of a model that rbee fetched and that is still there in full.

        Files used in place are looked at afresh each time: their owner may have changed them.
        """
        row = self._catalog.find(name)
        if row is not None and not (row.revision and is_missing(row, self._models_dir)):
            return row if row.revision else None
        return self._adopt(name)

    def _adopt(self, name: str) -> CatalogRow | None:
        """Enter a whole model whose row is lost, or leads elsewhere since RBEE_HOME was moved."""
        for path, manifest in store.manifests(self._models_dir):
            if manifest.reference == name and not store.missing(path.parent, manifest):
                row = row_of(path.parent, manifest)
                self._catalog.add(row)
                return row
        return None

    def _note_in_place(self, model: LocalModel) -> None:
        row = self._catalog.find(model.reference)
        if row is not None and row.revision:
            return
        provider = parse(model.reference).scheme
        fresh = CatalogRow(
            reference=model.reference,
            provider=provider,
            local_path=str(model.path),
            size_bytes=model.size_bytes,
            downloaded_at_unix=row.downloaded_at_unix if row else int(time.time()),
            format=model.format,
        )
        if row != fresh:
            self._catalog.add(fresh)
