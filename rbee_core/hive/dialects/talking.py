"""Connects a codec with the pool: one request in a foreign dialect, from its body to its last byte.

Knows HTTP and `Serving`, and no dialect: what is said, a `Talk` says.
"""

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import msgspec
from aiohttp import web

from rbee_core import __version__, wire
from rbee_core.dialects.parts import Part
from rbee_core.dialects.talk import Moment, Talk
from rbee_core.domain.instructions import Waiting
from rbee_core.domain.worker import Demand
from rbee_core.errors import InvalidRequest, RbeeError
from rbee_core.hive.api.inference import WORKER, client_of
from rbee_core.hive.config.models import ForModel, complete
from rbee_core.hive.dialects.models import ServedModels
from rbee_core.hive.serving import Answer, Serving, Task, log_request
from rbee_core.http import front
from rbee_core.http.body import read_bytes
from rbee_core.http.middleware import as_told
from rbee_core.http.stream import EventStream, ReaderGoneError

TIMEOUT = "X-Request-Timeout"
LONGEST_S = 86_400.0
SAID = 55
"""So much of a client's name for its request is in the one that the hive gives it, which has 64 characters at most."""
T = TypeVar("T", bound=wire.WorkerTask)
Read = Callable[[bytes, Moment], Talk]
Take = Callable[[int, Sequence[Part], str], Awaitable[None]]
"""Takes parts of an answer: of which one, what, and by which worker."""


class Talking:
    """Answers foreign requests for one hive."""

    def __init__(self, write_timeout_s: float, keep_alive_s: float, serving: Serving, models: ServedModels) -> None:
        self._write_timeout_s = write_timeout_s
        self._keep_alive_s = keep_alive_s
        self._serving = serving
        self._models = models

    async def answer(self, request: web.Request, read: Read) -> web.StreamResponse:
        """Answer `request`, whose body `read` makes a `Talk` of."""
        return await self.give(request, read(await read_bytes(request), moment_of(request)))

    async def give(self, request: web.Request, talk: Talk) -> web.StreamResponse:
        """Answer `request`, which was read as `talk`."""
        limit_s = timeout_of(request)
        for wanted in talk.wanted:
            wanted.timeout_s = limit_s
        demand = await self.demand(request, talk.wanted[0])
        for wanted in talk.wanted:
            complete(wanted, self._models.known.own(wanted.model_ref))
        if talk.streams:
            return await self._stream(request, demand, talk)
        return await self._whole(request, demand, talk)

    async def vectors(self, request: web.Request, wanted: wire.PoolEmbed) -> tuple[list[list[float]], wire.StreamEvent]:
        """Return a vector for each text, in their order, and how the answer ended."""
        events = await self._numbers(request, wanted, wire.EmbedTask)
        made = {event.index: event.vector for event in events if event.vector is not None}
        return [made[number] for number in range(len(wanted.texts))], events[-1]

    async def scores(self, request: web.Request, wanted: wire.PoolRerank) -> tuple[list[float], wire.StreamEvent]:
        """Return a score for each document, in their order, and how the answer ended."""
        events = await self._numbers(request, wanted, wire.RerankTask)
        made = {event.index: event.score for event in events if event.score is not None}
        return [made[number] for number in range(len(wanted.documents))], events[-1]

    async def _numbers(
        self,
        request: web.Request,
        wanted: wire.PoolEmbed | wire.PoolRerank,
        shape: type[wire.EmbedTask | wire.RerankTask],
    ) -> list[wire.StreamEvent]:
        wanted.timeout_s = timeout_of(request)
        demand = await self.demand(request, wanted)
        task = msgspec.convert(wanted, shape, from_attributes=True)
        async with self._open(request, demand, task) as answer:
            return [event async for event in answer.events()]

    async def count(self, request: web.Request, wanted: wire.PoolInference) -> int:
        """Return how many tokens the prompt of `wanted` has, by a worker that holds its model, in one of its slots."""
        wanted.timeout_s = timeout_of(request)
        demand = await self.demand(request, wanted)
        complete(wanted, self._models.known.own(wanted.model_ref))
        task, tokens = self._task(wanted, wire.CountTask), 0
        async with self._open(request, demand, task) as answer:
            async for event in answer.events():
                tokens = event.prompt_tokens
        return tokens

    async def demand(self, request: web.Request, wanted: wire.SpawnRequest | ForModel) -> Demand:
        """Return what is asked for, if it is here. Raises `ModelNotFound` with the command that fetches it."""
        try:
            await self._models.here(wanted.model_ref)
            return await self._models.demand(wanted)
        except RbeeError as error:
            log_request(front.name_of(request), client_of(request), wanted.model_ref, f"refused, {error.code}")
            raise

    async def _whole(self, request: web.Request, demand: Demand, talk: Talk) -> web.StreamResponse:
        headers: dict[str, str] = {}

        async def take(index: int, parts: Sequence[Part], worker: str) -> None:
            headers[WORKER] = worker
            talk.tells(index, parts)

        await self._answers(request, demand, talk, take)
        return web.Response(body=talk.whole(), headers=headers, content_type="application/json")

    async def _stream(self, request: web.Request, demand: Demand, talk: Talk) -> web.StreamResponse:
        stream = EventStream(
            request, self._write_timeout_s, self._keep_alive_s, still_here=talk.still_here, media=talk.media
        )
        delivery = _Delivery(stream, talk)
        with stream, contextlib.suppress(ReaderGoneError):
            stream.open_by_itself()
            try:
                await self._answers(request, demand, talk, delivery.take)
                await stream.write(talk.ends())
            except ReaderGoneError:
                raise
            except Exception as error:
                if not await stream.opened():
                    raise
                await stream.write(talk.fails(as_told(request, error)))
        return stream.response

    async def _answers(self, request: web.Request, demand: Demand, talk: Talk, take: Take) -> None:
        """Have every answer generated, and `take` its parts. Several run at the same time, as slots allow."""
        if len(talk.wanted) == 1:
            await self._answer(request, demand, talk, 0, take)
            return
        try:
            async with asyncio.TaskGroup() as answers:
                for index in range(len(talk.wanted)):
                    answers.create_task(self._answer(request, demand, talk, index, take))
        except* (RbeeError, ReaderGoneError) as failures:
            raise _first(failures) from None

    async def _answer(self, request: web.Request, demand: Demand, talk: Talk, index: int, take: Take) -> None:
        task, reader = self._task(talk.wanted[index], wire.WorkerTask), talk.reader(index)
        async with self._open(request, demand, task) as answer:
            worker = answer.worker.id
            async for events in answer.groups():
                if parts := [part for event in events for part in reader.feed(event)]:
                    await take(index, parts, worker)

    def _open(self, request: web.Request, demand: Demand, task: Task) -> AbstractAsyncContextManager[Answer]:
        """Open the answer to `task`, under a name that nobody else has: clients and proxies use theirs again."""
        task.request_id = f"{task.request_id[:SAID]}-{secrets.token_hex(4)}"
        called = front.name_of(request)
        return self._serving.open(client_of(request), demand, task, called=called, tell=_untold)

    def _task(self, wanted: wire.PoolInference, shape: type[T]) -> T:
        """Return what a worker is told, with what the model's own settings say beside the request."""
        task = msgspec.convert(wanted, shape, from_attributes=True)
        task.system_prompt = self._models.known.own(wanted.model_ref).system_prompt
        return task


