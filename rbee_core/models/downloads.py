"""Downloads of whole models: one at a time per model however many ask, each asker free to leave.

Owns the downloads of one hive and the threads they run in: so many at once, the others wait their turn. A file's
transfer is `transfer.fetch`'s; when all files of a model are there, its manifest is written and then its catalog row,
in this order, so that a listed model is always whole.
"""

import asyncio
import logging
import secrets
import shutil
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import copy
from functools import partial
from pathlib import Path

from rbee_core import aio, wire
from rbee_core.backend import RemoteFile, RemoteModel
from rbee_core.errors import (
    DownloadFailed,
    InsufficientDisk,
    ModelNotFound,
    RbeeError,
    RequestCanceled,
    ShuttingDown,
    TooManyDownloads,
)
from rbee_core.models import store
from rbee_core.models.catalog import Catalog, CatalogRow, row_of
from rbee_core.models.partial import disk_errors
from rbee_core.models.transfer_rules import TransferOptions

REMEMBERED = 64
"""So many downloads that are over can still be asked how they ended."""
WAITING = 128
"""So many may wait their turn; one more is refused."""

log = logging.getLogger(__name__)


class Download:
    """One model on its way. `state` is running, done or failed; `progress` always tells the newest."""

    def __init__(self, model: RemoteModel, folder: Path) -> None:
        self.id = f"download-{secrets.token_hex(4)}"
        self.model = model
        self.folder = folder
        self.cancel = threading.Event()
        self.turn = asyncio.Event()
        self.error: RbeeError | None = None
        self.row: CatalogRow | None = None
        self.queue_position = 0
        self.current = ""
        self.trouble = ""
        self.received_bytes = 0
        self._here = dict.fromkeys((f.name for f in model.files), 0)
        self._done = dict.fromkeys((f.name for f in model.files), 0)
        self._moved = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether it is over, well or not."""
        return self.row is not None or self.error is not None

    def note(self, name: str, done_bytes: int, *, here: bool = False) -> None:
        """Take in how far a file is, and wake who watches; `here` for bytes that this download need not fetch."""
        self.current, self.trouble = name, ""
        if here:
            self._here[name] = done_bytes
        else:  # a file that is begun again is received again
            self.received_bytes += max(0, done_bytes - self._done[name])
        self._done[name] = done_bytes
        self.wake()

    def note_whole(self, name: str, size_bytes: int) -> None:
        """Take in that a file is all there."""
        self.note(name, size_bytes, here=not self._done[name])

    def note_trouble(self, why: str) -> None:
        """Take in that an attempt failed, and wake who watches."""
        log.warning("download of %s: %s", self.model.reference, why)
        self.trouble = why
        self.wake()

    def stop(self) -> None:
        """Have it end; what was fetched is kept for the next time."""
        self.cancel.set()
        self.turn.set()

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
            fetched_bytes=max(0, sum(self._done.values()) - sum(self._here.values())),
            trouble=self.trouble,
            total_bytes=self.model.size_bytes,
            file=self.current,
            note=self.model.note,
            queue_position=self.queue_position,
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
    """The downloads of a hive, `at_once` of them running. Build with `running`; methods are the event loop's."""

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        catalog: Catalog,
        models_dir: Path,
        options: TransferOptions,
        at_once: int,
    ) -> None:
        self._tasks = tasks
        self._lane = aio.Lane("download", at_once)
        self._at_once = at_once
        self._catalog = catalog
        self._models_dir = models_dir
        self._options = options
        self._closing = False
        self._running: set[str] = set()
        self._waiting: list[Download] = []
        self._known: dict[str, Download] = {}
        self._forgotten_bytes = 0

    async def start(self, model: RemoteModel) -> Download:
        """Return the download of `model`: the one that runs or waits, or a new one.

        Raises `TooManyDownloads`, and `InvalidRequest` for names that are not fit for a path.
        """
        folder = await aio.off_loop(store.folder_for, self._models_dir, model)
        for download in self._known.values():
            going_on = not (download.ended or download.cancel.is_set())
            if going_on and download.model.reference == model.reference:
                return download
        if len(self._waiting) >= WAITING:
            raise TooManyDownloads(waiting=WAITING)
        download = Download(model, folder)
        self._known[download.id] = download
        self._line_up(download)
        self._tasks.create_task(self._run(download))
        return download

    def find(self, download_id: str) -> Download | None:
        """Return a running, waiting or remembered download."""
        return self._known.get(download_id)

    @property
    def received_bytes(self) -> int:
        """What all downloads so far have received, those that failed too."""
        return self._forgotten_bytes + sum(download.received_bytes for download in self._known.values())

    def running(self) -> list[Download]:
        """Return those that run or wait, oldest first."""
        return [download for download in self._known.values() if not download.ended]

    def cancel(self, reference: str) -> Download:
        """Stop the download of a model; what was fetched is kept. Raises `ModelNotFound` if there is none."""
        download = next((d for d in reversed(self.running()) if d.model.reference == reference), None)
        if download is None:
            why = "it is not being fetched"
            raise ModelNotFound(reference=reference, why=why, hint="`rbee models downloads` shows what is")
        if download in self._waiting:
            self._waiting.remove(download)
        download.stop()
        return download

    def runs(self, reference: str) -> bool:
        """Whether that model is on its way."""
        return any(d.model.reference == reference and not d.ended for d in self._known.values())

    def cancel_all(self) -> None:
        """End every download; what was fetched is kept for the next time."""
        self._closing = True
        self._waiting.clear()
        for download in self._known.values():
            download.stop()

    async def _run(self, download: Download) -> None:
        try:
            await download.turn.wait()
            if download.cancel.is_set():
                raise RequestCanceled  # noqa: TRY301  # it ends as one does that was cancelled on its way
            download.row = await self._lane.call(None, self._bring, download, _OnLoop(download))
        except RequestCanceled:
            download.error = ShuttingDown(who="hive") if self._closing else _canceled(download)
        except RbeeError as error:
            download.error = error
        except Exception as error:
            log.exception("the download of %s failed", download.model.reference)
            download.error = RbeeError(f"The download failed: {type(error).__name__}", hint="see the hive's log")
        download.wake()
        self._forget_old()
        self._end_turn(download)
        outcome = f"failed: {download.error}" if download.error else "done"
        log.info("download of %s %s", download.model.reference, outcome)

    def _line_up(self, download: Download) -> None:
        if len(self._running) < self._at_once:
            self._running.add(download.id)
            download.turn.set()
        else:
            self._waiting.append(download)
            download.queue_position = len(self._waiting)

    def _end_turn(self, download: Download) -> None:
        """Let the next one begin, and tell the others that they moved up."""
        self._running.discard(download.id)
        while self._waiting and len(self._running) < self._at_once:
            following = self._waiting.pop(0)
            following.queue_position = 0
            self._line_up(following)
            following.wake()
        for position, waiting in enumerate(self._waiting, start=1):
            waiting.queue_position = position
            waiting.wake()

    def _forget_old(self) -> None:
        """Forget those that ended first, beyond what is remembered; one that has not ended is never forgotten."""
        ended = [download.id for download in self._known.values() if download.ended]
        for download_id in ended[:-REMEMBERED]:
            self._forgotten_bytes += self._known.pop(download_id).received_bytes

    def _bring(self, download: Download, note: "_OnLoop") -> CatalogRow:
        """Fetch every file, then enter the model; blocks for as long as that takes."""
        from rbee_core.models import transfer  # brings an HTTP client, for which most hives have no use

        _check_space(download)
        for file in download.model.files:
            transfer.fetch(
                file,
                download.folder / file.name,
                cancel=download.cancel,
                progress=note.fetched(file.name),
                here=note.here(file.name),
                trouble=note.trouble,
                options=self._options,
            )
            note.whole(file)
        if download.cancel.is_set():
            raise RequestCanceled
        return self._enter(download)

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


