"""The routes that OpenAI's clients know."""

from typing import Any

from aiohttp import web

from rbee_core.dialects.openai import embeddings, rerank
from rbee_core.dialects.openai.chat import ChatBody, ChatTalk
from rbee_core.dialects.openai.completions import CompletionBody, CompletionTalk
from rbee_core.dialects.openai.errors import error_body
from rbee_core.errors import CatalogUnusable, ModelNotFound
from rbee_core.hive.api.refusals import COMPUTING
from rbee_core.hive.dialects import anthropic
from rbee_core.hive.dialects.models import ServedModel, ServedModels
from rbee_core.hive.dialects.talking import TIMEOUT, Talking
from rbee_core.http import front
from rbee_core.http.body import read_bytes
from rbee_core.http.front import ANTHROPIC_VERSION, REQUEST_ID
from rbee_core.http.middleware import json_response
from rbee_core.http.routes import Route, Scope

OWNER = "rbee"


class OpenAiRoutes:
    """One hive's routes in this dialect."""

    def __init__(self, talking: Talking, models: ServedModels) -> None:
        self._talking = talking
        self._models = models

    async def models(self, request: web.Request) -> web.Response:
        """List what may be asked for; Anthropic's clients, which say so, have the same list in their own shape."""
        models = await self._models.all()
        if ANTHROPIC_VERSION in request.headers:
            return json_response(anthropic.listed(models))
        return json_response({"object": "list", "data": [_model(model) for model in models]})

    async def model(self, request: web.Request) -> web.Response:
        """Show one model, by any of its names."""
        model = await self._models.one(request.match_info["reference"])
        return json_response(anthropic.one(model) if ANTHROPIC_VERSION in request.headers else _model(model))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer a conversation."""
        return await self._talking.answer(request, ChatTalk.read)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Go on with texts."""
        return await self._talking.answer(request, CompletionTalk.read)

    async def make_embeddings(self, request: web.Request) -> web.Response:
        """Make vectors of texts."""
        body, wanted = embeddings.read(await read_bytes(request), front.name_of(request))
        vectors, end = await self._talking.vectors(request, wanted)
        return json_response(embeddings.answer(body, vectors, end.prompt_tokens))

    async def rerank(self, request: web.Request) -> web.Response:
        """Put documents in the order in which they answer a query."""
        name = front.name_of(request)
        body, wanted = rerank.read(await read_bytes(request), name)
        scores, end = await self._talking.scores(request, wanted)
        return json_response(rerank.answer(body, scores, end.prompt_tokens, name))


def _model(model: ServedModel) -> dict[str, Any]:
    """Return a model as clients list it; its window stands under the three names that they look for."""
    window, size = model.window, {"size": model.size_bytes}
    known = {"context_length": window, "max_model_len": window, "meta": {"n_ctx": window, **size}} if window else {}
    return {
        "id": model.id,
        "object": "model",
        "created": model.created_unix,
        "owned_by": OWNER,
        "meta": size,
        "names": list(model.names),
        "format": model.format,
        "loaded": model.loaded,
    } | known


OPENAI = (
    Route(
        method="GET",
        path="/v1/models",
        handler=OpenAiRoutes.models,
        scope=Scope.READ,
        summary="OpenAI's list of models: those that are here, with the context that a request may use",
        answers={200: dict[str, Any]},
        errors=(CatalogUnusable,),
        error_body=error_body,
    ),
    Route(
        method="GET",
        path="/v1/models/{reference:(?s:.+)}",
        handler=OpenAiRoutes.model,
        scope=Scope.READ,
        summary="one of them, by any of its names",
        answers={200: dict[str, Any]},
        errors=(ModelNotFound, CatalogUnusable),
        error_body=error_body,
    ),
    Route(
        method="POST",
        path="/v1/chat/completions",
        handler=OpenAiRoutes.chat,
        scope=Scope.INFER,
        summary="OpenAI's chat: one object, or a stream of chunks, see openai.md",
        headers=(REQUEST_ID, TIMEOUT),
        body=ChatBody,
        answers={200: dict[str, Any]},
        stream=ChatTalk.media,
        errors=COMPUTING,
        error_body=error_body,
    ),
    Route(
        method="POST",
        path="/v1/completions",
        handler=OpenAiRoutes.complete,
        scope=Scope.INFER,
        summary="OpenAI's completions: texts that are gone on with, in the same ways",
        headers=(REQUEST_ID, TIMEOUT),
        body=CompletionBody,
        answers={200: dict[str, Any]},
        stream=CompletionTalk.media,
        errors=COMPUTING,
        error_body=error_body,
    ),
    Route(
        method="POST",
        path="/v1/embeddings",
        handler=OpenAiRoutes.make_embeddings,
        scope=Scope.INFER,
        summary="OpenAI's vectors of texts",
        headers=(REQUEST_ID, TIMEOUT),
        body=embeddings.EmbeddingBody,
        answers={200: dict[str, Any]},
        errors=COMPUTING,
        error_body=error_body,
    ),
    Route(
        method="POST",
        path="/v1/rerank",
        handler=OpenAiRoutes.rerank,
        scope=Scope.INFER,
        summary="documents in the order in which they answer a query, as Jina's and Cohere's clients know it",
        headers=(REQUEST_ID, TIMEOUT),
        body=rerank.RerankBody,
        answers={200: dict[str, Any]},
        errors=COMPUTING,
        error_body=error_body,
    ),
)
