"""Vectors and scores of texts: which pooling, which texts together, and the context that computes them.

The context is one of its own beside that for text, as llama.cpp fixes pooling and outputs when it makes one. It is made
at the first request that needs it, made anew for another pooling or a longer text, and used for one call at a time,
while the loop that generates goes on.
"""

import math
import re
import threading
from collections.abc import Callable, Generator, Iterator, Sequence

import psutil

from rbee_core.backend import CancelToken, Embedded, EmbedRequest, Ranked, RerankRequest, Tuning
from rbee_core.backend.gguf import GgufHeader
from rbee_core.errors import InvalidRequest, PromptTooLong
from rbee_plugins.llamacpp.memory import BATCH_TOKENS, check_room
from rbee_plugins.llamacpp.native.embedding import EmbeddingContext
from rbee_plugins.llamacpp.native.model import NativeModel
from rbee_plugins.llamacpp.native.tuning import Adapters
from rbee_plugins.llamacpp.tokens import Tokens

TEXTS_TOGETHER = 16
LOOK_S = 0.1

_POOLINGS = {1: "mean", 2: "cls", 3: "last", 4: "rank"}
_SCORES = frozenset({"cls.weight", "cls.output.weight"})  # one of them makes scores of what was read


class Embedder:
    """Vectors and scores of one model. Its methods may be called in any number of threads."""

    def __init__(
        self,
        model: NativeModel,
        header: GgufHeader,
        adapters: Adapters,
        tuning: Tuning,
        *,
        limit_tokens: int,
        threads: int,
    ) -> None:
        """`limit_tokens` is the most that one text may have."""
        self._model = model
        self._header = header
        self._adapters = adapters
        self._tuning = tuning
        self._limit = min(limit_tokens, header.context_length or limit_tokens)
        self._tokens = Tokens(model, self._limit)
        self._threads = threads
        self._lock = threading.Lock()
        self._context: EmbeddingContext | None = None

    def embed(self, request: EmbedRequest, cancel: CancelToken) -> Iterator[Embedded]:
        """Yield a vector for each text; fewer once cancelled."""
        pooling = pooling_of(self._header, request.pooling or self._tuning.pooling)
        texts = self._read(request.texts, lambda text: self._text(text, cancel), cancel)
        for index, values in self._compute(texts, pooling, cancel):
            vector = normalized(values) if request.normalize else values
            yield Embedded(index, vector, len(texts[index]))

    def rerank(self, request: RerankRequest, cancel: CancelToken) -> Iterator[Ranked]:
        """Yield a score for each document; fewer once cancelled."""
        if not _SCORES & {tensor.name for tensor in self._header.tensors}:
            raise InvalidRequest(
                "This model cannot score documents: it has no part that does so",
                hint="use a model that was made for reranking, such as bge-reranker or Qwen3-Reranker",
            )
        template = self._header.text("tokenizer.chat_template.rerank")
        query = [] if template else self._plain(request.query)

        def pair(document: str) -> list[int]:
            if template:
                return self._text(filled(template, request.query, document), cancel, add_special=False)
            return self._model.pair(query, self._plain(document))

        texts = self._read(request.documents, pair, cancel)
        for index, values in self._compute(texts, "rank", cancel):
            yield Ranked(index, float(values[0]), len(texts[index]))

    def _plain(self, text: str) -> list[int]:
        return self._tokens.plain(text.encode(errors="replace"))

    def _text(self, text: str, cancel: CancelToken, *, add_special: bool = True) -> list[int]:
        return self._tokens.of(text.encode(errors="replace"), cancel, add_special=add_special)

    def _read(self, texts: Sequence[str], read: Callable[[str], list[int]], cancel: CancelToken) -> list[list[int]]:
        """Return the tokens of each text; of none once cancelled. Nothing is computed if one of them cannot be."""
        found: list[list[int]] = []
        for number, text in enumerate(texts):
            tokens = read(text)
            if cancel.is_set():
                return []
            if not tokens:
                raise InvalidRequest(f"Text number {number} is empty", hint="write at least one character")
            if len(tokens) > self._limit:
                raise PromptTooLong(prompt_tokens=len(tokens), context_tokens=self._limit)
            found.append(tokens)
        return found

    def _compute(
        self, texts: Sequence[list[int]], pooling: str, cancel: CancelToken
    ) -> Generator[tuple[int, Sequence[float]]]:
        longest = max(map(len, texts), default=0)
        for together in packed([len(text) for text in texts]):
            with _Turn(self._lock, cancel) as has_it:
                if not has_it:
                    return
                context = self._made(pooling, longest)
                results = context.compute([texts[index] for index in together], cancel.is_set)
            if not results:
                return
            yield from zip(together, results, strict=True)

    def _made(self, pooling: str, longest: int) -> EmbeddingContext:
        """Return a context for texts as long as `longest`: the one that is there, if it will do."""
        there = self._context
        if there and there.pooling == pooling and there.batch_tokens >= longest:
            return there
        if there:
            self._context = None
            there.close()
        tokens = room_for(longest)
        check_room(self._header, tokens, psutil.virtual_memory().available)
        self._context = EmbeddingContext(
            self._model, self._adapters, pooling=pooling, batch_tokens=tokens,
            texts=TEXTS_TOGETHER, threads=self._threads,
        )  # fmt: skip
        return self._context

    def close(self) -> None:
        """Free the context. Before the model is freed, when no request runs."""
        if self._context:
            self._context.close()
        self._context = None


