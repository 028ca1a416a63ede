"""`POST /v1/responses`: a body in, numbered events or one object out."""

from collections.abc import Sequence
from typing import Any, Self

import msgspec

from rbee_core import wire
from rbee_core.dialects import fields, parts
from rbee_core.dialects.openai.errors import error_body
from rbee_core.dialects.openai.figures import timings
from rbee_core.dialects.responses import tools
from rbee_core.dialects.responses.output import Events, Output
from rbee_core.dialects.responses.requests import FIELDS, Reasoning, ResponsesBody
from rbee_core.dialects.talk import Moment, Talk
from rbee_core.dialects.tools import Offer
from rbee_core.errors import RbeeError

COMMENT = b":\n\n"


class ResponseTalk(Talk):
    """One response being made."""

    def __init__(self, body: ResponsesBody, wanted: wire.PoolInference, offer: Offer, moment: Moment) -> None:
        self.wanted = (wanted,)
        self.offer = offer
        self.streams = bool(body.stream)
        self._body = body
        self._moment = moment
        self._events = Events()
        self._output = Output(self._events, moment.request_id, tools.customs(body.tools or ()))
        self._begun = False
        self._end: parts.End | None = None

    @classmethod
    def read(cls, data: bytes, moment: Moment) -> Self:
        """Read a body. Raises `InvalidRequest`."""
        body = fields.read(data, ResponsesBody, FIELDS)
        offer = body.offer()
        return cls(body, body.internal(moment.request_id, offer), offer, moment)

    def begins(self) -> bytes:
        """Return the response without its output, once."""
        if self._begun:
            return b""
        self._begun = True
        begun = self._response("in_progress")
        return self._events.tell("created", response=begun) + self._events.tell("in_progress", response=begun)

    def still_here(self) -> bytes:
        """Return a comment."""
        return COMMENT

    def tells(self, index: int, said: Sequence[parts.Part]) -> bytes:
        """Return the events of each part: an item for what is of one kind."""
        del index
        for part in said:
            if isinstance(part, parts.End):
                self._end = part
        events = self._output.take(said)
        return events if self.streams else b""

    def ends(self) -> bytes:
        """Return the whole response again."""
        status = self._status()
        return self._events.tell(status, response=self._response(status))

    def fails(self, error: RbeeError) -> bytes:
        """Return the error by itself, then the response as far as it came: with a code of this dialect, and ours."""
        told = error_body(error)["error"]
        message, param, ours = told["message"], told["param"], told["code"]
        theirs = "server_error" if error.http_status >= 500 else "invalid_prompt"
        said = {"code": theirs, "message": message, "param": param, "type": ours}
        begun = self.begins()
        alone = self._events.tell("error", code=ours, message=message, param=param)
        return begun + alone + self._events.tell("failed", response=self._response("failed") | {"error": said})

    def whole(self) -> bytes:
        """Return the response."""
        return msgspec.json.encode(self._response(self._status()))

    def _status(self) -> str:
        return "incomplete" if self._end and self._end.reason == "length" else "completed"

    def _response(self, status: str) -> dict[str, Any]:
        """Return the response as far as it is, with every field that clients may look for."""
        return {
            "id": f"resp_{self._moment.request_id}",
            "object": "response",
            "created_at": self._moment.now_unix,
            "completed_at": None,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "output": self._output.told("in_progress" if status == "in_progress" else "incomplete"),
            "usage": _usage(self._end) if self._end else None,
            **_repeated(self._body),
            **({"timings": timings(self._end)} if self._end else {}),
        }


def _repeated(body: ResponsesBody) -> dict[str, Any]:
    """Return what a response says of its request."""
    thinking = body.reasoning or Reasoning()
    return {
        "model": body.model,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "presence_penalty": body.presence_penalty or 0.0,
        "frequency_penalty": body.frequency_penalty or 0.0,
        "top_logprobs": body.top_logprobs or 0,
        "tools": [tool.told() for tool in body.tools or ()],
        "tool_choice": tools.told(body.tool_choice),
        "parallel_tool_calls": body.parallel,
        "text": {"format": body.format.told(), "verbosity": body.text.verbosity if body.text else None},
        "reasoning": {"effort": thinking.effort, "summary": thinking.summary},
        "metadata": body.metadata or {},
        **_NOT_HERE,
    }


_NOT_HERE = {
    "store": False,
    "background": False,
    "truncation": "disabled",
    "service_tier": "default",
    **dict.fromkeys(("previous_response_id", "conversation", "prompt", "max_tool_calls", "user")),
    **dict.fromkeys(("prompt_cache_key", "safety_identifier")),
}
"""What responses say of fields that no request can set."""


def _usage(end: parts.End) -> dict[str, Any]:
    """Return the count of tokens."""
    done = end.figures
    return {
        "input_tokens": done.prompt_tokens,
        "input_tokens_details": {"cached_tokens": done.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": done.total_tokens,
        "output_tokens_details": {"reasoning_tokens": end.reasoning_tokens},
        "total_tokens": done.prompt_tokens + done.total_tokens,
    }
