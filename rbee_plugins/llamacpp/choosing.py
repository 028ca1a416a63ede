"""From a request to the sampler that chooses its tokens, for one model. Called in the request's own thread."""

import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rbee_core.backend import GenerateRequest, Token, TokenLogprob
from rbee_core.errors import InvalidRequest
from rbee_plugins.llamacpp import gbnf, native, sampling

if TYPE_CHECKING:
    from rbee_plugins.llamacpp.native.grammar import Constraint, Grammars


class Samplers:
    """Builds the samplers of one model's requests."""

    def __init__(self, model: native.NativeModel) -> None:
        self._model = model
        self._first = threading.Lock()
        self._known: Grammars | None = None

    def build(self, request: GenerateRequest) -> native.Sampler:
        """Return the sampler for `request`; whoever gets it closes it.

        Raises `InvalidRequest` for a token that the model does not have, and for a grammar that cannot be used.
        """
        size = self._model.vocabulary_size
        if wrong := [token for token in request.logit_bias if token >= size]:
            raise InvalidRequest(f"logit_bias names token {wrong[0]}, and this model has {size}, counted from 0")
        if request.min_tokens or request.ignore_eos:
            _ = self._model.ends  # found here, not between two steps of everybody's
        return native.Sampler(sampling.plan(request, size), self._model, self._constraint(request))

    def close(self) -> None:
        """Let go of the model, before it is freed."""
        if self._known is not None:
            self._known.close()

    def _constraint(self, request: GenerateRequest) -> "Constraint | None":
        """Return what holds the text to the grammar, schema or expression that the request names."""
        if request.grammar is not None:
            return self._grammars().gbnf(gbnf.as_lark(request.grammar))
        if request.json_schema is not None:
            return self._grammars().json_schema(request.json_schema)
        if request.regex is not None:
            return self._grammars().regex(request.regex)
        return None

    def _grammars(self) -> "Grammars":
        if self._known is None:
            if find_spec("llguidance") is None:
                raise InvalidRequest(
                    "A grammar needs the package llguidance, which is not installed",
                    hint="pip install 'rbee[llamacpp]'",
                )
            from rbee_plugins.llamacpp.native.grammar import Grammars  # brings numpy and llguidance

            with self._first:
                self._known = self._known or Grammars(self._model)
        return self._known

    def token(self, text: str, token: int, likely: native.Likely | None = None) -> Token:
        """Return what the engine yields for a token; `likely` is there if logprobs are wanted."""
        if likely is None:
            return Token(text)
        top = tuple(TokenLogprob(one, self._piece(one), logprob) for one, logprob in likely.top)
        return Token(text, TokenLogprob(token, self._piece(token), likely.logprob), top)

    def _piece(self, token: int) -> bytes:
        return self._model.piece(token, special=True)
