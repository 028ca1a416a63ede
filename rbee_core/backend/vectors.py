"""What an engine turns into numbers instead of text: vectors of texts, and how well documents answer. See `base`."""

from collections.abc import Sequence

from msgspec import Struct

from rbee_core.domain.tuning import Pooling


class EmbedRequest(Struct, frozen=True):
    """Texts that want a vector each, none of them empty.

    `pooling` says how a text's tokens become one vector; None is for what the worker was started with, or else what
    the model was made for. With `normalize`, vectors have length 1.
    """

    texts: tuple[str, ...]
    pooling: Pooling | None = None
    normalize: bool = True


class Embedded(Struct, frozen=True):
    """The vector of text number `index`, counted from 0; `prompt_tokens` were read for it."""

    index: int
    vector: Sequence[float]
    prompt_tokens: int


class RerankRequest(Struct, frozen=True):
    """Documents that want a score each: how well they answer `query`."""

    query: str
    documents: tuple[str, ...]


class Ranked(Struct, frozen=True):
    """The score of document number `index`, counted from 0, larger for a better answer; the range is the model's own.

    `prompt_tokens` were read for it.
    """

    index: int
    score: float
    prompt_tokens: int
