"""Downloads of whole models: one at a time per model however many ask, each asker free to leave.

Owns the running downloads of one hive. A file's transfer is `transfer.fetch`'s; when all files of a model are there,
its manifest is written and then its catalog row, in this order, so that a listed model is always whole.
"""

import asyncio
import logging
import secrets
import shutil
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from copy import copy
from pathlib import Path

from rbee_core import aio, wire
from rbee_core.backend import RemoteFile, RemoteModel
from rbee_core.errors import InsufficientDisk, RbeeError, RequestCanceled, ShuttingDown
from rbee_core.models import store
from rbee_core.models.catalog import Catalog, CatalogRow, row_of
from rbee_core.models.partial import Progress, disk_errors
from rbee_core.models.transfer_rules import TransferOptions

REMEMBERED = 64

log = logging.getLogger(__name__)


class Download:
    """One model on its way. `state` is running, done or failed; `progress` always tells the newest."""

    def __init__(self, model: RemoteModel, folder: Path) -> None:
        self.id = f"download-{secrets.token_hex(4)}"
        self.model = model
        self.folder = folder
        self.cancel = threading.Event()
        self.error: RbeeError | None = None
        self.row: CatalogRow | None = None
        self.current = ""
        self._done = dict.fromkeys((f.name for f in model.files), 0)
        self._moved = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether it is over, well or not."""
        return self.row is not None or self.error is not None

    def note(self, name: str, done_bytes: int) -> None:
        """Take in how far a file is, and wake who watches."""
        self.current = name
        self._done[name] = done_bytes
        self.wake()

    def wake(self) -> None:
        """Tell watchers to look again."""
        self._moved.set()
        self._moved = asyncio.Event()

    def progress(self) -> wire.DownloadProgress:
        """Return how far it is."""
        return wire.DownloadProgress(
            id=self.id,
            reference=self.model.reference,
            state="failed" if self.error else "done" if self.row else "running",
            done_bytes=sum(self._done.values()),
            total_bytes=self.model.size_bytes,
            file=self.current,
            note=self.model.note,
            error=wire.ErrorObject.of(self.error) if self.error else None,
        )

    async def watch(self) -> AsyncIterator[wire.DownloadProgress]:
        """Yield the progress now and whenever it moves, up to done or failed."""
        while True:
            moved, progress = self._moved, self.progress()
            yield progress
            if progress.state != "running":
                return
            await moved.wait()

    async def result(self) -> CatalogRow:
        """Wait for the end. Raises what the download ended with."""
        async for _ in self.watch():
            pass
        if self.error is not None:
            raise copy(self.error)
        assert self.row is not None
        return self.row


class Downloads:
    """The running downloads. Build with `running`; methods belong to the event loop's thread."""

    def __init__(self, tasks: asyncio.TaskGroup, catalog: Catalog, models_dir: Path, options: TransferOptions) -> None:
        self._tasks = tasks
        self._catalog = catalog
        self._models_dir = models_dir
        self._options = options
        self._known: dict[str, Download] = {}

    def start(self, model: RemoteModel) -> Download:
        """Return the download of `model`: the one that runs, or a new one."""
        folder = store.folder_for(self._models_dir, model)
        for download in self._known.values():
            if not download.ended and download.model.reference == model.reference:
                return download
        download = Download(model, folder)
        self._known[download.id] = download
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        self._tasks.create_task(self._run(download))
        return download

    def find(self, download_id: str) -> Download | None:
        """Return a running or remembered download."""
        return self._known.get(download_id)

    def runs(self, reference: str) -> bool:
        """Whether that model is on its way."""
        return any(d.model.reference == reference and not d.ended for d in self._known.values())

    def cancel_all(self) -> None:
        """End every download; what was fetched is kept for the next time."""
        for download in self._known.values():
            download.cancel.set()

    async def _run(self, download: Download) -> None:
        try:
            await self._fetch_all(download)
            download.row = await aio.off_loop(self._enter, download)
        except RequestCanceled:
            download.error = ShuttingDown(who="hive")  # nobody else cancels: askers come and go
        except RbeeError as error:
            download.error = error
        except Exception as error:
            log.exception("the download of %s failed", download.model.reference)
            download.error = RbeeError(f"The download failed: {type(error).__name__}", hint="see the hive's log")
        download.wake()
        outcome = f"failed: {download.error}" if download.error else "done"
        log.info("download of %s %s", download.model.reference, outcome)

    async def _fetch_all(self, download: Download) -> None:
        loop = asyncio.get_running_loop()
        await aio.off_loop(self._check_space, download)
        for file in download.model.files:

            def progress(done: int, total: int, name: str = file.name) -> None:
                del total
                loop.call_soon_threadsafe(download.note, name, done)

            destination = download.folder / file.name
            await aio.off_loop(self._fetch, file, destination, download.cancel, progress)
            download.note(file.name, file.size_bytes)
        if download.cancel.is_set():
            raise RequestCanceled

    def _fetch(self, file: RemoteFile, destination: Path, cancel: threading.Event, progress: Progress) -> None:
        from rbee_core.models import transfer  # brings an HTTP client, for which most hives have no use

        transfer.fetch(file, destination, cancel=cancel, progress=progress, options=self._options)

    def _check_space(self, download: Download) -> None:
        """Refuse before the first byte if the files cannot all fit; blocks for a moment."""
        with disk_errors(download.folder, download.model.size_bytes):
            download.folder.mkdir(parents=True, exist_ok=True)
            have = shutil.disk_usage(download.folder).free
        paths = [download.folder / f.name for f in download.model.files]
        there = sum(p.stat().st_size for p in paths if p.is_file())
        need = (download.model.size_bytes - there) * 105 // 100
        if need > have:
            raise InsufficientDisk(need_bytes=need, have_bytes=have)

    def _enter(self, download: Download) -> CatalogRow:
        model = download.model
        files = [
            store.ManifestFile(f.name, f.size_bytes, sha256=f.sha256 or "", git_sha1=f.git_sha1 or "")
            for f in model.files
        ]
        manifest = store.Manifest(
            model.reference, model.provider, model.revision, model.format, model.entry, int(time.time()), files
        )  # fmt: skip
        with disk_errors(download.folder, model.size_bytes):
            store.write_manifest(download.folder, manifest)
        row = row_of(download.folder, manifest)
        self._catalog.add(row)
        return row


@asynccontextmanager
async def running(catalog: Catalog, models_dir: Path, options: TransferOptions) -> AsyncGenerator[Downloads]:
    """Own the downloads for the length of the context; its end cancels them and waits for their threads."""
    async with asyncio.TaskGroup() as tasks:
        downloads = Downloads(tasks, catalog, models_dir, options)
        try:
            yield downloads
        finally:
            downloads.cancel_all()
