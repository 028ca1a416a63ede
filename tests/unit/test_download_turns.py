"""Downloads of one hive, in one process and without a network: turns, memory, errors and who is told what."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rbee_core import aio
from rbee_core.backend import RemoteFile, RemoteModel
from rbee_core.errors import DownloadFailed, InsufficientDisk, RbeeError, ShuttingDown, TooManyDownloads
from rbee_core.models import downloads, transfer
from rbee_core.models.catalog import Catalog
from rbee_core.models.downloads import Download, Downloads
from rbee_core.models.transfer_rules import TransferOptions

DATA = b"GGUF" + bytes(1000)
LONG_S = 30.0


class Line:
    """The network, played: a transfer lasts until it is let through; `failure` is what it ends with instead."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.open = threading.Event()
        self.failure: RbeeError | None = None

    async def has_begun(self, count: int) -> None:
        for _ in range(count):
            while not self.began.acquire(blocking=False):
                await aio.sleep(0.01)

    def fetch(self, file: RemoteFile, destination: Path, *, cancel: threading.Event, **_: Any) -> None:
        self.began.release()
        while not self.open.wait(0.01):
            if cancel.is_set():
                raise downloads.RequestCanceled
        if self.failure is not None:
            raise self.failure
        destination.write_bytes(DATA)


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    played = Line()
    monkeypatch.setattr(transfer, "fetch", played.fetch)
    return played


def model(name: str) -> RemoteModel:
    file = RemoteFile("m.gguf", f"https://hub.example/{name}", len(DATA), sha256=hashlib.sha256(DATA).hexdigest())
    return RemoteModel(f"hf:org/{name}", "huggingface", "c1", "gguf", (file,), "m.gguf")


@asynccontextmanager
async def running(folder: Path, at_once: int) -> AsyncGenerator[tuple[Downloads, Catalog]]:
    (folder / "models").mkdir(exist_ok=True)
    catalog = Catalog(folder / "models.db", folder / "models")
    try:
        async with downloads.running(catalog, folder / "models", TransferOptions(), at_once) as found:
            yield found, catalog
    finally:
        catalog.close()


def within(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(LONG_S):
            await work()

    asyncio.run(bounded())


def places(some: list[Download]) -> list[int]:
    return [download.progress().queue_position for download in some]


def test_slow_downloads_hold_no_thread_that_others_need(line: Line, tmp_path: Path) -> None:
    async def work() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        async with running(tmp_path, at_once=6) as (some, catalog):
            for n in range(6):
                await some.start(model(f"r{n}"))
            await line.has_begun(6)

            assert await aio.off_loop(catalog.rows) == []

    within(work)


def test_so_many_at_once_and_the_others_say_that_they_wait(line: Line, tmp_path: Path) -> None:
    async def work() -> None:
        async with running(tmp_path, at_once=2) as (some, catalog):
            started = [await some.start(model(f"r{n}")) for n in range(5)]
            assert places(started) == [0, 0, 1, 2, 3]
            assert {d.progress().state for d in started} == {"running"}
            assert await some.start(model("r4")) is started[4]
            line.open.set()

            seen, *rows = await asyncio.gather(_positions(started[4]), *(d.result() for d in started))
            assert seen == sorted(seen, reverse=True)
            assert seen[0] == 3
            assert [row.reference for row in rows] == [f"hf:org/r{n}" for n in range(5)]
            assert places(started) == [0] * 5
            assert len(catalog.rows()) == 5

    within(work)


async def _positions(download: Download) -> list[int]:
    return [progress.queue_position async for progress in download.watch()]


def test_running_download_is_not_forgotten_however_many_end(line: Line, tmp_path: Path) -> None:
    async def work() -> None:
        async with running(tmp_path, at_once=2) as (some, _):
            slow = await some.start(model("slow"))
            await line.has_begun(1)
            ended: list[Download] = []
            for n in range(downloads.REMEMBERED + 2):
                bad = RemoteModel(f"hf:org/r{n}", "huggingface", "c1", "gguf", (), "m.gguf")
                ended.append(await some.start(bad))
                await ended[-1].result()

            assert some.find(slow.id) is slow
            assert some.runs("hf:org/slow")
            assert await some.start(model("slow")) is slow
            assert [some.find(d.id) for d in ended[:2]] == [None, None]
            assert some.find(ended[2].id) is ended[2]

    within(work)


def test_line_has_an_end(line: Line, tmp_path: Path) -> None:
    async def work() -> None:
        async with running(tmp_path, at_once=1) as (some, _):
            for n in range(downloads.WAITING + 1):
                await some.start(model(f"r{n}"))

            with pytest.raises(TooManyDownloads):
                await some.start(model("one-more"))

            assert (await some.start(model("r7"))).model.reference == "hf:org/r7"

    within(work)


def test_stop_ends_those_that_run_and_those_that_wait(line: Line, tmp_path: Path) -> None:
    async def work() -> None:
        async with running(tmp_path, at_once=1) as (some, catalog):
            started = [await some.start(model(f"r{n}")) for n in range(3)]
            some.cancel_all()
            for download in started:
                with pytest.raises(ShuttingDown):
                    await download.result()
            assert catalog.rows() == []

    within(work)


def test_each_of_several_waiters_gets_a_failure_of_its_own(tmp_path: Path) -> None:
    model = RemoteModel(
        reference="hf:org/model", provider="huggingface", revision="1", format="gguf", entry="m.gguf", files=()
    )

    async def wait_twice() -> list[RbeeError]:
        download = Download(model, tmp_path)

        async def failure() -> RbeeError:
            try:
                await download.result()
            except RbeeError as error:
                return error
            raise AssertionError("it did not fail")

        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(failure()) for _ in range(2)]
            download.error = DownloadFailed("The hub hung up")
            download.wake()
        return [task.result() for task in waiting]

    first, second = asyncio.run(wait_twice())
    assert (first.code, first.message) == (second.code, second.message) == ("DOWNLOAD_FAILED", "The hub hung up")
    assert first is not second
    assert first.__traceback__ is not second.__traceback__


def test_a_pull_after_a_cancel_is_a_new_one_though_the_old_has_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, left = threading.Event(), threading.Event()

    def fetch(_file: RemoteFile, destination: Path, *, cancel: threading.Event, **_: Any) -> None:
        if not began.is_set():
            began.set()
            left.wait(LONG_S)
        if cancel.is_set():
            raise downloads.RequestCanceled
        destination.write_bytes(DATA)

    async def work() -> None:
        async with running(tmp_path, at_once=2) as (some, _):
            first = await some.start(model("r"))
            await aio.off_loop(began.wait, LONG_S)
            assert some.cancel("hf:org/r") is first
            second = await some.start(model("r"))
            assert (await second.result()).reference == "hf:org/r"
            left.set()

    monkeypatch.setattr(transfer, "fetch", fetch)
    within(work)


def test_what_is_fetched_already_needs_no_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    download = Download(model("r"), tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=len(DATA) // 2))
    with pytest.raises(InsufficientDisk):
        downloads._check_space(download)
    (tmp_path / "m.gguf.part").write_bytes(DATA[: len(DATA) * 3 // 4])
    downloads._check_space(download)


def test_what_was_received_is_counted_and_what_was_here_is_not(tmp_path: Path) -> None:
    download = Download(model("a"), tmp_path)
    download.note("m.gguf", 100, here=True)
    download.note("m.gguf", 150)
    download.note("m.gguf", 0)  # it was not what it should be, and is fetched again
    download.note("m.gguf", 70)
    assert download.received_bytes == 120
