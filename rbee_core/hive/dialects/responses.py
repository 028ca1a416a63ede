"""The route that clients of OpenAI's Responses know."""

from typing import Any

from aiohttp import web

from rbee_core.dialects.openai.errors import error_body
from rbee_core.dialects.responses.requests import ResponsesBody
from rbee_core.dialects.responses.responses import ResponseTalk
from rbee_core.hive.api.refusals import COMPUTING
from rbee_core.hive.dialects.talking import TIMEOUT, Talking
from rbee_core.http.front import REQUEST_ID
from rbee_core.http.routes import Route, Scope


class ResponsesRoutes:
    """One hive's route in this dialect."""

    def __init__(self, talking: Talking) -> None:
        self._talking = talking

    async def respond(self, request: web.Request) -> web.StreamResponse:
        """Answer a conversation."""
        return await self._talking.answer(request, ResponseTalk.read)


RESPONSES = (
    Route(
        method="POST",
        path="/v1/responses",
        handler=ResponsesRoutes.respond,
        scope=Scope.INFER,
        summary="OpenAI's Responses, stateless: one object, or a stream of numbered events, see responses.md",
        headers=(REQUEST_ID, TIMEOUT),
        body=ResponsesBody,
        answers={200: dict[str, Any]},
        stream=ResponseTalk.media,
        errors=COMPUTING,
        error_body=error_body,
    ),
)
