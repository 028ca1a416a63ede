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

    def llama_state_seq_get_size(self, _context: Any, _sequence: int) -> int:
        return self.size

    def llama_state_seq_get_data(self, _context: Any, place: Any, size: int, _sequence: int) -> int:
        assert size < 1000, "it was to be left where it is"
        ctypes.memmove(place, b"x\0y" * size, size)
        return size

    def llama_state_seq_set_data(self, _context: Any, place: Any, size: int, _sequence: int) -> int:
        self.written = ctypes.string_at(place, size)
        return size if self.fits else 0

    def llama_memory_seq_rm(self, _memory: Any, sequence: int, _first: int, _last: int) -> bool:
        self.removed.append(sequence)
        return True


def context(monkeypatch: pytest.MonkeyPatch, library: Library) -> Any:
    monkeypatch.setattr(module, "lib", library)
    made: Any = Context.__new__(Context)
    made.handle, made._memory = 1, 2
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


def test_a_state_that_does_not_fit_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(7, fits=False)
    made = context(monkeypatch, library)
    assert not made.restore(3, made.save(5))
    assert library.removed == [3, 3]