class _OnLoop:
    """Tells a download how it goes, from another thread than the event loop's."""

    def __init__(self, download: Download) -> None:
        self._download = download
        self._loop = asyncio.get_running_loop()

    def fetched(self, name: str) -> Callable[[int, int], None]:
        """Return what takes how far a file is."""
        return lambda done, _: self._tell(partial(self._download.note, name, done))

    def here(self, name: str) -> Callable[[int, int], None]:
        """Return what takes how much of a file was here before."""
        return lambda done, _: self._tell(partial(self._download.note, name, done, here=True))

    def trouble(self, why: str) -> None:
        """Tell that an attempt failed."""
        self._tell(partial(self._download.note_trouble, why))

    def whole(self, file: RemoteFile) -> None:
        """Tell that a file is all there; if nobody said that it came, it was here."""
        self._tell(partial(self._download.note_whole, file.name, file.size_bytes))

    def _tell(self, what: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(what)


def _canceled(download: Download) -> RbeeError:
    why = f"The download of {download.model.reference} was cancelled"
    return DownloadFailed(why, hint="what was fetched is kept; ask for the model again to go on")


def _check_space(download: Download) -> None:
    """Refuse before the first byte if the files cannot all fit."""
    with disk_errors(download.folder, download.model.size_bytes):
        download.folder.mkdir(parents=True, exist_ok=True)
        have = shutil.disk_usage(download.folder).free
    paths = [download.folder / f.name for f in download.model.files]
    parts = [p.with_name(f"{p.name}.part") for p in paths]
    there = sum(p.stat().st_size for p in (*paths, *parts) if p.is_file())
    need = (download.model.size_bytes - there) * 105 // 100
    if need > have:
        raise InsufficientDisk(need_bytes=need, have_bytes=have)


@asynccontextmanager
async def running(
    catalog: Catalog, models_dir: Path, options: TransferOptions, at_once: int
) -> AsyncGenerator[Downloads]:
    """Own the downloads for the length of the context; its end cancels them and waits for their threads."""
    async with asyncio.TaskGroup() as tasks:
        downloads = Downloads(tasks, catalog, models_dir, options, at_once)
        try:
            yield downloads
        finally:
            downloads.cancel_all()
