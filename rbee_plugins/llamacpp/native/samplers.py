"""Chooses the next token: chains of llama.cpp's samplers."""

from collections.abc import Iterable

from rbee_plugins.llamacpp.native.context import Context
from rbee_plugins.llamacpp.native.library import lib
from rbee_plugins.llamacpp.sampling import Step


class Sampler:
    """Chooses tokens; belongs to one request."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self._chain: int | None = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        for step in steps:
            make = getattr(lib, f"llama_sampler_init_{step.name}")
            lib.llama_sampler_chain_add(self._chain, make(*step.arguments))

    def choose(self, context: Context, row: int = -1) -> int:
        """Return the next token from this row of the logits that `context` computed last, and remember it."""
        return lib.llama_sampler_sample(self._chain, context.handle, row)

    def close(self) -> None:
        """Free the chain and its samplers."""
        if self._chain:
            lib.llama_sampler_free(self._chain)
        self._chain = None
