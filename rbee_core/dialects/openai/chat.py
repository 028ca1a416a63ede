"""`POST /v1/chat/completions`: a body in, chunks or one object out."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta

from rbee_core import wire
from rbee_core.dialects import fields, parts
from rbee_core.dialects.openai import figures, messages
from rbee_core.dialects.openai.calls import ToolChoice, ToolIn, call_delta, offer_of, whole_calls
from rbee_core.dialects.openai.errors import error_body
from rbee_core.dialects.openai.requests import NAMES, NO_LIMIT, SHARED, Choosing
from rbee_core.dialects.talk import Moment, Talk
from rbee_core.dialects.tools import Offer
from rbee_core.errors import RbeeError

DONE = b"data: [DONE]\n\n"
COMMENT = b":\n\n"
_encode = msgspec.json.encode


class JsonSchema(fields.Foreign):
    """The schema that an answer has to fit."""

    schema: dict[str, Any] | None = None


class Format(fields.Foreign):
    """What an answer has to be; `schema` is where llama.cpp's clients put theirs."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema: dict[str, Any] | None = None


class ChatBody(Choosing, kw_only=True):
    """The body of a chat."""

    messages: Annotated[list[messages.Turn], Meta(min_length=1, max_length=wire.MOST_MESSAGES)]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: Format | None = None
    tools: Annotated[list[ToolIn], Meta(max_length=wire.MOST_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None


FIELDS = (
    *fields.honoured("messages", note="roles system, developer (the same), user, assistant, tool; parts of text"),
    *fields.honoured("max_completion_tokens", note="wins over `max_tokens`"),
    *fields.honoured("logprobs", "top_logprobs"),
    *fields.honoured("response_format", note="`text`, `json_object`, `json_schema`; always strict"),
    *fields.honoured(
        "tools", note="functions; with `auto`, calls are told from text where the model's notation is known"
    ),
    *fields.honoured(
        "tool_choice", note="`none`, `auto`, `required`, or one by name: what is forced is held to a grammar"
    ),
    *fields.honoured("parallel_tool_calls", note="false: an answer ends with its first call"),
    *fields.honoured("chat_template_kwargs", note="variables for the model's chat template"),
    *fields.honoured("reasoning_effort", note="for templates that know it; `none` is `enable_thinking: false` too"),
    *SHARED,
    *fields.ignored("verbosity", "prediction", "parse_tool_calls", "reasoning_format"),
    *fields.refused("audio", note="models write text only"),
    *fields.refused("web_search_options", note="a hive asks nobody else"),
    *fields.refused("functions", "function_call", note="OpenAI has replaced it: use `tools` and `tool_choice`"),
)


class ChatTalk(Talk):
    """One chat being answered."""

    def __init__(self, body: ChatBody, wanted: Sequence[wire.PoolInference], offer: Offer, moment: Moment) -> None:
        self.wanted = wanted
        self.offer = offer
        self.streams = bool(body.stream)
        self._moment = moment
        self._model = body.model
        self._says_usage = body.says_usage
        self._answers = [parts.Collected() for _ in wanted]
        self._begun: set[int] = set()
        head = {**self._head("chat.completion.chunk"), "choices": None}
        self._front = b"data: " + _encode(head).removesuffix(b"null}") + b"["
        self._back = b'],"usage":null}\n\n' if body.says_usage else b"]}\n\n"

    @classmethod
    def read(cls, data: bytes, moment: Moment) -> Self:
        """Read a body. Raises `InvalidRequest`."""
        body = fields.read(data, ChatBody, FIELDS)
        offer = offer_of(body.tools or (), body.tool_choice, parallel=body.parallel_tool_calls is not False)
        said = _internal(body)
        said |= offer.fields(said.get("json_schema")) | {"request_id": moment.request_id}
        wanted = fields.as_internal(wire.PoolInference, _NAMES, **said)
        return cls(body, several(wanted, body.answers), offer, moment)

    def begins(self) -> bytes:
        """Nothing comes before the first answer begins."""
        return b""

    def still_here(self) -> bytes:
        """Return a comment."""
        return COMMENT

    def tells(self, index: int, said: Sequence[parts.Part]) -> bytes:
        """Return a chunk for each part."""
        if not self.streams:
            self._answers[index].add(said)
            return b""
        chunks = [self._begin(index)] if said and index not in self._begun else []
        chunks += [self._chunk(index, part) for part in said]
        return b"".join(chunks)

    def _begin(self, index: int) -> bytes:
        self._begun.add(index)
        return self._wrapped(index, b'{"role":"assistant","content":"","refusal":null}')

    def _chunk(self, index: int, part: parts.Part) -> bytes:
        match part:
            case parts.Text(text, likely):
                delta = b'{"content":' + _encode(text) + b"}"
                if likely is None:
                    return self._wrapped(index, delta) if text else b""
                odds = _encode({"content": [figures.likelihood(likely)], "refusal": None})
                return self._wrapped(index, delta, logprobs=odds)
            case parts.Reasoning(text):
                return self._wrapped(index, b'{"reasoning_content":' + _encode(text) + b"}")
            case parts.CallBegins() | parts.Arguments():
                return self._wrapped(index, _encode({"tool_calls": [call_delta(self._moment, index, part)]}))
            case parts.End():
                self._answers[index].add((part,))
                return self._wrapped(index, b"{}", end=part)

    def _wrapped(self, index: int, delta: bytes, *, logprobs: bytes = b"null", end: parts.End | None = None) -> bytes:
        """Return one chunk; put together by hand, as it is paid for with every token."""
        reason = b'"%b"' % end.reason.encode() if end else b"null"
        choice = b'{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":%b}' % (index, delta, logprobs, reason)
        if end is None or len(self.wanted) > 1:
            return self._front + choice + self._back
        return self._front + choice + b'],"timings":' + _encode(figures.timings(end)) + self._back[1:]

    def ends(self) -> bytes:
        """Return the count of tokens, if it was asked for, and the end mark."""
        if not self._says_usage:
            return DONE
        return (
            b"data: "
            + _encode(self._head("chat.completion.chunk") | {"choices": []} | self._summary())
            + b"\n\n"
            + DONE
        )

    def fails(self, error: RbeeError) -> bytes:
        """Return the error, which clients raise, and the end mark."""
        return b"data: " + _encode(error_body(error)) + b"\n\n" + DONE

    def whole(self) -> bytes:
        """Return the object of all answers."""
        choices = [self._choice(index, answer) for index, answer in enumerate(self._answers)]
        return _encode(self._head("chat.completion") | {"choices": choices} | self._summary())

    def _choice(self, index: int, answer: parts.Collected) -> dict[str, Any]:
        assert answer.end is not None
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []}
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if answer.calls:
            message |= {"content": answer.text or None, "tool_calls": whole_calls(self._moment, index, answer)}
        likely = [figures.likelihood(one) for one in answer.logprobs]
        logprobs = {"content": likely, "refusal": None} if likely else None
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": answer.end.reason}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self._moment.request_id}",
            "object": kind,
            "created": self._moment.now_unix,
            "model": self._model,
            "system_fingerprint": self._moment.fingerprint,
        }

    def _summary(self) -> dict[str, Any]:
        ends = [answer.end for answer in self._answers if answer.end]
        one = {"timings": figures.timings(ends[0])} if len(ends) == 1 else {}
        return {"usage": figures.usage(ends), **one}


