"""From a request as it came over the wire to what an engine is asked, which never has to choose; and a token back."""

import math
from typing import Any

from rbee_core import wire
from rbee_core.backend import GenerateRequest, Message, Token, TokenLogprob, Tool, ToolCall
from rbee_core.errors import InvalidRequest

NEAR_ZERO = 1e-6
"""Engines divide by temperature and repeat_penalty in 32 bits: by less than this, and what comes is no number."""
IMPOSSIBLE = -9999.0
"""What travels for the logarithm of a probability of 0, as JSON has no infinity."""


def generate_request(request: wire.WorkerTask, template: bool | None) -> GenerateRequest:
    """Return the engine's view of `request`; `template` is what the engine says of the model's.

    A prompt that is to be answered becomes a message of a user where the model has a chat template, or may have one
    and has to. Raises `InvalidRequest` where it has to and the model has none.
    """
    if request.chat_template == "required" and template is False:
        raise InvalidRequest(
            "This model has no chat template, so it cannot answer messages",
            hint="continue a text instead (`--raw`), or use a model that was trained for conversations",
        )
    said = {name: getattr(request, name) for name in GenerateRequest.__struct_fields__}
    fields = {name: value for name, value in said.items() if value is not None}  # the rest is as usual
    if 0 < fields.get("temperature", 1.0) < NEAR_ZERO:
        fields["temperature"] = 0.0
    if "repeat_penalty" in fields:
        fields["repeat_penalty"] = max(fields["repeat_penalty"], NEAR_ZERO)
    fields["messages"] = tuple(map(_message, request.messages or ()))
    fields["tools"] = tuple(Tool(tool.name, tool.description, tool.parameters) for tool in request.tools)
    if request.prompt is not None and (request.chat_template == "required" or (request.chat_template and template)):
        fields |= {"prompt": None, "messages": (Message("user", request.prompt),)}
    if request.system_prompt and fields["messages"] and all(m.role != "system" for m in fields["messages"]):
        fields["messages"] = (Message("system", request.system_prompt), *fields["messages"])
    return GenerateRequest(**fields)


def _message(turn: wire.ChatMessage) -> Message:
    calls = tuple(ToolCall(call.name, call.arguments, call.id) for call in turn.tool_calls)
    return Message(turn.role, turn.content, turn.reasoning, calls, turn.tool_call_id, turn.tool_name)


def likelihoods(token: Token) -> wire.Logprobs | None:
    """Return what a token says of probabilities, as it travels. Raises `ValueError` for what is no number."""
    if token.chosen is None:
        return None
    top = [wire.TokenLikelihood(**_likelihood(one)) for one in token.top]
    return wire.Logprobs(**_likelihood(token.chosen), top=top)


def _likelihood(one: TokenLogprob) -> dict[str, Any]:
    if math.isnan(one.logprob):
        raise ValueError(f"the log probability of token {one.id} is no number")
    text = one.piece.decode("utf-8", "replace")
    return {"id": one.id, "token": text, "bytes": list(one.piece), "logprob": max(one.logprob, IMPOSSIBLE)}
