"""`POST /v1/messages`: a body in, named events or one object out. And what `count_tokens` is asked."""

from collections.abc import Sequence
from typing import Any, Self

import msgspec

from rbee_core import wire
from rbee_core.dialects import fields, parts
from rbee_core.dialects.anthropic.errors import error_body
from rbee_core.dialects.anthropic.requests import FIELDS, PROMPT_FIELDS, MessagesBody, Prompted
from rbee_core.dialects.talk import Moment, Talk
from rbee_core.dialects.tools import Offer
from rbee_core.errors import RbeeError

SIGNATURE = "rbee"
"""Stands where Anthropic signs what a model thought; clients send it back with that, and nobody checks it here."""
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":%b}\n\n'
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_encode = msgspec.json.encode


def event(kind: str, **said: Any) -> bytes:
    """Return an event by its name, which clients need: they drop those that have none."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind, **said}))


class MessagesTalk(Talk):
    """One message being answered."""

    def __init__(self, body: MessagesBody, wanted: wire.PoolInference, offer: Offer, moment: Moment) -> None:
        self.wanted = (wanted,)
        self.streams = bool(body.stream)
        self._moment = moment
        self._model = body.model
        self._most = body.max_tokens
        self.offer = offer
        self._begun = False
        self._blocks = 0
        self._open = ""  # the kind of the block that the last event belongs to
        self._answer = parts.Collected()

    @classmethod
    def read(cls, data: bytes, moment: Moment) -> Self:
        """Read a body. Raises `InvalidRequest`."""
        body = fields.read(data, MessagesBody, FIELDS)
        offer = body.offer()
        return cls(body, body.internal(moment.request_id, offer), offer, moment)

    def begins(self) -> bytes:
        """Return the message without its content, once."""
        if self._begun:
            return b""
        self._begun = True
        return event("message_start", message=self._message([], None))

    def still_here(self) -> bytes:
        """Return a ping; the message begins before the first one, as nothing comes before that."""
        return self.begins() + PING

    def tells(self, index: int, said: Sequence[parts.Part]) -> bytes:
        """Return the events of each part: a block for what is of one kind."""
        del index
        if not self.streams:
            self._answer.add(said)
            return b""
        return b"".join(map(self._events, said))

    def _events(self, part: parts.Part) -> bytes:
        match part:
            case parts.Text(text):
                return self._piece("text", "text_delta", "text", text, {"text": "", "citations": None})
            case parts.Reasoning(text):
                return self._piece("thinking", "thinking_delta", "thinking", text, {"thinking": "", "signature": ""})
            case parts.CallBegins(index, name):
                return self._begin_block("tool_use", self._call(index, name, {}))
            case parts.Arguments(_, text):
                return self._delta("input_json_delta", "partial_json", text) if text else b""
            case parts.End():
                usage, (reason, sequence) = _usage(part), self._why(part)
                delta = {"stop_reason": reason, "stop_sequence": sequence, "stop_details": None, "container": None}
                return self._end_block() + event("message_delta", delta=delta, usage=usage)

    def _piece(self, kind: str, delta: str, field: str, text: str, empty: dict[str, Any]) -> bytes:
        if not text:
            return b""
        opening = b"" if self._open == kind else self._begin_block(kind, {"type": kind, **empty})
        return opening + self._delta(delta, field, text)

    def _delta(self, kind: str, field: str, text: str) -> bytes:
        """Return one event of a block; put together by hand, as it is paid for with every token."""
        said = b'{"type":"%b","%b":%b}' % (kind.encode(), field.encode(), _encode(text))
        return DELTA % (self._blocks - 1, said)

    def _begin_block(self, kind: str, block: dict[str, Any]) -> bytes:
        ending = self._end_block()
        self._open, number = kind, self._blocks
        self._blocks += 1
        return ending + event("content_block_start", index=number, content_block=block)

    def _end_block(self) -> bytes:
        if not self._open:
            return b""
        signed = self._delta("signature_delta", "signature", SIGNATURE) if self._open == "thinking" else b""
        self._open = ""
        return signed + event("content_block_stop", index=self._blocks - 1)

    def ends(self) -> bytes:
        """Return the last event."""
        return STOP

    def fails(self, error: RbeeError) -> bytes:
        """Return the error, which clients raise."""
        said = error_body(error, self._moment.request_id)
        return b"event: error\ndata: " + _encode(said) + b"\n\n"

    def whole(self) -> bytes:
        """Return the message."""
        answer, content = self._answer, list[dict[str, Any]]()
        if answer.reasoning:
            content.append({"type": "thinking", "thinking": answer.reasoning, "signature": SIGNATURE})
        if answer.text:
            content.append({"type": "text", "text": answer.text, "citations": None})
        for number, (name, arguments) in enumerate(answer.calls):
            content.append(self._call(number, name, _input("".join(arguments))))
        return _encode(self._message(content, answer.end))

    def _call(self, number: int, name: str, given: dict[str, Any]) -> dict[str, Any]:
        identity = f"toolu_{self._moment.request_id}_{number}"
        return {"type": "tool_use", "id": identity, "name": name, "input": given, "caller": {"type": "direct"}}

    def _message(self, content: list[dict[str, Any]], end: parts.End | None) -> dict[str, Any]:
        reason, sequence = self._why(end) if end else (None, None)
        return {
            "id": f"msg_{self._moment.request_id}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "stop_details": None,
            "container": None,
            "usage": _usage(end),
        }

    def _why(self, end: parts.End) -> tuple[str, str | None]:
        """Return the reason of an end, and the sequence that it stopped at."""
        if end.reason == "tool_calls":
            return "tool_use", None
        if end.reason == "length":
            full = end.figures.total_tokens < self._most
            return "model_context_window_exceeded" if full else "max_tokens", None
        stopped_by = end.figures.stopped_by
        return ("stop_sequence", stopped_by) if stopped_by else ("end_turn", None)


def counted(data: bytes, moment: Moment) -> wire.PoolInference:
    """Return the request whose prompt `count_tokens` asks about. Raises `InvalidRequest`."""
    body = fields.read(data, Prompted, PROMPT_FIELDS)
    return body.internal(moment.request_id, body.offer())


def _usage(end: parts.End | None) -> dict[str, Any]:
    """Return the count of tokens; here, those of the prompt that were cached are counted by themselves."""
    done = end.figures if end else wire.StreamEvent()
    return {
        "input_tokens": max(0, done.prompt_tokens - done.cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": done.cached_tokens,
        "output_tokens": done.total_tokens,
        "output_tokens_details": {"thinking_tokens": end.reasoning_tokens if end else 0},
    }


def _input(arguments: str) -> dict[str, Any]:
    """Return a call's arguments; nothing of those that were cut short, as `stop_reason` then says."""
    try:
        return msgspec.json.decode(arguments, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        return {}
