"""A worker's answer, handed on raw or as typed events, and what a break of it becomes."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Self, cast

import aiohttp
import pytest

from rbee_core import wire
from rbee_core.domain.worker import Demand, Worker
from rbee_core.errors import PromptTooLong, RbeeError, RemoteError, StreamBroken, WorkerCrashed
from rbee_core.hive.callers import Caller
from rbee_core.hive.metrics.numbers import Ended
from rbee_core.hive.serving import Answer, Serving, Task
from rbee_core.hive.terms import Waits
from rbee_core.http.stream import END, ReaderGoneError, event_bytes
from rbee_core.settings import Settings
from tests.support.pools import recipe

TOKENS = [event_bytes(wire.TokenEvent(token=text, index=n)) for n, text in enumerate(("one", " two"))]
DONE = event_bytes(wire.DoneEvent(done=True, total_tokens=2, duration_ms=3, finish_reason="stop")) + END
ERROR = event_bytes(PromptTooLong(prompt_tokens=9, context_tokens=4).body()) + END
CRASH = WorkerCrashed(worker_id="w1", exit="SIGKILL")

Chunk = bytes | Exception


def answer(chunks: Sequence[Chunk]) -> Answer:
    async def arriving() -> AsyncGenerator[bytes]:
        for chunk in chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    async def explain(_: Exception | None) -> RbeeError:
        return CRASH

    response = SimpleNamespace(content=SimpleNamespace(iter_any=arriving))
    return Answer(cast("Worker", None), cast("aiohttp.ClientResponse", response), explain)


def raw(chunks: Sequence[Chunk]) -> bytes:
    async def read() -> bytes:
        return b"".join([whole async for whole in answer(chunks).raw()])

    return asyncio.run(read())


def events(chunks: Sequence[Chunk]) -> tuple[list[wire.StreamEvent], Exception | None]:
    async def read() -> tuple[list[wire.StreamEvent], Exception | None]:
        got: list[wire.StreamEvent] = []
        try:
            async for event in answer(chunks).events():
                got.append(event)  # noqa: PERF401  # what came before an error counts
        except RbeeError as error:
            return got, error
        return got, None

    return asyncio.run(read())


def in_pieces(size: int) -> list[Chunk]:
    whole = b"".join(TOKENS) + DONE
    return [whole[at : at + size] for at in range(0, len(whole), size)]


WHOLE = [pytest.param(in_pieces(size), id=f"{size} bytes at a time") for size in (1, 7, 4096)]


@pytest.mark.parametrize("chunks", WHOLE)
def test_a_whole_answer_is_the_same_however_it_arrives(chunks: list[Chunk]) -> None:
    assert raw(chunks) == b"".join(TOKENS) + DONE
    got, error = events(chunks)
    assert [event.token for event in got] == ["one", " two", None]
    assert (got[-1].done, got[-1].finish_reason, error) == (True, "stop", None)


BREAKS = [
    pytest.param(TOKENS, id="it just ends"),
    pytest.param([*TOKENS, aiohttp.ClientPayloadError("gone")], id="the connection breaks"),
    pytest.param([*TOKENS, b'data: {"tok', TimeoutError()], id="within an event"),
]


@pytest.mark.parametrize("chunks", BREAKS)
def test_a_break_is_one_typed_error_behind_the_last_whole_event(chunks: list[Chunk]) -> None:
    assert raw(chunks) == b"".join(TOKENS) + event_bytes(CRASH.body()) + END
    got, error = events(chunks)
    assert [event.token for event in got] == ["one", " two"]
    assert error is CRASH


def test_what_the_worker_says_in_the_end_is_handed_on() -> None:
    assert raw([*TOKENS, ERROR]) == b"".join(TOKENS) + ERROR
    got, error = events([*TOKENS, ERROR])
    assert len(got) == 2
    assert isinstance(error, RemoteError)
    assert error.code == "PROMPT_TOO_LONG"


@pytest.mark.parametrize("nonsense", [b"data: {}}\n\n", b"data: nothing\n\n"])
def test_what_is_no_event_is_told_to_who_reads_events(nonsense: bytes) -> None:
    got, error = events([*TOKENS, nonsense, DONE])
    assert len(got) == 2
    assert isinstance(error, StreamBroken)


def test_a_break_behind_the_last_word_is_none() -> None:
    chunks: list[Chunk] = [*TOKENS, DONE, aiohttp.ClientPayloadError("gone")]
    assert raw(chunks) == b"".join(TOKENS) + DONE
    assert events(chunks)[1] is None


def served(task: Task, *, leaves: bool = False) -> tuple[Ended, Caller]:
    """Return what is recorded of a request that a worker answers, and whose it was: one that `leaves` as it ends."""

    class Response(SimpleNamespace):
        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

    async def arriving() -> AsyncGenerator[bytes]:
        yield event_bytes(
            wire.DoneEvent(done=True, total_tokens=0, duration_ms=3, finish_reason="stop", prompt_tokens=9)
        )
        yield END

    async def post(*_: object, **__: object) -> Response:
        return Response(status=200, content=SimpleNamespace(iter_any=arriving))

    @asynccontextmanager
    async def enter(*_: object, **__: object) -> AsyncGenerator[Caller]:
        callers.append(caller := Caller())
        caller.answer(cast("Worker", SimpleNamespace(id="w1", url="", recipe=recipe(), context_tokens=512)), slot=True)
        yield caller

    async def serve() -> None:
        supervisor, link = (
            SimpleNamespace(enter=enter),
            SimpleNamespace(session=SimpleNamespace(post=post), headers=lambda _: {}),
        )
        serving = Serving(Waits.of(Settings(home=Path())), supervisor, link, lambda *_: None, recorded.append)  # pyright: ignore[reportArgumentType]
        async with serving.open("c", Demand("m"), task, tell=untold) as answer:
            assert [event.prompt_tokens async for event in answer.events()] == [9]
            if leaves:
                raise ReaderGoneError

    async def untold(_: object) -> None:
        pass

    recorded, callers = list[Ended](), list[Caller]()
    with suppress(ReaderGoneError):
        asyncio.run(serve())
    return recorded[0], callers[0]


def test_who_leaves_with_the_last_word_was_answered() -> None:
    _, caller = served(wire.WorkerTask(prompt="hi", request_id="r"), leaves=True)
    assert (caller.answered, caller.afterwards) == (True, None)
    assert caller.read is not None
    assert caller.read.prompt_tokens == 9


def test_a_prompt_that_was_only_counted_is_none_that_was_computed() -> None:
    counted, _ = served(wire.CountTask(prompt="hi", request_id="r"))
    assert (counted.outcome, counted.figures) == ("stop", None)
    computed, _ = served(wire.WorkerTask(prompt="hi", request_id="r"))
    assert computed.figures is not None
    assert computed.figures.prompt_tokens == 9
