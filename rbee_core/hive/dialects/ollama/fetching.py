"""The routes of Ollama's clients that change which models are here."""

import hashlib
from typing import Any

from aiohttp import web

from rbee_core import wire
from rbee_core.backend import LocalModel, RemoteModel
from rbee_core.dialects import fields
from rbee_core.dialects.ollama import pull
from rbee_core.dialects.ollama.errors import error_body
from rbee_core.dialects.ollama.work import NDJSON
from rbee_core.errors import CatalogUnusable, InsufficientDisk, InvalidRequest, ModelInUse, ModelNotFound
from rbee_core.hive.api.refusals import RESOLVING
from rbee_core.hive.dialects.models import ServedModels
from rbee_core.hive.dialects.ollama.lines import Pace, Write, answer_in_lines
from rbee_core.hive.supervisor import Supervisor
from rbee_core.http.body import read_bytes
from rbee_core.http.middleware import json_response
from rbee_core.http.routes import Route, Scope

ON_HUBS = "models are fetched by the name of their repository, such as hf.co/ORGANISATION/REPOSITORY"


class FetchingRoutes:
    """One hive's routes in this dialect that fetch and remove."""

    def __init__(self, pace: Pace, served: ServedModels, supervisor: Supervisor) -> None:
        self._pace = pace
        self._served = served
        self._supervisor = supervisor

    async def fetch(self, request: web.Request) -> web.StreamResponse:
        """Have a model on this node. Who leaves before it is here ends nothing."""
        wanted = fields.read(await read_bytes(request), pull.PullBody, pull.PULL)

        async def tell(write: Write) -> None:
            await self._bring(wanted.reference, write)
            await write(wire.encode(pull.SUCCESS) + b"\n")

        if wanted.stream is not False:
            return await answer_in_lines(request, self._pace, tell)
        await self._bring(wanted.reference, _to_nobody)
        return json_response(pull.SUCCESS)

    async def _bring(self, text: str, write: Write) -> None:
        """Return once a model is here. Raises what its download ended with."""
        reference = await self._served.named(text, ON_HUBS)
        found = await self._served.provisioner.begin(reference, await self._served.resolver.formats(None))
        if isinstance(found, LocalModel):
            return
        sha256 = _hash_of(found.model)
        async for progress in found.watch():
            if progress.error is None:
                await write(wire.encode(pull.progress_body(progress, sha256)) + b"\n")
        await found.result()

    async def remove_named(self, request: web.Request) -> web.Response:
        """Forget a model, and remove its files if rbee fetched them."""
        wanted = fields.read(await read_bytes(request), pull.DeleteBody, pull.DELETE)
        reference = await self._served.named(wanted.reference)
        async with self._supervisor.removal(reference):
            await self._served.provisioner.remove(reference)
        return web.Response()


async def _to_nobody(line: bytes) -> None:
    del line


def _hash_of(model: RemoteModel) -> str:
    """Return the hash of the file that is loaded, if the hub names one, else one of the model's name and version."""
    named = next((file.sha256 for file in model.files if file.name == model.entry), None)
    return named or hashlib.sha256(f"{model.reference} {model.revision}".encode()).hexdigest()


FETCHING = (
    Route(
        method="POST",
        path="/api/pull",
        handler=FetchingRoutes.fetch,
        scope=Scope.ADMIN,
        summary="has a model here: lines that tell how far it is, or one object at the end",
        body=pull.PullBody,
        answers={200: dict[str, Any]},
        stream=NDJSON,
        errors=(*RESOLVING, InsufficientDisk),
        error_body=error_body,
    ),
    Route(
        method="DELETE",
        path="/api/delete",
        handler=FetchingRoutes.remove_named,
        scope=Scope.ADMIN,
        summary="forgets the model that its body names, and removes the files that rbee fetched",
        answers={200: None},
        errors=(InvalidRequest, ModelNotFound, ModelInUse, CatalogUnusable),
        error_body=error_body,
    ),
)