class _Delivery:
    """What is told of an answer, written to its stream in order, though several answers come at the same time."""

    def __init__(self, stream: EventStream, talk: Talk) -> None:
        self._stream = stream
        self._talk = talk
        self._turn = asyncio.Lock()
        self._begun = False

    async def take(self, index: int, parts: Sequence[Part], worker: str) -> None:
        """Write parts of one answer."""
        async with self._turn:
            if not self._begun:
                await self._begin(worker)
            if events := self._talk.tells(index, parts):
                await self._stream.write(events)

    async def _begin(self, worker: str) -> None:
        self._begun = True
        if not await self._stream.opened():
            self._stream.response.headers[WORKER] = worker
            await self._stream.start()
        if opening := self._talk.begins():
            await self._stream.write(opening)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return why several answers ended: one of the reasons, as they mostly share it."""
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first  # pyright: ignore[reportUnknownArgumentType]


async def _untold(waiting: Waiting) -> None:
    """Foreign dialects have no place for what a request waits for: that it lives is all they hear."""
    del waiting


def moment_of(request: web.Request) -> Moment:
    """Return what a codec is told of its surroundings."""
    return Moment(front.name_of(request), int(time.time()), f"rbee-{__version__}")


def timeout_of(request: web.Request) -> float | None:
    """Return the deadline that the header sets, in seconds from now. Raises `InvalidRequest`."""
    said = request.headers.get(TIMEOUT)
    if said is None:
        return None
    try:
        seconds = float(said)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= LONGEST_S:
        raise InvalidRequest(f"{TIMEOUT} must be a number of seconds, above 0 and up to {LONGEST_S:g}")
    return seconds
