"""Whoever waits for MLX's loop is told how it ends, whatever fails. What computes is a stand-in."""

import importlib
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import rbee_plugins.mlx
from rbee_core.backend import GenerateRequest


class Chosen(NamedTuple):
    token: int
    likely: tuple[Any, ...] = ()


class Memory:
    cuttable, size_bytes = True, 1

    def copy(self) -> "Memory":
        return Memory()

    def cut(self, _tokens: int) -> None:
        pass


class Model:
    ends = frozenset({0})

    def can_batch(self) -> bool:
        return True

    def new_memory(self) -> Memory:
        return Memory()

    def read(self, _tokens: list[int], _memory: Memory) -> None:
        pass

    def close(self) -> None:
        pass


class Batch:
    """Gives every text a 7 in each step, after what `before` does."""

    before: Callable[[], object] = staticmethod(lambda: None)
    made: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self, _model: Model, _slots: int) -> None:
        self.made()
        self.left: dict[int, int] = {}

    def add(self, _last: int, _memory: Memory, _request: GenerateRequest, limit: int) -> int:
        number = len(self.left)
        self.left[number] = limit
        return number

    def step(self) -> list[tuple[int, Chosen, bool]]:
        self.before()
        self.left = {number: limit - 1 for number, limit in self.left.items()}
        return [(number, Chosen(7), not limit) for number, limit in self.left.items()]

    def close(self) -> None:
        raise RuntimeError("closing fails too")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    runtime: Any = ModuleType("rbee_plugins.mlx.runtime")
    runtime.Chosen, runtime.Memory, runtime.Model = Chosen, Memory, Model
    runtime.Batch = type("Batch", (Batch,), {})
    runtime.randomize = runtime.leave_thread = lambda: None
    for name in ("runtime", "loop"):
        monkeypatch.delattr(rbee_plugins.mlx, name, raising=False)
        monkeypatch.delitem(sys.modules, f"rbee_plugins.mlx.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "rbee_plugins.mlx.runtime", runtime)
    found = importlib.import_module("rbee_plugins.mlx.loop")
    yield found
    sys.modules.pop("rbee_plugins.mlx.loop", None)
    del rbee_plugins.mlx.loop


def job(module: Any, limit: int = 3) -> Any:
    return module.Job(GenerateRequest(prompt="x"), [1, 2, 3], limit, threading.Event())


def end_of(asked: Any) -> Any:
    while True:
        event = asked.events.get(timeout=60)
        if hasattr(event, "reason"):
            return event


def fail() -> None:
    raise ZeroDivisionError


def test_a_model_that_no_batch_can_be_made_of_is_no_endless_load(module: Any) -> None:
    module.runtime.Batch.made = staticmethod(fail)
    failed: list[BaseException] = []

    def load() -> None:
        try:
            module.Loop(Model, 8, 2, 100)
        except ZeroDivisionError as error:
            failed.append(error)

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    thread.join(20)
    assert failed


def test_a_failing_step_ends_the_batch_and_the_next_text_is_written(module: Any) -> None:
    loop = module.Loop(Model, 8, 2, 100)
    module.runtime.Batch.before = staticmethod(fail)
    first, second = job(module), job(module)
    loop.submit(first)
    assert isinstance(end_of(first).error, ZeroDivisionError)
    module.runtime.Batch.before = staticmethod(lambda: None)
    loop.submit(second)
    assert end_of(second) == module.Ended("length")
    loop.close()


def test_who_waits_is_told_when_the_loop_cannot_go_on_and_who_comes_later_too(module: Any) -> None:
    loop = module.Loop(Model, 8, 2, 100)
    module.runtime.Batch.before = module.runtime.Batch.made = staticmethod(fail)
    first, late = job(module), job(module)
    loop.submit(first)
    assert isinstance(end_of(first).error, ZeroDivisionError)
    loop.close()
    loop.submit(late)
    assert isinstance(end_of(late).error, ZeroDivisionError)


def test_close_tells_those_who_wait(module: Any) -> None:
    loop = module.Loop(Model, 8, 2, 100)
    begun = threading.Event()
    module.runtime.Batch.before = staticmethod(begun.set)
    asked = job(module, limit=10**9)
    loop.submit(asked)
    assert begun.wait(60)
    loop.close()
    assert end_of(asked).reason == "failed"
