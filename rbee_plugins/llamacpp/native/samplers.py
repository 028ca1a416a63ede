"""Chooses the next token: chains of llama.cpp's samplers, and what is done to the logits before them."""

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from rbee_plugins.llamacpp.native.bindings import NativeError, lib
from rbee_plugins.llamacpp.native.context import Context
from rbee_plugins.llamacpp.native.model import NativeModel
from rbee_plugins.llamacpp.sampling import Plan, Step

if TYPE_CHECKING:
    from rbee_plugins.llamacpp.native.logits import Logits

_NEVER: Final = float("-inf")


class Constraint(Protocol):
    """What the text has to fit. It is told every token, in order."""

    ended: bool

    def forbid(self, values: "Logits") -> None:
        """Make it impossible that a token follows which would not fit. Raises `InvalidRequest` if none would."""
        ...

    def accept(self, token: int) -> None:
        """Go on behind `token`."""
        ...


class Likely(NamedTuple):
    """How likely a chosen token was, and which others were likeliest: natural logarithms of the model's own numbers."""

    logprob: float
    top: list[tuple[int, float]]


class Sampler:
    """Chooses tokens; belongs to one request. Rows are those of the logits that a context computed last."""

    def __init__(self, plan: Plan, model: NativeModel, constraint: Constraint | None = None) -> None:
        self._plan = plan
        self._model = model
        self._constraint = constraint
        self._chosen = 0
        self._kept: Logits | None = None
        # Most requests change no logits, and then nothing is looked at but the chain.
        self._plain = constraint is None and not (plan.min_tokens or plan.endless or plan.logprobs)
        self._chain: int | None = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        for step in plan.steps:
            lib.llama_sampler_chain_add(self._chain, _made(step, model))

    @property
    def ended(self) -> bool:
        """Whether the text is complete: nothing that may follow would fit."""
        return self._constraint is not None and self._constraint.ended

    def choose(self, context: Context, row: int = -1) -> int:
        """Return the next token from this row, and go on behind it. Raises `InvalidRequest` if none would fit."""
        if self._plain:
            return lib.llama_sampler_sample(self._chain, context.handle, row)
        self._prepare(context, row)
        token = lib.llama_sampler_sample(self._chain, context.handle, row)
        self._chosen += 1
        if self._constraint is not None:
            self._constraint.accept(token)
        return token

    def _prepare(self, context: Context, row: int) -> None:
        """Keep the logits if they are asked for later, and forbid what must not follow."""
        if self._plan.logprobs:
            self._kept = self._logits(context, row).copy()
        if self._plan.endless or self._chosen < self._plan.min_tokens:
            values = lib.llama_get_logits_ith(context.handle, row)
            for token in self._model.ends:
                values[token] = _NEVER
        if self._constraint is not None:
            self._constraint.forbid(self._logits(context, row))

    def _logits(self, context: Context, row: int) -> "Logits":
        from rbee_plugins.llamacpp.native import logits  # brings numpy: a tenth of a second that few requests need

        values = lib.llama_get_logits_ith(context.handle, row)
        if not values:
            raise NativeError(f"llama.cpp has no logits in row {row}")
        return logits.view(ctypes.addressof(values.contents), self._model.vocabulary_size)

    def logprobs(self, context: Context, row: int, token: int, top: int) -> Likely:
        """Return how likely `token`, just chosen from this row, was, and the `top` likeliest tokens there."""
        from rbee_plugins.llamacpp.native import logits

        values = self._logits(context, row) if self._kept is None else self._kept
        return Likely(*logits.likely(values, token, top))

    def close(self) -> None:
        """Free the chain and its samplers."""
        if self._chain:
            lib.llama_sampler_free(self._chain)
        self._chain = None


def _made(step: Step, model: NativeModel) -> Any:
    """Return the native sampler for `step`; the chain that it is put into frees it."""
    make: Callable[..., Any] = getattr(lib, f"llama_sampler_init_{step.name}")
    match step.name, step.arguments:
        case "logit_bias", (size, biases):
            pairs = (lib.llama_logit_bias * len(biases))(*biases)
            return make(size, len(biases), pairs)
        case "dry", (*numbers, breakers):
            texts = (ctypes.c_char_p * len(breakers))(*breakers)
            return make(model.vocabulary_handle, *numbers, texts, len(breakers))
        case _, arguments:
            return make(*arguments)
