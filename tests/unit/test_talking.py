"""What connects a codec with the pool: how a stream ends, whatever happens."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from unittest import mock

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from rbee_core import wire
from rbee_core.dialects.openai.chat import ChatTalk
from rbee_core.dialects.talk import Moment
from rbee_core.domain.model_settings import NOTHING, ModelSettings
from rbee_core.domain.worker import Demand
from rbee_core.errors import WorkerCrashed
from rbee_core.hive.api import inference
from rbee_core.hive.api.inference import InferenceRoutes
from rbee_core.hive.dialects.talking import Talking
from rbee_core.hive.serving import Task

TOKEN = wire.StreamEvent(token="a")
CRASH = WorkerCrashed(worker_id="w1", exit="SIGKILL")


HI = [{"role": "user", "content": "hi"}]


def talking(
    events: Sequence[wire.StreamEvent], told: list[Task], raised: Exception | None = None, own: ModelSettings = NOTHING
) -> Talking:
    """Return what answers every request with `events`, and breaks behind them if anything is `raised`.

    What the worker is told is added to `told`.
    """

    async def groups() -> AsyncGenerator[list[wire.StreamEvent]]:
        yield [*events]
        if raised:
            raise raised

    async def each() -> AsyncGenerator[wire.StreamEvent]:
        for event in events:
            yield event

    @asynccontextmanager
    async def opened(_: str, __: Demand, task: Task, **___: object) -> AsyncGenerator[SimpleNamespace]:
        told.append(task)
        yield SimpleNamespace(worker=SimpleNamespace(id="w1"), groups=groups, events=each)

    async def demand(_: object) -> Demand:
        return Demand("m")

    models = SimpleNamespace(known=SimpleNamespace(own=lambda _: own), here=demand, demand=demand)
    return Talking(1.0, 0.0, SimpleNamespace(open=opened), models)  # pyright: ignore[reportArgumentType]


def streamed(answers: int, raised: Exception) -> list[str]:
    """Return the events that a client has had of a stream whose every answer breaks behind its first token."""
    body = {"model": "m", "n": answers, "stream": True, "messages": HI}
    talk = ChatTalk.read(json.dumps(body).encode(), Moment("r", 0, "f"))
    return written_of(lambda request: talking([TOKEN], [], raised).give(request, talk))


def written_of(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> list[str]:
    """Return the events of an answer, as they were written."""
    written: list[bytes] = []

    async def write(data: bytes, **_: object) -> None:
        written.append(data)

    async def answered() -> None:
        writer = mock.Mock(write=write, write_eof=mock.AsyncMock(), write_headers=mock.AsyncMock())
        request = make_mocked_request("POST", "/v1/chat/completions", writer=writer)
        request.transport.get_write_buffer_size.return_value = 0  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
        await answer(request)

    asyncio.run(answered())
    *events, rest = b"".join(written).decode().split("\n\n")
    assert rest == ""
    return events


@pytest.mark.parametrize("answers", [1, 2])
@pytest.mark.parametrize(("raised", "code"), [(CRASH, "WORKER_CRASHED"), (IndexError("a bug"), "INTERNAL")])
def test_a_stream_that_breaks_ends_with_an_error_of_its_dialect_and_its_end_mark(
    answers: int, raised: Exception, code: str
) -> None:
    *_, error, end = streamed(answers, raised)
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == code
    assert end == "data: [DONE]"


def test_a_bug_within_a_stream_in_our_own_format_is_its_last_event(monkeypatch: pytest.MonkeyPatch) -> None:
    async def raw() -> AsyncGenerator[bytes]:
        yield b'data: {"token":"a"}\n\n'
        raise IndexError("a bug")

    @asynccontextmanager
    async def opened(*_: object, **__: object) -> AsyncGenerator[SimpleNamespace]:
        yield SimpleNamespace(worker=SimpleNamespace(id="w1"), raw=raw)

    async def body(*_: object) -> wire.PoolInference:
        return wire.build(wire.PoolInference, model_ref="m", prompt="hi")

    async def demand(_: object) -> Demand:
        return Demand("m")

    monkeypatch.setattr(inference, "read_body", body)
    models = SimpleNamespace(own=lambda _: NOTHING, demand=demand)
    routes = InferenceRoutes(1.0, 0.0, mock.Mock(), SimpleNamespace(open=opened), models)  # pyright: ignore[reportArgumentType]
    *_, error, end = written_of(routes.for_model)
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "INTERNAL"
    assert end == "data: [DONE]"


def test_what_is_counted_is_what_would_be_answered() -> None:
    own = ModelSettings(system_prompt="Be brief.")
    wanted = wire.build(wire.PoolInference, model_ref="m", messages=HI, request_id="r")
    told: list[Task] = []
    counting = talking([wire.StreamEvent(done=True, prompt_tokens=7)], told, own=own)
    assert asyncio.run(counting.count(make_mocked_request("POST", "/v1/messages/count_tokens"), wanted)) == 7
    (task,) = told
    assert isinstance(task, wire.CountTask)
    assert task.system_prompt == "Be brief."
