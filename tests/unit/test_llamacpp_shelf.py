"""Prompts on disk: found whole by the next worker of the same model, bounded in bytes, and never believed."""

import errno
import os
import stat
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rbee_core.backend import Adapter, LocalModel, OnDisk, Tuning
from rbee_plugins.llamacpp import shelf as module
from rbee_plugins.llamacpp.shelf import PARTIAL, SUFFIX, Kind, Shelf, kind_of

KIND = Kind("/m.gguf", "v1", "1.2.3", "[]")
ROOM = 10**6
TEXT = list(range(200))
STATE = bytes(range(250)) * 4


def place(folder: Path, limit_bytes: int = ROOM) -> OnDisk:
    return OnDisk(folder / "prompts", limit_bytes, 5.0, "v1")


def leave(folder: Path, *texts: list[int], kind: Kind = KIND, limit_bytes: int = ROOM, floor: int = 0) -> list[bool]:
    """Leave texts, the last used first; return whether there was room for others after each."""
    there = Shelf(place(folder, limit_bytes), kind)
    there.open()
    return [there.keep(text, floor, len(STATE), lambda: STATE) for text in texts]


def taken(folder: Path, kind: Kind = KIND, limit_bytes: int = ROOM, room_bytes: int = ROOM) -> list[list[int]]:
    found = Shelf(place(folder, limit_bytes), kind).take(room_bytes)
    assert all(bytes(one.state) == STATE for one in found)
    return [list(one.tokens) for one in found]


def files(folder: Path) -> list[Path]:
    return sorted((folder / "prompts").iterdir()) if (folder / "prompts").exists() else []


def test_what_was_left_is_found_the_last_used_last(tmp_path: Path) -> None:
    assert leave(tmp_path, TEXT, [7] * 200, floor=3) == [True, True]
    found = Shelf(place(tmp_path), KIND).take(ROOM)
    assert [(one.tokens, one.floor, one.state_bytes) for one in found] == [
        (array("i", [7] * 200), 3, len(STATE)),
        (array("i", TEXT), 3, len(STATE)),
    ]


def test_it_is_the_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir(mode=0o755)
    leave(tmp_path, TEXT)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "prompts", *files(tmp_path))] == [0o700, 0o600]


def test_nothing_is_made_where_nothing_is_left(tmp_path: Path) -> None:
    assert taken(tmp_path) == []
    assert files(tmp_path) == []
    assert not (tmp_path / "prompts").exists()


@pytest.mark.parametrize("kind", [Kind("/other.gguf", "v9", "1.2.3", "[]"), Kind("/m.gguf", "v1", "1.2.3", "[1]")])
def test_what_is_of_another_kind_is_let_alone(kind: Kind, tmp_path: Path) -> None:
    leave(tmp_path, TEXT, kind=kind)
    assert taken(tmp_path) == []
    assert taken(tmp_path, kind) == [TEXT]


