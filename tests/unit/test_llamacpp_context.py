"""How a sequence's memory is copied: whole, or not at all where it is too large."""

import ctypes
from typing import Any

import pytest

pytest.importorskip("llama_cpp")

from rbee_plugins.llamacpp.native import context as module
from rbee_plugins.llamacpp.native.context import MOST_SAVED_BYTES, Context


class Library:
    """Stands in for llama.cpp: states of `size` bytes."""

    def __init__(self, size: int, fits: bool = True) -> None:
        self.size, self.fits = size, fits
        self.written = b""
        self.removed: list[int] = []
        self.cuts: list[int] = []
        self.positions = (0, 99)

    def llama_state_seq_get_size(self, _context: Any, _sequence: int) -> int:
        return self.size

    def llama_state_seq_get_data(self, _context: Any, place: Any, size: int, _sequence: int) -> int:
        assert size < 1000, "it was to be left where it is"
        ctypes.memmove(place, b"x\0y" * size, size)
        return size

    def llama_state_seq_set_data(self, _context: Any, place: Any, size: int, _sequence: int) -> int:
        self.written = ctypes.string_at(place, size)
        return size if self.fits else 0

    def llama_memory_seq_rm(self, _memory: Any, sequence: int, first: int, _last: int) -> bool:
        self.removed.append(sequence)
        self.cuts.append(first)
        return True

    def llama_memory_seq_pos_min(self, _memory: Any, _sequence: int) -> int:
        return self.positions[0]

    def llama_memory_seq_pos_max(self, _memory: Any, _sequence: int) -> int:
        return self.positions[1]


def context(monkeypatch: pytest.MonkeyPatch, library: Library) -> Any:
    monkeypatch.setattr(module, "lib", library)
    made: Any = Context.__new__(Context)
    made.handle, made._memory = 1, 2
    made._recurrent, made._window = False, 0
    return made


def test_a_state_is_written_as_it_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(7)
    made = context(monkeypatch, library)
    assert made.restore(3, made.save(5))
    assert library.written == b"x\0yx\0yx"
    assert library.removed == [3], "what was there before"


def test_a_large_state_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    made = context(monkeypatch, Library(MOST_SAVED_BYTES + 1))
    state = made.save(5)
    assert state is None
    assert not made.restore(3, state)


def test_a_state_that_there_is_no_memory_for_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_size: int) -> Any:
        raise MemoryError

    monkeypatch.setattr(module.ctypes, "create_string_buffer", full)
    assert context(monkeypatch, Library(7)).save(5) is None


def test_a_state_that_does_not_fit_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(7, fits=False)
    made = context(monkeypatch, library)
    assert not made.restore(3, made.save(5))
    assert library.removed == [3, 3]


@pytest.mark.parametrize(
    ("positions", "recurrent", "window", "floor"),
    [
        ((0, 99), False, 0, 0),
        ((0, 99), False, 32, 0),  # its beginning is still there
        ((40, 99), False, 32, 72),
        ((80, 99), False, 32, 100),
        ((99, 99), True, 0, 100),
        ((0, 0), True, 0, 1),
        ((-1, -1), False, 0, 0),
        ((-1, -1), True, 0, 0),
    ],
)
def test_a_memory_can_be_cut_back_as_far_as_it_still_knows_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, positions: tuple[int, int], recurrent: bool, window: int, floor: int
) -> None:
    library = Library(7)
    made = context(monkeypatch, library)
    library.positions, made._recurrent, made._window = positions, recurrent, window
    assert made.floor(3) == floor
    assert made.keep(3, max(floor, 1))
    assert library.cuts == [max(floor, 1)]
    assert not made.keep(3, floor - 1)
    assert library.cuts[1:] == [-1]
