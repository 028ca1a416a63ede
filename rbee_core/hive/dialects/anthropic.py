"""The routes that Anthropic's clients know."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from rbee_core.dialects.anthropic.errors import error_body
from rbee_core.dialects.anthropic.messages import MessagesTalk, counted
from rbee_core.dialects.anthropic.requests import MessagesBody, Prompted
from rbee_core.hive.api.refusals import COMPUTING
from rbee_core.hive.dialects.models import ServedModel
from rbee_core.hive.dialects.talking import TIMEOUT, Talking, moment_of
from rbee_core.http.body import read_bytes
from rbee_core.http.front import REQUEST_ID
from rbee_core.http.middleware import json_response
from rbee_core.http.routes import Route, Scope


class AnthropicRoutes:
    """One hive's routes in this dialect."""

    def __init__(self, talking: Talking) -> None:
        self._talking = talking

    async def messages(self, request: web.Request) -> web.StreamResponse:
        """Answer a conversation."""
        return await self._talking.answer(request, MessagesTalk.read)

    async def count_tokens(self, request: web.Request) -> web.Response:
        """Count what a conversation is for the model."""
        wanted = counted(await read_bytes(request), moment_of(request))
        return json_response({"input_tokens": await self._talking.count(request, wanted)})


def listed(models: Sequence[ServedModel]) -> dict[str, Any]:
    """Return models as clients of this dialect list them: all on one page."""
    ids = [model.id for model in models]
    pages = {"has_more": False, "first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None}
    return {"data": [one(model) for model in models], **pages}


def one(model: ServedModel) -> dict[str, Any]:
    """Return one model as clients of this dialect see it."""
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.id,
        "created_at": datetime.fromtimestamp(model.created_unix, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_input_tokens": model.window,
        "max_tokens": model.window,
    }


ANTHROPIC = (
    Route(
        method="POST",
        path="/v1/messages",
        handler=AnthropicRoutes.messages,
        scope=Scope.INFER,
        summary="Anthropic's messages: one object, or a stream of named events, see anthropic.md",
        headers=(REQUEST_ID, TIMEOUT),
        body=MessagesBody,
        answers={200: dict[str, Any]},
        stream=MessagesTalk.media,
        errors=COMPUTING,
        error_body=error_body,
    ),
    Route(
        method="POST",
        path="/v1/messages/count_tokens",
        handler=AnthropicRoutes.count_tokens,
        scope=Scope.INFER,
        summary="how many tokens such a conversation is for the model, its tools and system prompt included",
        headers=(REQUEST_ID, TIMEOUT),
        body=Prompted,
        answers={200: dict[str, Any]},
        errors=COMPUTING,
        error_body=error_body,
    ),
)
