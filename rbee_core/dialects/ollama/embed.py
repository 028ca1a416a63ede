"""`POST /api/embed` and `/api/embeddings`: texts in, one object of vectors out."""

import math
from typing import Annotated, Any, Self

import msgspec
from msgspec import Meta

from rbee_core import wire
from rbee_core.dialects import fields
from rbee_core.dialects.ollama.durations import seconds_of
from rbee_core.dialects.ollama.names import FIELDS as NAME
from rbee_core.dialects.ollama.names import Named
from rbee_core.dialects.talk import Moment
from rbee_core.domain.tuning import Tuning


class _Embedding(Named):
    """What both have."""

    options: dict[str, Any] | None = None
    keep_alive: float | str | None = None


class EmbedBody(_Embedding, kw_only=True):
    """Texts that want a vector each; none at all loads the model."""

    input: str | list[str] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None


class EmbeddingsBody(_Embedding):
    """A text that wants a vector; none loads the model."""

    prompt: str | None = None


_SHARED = (
    *NAME,
    *fields.honoured("keep_alive", note="as of a chat"),
    *fields.ignored("options", note="a text that is too long is refused, never cut"),
)
EMBED = (
    *fields.honoured(
        "input", note="a text, or up to 2048; each of one character or more. Without any, the model is loaded"
    ),
    *fields.honoured("dimensions", note="so many first ones of each vector, brought to length 1 again"),
    *_SHARED,
    *fields.ignored("truncate", note="a text that is too long is refused, never cut"),
)
EMBEDDINGS = (*fields.honoured("prompt", note="one text"), *_SHARED)


class EmbedTalk:
    """One request for vectors being answered. `wanted` is None where only the model is to be loaded."""

    def __init__(self, body: _Embedding, texts: list[str], moment: Moment, dimensions: int | None) -> None:
        """Raise `InvalidRequest` for what cannot be."""
        self.reference, self.kept_s = body.reference, seconds_of(body.keep_alive)
        self.wanted: wire.PoolEmbed | None = None
        self._name, self._dimensions = body.said, dimensions
        self._one = isinstance(body, EmbeddingsBody)
        self._vectors: list[list[float]] = []
        self._end = wire.StreamEvent()
        if "" in texts:
            raise fields.wrong(f"input[{texts.index('')}]", "it is empty")
        if texts:
            names = (("texts", "prompt" if self._one else "input"), ("model_ref", "model"))
            self.wanted = fields.as_internal(
                wire.PoolEmbed,
                names,
                model_ref=self.reference,
                texts=texts,
                normalize=not self._one,
                request_id=moment.request_id,
            )

    @classmethod
    def read(cls, data: bytes, moment: Moment) -> Self:
        """Read a body of `/api/embed`. Raises `InvalidRequest`."""
        body = fields.read(data, EmbedBody, EMBED)
        texts = [body.input] if isinstance(body.input, str) and body.input else body.input
        return cls(body, list(texts or ()), moment, body.dimensions)

    @classmethod
    def read_older(cls, data: bytes, moment: Moment) -> Self:
        """Read a body of `/api/embeddings`. Raises `InvalidRequest`."""
        body = fields.read(data, EmbeddingsBody, EMBEDDINGS)
        return cls(body, [body.prompt] if body.prompt else [], moment, None)

    @property
    def loads(self) -> wire.SpawnRequest:
        """What a request without texts asks for: the model, in a worker that has the room to make vectors."""
        return wire.build(wire.SpawnRequest, model_ref=self.reference, tuning=Tuning(embeddings=True))

    def take(self, vectors: list[list[float]], end: wire.StreamEvent) -> None:
        """Take the vectors in the order of the texts, and how the worker's answer ended."""
        self._vectors, self._end = vectors, end

    def whole(self) -> bytes:
        """Return the answer."""
        if self._one:
            return msgspec.json.encode({"embedding": self._vectors[0] if self._vectors else []})
        return msgspec.json.encode(
            {
                "model": self._name,
                "embeddings": [self._cut(vector) for vector in self._vectors],
                "total_duration": self._end.duration_ms * 1_000_000,
                "load_duration": 0,
                "prompt_eval_count": self._end.prompt_tokens,
            }
        )

    def _cut(self, vector: list[float]) -> list[float]:
        if self._dimensions is None or self._dimensions >= len(vector):
            return vector
        kept = vector[: self._dimensions]
        length = math.hypot(*kept) or 1.0
        return [value / length for value in kept]