class _Turn:
    """A lock that is waited for only as long as somebody waits for what comes of it."""

    def __init__(self, lock: threading.Lock, cancel: CancelToken) -> None:
        self._lock = lock
        self._cancel = cancel
        self._has_it = False

    def __enter__(self) -> bool:
        while not (self._has_it or self._cancel.is_set()):
            self._has_it = self._lock.acquire(timeout=LOOK_S)
        return self._has_it

    def __exit__(self, *_: object) -> None:
        if self._has_it:
            self._lock.release()


def filled(template: str, query: str, document: str) -> str:
    """Return a template with the two in their places; what looks like a place within them is only text."""
    return re.sub(r"\{(query|document)\}", lambda found: query if found[1] == "query" else document, template)


def pooling_of(header: GgufHeader, asked: str | None) -> str:
    """Return how the tokens of a text become one vector: as asked, or as the model was made to.

    Raises `InvalidRequest` for a model that does not say, and for one that makes no vectors.
    """
    own = _POOLINGS.get(header.number("pooling_type"), "")
    if own == "rank":
        raise InvalidRequest("This model scores documents, and makes no vectors", hint="ask it to rerank")
    if not (asked or own):
        raise InvalidRequest(
            "This model was not made for vectors: it does not say how the tokens of a text become one",
            hint="use an embedding model, or name a pooling: mean or last",
        )
    return asked or own


def packed(lengths: Sequence[int], tokens: int = BATCH_TOKENS, texts: int = TEXTS_TOGETHER) -> Iterator[list[int]]:
    """Yield which texts, by their numbers, are computed together: so many and no more tokens, a longer one alone."""
    together: list[int] = []
    room = tokens
    for number, length in enumerate(lengths):
        if together and (length > room or len(together) == texts):
            yield together
            together, room = [], tokens
        together.append(number)
        room -= length
    if together:
        yield together


def room_for(longest: int) -> int:
    """Return the size of a context for texts of up to so many tokens: what grows, grows to twice its size."""
    return max(BATCH_TOKENS, 1 << (longest - 1).bit_length())


def normalized(values: Sequence[float]) -> list[float]:
    """Return `values` with length 1; zeros stay zeros."""
    length = math.sqrt(math.fsum(value * value for value in values))
    return [value / length for value in values] if length else list(values)
