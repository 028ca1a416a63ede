"""Shapes of what is answered in numbers: vectors of texts, and scores of documents."""

from typing import Annotated

from msgspec import Meta

from rbee_core.domain.tuning import Pooling, Tuning
from rbee_core.wire.base import Lenient, ModelText, RequestId, Seconds, Strict

Text = Annotated[str, Meta(min_length=1)]
Texts = Annotated[list[Text], Meta(min_length=1, max_length=2048)]


class EmbedWanted(Strict):
    """Texts that want a vector each, of length 1 with `normalize`.

    `pooling` is how a text's tokens become one vector; without it, as the worker was told, or else as the model says.
    """

    texts: Texts
    pooling: Pooling | None = None
    normalize: bool = True
    timeout_s: Seconds | None = None


class RerankWanted(Strict):
    """Documents that want a score each: how well they answer `query`."""

    query: Text
    documents: Texts
    timeout_s: Seconds | None = None


class EmbedTask(EmbedWanted, kw_only=True):
    """A worker's `POST /v1/embed`."""

    request_id: RequestId


class RerankTask(RerankWanted, kw_only=True):
    """A worker's `POST /v1/rerank`."""

    request_id: RequestId


class WorkerEmbed(EmbedWanted):
    """`POST /v1/workers/{id}/embed`: with `queue` false, a refusal comes at once when all slots are busy."""

    request_id: RequestId | None = None
    queue: bool = True


class WorkerRerank(RerankWanted):
    """`POST /v1/workers/{id}/score`: with `queue` false, a refusal comes at once when all slots are busy."""

    request_id: RequestId | None = None
    queue: bool = True


class PoolEmbed(WorkerEmbed, kw_only=True):
    """`POST /v1/embed`: a request for a model, as `POST /v1/inference` is."""

    model_ref: ModelText
    backend: Annotated[str, Meta(max_length=64)] | None = None
    device: Annotated[int, Meta(ge=0, le=1023)] | None = None
    context_tokens: Annotated[int, Meta(ge=1, le=1 << 24)] | None = None
    tuning: Tuning = Tuning()


class PoolRerank(WorkerRerank, kw_only=True):
    """`POST /v1/score`: a request for a model, as `POST /v1/inference` is."""

    model_ref: ModelText
    backend: Annotated[str, Meta(max_length=64)] | None = None
    device: Annotated[int, Meta(ge=0, le=1023)] | None = None
    context_tokens: Annotated[int, Meta(ge=1, le=1 << 24)] | None = None
    tuning: Tuning = Tuning()


class VectorEvent(Lenient):
    """The vector of text number `index`, counted from 0. They come in any order."""

    vector: list[float]
    index: int


class ScoreEvent(Lenient):
    """The score of document number `index`, counted from 0: larger for a better answer, in the model's own range."""

    score: float
    index: int