@pytest.mark.parametrize("kind", [Kind("/m.gguf", "v0", "1.2.3", "[]"), Kind("/other.gguf", "v9", "1.2.2", "[]")])
def test_what_is_of_an_older_model_or_library_is_removed(kind: Kind, tmp_path: Path) -> None:
    leave(tmp_path, TEXT, kind=kind)
    assert taken(tmp_path) == []
    assert files(tmp_path) == []


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _data: b"",
    "foreign": lambda _data: b"GGUF" * 100,
    "of another version": lambda data: data.replace(b"prompt 1", b"prompt 2", 1),
    "a long header": lambda data: data[:14] + b"\xff" * 4 + data[18:],
    "no header": lambda data: data[:18] + b"[" * 200 + data[218:],
    "a negative count": lambda data: data.replace(b'"tokens":200', b'"tokens":-99', 1),
    "more tokens than there are": lambda data: data.replace(b'"tokens":200', b'"tokens":999', 1),
    "another floor": lambda data: data.replace(b'"floor":0', b'"floor":9', 1),
    "one token": lambda data: flipped(data, -len(STATE) - 32 - 100),
    "the state": lambda data: flipped(data, -40),
    "the digest": lambda data: flipped(data, -1),
    "cut": lambda data: data[:-1],
    "cut in its header": lambda data: data[:30],
    "longer": lambda data: data + b"\0",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_is_removed_and_never_believed(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    leave(tmp_path, TEXT, [7] * 200)
    victim = next(path for path in files(tmp_path) if array("i", TEXT).tobytes() in path.read_bytes())
    victim.write_bytes(damage(victim.read_bytes()))
    assert taken(tmp_path) == [[7] * 200]
    assert not victim.exists()


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    leave(tmp_path, TEXT)
    pipe, folder, link = (tmp_path / "prompts" / f"{name}{SUFFIX}" for name in ("pipe", "folder", "link"))
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to("/etc/passwd")
    assert taken(tmp_path) == [TEXT]
    assert Path("/etc/passwd").exists()


def test_the_least_recently_used_makes_room_and_never_for_an_older_one(tmp_path: Path) -> None:
    leave(tmp_path, [1] * 200)
    size = files(tmp_path)[0].stat().st_size
    os.utime(files(tmp_path)[0], (0, 0))
    limit = 2 * size + size // 2
    assert leave(tmp_path, [2] * 200, [3] * 200, [4] * 200, limit_bytes=limit) == [True, True, False]
    assert taken(tmp_path, limit_bytes=limit) == [[3] * 200, [2] * 200]
    assert taken(tmp_path, limit_bytes=size) == [[2] * 200], "the limit is lower now"
    assert len(files(tmp_path)) == 1


def test_only_what_there_is_room_for_is_taken(tmp_path: Path) -> None:
    leave(tmp_path, [1] * 200, [2] * 200)
    assert taken(tmp_path, room_bytes=len(STATE) + 4 * 200) == [[1] * 200]
    assert len(files(tmp_path)) == 2


def test_a_conversation_is_there_once(tmp_path: Path) -> None:
    leave(tmp_path, TEXT[:150])
    there = Shelf(place(tmp_path), KIND)
    there.take(ROOM)
    there.open()
    for turn in (TEXT, TEXT[:180], TEXT[:150]):
        there.keep(turn, 0, len(STATE), lambda: STATE)
    assert taken(tmp_path) == [TEXT]
    assert len(files(tmp_path)) == 1


def test_what_is_there_already_is_not_written_again(tmp_path: Path) -> None:
    leave(tmp_path, TEXT)
    there = Shelf(place(tmp_path), KIND)
    there.open()
    assert there.keep(TEXT, 0, len(STATE), lambda: pytest.fail("it was asked for"))


def test_there_is_only_so_much_time(tmp_path: Path) -> None:
    now = [0.0]
    there = Shelf(place(tmp_path), KIND, clock=lambda: now[0])
    there.open()

    def slow() -> bytes:
        now[0] += 3.0
        return STATE

    assert [there.keep([n] * 200, 0, len(STATE), slow) for n in range(3)] == [True, False, False]
    assert [path.suffix for path in files(tmp_path)] == [SUFFIX], "what was begun is gone"


def test_a_full_disk_costs_nothing_but_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_file: Any, _piece: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_write_all", full)
    assert leave(tmp_path, TEXT) == [False]
    assert files(tmp_path) == []


def test_what_was_begun_by_a_worker_that_was_killed_is_swept_away_later(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    old, new = (tmp_path / "prompts" / f"{name}{PARTIAL}" for name in ("old", "new"))
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    taken(tmp_path)
    assert files(tmp_path) == [new]


def test_all_that_shows_in_a_state_makes_its_kind(tmp_path: Path) -> None:
    adapter = tmp_path / "a.gguf"
    adapter.write_bytes(b"1")
    model = LocalModel("m", Path("/m.gguf"), "gguf", 1)

    def kind(tuning: Tuning, context_tokens: int = 1024, accelerator: str = "cpu", version: str = "v") -> Kind:
        return kind_of(model, version, "1", tuning, context_tokens=context_tokens, accelerator=accelerator)

    adapted = Tuning(lora=(Adapter(str(adapter)),))
    kinds = [
        kind(Tuning()),
        kind(Tuning(), 2048),
        kind(Tuning(), accelerator="cuda"),
        kind(Tuning(), version="w"),
        kind(Tuning(cache_type_k="q8_0")),
        kind(Tuning(cache_type_v="q8_0")),
        kind(Tuning(flash_attention=True)),
        kind(adapted),
        kind(Tuning(lora=(Adapter(str(adapter), 0.5),))),
    ]
    adapter.write_bytes(b"12")
    assert len({*kinds, kind(adapted)}) == 10
    assert kind(Tuning(prompt_cache_bytes=5, speculation="off")) == kind(Tuning())