def several(wanted: wire.PoolInference, count: int) -> list[wire.PoolInference]:
    """Return a request for each of `count` answers to one prompt, each with a name and a seed of its own."""
    requests = [wanted]
    for number in range(1, count):
        seed = None if wanted.seed is None else (wanted.seed + number) % (1 << 32)
        name = f"{(wanted.request_id or '')[:56]}-{number}"
        requests.append(msgspec.structs.replace(wanted, seed=seed, request_id=name))
    return requests


_NAMES = (*NAMES, ("logprobs", "top_logprobs"), ("template_arguments", "chat_template_kwargs"))


def _internal(body: ChatBody) -> dict[str, Any]:
    """Return the fields of the internal request."""
    said = body.chosen()
    if body.max_completion_tokens is not None:
        said["max_tokens"] = None if body.max_completion_tokens == NO_LIMIT else body.max_completion_tokens
    if body.top_logprobs is not None and not body.logprobs:
        raise fields.wrong("top_logprobs", "it needs `logprobs`")
    said |= {
        "messages": messages.internal(body.messages),
        "logprobs": (body.top_logprobs or 0) if body.logprobs else None,
        "template_arguments": _template_arguments(body),
    }
    if body.response_format and body.response_format.type != "text":
        said["json_schema"] = _schema(body.response_format)
    return said


def _template_arguments(body: ChatBody) -> dict[str, Any]:
    effort = body.reasoning_effort
    hints = {} if effort is None else {"reasoning_effort": effort}
    hints |= {"enable_thinking": False} if effort == "none" else {}
    return hints | (body.chat_template_kwargs or {})


def _schema(wanted: Format) -> dict[str, Any]:
    if wanted.type == "json_object":
        return wanted.schema or {"type": "object"}
    if wanted.json_schema is None or wanted.json_schema.schema is None:
        raise fields.wrong("response_format.json_schema", "it needs a `schema`")
    return wanted.json_schema.schema
