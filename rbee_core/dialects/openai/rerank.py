"""`POST /v1/rerank`: which documents answer a query best, in the shape that Jina's and Cohere's clients know."""

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta

from rbee_core import wire
from rbee_core.dialects import fields


class Document(fields.Foreign):
    """A document with more to it than its text, which alone is read."""

    text: str


class RerankBody(fields.Foreign):
    """The body of a request for an order of documents."""

    model: wire.ModelText
    query: str
    documents: list[str | Document]
    top_n: Annotated[int, Meta(ge=1)] | None = None
    return_documents: bool | None = None

    @property
    def texts(self) -> list[str]:
        """The documents' texts."""
        return [one if isinstance(one, str) else one.text for one in self.documents]


FIELDS = (
    *fields.honoured("model", note="a reference, an alias, or an `id` of `GET /v1/models`; it has to be on this node"),
    *fields.honoured("query", note="a text of one character or more"),
    *fields.honoured("documents", note="up to 2048, each a text or an object with `text`"),
    *fields.honoured("top_n", note="so many of the best; all, without it"),
    *fields.honoured("return_documents", note="true: each result has its `document`"),
    *fields.ignored("user", "priority", "truncation"),
    *fields.ignored("max_tokens_per_doc", "max_chunks_per_doc", note="a text that is too long is refused, never cut"),
)
_NAMES = (("model_ref", "model"),)


def read(data: bytes, request_id: str) -> tuple[RerankBody, wire.PoolRerank]:
    """Read a body. Raises `InvalidRequest`."""
    body = fields.read(data, RerankBody, FIELDS)
    said = {"model_ref": body.model, "query": body.query, "documents": body.texts}
    return body, fields.as_internal(wire.PoolRerank, _NAMES, **said, request_id=request_id)


def answer(body: RerankBody, scores: Sequence[float], prompt_tokens: int, request_id: str) -> dict[str, Any]:
    """Return the documents, the best one first; of equal ones, in their own order."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: body.top_n]
    texts = body.texts if body.return_documents else None
    return {
        "id": f"rerank-{request_id}",
        "object": "list",
        "model": body.model,
        "results": [_result(index, scores[index], texts) for index in order],
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    }


def _result(index: int, score: float, texts: Sequence[str] | None) -> dict[str, Any]:
    document = {} if texts is None else {"document": {"text": texts[index]}}
    return {"index": index, "relevance_score": score} | document
