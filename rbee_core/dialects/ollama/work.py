"""`POST /api/chat` and `/api/generate`: a body in, lines or one object out."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import msgspec

from rbee_core import wire
from rbee_core.dialects import fields, parts
from rbee_core.dialects.ollama import messages
from rbee_core.dialects.ollama.errors import error_body
from rbee_core.dialects.ollama.messages import Tool, Turn
from rbee_core.dialects.ollama.models import moment as written
from rbee_core.dialects.ollama.requests import NAMES, SHARED, Working
from rbee_core.dialects.talk import Moment, Talk
from rbee_core.errors import RbeeError

NDJSON = "application/x-ndjson"
STILL_HERE = b" "
"""Blanks before a line are part of its JSON, and every client reads lines; an empty line would be one too many."""
NS_IN_MS = 1_000_000
_encode = msgspec.json.encode


class ChatBody(Working):
    """The body of a chat. Without messages the model is loaded."""

    messages: list[Turn] | None = None
    tools: list[Tool] | None = None


class GenerateBody(Working):
    """The body of a completion. Without a prompt the model is loaded."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    raw: bool | None = None


CHAT = (
    *fields.honoured(
        "messages", note="roles system, user, assistant, tool, with `thinking`, `tool_calls`, `tool_name`"
    ),
    *fields.refused("images", note="models are given text only"),
    *fields.honoured("tools", note="functions; calls are told from text where the model's notation is known"),
    *SHARED,
    *fields.ignored("truncate", "shift"),
)
GENERATE = (
    *fields.honoured("prompt", note="answered through the model's chat template; with `raw` or `suffix` continued"),
    *fields.honoured("suffix", note="what is between `prompt` and this is written, by models that can"),
    *fields.honoured("system", "raw"),
    *SHARED,
    *fields.ignored("truncate", "shift"),
    *fields.refused("template", note="the model's own is used; `raw` takes a prompt as it is"),
    *fields.refused("context", note="send `messages` to `/api/chat`, or the text before with `raw`"),
    *fields.refused("images", note="models are given text only"),
    *fields.refused("width", "height", "steps", note="models write text only"),
)


