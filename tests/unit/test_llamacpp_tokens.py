"""What cannot fit is refused before it is turned into tokens, whichever way it comes."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("llama_cpp")

from rbee_core.backend import CancelToken, EmbedRequest, RerankRequest, Tuning
from rbee_core.errors import PromptTooLong
from rbee_plugins.llamacpp import fill_in
from rbee_plugins.llamacpp.embedding import Embedder
from rbee_plugins.llamacpp.native.model import Vocabulary
from rbee_plugins.llamacpp.splitting import PIECE_BYTES
from rbee_plugins.llamacpp.tokens import Tokens

LIMIT = 2048
HUGE = "bee " * 500_000


class Model:
    """Has tokens of 5 bytes, and looks at no text that is larger than what may fit."""

    vocabulary = Vocabulary(longest_bytes=5, strips=False, specials=(b"<s>",))
    fill_in_tokens = (1, 2, 3)

    def __init__(self, cancel: threading.Event | None = None) -> None:
        self.pieces = 0
        self.cancel = cancel

    def tokenize(self, text: str | bytes, *, add_special: bool, plain: bool = False) -> list[int]:
        assert len(text) <= 2 * PIECE_BYTES
        self.pieces += 1
        if self.cancel:
            self.cancel.set()
        return [7] * (int(add_special) + len(text) // 5)

    def pair(self, first: list[int], second: list[int]) -> list[int]:
        return first + second

    def adds_bos(self) -> bool:
        return False


def embedder(model: Any, template: str = "") -> Embedder:
    header: Any = SimpleNamespace(
        context_length=LIMIT,
        tensors=[SimpleNamespace(name="cls.weight")],
        text=lambda _name: template,
        number=lambda _name: 1,
    )
    nothing: Any = None
    return Embedder(model, header, nothing, Tuning(), limit_tokens=LIMIT, threads=1)


WAYS = {
    "a prompt": lambda model, cancel: Tokens(model, LIMIT).of(HUGE.encode(), cancel, add_special=True),
    "what comes before": lambda model, _: fill_in.tokens(model, Tokens(model, LIMIT), HUGE, "end"),
    "what comes after": lambda model, _: fill_in.tokens(model, Tokens(model, LIMIT), "begin", HUGE),
    "a text": lambda model, cancel: list(embedder(model).embed(EmbedRequest(("bee", HUGE)), cancel)),
    "a query": lambda model, cancel: list(embedder(model).rerank(RerankRequest(HUGE, ("bee",)), cancel)),
    "a document": lambda model, cancel: list(embedder(model).rerank(RerankRequest("bee", (HUGE,)), cancel)),
    "in a template": lambda model, cancel: list(
        embedder(model, "<s>{query}{document}").rerank(RerankRequest("bee", (HUGE,)), cancel)
    ),
}  # fmt: skip


@pytest.mark.parametrize("ask", WAYS.values(), ids=WAYS)
def test_a2_a_text_that_cannot_fit_is_refused_before_it_takes_time(ask: Any) -> None:
    cancel: CancelToken = threading.Event()
    with pytest.raises(PromptTooLong, match=r"at least 40000[01] tokens, the context holds 2048"):
        ask(Model(), cancel)


def test_a2_whoever_leaves_is_noticed_between_two_pieces() -> None:
    cancel = threading.Event()
    model: Any = Model(cancel)
    text = (b"b" * PIECE_BYTES + b"<s>") * 2
    Tokens(model, 9999).of(text, cancel, add_special=False)
    assert model.pieces == 1
