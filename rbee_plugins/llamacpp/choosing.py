"""From a request to the sampler that chooses its tokens, for one model."""

import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rbee_core.backend import CancelToken, GenerateRequest, Token, TokenLogprob
from rbee_core.errors import InvalidRequest
from rbee_plugins.llamacpp import gbnf, native, sampling
from rbee_plugins.llamacpp.aside import Aside
from rbee_plugins.llamacpp.jobs import Made

DRY_BREAKERS = GenerateRequest().dry_breakers

if TYPE_CHECKING:
    from rbee_plugins.llamacpp.native.grammar import Begin, Grammars


class Samplers:
    """Builds the samplers of one model's requests."""

    def __init__(self, model: native.NativeModel) -> None:
        self._model = model
        self._first = threading.Lock()
        self._known: Grammars | None = None
        self._aside = Aside(native.Sampler.close)

    def build(self, request: GenerateRequest, cancel: CancelToken) -> native.Sampler | None:
        """Return the sampler for `request`, which whoever gets it closes; None once cancelled.

        Raises `InvalidRequest` for a token that the model does not have, for a grammar that cannot be used, and for
        what takes too long to be made ready.
        """
        size = self._model.vocabulary_size
        if wrong := [token for token in request.logit_bias if token >= size]:
            raise InvalidRequest(f"logit_bias names token {wrong[0]}, and this model has {size}, counted from 0")
        if request.min_tokens or request.ignore_eos:
            _ = self._model.ends  # found here, not between two steps of everybody's
        plan, begin = sampling.plan(request, size), self._begin(request)

        def make() -> native.Sampler:
            return native.Sampler(plan, self._model, begin() if begin else None)

        what = slow_part(request)
        return self._aside.make(what, make, cancel) if what else make()

    def close(self) -> None:
        """Let go of the model, before it is freed."""
        self._aside.close()

    def _begin(self, request: GenerateRequest) -> "Begin | None":
        """Return what begins a text that is held to the grammar, schema or expression that the request names."""
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

    def token(self, text: str, made: Made) -> Token:
        """Return what the engine yields for a token; how likely it was is there if logprobs are wanted."""
        token, _last, likely, guesses, guessed = made
        if likely is None:
            return Token(text, guesses=guesses, guessed=guessed)
        top = tuple(TokenLogprob(one, self._piece(one), logprob) for one, logprob in likely.top)
        return Token(text, TokenLogprob(token, self._piece(token), likely.logprob), top, guesses, guessed)

    def _piece(self, token: int) -> bytes:
        return self._model.piece(token, special=True)


def slow_part(request: GenerateRequest) -> str:
    """Return what of a request may take long to be made ready, "" for nothing."""
    forms = [name for name in ("grammar", "json_schema", "regex") if getattr(request, name) is not None]
    if request.dry_multiplier > 0 and request.dry_breakers != DRY_BREAKERS:
        forms.append("dry_breakers")  # llama.cpp looks for each in every token
    return " and ".join(forms)
