"""How tokens leave a worker: at once after a pause, together when they follow closely, the last word always last."""

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from rbee_core import wire
from rbee_core.backend import (
    CancelToken,
    Engine,
    EngineEvent,
    EngineInfo,
    Finished,
    GenerateRequest,
    PromptDone,
    PromptProgress,
    Token,
)
from rbee_core.errors import Overloaded
from rbee_core.http.stream import END
from rbee_core.worker import engine, jobs
from rbee_core.worker.server import _send


class Pacer(Engine):
    """Yields as many tokens as asked for, `pace_s` apart."""

    def __init__(self, pace_s: float) -> None:
        self._pace_s = pace_s

    def info(self) -> EngineInfo:
        return EngineInfo(context_tokens=1000, slots=1)

    def generate(self, request: GenerateRequest, cancel: CancelToken) -> Iterator[EngineEvent]:
        yield PromptDone(1)
        for _ in range(request.max_tokens) if request.max_tokens else itertools.count():
            if cancel.is_set():
                return
            time.sleep(self._pace_s)
            yield Token("x")
        yield Finished("length")


def batches(pace_s: float, kind: type[Pacer] | None = None, **fields: Any) -> list[list[Any]]:
    async def collect() -> list[list[Any]]:
        host = engine.EngineHost(lambda _progress: (kind or Pacer)(pace_s), 1)
        await host.load()
        generation = host.start(wire.WorkerTask(request_id="r", prompt="x", **fields), "worker-1")
        return [batch async for batch in generation.batches()]

    return asyncio.run(collect())


def test_tokens_that_follow_closely_go_out_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "TOGETHER_S", 0.5)
    found = batches(0.01, max_tokens=100)
    *tokens, done = [event for batch in found for event in batch]
    assert [token.index for token in tokens] == list(range(100))
    assert done.total_tokens == 100
    assert len(found[0]) < 50, "the first one did not go out at once"
    assert len(found) < 20


@pytest.mark.parametrize(("streams", "every_s"), [(1, 0.04), (3, 0.04), (4, 0.08), (64, 0.08)])
def test_streams_send_at_the_same_moments(streams: int, every_s: float) -> None:
    beats = [jobs.next_beat(100.001 + late_s, streams) for late_s in (0.0, 0.01, 0.037)]
    assert len(set(beats)) == 1
    assert jobs.next_beat(beats[0] + 0.001, streams) == pytest.approx(beats[0] + every_s)


def test_a_token_after_a_pause_goes_out_alone() -> None:
    assert [len(batch) for batch in batches(0.3, max_tokens=3)][:2] == [1, 1]


def test_the_end_mark_goes_with_the_last_word() -> None:
    written: list[bytes] = []

    async def write(data: bytes) -> None:
        written.append(data)

    async def answer() -> None:
        host = engine.EngineHost(lambda _progress: Pacer(0), 1)
        await host.load()
        await _send(
            host.start(wire.WorkerTask(request_id="r", prompt="x", max_tokens=3), "w"), SimpleNamespace(write=write)
        )  # type: ignore[arg-type]

    asyncio.run(answer())
    assert b'"done":true' in written[-1]
    assert written[-1].endswith(END)


def test_the_last_word_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "TOGETHER_S", 60)
    assert batches(0.001, max_tokens=3)[-1][-1].done


def test_a_deadline_is_kept_while_tokens_come() -> None:
    found = batches(0.001, timeout_s=0.2)
    assert found[-1][-1]["error"]["code"] == "DEADLINE_EXCEEDED"
    assert [event for batch in found for event in batch if isinstance(event, dict)] == [found[-1][-1]]


class Reader(Pacer):
    def generate(self, request: GenerateRequest, cancel: CancelToken) -> Iterator[EngineEvent]:
        for done in range(1000):
            yield PromptProgress(done, 1000)
        yield from super().generate(request, cancel)


def test_n1_reading_a_prompt_is_told_but_not_for_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> list[Any]:
        return [e for batch in batches(0, Reader, max_tokens=1) for e in batch if isinstance(e, wire.PromptEvent)]

    monkeypatch.setattr(engine, "PROMPT_EVERY_S", 0)
    assert [event.prompt.done for event in told()] == list(range(1000))
    monkeypatch.setattr(engine, "PROMPT_EVERY_S", 3600)
    assert told() == []


class Says(Pacer):
    """Yields what it is given, then would go on for ever."""

    said: object = None
    closed = False

    def generate(self, request: GenerateRequest, cancel: CancelToken) -> Iterator[EngineEvent]:
        try:
            yield self.said  # type: ignore[misc]
            yield from super().generate(request, cancel)
        finally:
            type(self).closed = True