class Lines(Talk):
    """A request being answered in lines. Subclasses say how a text, a thought and calls look."""

    media: ClassVar[str] = NDJSON

    def __init__(self, body: Working, wanted: wire.PoolInference | None, moment: Moment) -> None:
        """Without `wanted`, there is nothing to say but that the model is loaded."""
        self.body = body
        self.wanted = [wanted] if wanted else []
        self.streams = body.streams
        self._collected = parts.Collected()
        self._head = {"model": body.said, "created_at": written(moment.now_unix)}
        self._request_id = moment.request_id
        self._told_calls = 0

    @abstractmethod
    def says(self, text: str, thought: str = "", calls: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Return the fields of a line that says this."""

    def begins(self) -> bytes:
        """Nothing comes before the answer."""
        return b""

    def still_here(self) -> bytes:
        """Return a blank."""
        return STILL_HERE

    def tells(self, index: int, said: Sequence[parts.Part]) -> bytes:
        """Return a line for each text, and one for calls once their arguments are whole."""
        del index
        if self.streams:
            return b"".join([self._told(part) for part in said])
        self._collected.add(said)
        return b""

    def _told(self, part: parts.Part) -> bytes:
        line = self._tell(part)  # of the calls before this part
        if not isinstance(part, parts.Text | parts.Reasoning):
            self._collected.add([part])
        return line

    def _tell(self, part: parts.Part) -> bytes:
        match part:
            case parts.Text(text, likely):
                odds = {} if likely is None else {"logprobs": [_likelihood(likely)]}
                return self._call_line() + (self._line(self.says(text) | odds) if text or odds else b"")
            case parts.Reasoning(text):
                return self._call_line() + self._line(self.says("", text))
            case parts.CallBegins():
                return self._call_line()
            case parts.Arguments():
                return b""
            case parts.End():
                return self._call_line()

    def _call_line(self) -> bytes:
        """Return a line with the calls that are whole and were not told yet."""
        told, self._told_calls = self._told_calls, len(self._collected.calls)
        text, calls = self._said_calls(told)
        return self._line(self.says(text, calls=calls)) if text or calls else b""

    def _said_calls(self, first: int) -> tuple[str, list[dict[str, Any]]]:
        """Return the calls from `first` on; one whose arguments are no object is the text that the model wrote."""
        text, calls = "", list[dict[str, Any]]()
        for number, (name, pieces) in enumerate(self._collected.calls[first:], first):
            arguments = _object("".join(pieces))
            if arguments is None:
                text += f"{name}({''.join(pieces)})"
            else:
                function = {"index": number, "name": name, "arguments": arguments}
                calls.append({"id": f"call_{self._request_id}_{number}", "function": function})
        return text, calls

    def _line(self, said: Mapping[str, Any]) -> bytes:
        return _encode({**self._head, **said, "done": False}) + b"\n"

    def ends(self) -> bytes:
        """Return the last line, with the figures."""
        return _encode({**self._head, **self.says(""), **self._figures()}) + b"\n"

    def fails(self, error: RbeeError) -> bytes:
        """Return the error as the last line, which clients raise."""
        return _encode(error_body(error)) + b"\n"

    def whole(self) -> bytes:
        """Return the answer as one object."""
        answer = self._collected
        text, calls = self._said_calls(0)
        odds = [_likelihood(one) for one in answer.logprobs]
        told = self.says(answer.text + text, answer.reasoning, calls) | ({"logprobs": odds} if odds else {})
        return _encode({**self._head, **told, **self._figures()})

    def only(self, reason: str) -> bytes:
        """Return the whole answer to a request that wants no text: why there is none."""
        end = b"\n" if self.streams else b""
        return _encode({**self._head, **self.says(""), "done": True, "done_reason": reason}) + end

    def _figures(self) -> dict[str, Any]:
        assert self._collected.end is not None
        end, figures = self._collected.end, self._collected.end.figures
        return {
            "done": True,
            "done_reason": "length" if end.reason == "length" else "stop",
            "total_duration": figures.duration_ms * NS_IN_MS,
            "load_duration": 0,
            "prompt_eval_count": figures.prompt_tokens,
            "prompt_eval_duration": figures.first_token_ms * NS_IN_MS,
            "eval_count": figures.total_tokens,
            "eval_duration": max(0, figures.duration_ms - figures.first_token_ms) * NS_IN_MS,
        }


class ChatTalk(Lines):
    """One chat being answered."""

    @classmethod
    def read(cls, data: bytes, moment: Moment) -> Self:
        """Read a body. Raises `InvalidRequest`."""
        body = fields.read(data, ChatBody, CHAT)
        _ = body.kept_s  # a wrong one is refused before anything happens
        if not body.messages:
            return cls(body, None, moment)
        shared = body.shared()
        said = shared | {
            "messages": messages.internal(body.messages),
            "template_arguments": body.hints() or None,
        }
        offer = messages.offer_of(body.tools)
        said |= offer.fields(shared["json_schema"])
        wanted = fields.as_internal(wire.PoolInference, NAMES, **said, request_id=moment.request_id)
        talk = cls(body, wanted, moment)
        talk.offer = offer
        return talk

    def says(self, text: str, thought: str = "", calls: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Return a message."""
        message: dict[str, Any] = {"role": "assistant", "content": text}
        message |= {"thinking": thought} if thought else {}
        return {"message": message | ({"tool_calls": calls} if calls else {})}


class GenerateTalk(Lines):
    """One completion being answered."""

    @classmethod
    def read(cls, data: bytes, moment: Moment) -> Self:
        """Read a body. Raises `InvalidRequest`."""
        body = fields.read(data, GenerateBody, GENERATE)
        _ = body.kept_s
        if not body.prompt and not body.suffix:
            return cls(body, None, moment)
        said = body.shared() | _asked(body)
        return cls(body, fields.as_internal(wire.PoolInference, NAMES, **said, request_id=moment.request_id), moment)

    def says(self, text: str, thought: str = "", calls: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Return a piece of the response; there are no tools here."""
        del calls
        return {"response": text} | ({"thinking": thought} if thought else {})


def _asked(body: GenerateBody) -> dict[str, Any]:
    """Return the prompt to continue, or the conversation to answer."""
    if body.raw or body.suffix:
        return {"prompt": body.prompt or "", "suffix": body.suffix or None}
    system = [{"role": "system", "content": body.system}] if body.system else []
    return {
        "messages": [*system, {"role": "user", "content": body.prompt}],
        "template_arguments": body.hints() or None,
    }


def _object(text: str) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        return None


def _likelihood(one: wire.Logprobs) -> dict[str, Any]:
    return {**_token(one), "top_logprobs": [_token(other) for other in one.top]}


def _token(one: wire.TokenLikelihood) -> dict[str, Any]:
    return {"token": one.token, "logprob": one.logprob, "bytes": one.bytes}
