"""The routes of Ollama's clients that compute, and what they say of how long a model is to be kept."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web

from rbee_core import wire
from rbee_core.dialects.ollama.embed import EmbedBody, EmbeddingsBody, EmbedTalk
from rbee_core.dialects.ollama.errors import error_body
from rbee_core.dialects.ollama.work import ChatBody, ChatTalk, GenerateBody, GenerateTalk, Lines
from rbee_core.errors import DeadlineExceeded, RbeeError
from rbee_core.hive.api.inference import client_of
from rbee_core.hive.api.refusals import COMPUTING
from rbee_core.hive.dialects.models import ServedModels
from rbee_core.hive.dialects.ollama.lines import Pace, Write, answer_in_lines
from rbee_core.hive.dialects.talking import TIMEOUT, Read, Talking, moment_of, timeout_of
from rbee_core.hive.supervisor import Supervisor
from rbee_core.http.body import read_bytes
from rbee_core.http.front import REQUEST_ID
from rbee_core.http.routes import Route, Scope

JSON = "application/json"


class WorkingRoutes:
    """One hive's routes in this dialect that generate and embed."""

    def __init__(self, pace: Pace, served: ServedModels, talking: Talking, supervisor: Supervisor) -> None:
        self._pace = pace
        self._served = served
        self._talking = talking
        self._supervisor = supervisor

    async def converse(self, request: web.Request) -> web.StreamResponse:
        """Answer a conversation, or load its model."""
        return await self._work(request, ChatTalk.read)

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """Answer or continue a prompt, or load its model."""
        return await self._work(request, GenerateTalk.read)

    async def vectors(self, request: web.Request) -> web.Response:
        """Make a vector of each text."""
        return await self._embed(request, EmbedTalk.read(await read_bytes(request), moment_of(request)))

    async def vector(self, request: web.Request) -> web.Response:
        """Make a vector of one text, as older clients ask."""
        return await self._embed(request, EmbedTalk.read_older(await read_bytes(request), moment_of(request)))

    async def _work(self, request: web.Request, read: Read) -> web.StreamResponse:
        talk = read(await read_bytes(request), moment_of(request))
        assert isinstance(talk, Lines)
        async with self._keeping(talk.body.reference, talk.body.kept_s):
            if talk.wanted:
                return await self._talking.give(request, talk)
            if talk.body.kept_s == 0:
                await self._served.here(talk.body.reference)
                media = Lines.media if talk.streams else JSON
                return web.Response(body=talk.only("unload"), content_type=media)
            return await self._load(request, talk)

    async def _load(self, request: web.Request, talk: Lines) -> web.StreamResponse:
        context = talk.body.options.num_ctx if talk.body.options else None
        wanted = wire.build(wire.SpawnRequest, model_ref=talk.body.reference, context_tokens=context or None)

        async def tell(write: Write) -> None:
            await self._have_loaded(request, wanted)
            await write(talk.only("load"))

        if talk.streams:
            return await answer_in_lines(request, self._pace, tell)
        await self._have_loaded(request, wanted)
        return web.Response(body=talk.only("load"), content_type=JSON)

    async def _have_loaded(self, request: web.Request, wanted: wire.SpawnRequest) -> None:
        """Return once a worker holds the model of `wanted`. Raises what that ended with, also if its time is over."""
        limit_s = timeout_of(request)
        demand = await self._talking.demand(request, wanted)
        try:
            async with (
                asyncio.timeout(limit_s),
                self._supervisor.enter(client_of(request), demand, until="ready") as caller,
            ):
                await caller.worker()
        except TimeoutError as error:
            raise DeadlineExceeded.after(limit_s) from error

    async def _embed(self, request: web.Request, talk: EmbedTalk) -> web.Response:
        async with self._keeping(talk.reference, talk.kept_s):
            if talk.wanted is not None:
                talk.take(*await self._talking.vectors(request, talk.wanted))
            elif talk.kept_s == 0:
                await self._served.here(talk.reference)
            else:
                await self._have_loaded(request, talk.loads)
            return web.Response(body=talk.whole(), content_type=JSON)

    @asynccontextmanager
    async def _keeping(self, reference: str, kept_s: float | None) -> AsyncGenerator[None]:
        """Have the workers that hold a model stay after the block for so many idle seconds, as each request says anew.

        None is as long as the settings say. Who asked for what is not here was told that.
        """
        try:
            yield
        finally:
            with contextlib.suppress(RbeeError):
                name = await self._served.known.name(reference)
                for worker in self._served.pool.live():
                    if name in worker.names and worker.kept_s != kept_s:
                        self._supervisor.keep(worker.id, kept_s)


def _row(path: str, handler: Any, body: type[msgspec.Struct], summary: str, *, stream: str = "") -> Route:
    return Route(
        method="POST",
        path=path,
        handler=handler,
        scope=Scope.INFER,
        summary=summary,
        headers=(REQUEST_ID, TIMEOUT),
        body=body,
        answers={200: dict[str, Any]},
        stream=stream,
        errors=COMPUTING,
        error_body=error_body,
    )


WORKING = (
    _row(
        "/api/chat",
        WorkingRoutes.converse,
        ChatBody,
        "Ollama's chat: lines, or one object, see ollama.md",
        stream=Lines.media,
    ),
    _row(
        "/api/generate",
        WorkingRoutes.generate,
        GenerateBody,
        "the same for one prompt, or a text to continue",
        stream=Lines.media,
    ),
    _row("/api/embed", WorkingRoutes.vectors, EmbedBody, "vectors of texts, of length 1"),
    _row("/api/embeddings", WorkingRoutes.vector, EmbeddingsBody, "the vector of one text, as it comes"),
)
