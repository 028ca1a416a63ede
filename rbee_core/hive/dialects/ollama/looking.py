"""The routes that Ollama's clients know."""

import asyncio
from typing import Any

from aiohttp import web

from rbee_core import __version__
from rbee_core.dialects import fields
from rbee_core.dialects.ollama import models
from rbee_core.dialects.ollama.errors import error_body
from rbee_core.domain.worker import HOST, Worker, WorkerState
from rbee_core.errors import CatalogUnusable, ModelNotFound
from rbee_core.hive.dialects.models import ServedModel, ServedModels
from rbee_core.hive.dialects.ollama.facts import FactsOfFiles
from rbee_core.hive.dialects.talking import moment_of
from rbee_core.http.body import read_bytes
from rbee_core.http.middleware import json_response
from rbee_core.http.routes import Route, Scope


class LookingRoutes:
    """One hive's routes in this dialect that say what there is. `idle_s`: how long a worker may be idle."""

    def __init__(self, served: ServedModels, idle_s: float) -> None:
        self._served = served
        self._idle_s = idle_s
        self._facts = FactsOfFiles()

    async def root(self, request: web.Request) -> web.Response:
        """Say that somebody is here, as clients ask before anything else."""
        del request
        return web.Response(text="rbee is running")

    async def version(self, request: web.Request) -> web.Response:
        """Say whose routes these are."""
        del request
        return json_response(models.version_body(__version__))

    async def tags(self, request: web.Request) -> web.Response:
        """List what may be asked for."""
        del request
        return json_response(models.tags_body([await self._known(model) for model in await self._served.all()]))

    async def describe(self, request: web.Request) -> web.Response:
        """Show one model."""
        wanted = fields.read(await read_bytes(request), models.Show, models.SHOW)
        return json_response(models.show_body(await self._known(await self._served.one(wanted.reference))))

    async def loaded(self, request: web.Request) -> web.Response:
        """List the models that are loaded."""
        now_unix, here = moment_of(request).now_unix, await self._served.all()
        serving = [worker for worker in self._served.pool.live() if worker.serving]
        loaded = [await self._loaded(worker, here, now_unix) for worker in serving]
        return json_response(models.ps_body(loaded))

    async def _known(self, model: ServedModel) -> models.Known:
        return models.Known(
            name=model.id,
            size_bytes=model.size_bytes,
            format=model.format,
            window=model.window,
            created_unix=model.created_unix,
            sha256=model.sha256,
            facts=await self._facts.of(model.path, model.format),
        )

    async def _loaded(self, worker: Worker, here: list[ServedModel], now_unix: int) -> models.Loaded:
        model = next((model for model in here if not worker.names.isdisjoint(model.names)), _of(worker))
        size = worker.recipe.need.total_bytes
        return models.Loaded(
            model=await self._known(model),
            bytes=size,
            device_bytes=0 if worker.recipe.memory == HOST else size,
            window=worker.context_tokens,
            expires_unix=now_unix + self._left_s(worker),
        )

    def _left_s(self, worker: Worker) -> float:
        """Return how long a worker stays if nobody asks it for anything more."""
        if worker.kept:
            return models.FOREVER_UNIX
        limits = (worker.kept_s, worker.stay.idle_s, self._idle_s)
        limit_s = next(limit for limit in limits if limit is not None)
        idle_s = asyncio.get_running_loop().time() - worker.used_at if worker.state is WorkerState.IDLE else 0.0
        return max(0.0, limit_s - idle_s)


def _of(worker: Worker) -> ServedModel:
    """Return a loaded model that the list does not have, as when its files are gone."""
    recipe = worker.recipe
    return ServedModel(
        id=recipe.reference,
        reference=recipe.reference,
        names=(recipe.reference,),
        created_unix=0,
        size_bytes=recipe.size_bytes,
        format=recipe.format,
        window=worker.context_tokens,
        loaded=True,
    )


LOOKING = (
    Route(
        method="GET",
        path="/",
        handler=LookingRoutes.root,
        scope=Scope.OPEN,
        summary="that somebody is here, for clients that ask before anything else",
        answers={200: str},
        media="text/plain",
    ),
    Route(
        method="GET",
        path="/api/version",
        handler=LookingRoutes.version,
        scope=Scope.OPEN,
        summary="the release of Ollama that spoke like this, and which rbee it is",
        answers={200: dict[str, Any]},
        error_body=error_body,
    ),
    Route(
        method="GET",
        path="/api/tags",
        handler=LookingRoutes.tags,
        scope=Scope.READ,
        summary="Ollama's list of models: those that are here",
        answers={200: dict[str, Any]},
        errors=(CatalogUnusable,),
        error_body=error_body,
    ),
    Route(
        method="POST",
        path="/api/show",
        handler=LookingRoutes.describe,
        scope=Scope.READ,
        summary="one of them, with its template, what it can do, and the context that a request may use",
        body=models.Show,
        answers={200: dict[str, Any]},
        errors=(ModelNotFound, CatalogUnusable),
        error_body=error_body,
    ),
    Route(
        method="GET",
        path="/api/ps",
        handler=LookingRoutes.loaded,
        scope=Scope.READ,
        summary="the models that are loaded, with their context and when they go",
        answers={200: dict[str, Any]},
        errors=(CatalogUnusable,),
        error_body=error_body,
    ),
)
