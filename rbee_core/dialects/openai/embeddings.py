"""`POST /v1/embeddings`: vectors of texts, as numbers or as the bytes of them."""

import base64
import struct
from collections.abc import Sequence
from typing import Any, Literal

from rbee_core import wire
from rbee_core.dialects import fields
from rbee_core.dialects.openai.completions import NO_IDS


class EmbeddingBody(fields.Foreign):
    """The body of a request for vectors."""

    model: wire.ModelText
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = None


FIELDS = (
    *fields.honoured("model", note="a reference, an alias, or an `id` of `GET /v1/models`; it has to be on this node"),
    *fields.honoured("input", note="a text, or up to 2048; numbers of tokens are refused"),
    *fields.honoured("encoding_format", note="`float`, or `base64`: little-endian 32-bit numbers"),
    *fields.ignored("user"),
    *fields.refused("dimensions", note="a vector has as many as the model gives it"),
)


def read(data: bytes, request_id: str) -> tuple[EmbeddingBody, wire.PoolEmbed]:
    """Read a body. Raises `InvalidRequest`."""
    body = fields.read(data, EmbeddingBody, FIELDS)
    said = [body.input] if isinstance(body.input, str) else body.input
    texts = [text for text in said if isinstance(text, str)]
    if len(texts) < len(said):
        raise fields.refusal("input", f"{NO_IDS} (LangChain: check_embedding_ctx_length=False)")
    names = (("model_ref", "model"), ("texts", "input"))
    return body, fields.as_internal(wire.PoolEmbed, names, model_ref=body.model, texts=texts, request_id=request_id)


def answer(body: EmbeddingBody, vectors: Sequence[Sequence[float]], prompt_tokens: int) -> dict[str, Any]:
    """Return the vectors of all texts, in their order."""
    data = [
        {"object": "embedding", "index": index, "embedding": _written(body, vector)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    return {"object": "list", "data": data, "model": body.model, "usage": usage}


def _written(body: EmbeddingBody, vector: Sequence[float]) -> Sequence[float] | str:
    if body.encoding_format != "base64":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
