"""`rbee logs`: from the hive as long as there is one, then from the file, no line twice and none left out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rbee_core import wire
from rbee_core.errors import HiveUnreachable, RbeeError, StreamBroken
from rbee_core.keeper.commands import logs
from rbee_core.settings import Settings

ID = "worker-abc123"
GONE = HiveUnreachable(address="127.0.0.1:7835", attempts=3)


class PlayedHive:
    """Tells the first line, then `then` happens."""

    def __init__(self, path: Path, then: Callable[[], None]) -> None:
        self._path = path
        self._then = then

    def worker(self, worker_id: str) -> wire.WorkerInfo:
        return wire.WorkerInfo(worker_id=worker_id, model_ref="", backend="", device="", state="idle")

    def worker_log(self, worker_id: str, offset: int) -> wire.WorkerLog:
        if offset:
            self._then()
        return wire.WorkerLog(worker_id=worker_id, lines=["first"], offset=len(b"first\n"))


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Follow the log of a worker whose hive tells one line, then `then` happens."""
    settings = Settings(home=tmp_path)
    path = tmp_path / "logs" / f"{ID}.log"
    path.parent.mkdir()
    path.write_bytes(b"first\n")

    def follow(then: Callable[[Path], None], node: str = "localhost") -> list[str]:
        @contextmanager
        def connect(*_: Any) -> Iterator[PlayedHive]:
            yield PlayedHive(path, lambda: then(path))

        monkeypatch.setattr(logs, "connect", connect)
        return list(logs._lines(ID, True, node, settings))  # pyright: ignore[reportPrivateUsage]

    return follow


def raising(error: RbeeError, wrote: bytes) -> Callable[[Path], None]:
    def end(path: Path) -> None:
        with path.open("ab") as file:
            file.write(wrote)
        raise error

    return end


def test_a_hive_that_ends_while_its_log_is_followed_is_a_good_end(read: Callable[..., list[str]]) -> None:
    assert read(raising(GONE, b"last \x1b[2J words\nand ha")) == ["first", "last �[2J words", "and ha"]


def test_a_log_that_was_cut_meanwhile_is_read_from_its_beginning(read: Callable[..., list[str]]) -> None:
    def cut(path: Path) -> None:
        path.write_bytes(b"new\n")
        raise GONE

    assert read(cut) == ["first", "new"]


def test_a_hive_elsewhere_left_no_file_here(read: Callable[..., list[str]]) -> None:
    with pytest.raises(HiveUnreachable):
        read(raising(GONE, b"last"), "far.example")


def test_what_is_no_end_of_the_hive_is_an_error(read: Callable[..., list[str]]) -> None:
    with pytest.raises(StreamBroken):
        read(raising(StreamBroken(tokens=0, why="it broke"), b"last"))