@pytest.mark.parametrize("said", [Token(5), Token("\ud800"), Finished("banana"), PromptDone("1"), None, "text"])  # type: ignore[arg-type]
def test_n13_what_is_no_event_ends_the_stream_at_once_as_the_plugins_fault(said: object) -> None:
    Says.said, Says.closed = said, False
    [[end]] = batches(0.01, Says)
    assert end["error"]["code"] == "PLUGIN_FAILED"
    assert "generate yielded" in end["error"]["message"]
    assert Says.closed


def test_n13_an_error_in_generate_is_the_plugins_with_its_place() -> None:
    class Broken(Pacer):
        def generate(self, request: GenerateRequest, cancel: CancelToken) -> Iterator[EngineEvent]:
            raise KeyError("wax")

    [[end]] = batches(0, Broken)
    assert end["error"]["code"] == "PLUGIN_FAILED"
    assert "KeyError" in end["error"]["message"]
    assert "test_generation.py:" in end["error"]["message"]


def test_n13_an_error_in_load_is_the_plugins_and_not_the_files(caplog: pytest.LogCaptureFixture) -> None:
    def load(_progress: object) -> Engine:
        raise ZeroDivisionError("division by zero")

    host = engine.EngineHost(load, 1)
    asyncio.run(host.load())
    assert host.progress.error is not None
    assert host.progress.error.code == "PLUGIN_FAILED"
    assert "damaged" not in str(host.progress.error)
    assert f'File "{__file__}", line ' in caplog.text


class OneThread(Engine):
    """An engine with one slot, as native libraries are: it minds in which thread it is called."""

    def __init__(self) -> None:
        self._own = threading.get_ident()
        self.strangers = 0

    def info(self) -> EngineInfo:
        return EngineInfo(context_tokens=10, slots=1)

    def generate(self, request: GenerateRequest, cancel: CancelToken) -> Iterator[EngineEvent]:
        self.strangers += threading.get_ident() != self._own
        yield Finished("stop")


def test_an_engine_with_one_slot_meets_one_thread_whatever_was_asked() -> None:
    async def main() -> int:
        host = engine.EngineHost(lambda _progress: OneThread(), 4)
        await host.load()
        for _ in range(300):
            async for _batch in host.start(wire.WorkerTask(request_id="r", prompt="x"), "worker-1").batches():
                pass
        assert host.slots == 1
        return host._engine.strangers

    end = threading.Event()
    busy = threading.Thread(target=lambda: all(not end.is_set() for _ in itertools.count()))
    busy.start()
    try:
        assert asyncio.run(main()) == 0
    finally:
        end.set()
        busy.join()


class Slots(Pacer):
    def __init__(self, slots: int) -> None:
        super().__init__(0)
        self._slots = slots

    def info(self) -> EngineInfo:
        return EngineInfo(context_tokens=10, slots=self._slots)


@pytest.mark.parametrize(("asked", "offered", "used"), [(4, 2, 2), (2, 8, 2), (1, 1, 1), (0, 8, 8), (0, 0, 1)])
def test_slots_are_the_engines_and_never_more_than_asked(asked: int, offered: int, used: int) -> None:
    host = engine.EngineHost(lambda _progress: Slots(offered), asked)
    asyncio.run(host.load())
    assert (host.slots, host.progress.slots) == (used, used)


def test_a_slot_for_which_there_is_no_thread_is_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        host, task = engine.EngineHost(lambda _progress: Slots(2), 2), wire.WorkerTask(request_id="r", prompt="x")
        await host.load()
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with pytest.raises(Overloaded, match="can't start new thread"):
                host.start(task, "worker-1")
        assert host.busy == 0

    asyncio.run(main())


@pytest.mark.parametrize(("asked", "offered"), [(1, 0), (1, -1), (0, -1)])
def test_an_engine_without_slots_is_no_engine(asked: int, offered: int) -> None:
    host = engine.EngineHost(lambda _progress: Slots(offered), asked)
    asyncio.run(host.load())
    assert host.progress.state == "failed"


@pytest.mark.parametrize("how", [StopIteration, SystemExit])
def test_a_load_that_tries_to_leave_fails_and_does_not_hang(how: type[BaseException]) -> None:
    def load(_progress: object) -> Engine:
        raise how

    async def main() -> None:
        host = engine.EngineHost(load, 1)
        async with asyncio.timeout(20):
            await host.load()
        assert host.progress.state == "failed"

    asyncio.run(main())


class Panic(BaseException):
    """As pyo3's PanicException: no Exception."""


class Panicking(Pacer):
    def generate(self, request: GenerateRequest, cancel: CancelToken) -> Iterator[EngineEvent]:
        yield PromptDone(1)
        raise Panic("in Rust")


def test_whatever_an_engine_raises_ends_the_stream() -> None:
    [[end]] = batches(0, Panicking, timeout_s=60)
    assert end["error"]["code"] == "PLUGIN_FAILED"
    assert "Panic: in Rust" in end["error"]["message"]
