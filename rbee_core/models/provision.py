"""From a model reference to files on this node.

Owns the order of the answers: the catalog, then the reference's source, which finds files in place or says what to
fetch. What was used is entered in the catalog.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rbee_core import aio
from rbee_core.backend import LocalModel, ModelRef, ModelSource
from rbee_core.domain.model_ref import parse
from rbee_core.errors import DownloadFailed, InvalidRequest
from rbee_core.models.catalog import Catalog, CatalogRow


class Provisioner:
    """Provides models for one hive."""

    def __init__(self, catalog: Catalog, sources: Mapping[str, ModelSource], aliases: Mapping[str, str]) -> None:
        self._catalog = catalog
        self._sources = sources
        self._aliases = aliases

    def parse(self, reference: str) -> ModelRef:
        """Return the canonical reference. Raises `InvalidRequest`."""
        ref = parse(reference, self._aliases)
        if ref.scheme not in self._sources:
            known = ", ".join(f"{s}:" for s in sorted(self._sources))
            raise InvalidRequest.bad_reference(reference, f"no plugin knows {ref.scheme}: (known are {known})")
        return ref

    def canonical(self, reference: str) -> str:
        """Return the spelling under which a worker for `reference` is registered."""
        ref = self.parse(reference)
        return self._sources[ref.scheme].canonical(ref)

    async def provide(self, reference: str, formats: Sequence[str]) -> LocalModel:
        """Return the model's files on this node, fetching them if needed.

        Raises `InvalidRequest`, `ModelNotFound`, `AccessDenied`, `DownloadFailed` and their like.
        """
        ref = self.parse(reference)
        if row := await aio.off_loop(self._catalogued, str(ref)):
            return LocalModel(row.reference, Path(row.local_path), row.format, row.size_bytes)
        found = await aio.off_loop(self._sources[ref.scheme].resolve, ref, formats)
        if not isinstance(found, LocalModel):
            raise DownloadFailed(f"{found.reference} is not on this node")
        row = CatalogRow(
            reference=found.reference,
            provider=ref.scheme,
            local_path=str(found.path),
            size_bytes=found.size_bytes,
            downloaded_at_unix=int(time.time()),
            format=found.format,
        )
        await aio.off_loop(self._catalog.add, row)
        return found

    def _catalogued(self, reference: str) -> CatalogRow | None:
        """Return the row of a model that was fetched; files used in place are looked at afresh each time."""
        row = self._catalog.find(reference)
        return row if row is not None and row.sha256 and Path(row.local_path).exists() else None
