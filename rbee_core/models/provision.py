"""From a model reference to files on this node.

Owns the order of the answers: the catalog, then the reference's source, which finds files in place or says what to
fetch. What was used is entered in the catalog, and a model that was fetched once is found there without asking anybody.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from rbee_core import aio
from rbee_core.backend import LocalModel, ModelRef, ModelSource, RemoteModel
from rbee_core.domain.model_ref import parse
from rbee_core.errors import DownloadFailed, InsufficientDisk, ModelInUse, ModelNotFound, PluginFailed, RbeeError
from rbee_core.models import store
from rbee_core.models.catalog import Catalog, CatalogRow, row_of
from rbee_core.models.claims import Claims
from rbee_core.models.downloads import Download, Downloads
from rbee_core.models.looks import Looks
from rbee_core.models.references import References

log = logging.getLogger(__name__)

ASKED_AT_ONCE = 8
"""So many models may be looked up with one source at a time; a hub that is slow to answer holds nobody else up."""
ANSWER_S = 50.0
"""So long a source may take; the client waits a little longer, and so hears why."""


@dataclass(frozen=True, slots=True)
class Removed:
    """What a removal freed, and the other names for which the files stay."""

    freed_bytes: int
    kept_for: list[str]


class Provisioner:
    """Provides models for one hive. Every `reference` is a canonical one."""

    def __init__(self, catalog: Catalog, references: References, downloads: Downloads, models_dir: Path) -> None:
        self._catalog = catalog
        self._references = references
        self._downloads = downloads
        self._models_dir = models_dir
        self._lanes: defaultdict[str, aio.Lane] = defaultdict(lambda: aio.Lane("model-source", ASKED_AT_ONCE))
        self._claims = Claims()
        self._looks = Looks()

    async def look(self, reference: str, formats: Sequence[str]) -> LocalModel | RemoteModel:
        """Return the model if it is on this node, else what would have to be fetched. Fetches nothing.

        `formats` are those that will do, best first. Raises `InvalidRequest`, `ModelNotFound`, `AccessDenied`,
        `DownloadFailed`.
        """
        if known := await aio.off_loop(self._known, reference, formats):
            return known
        source, ref = self._references.source_of(reference)
        try:
            found = await self._lanes[ref.scheme].call(ANSWER_S, self._ask, source, ref, reference, formats)
        except aio.DeadlinePassed:
            why = f"The model source of {ref.scheme}: did not answer within {ANSWER_S:g} s"
            raise DownloadFailed(why, hint="check the network, or try again later") from None
        return found

    def _known(self, reference: str, formats: Sequence[str]) -> LocalModel | None:
        """Return what needs no source: what was seen a moment ago, and what rbee fetched and is still there.

        Files of others may have changed since the catalog noted them.
        """
        if seen := self._looks.find(reference, formats):
            return seen
        row = self._row(reference)
        if row is not None and row.fetched and (not formats or row.format in formats):
            self._looks.keep(formats, row.model)
            return row.model
        return None

    def _ask(
        self, source: ModelSource, ref: ModelRef, reference: str, formats: Sequence[str]
    ) -> LocalModel | RemoteModel:
        try:
            found = source.resolve(ref, formats)
        except (RbeeError, OSError):
            raise
        except BaseException as error:  # it may leave, too: nothing of that is for our loop
            raise PluginFailed(what=f"model source of {ref.scheme}:", error=error) from error
        found = msgspec.structs.replace(found, reference=reference)
        if isinstance(found, LocalModel):
            self._looks.keep(formats, found)
        return found

    async def begin(self, reference: str, formats: Sequence[str]) -> LocalModel | Download:
        """Return the model if it is on this node, else the download that brings it, joined or started.

        Waits while the model is being removed. Raises as `look`, and `TooManyDownloads`.
        """
        async with self._claims.using(reference):
            found = await self.look(reference, formats)
            if isinstance(found, RemoteModel):
                return await self._downloads.start(found)
            await aio.off_loop(self._note_in_place, found)
            return found

    async def provide(self, reference: str, formats: Sequence[str]) -> LocalModel:
        """Return the model's files on this node, fetching them if needed."""
        found = await self.begin(reference, formats)
        return found if isinstance(found, LocalModel) else (await found.result()).model

    async def remove(self, reference: str) -> "Removed":
        """Forget a model's name, and remove the files that rbee fetched for it unless another name means them too.

        Files that others own (a path, a package, a shared cache) stay. Who calls it makes sure that no worker holds the
        model. Raises `ModelInUse` while it is looked up or fetched, `ModelNotFound`.
        """
        if self._downloads.runs(reference):
            cancel = f"rbee models pull --cancel {reference}"
            raise ModelInUse(reference=reference, users=["a running download"], ended_by=cancel)
        with self._claims.removing(reference):
            return await aio.to_the_end(self._remove, reference)

    def _remove(self, name: str) -> "Removed":
        row = self._catalog.find(name)
        fetched = [found for found in store.manifests(self._models_dir) if found[1].reference == name]
        if row is None and not fetched:
            raise ModelNotFound(reference=name, why="it is not in the catalog", hint="`rbee models list` shows all")
        freed = sum(store.remove(self._models_dir, *found) for found in fetched)
        others = [] if row is None else [r.reference for r in self._catalog.rows() if r.place == row.place]
        self._catalog.remove(name)
        return Removed(freed, [other for other in others if other != name])

    def _row(self, reference: str) -> CatalogRow | None:
        """Return the model's row; of one that rbee fetched only while its files are all there."""
        row = self._catalog.find(reference)
        if row is not None and not (row.fetched and self._catalog.is_missing(row)):
            return row
        return self._adopt(reference)

    def _adopt(self, name: str) -> CatalogRow | None:
        """Enter a whole model whose row is lost, or leads elsewhere since RBEE_HOME was moved."""
        for path, manifest in store.manifests(self._models_dir):
            if manifest.reference == name and not store.missing(path.parent, manifest):
                row = row_of(path.parent, manifest)
                self._catalog.add(row)
                return row
        return None

    def _note_in_place(self, model: LocalModel) -> None:
        """Enter a model that is used where it is, if the catalog says otherwise; one that rbee has fetched stays."""
        row = self._catalog.find(model.reference)
        if row is not None and row.fetched:
            return
        fresh = CatalogRow(
            reference=model.reference,
            provider=parse(model.reference).scheme,
            local_path=str(model.path),
            size_bytes=model.size_bytes,
            downloaded_at_unix=row.downloaded_at_unix if row else int(time.time()),
            format=model.format,
        )
        if row != fresh:
            try:
                self._catalog.add(fresh)
            except InsufficientDisk as error:  # it is here all the same
                log.warning("%s is not entered in the catalog: %s", model.reference, error)
