"""`POST /v1/completions`: texts that are gone on with."""

from collections.abc import Sequence
from typing import Annotated, Any, Self

import msgspec
from msgspec import Meta

from rbee_core import wire
from rbee_core.dialects import fields, parts
from rbee_core.dialects.openai import figures
from rbee_core.dialects.openai.chat import COMMENT, DONE, several
from rbee_core.dialects.openai.errors import error_body
from rbee_core.dialects.openai.requests import MOST_ANSWERS, NAMES, SHARED, Choosing
from rbee_core.dialects.talk import Moment, Talk
from rbee_core.errors import RbeeError

_encode = msgspec.json.encode
NO_IDS = "tokens are the model's own, and clients' are of another: send text"


class CompletionBody(Choosing, kw_only=True):
    """The body of a completion."""

    prompt: str | list[str | int | list[int]]
    suffix: str | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    best_of: int | None = None

    def prompts(self) -> list[str]:
        """Return the texts to go on with. Raises `InvalidRequest` for numbers of tokens, and for too many."""
        said = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        texts = [text for text in said if isinstance(text, str)]
        if len(texts) < len(said):
            raise fields.refusal("prompt", NO_IDS)
        if not 1 <= len(texts) * self.answers <= MOST_ANSWERS:
            raise fields.wrong("prompt", f"a request has 1 to {MOST_ANSWERS} answers, of all prompts together")
        if (self.best_of or 1) > self.answers:
            raise fields.refusal("best_of", "an answer is not made to be thrown away")
        return texts


FIELDS = (
    *fields.honoured("prompt", note="a text, or several; numbers of tokens are refused"),
    *fields.honoured("suffix", note="for models that were trained for it"),
    *fields.honoured("echo", note="the prompt stands before the answer; it has no `logprobs`"),
    *fields.honoured("logprobs", note="so many likeliest others of each token, up to 20"),
    *fields.honoured("best_of", note="up to `n`, where it means nothing"),
    *SHARED,
)


class CompletionTalk(Talk):
    """One completion being answered; its answers are numbered prompt by prompt."""

    def __init__(self, body: CompletionBody, wanted: Sequence[wire.PoolInference], moment: Moment) -> None:
        self.wanted = wanted
        self.streams = bool(body.stream)
        self._body = body
        self._moment = moment
        self._answers = [parts.Collected() for _ in wanted]
        self._begun: set[int] = set()
        self._lengths = [0] * len(wanted)

    @classmethod
    def read(cls, data: bytes, moment: Moment) -> Self:
        """Read a body. Raises `InvalidRequest`."""
        body = fields.read(data, CompletionBody, FIELDS)
        wanted: list[wire.PoolInference] = []
        for number, prompt in enumerate(body.prompts()):
            name = f"{moment.request_id[:48]}-p{number}" if number else moment.request_id
            said = body.chosen() | {"prompt": prompt, "suffix": body.suffix, "logprobs": body.logprobs}
            one = fields.as_internal(wire.PoolInference, NAMES, **said, request_id=name)
            wanted += several(one, body.answers)
        return cls(body, wanted, moment)

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
        return b"".join(self._chunk(index, part) for part in said)

    def _chunk(self, index: int, part: parts.Part) -> bytes:
        echo = self._echo(index) if index not in self._begun else ""
        self._begun.add(index)
        choice: dict[str, Any] = {"index": index, "text": echo, "logprobs": None, "finish_reason": None}
        more: dict[str, Any] = {}
        if isinstance(part, parts.Text):
            choice["text"] += part.text
            if part.logprobs:
                choice["logprobs"] = _likelihoods([part.logprobs], len(echo) + self._lengths[index])
            self._lengths[index] += len(choice["text"])
        elif isinstance(part, parts.End):
            self._answers[index].add((part,))
            choice["finish_reason"] = part.reason
            more = {"timings": figures.timings(part)} if len(self.wanted) == 1 else {}
        if not (choice["text"] or choice["logprobs"] or choice["finish_reason"]):
            return b""
        usage = {"usage": None} if self._body.says_usage else {}
        return b"data: " + _encode(self._head() | {"choices": [choice]} | more | usage) + b"\n\n"

    def ends(self) -> bytes:
        """Return the count of tokens, if it was asked for, and the end mark."""
        if not self._body.says_usage:
            return DONE
        return b"data: " + _encode(self._head() | {"choices": []} | self._summary()) + b"\n\n" + DONE

    def fails(self, error: RbeeError) -> bytes:
        """Return the error, which clients raise, and the end mark."""
        return b"data: " + _encode(error_body(error)) + b"\n\n" + DONE

    def whole(self) -> bytes:
        """Return the object of all answers."""
        choices = [self._choice(index, answer) for index, answer in enumerate(self._answers)]
        return _encode(self._head() | {"choices": choices} | self._summary())

    def _choice(self, index: int, answer: parts.Collected) -> dict[str, Any]:
        assert answer.end is not None
        echo = self._echo(index)
        likely = _likelihoods(answer.logprobs, len(echo)) if answer.logprobs else None
        return {"index": index, "text": echo + answer.text, "logprobs": likely, "finish_reason": answer.end.reason}

    def _echo(self, index: int) -> str:
        return (self.wanted[index].prompt or "") if self._body.echo else ""

    def _head(self) -> dict[str, Any]:
        return {
            "id": f"cmpl-{self._moment.request_id}",
            "object": "text_completion",
            "created": self._moment.now_unix,
            "model": self._body.model,
            "system_fingerprint": self._moment.fingerprint,
        }

    def _summary(self) -> dict[str, Any]:
        ends = [answer.end for answer in self._answers if answer.end]
        one = {"timings": figures.timings(ends[0])} if len(ends) == 1 else {}
        return {"usage": figures.usage(ends, self._body.answers), **one}


def _likelihoods(likely: Sequence[wire.Logprobs], offset: int) -> dict[str, Any]:
    """Return probabilities as a completion says them; `offset` is where the first token stands in the text."""
    offsets: list[int] = []
    for one in likely:
        offsets.append(offset)
        offset += len(one.token)
    return {
        "tokens": [one.token for one in likely],
        "token_logprobs": [one.logprob for one in likely],
        "top_logprobs": [{other.token: other.logprob for other in one.top} for one in likely],
        "text_offset": offsets,
    }
