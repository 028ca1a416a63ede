"""What connects a codec with the pool: how a stream ends, whatever happens."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from unittest import mock

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from rbee_core import wire
from rbee_core.dialects.openai.chat import ChatTalk
from rbee_core.dialects.talk import Moment
from rbee_core.domain.model_settings import NOTHING
from rbee_core.domain.worker import Demand
from rbee_core.errors import WorkerCrashed
from rbee_core.hive.dialects.talking import Talking

TOKEN = wire.StreamEvent(token="a")
CRASH = WorkerCrashed(worker_id="w1", exit="SIGKILL")


def streamed(answers: int, raised: Exception) -> list[str]:
    """Return the events that a client has had of a stream whose every answer breaks behind its first token."""
    written: list[bytes] = []

    async def write(data: bytes, **_: object) -> None:
        written.append(data)

    async def groups() -> AsyncGenerator[list[wire.StreamEvent]]:
        yield [TOKEN]
        raise raised

    @asynccontextmanager
    async def opened(*_: object, **__: object) -> AsyncGenerator[SimpleNamespace]:
        yield SimpleNamespace(worker=SimpleNamespace(id="w1"), groups=groups)

    async def demand(_: object) -> Demand:
        return Demand("m")

    async def answered() -> None:
        writer = mock.Mock(write=write, write_eof=mock.AsyncMock(), write_headers=mock.AsyncMock())
        request = make_mocked_request("POST", "/v1/chat/completions", writer=writer)
        request.transport.get_write_buffer_size.return_value = 0  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
        body = {"model": "m", "n": answers, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        talk = ChatTalk.read(json.dumps(body).encode(), Moment("r", 0, "f"))
        response = await talking.give(request, talk)
        assert isinstance(response, web.StreamResponse)

    models = SimpleNamespace(known=SimpleNamespace(own=lambda _: NOTHING), here=demand, demand=demand)
    talking = Talking(1.0, 0.0, SimpleNamespace(open=opened), models)  # pyright: ignore[reportArgumentType]
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
