"""Which text lies in which sequence of the context, and how a new one gets a place. Belongs to the loop's thread.

`prefix` decides where a text starts from; here that is done. What the context holds and what is known of it change
together.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from rbee_plugins.llamacpp import native, prefix


class Place(NamedTuple):
    """A sequence with so many tokens of the prompt in it; `why` not more."""

    sequence: int
    kept: int
    why: str


class Places:
    """The sequences of a context, and what each holds."""

    def __init__(self, context: native.Context) -> None:
        self._context = context
        self.held = [prefix.Held(number) for number in range(context.sequences)]
        self._gone = prefix.Evictions()
        self._uses = 0

    def take(
        self, prompt: Sequence[int], request_id: str, taken: Collection[int], beside: Collection[int], *, reuse: bool
    ) -> Place:
        """Give `prompt` one of the sequences that are not `taken`, with what of it is computed already.

        It will be computed with those `beside` it; without `reuse`, from nothing.
        """
        free = [held for held in self.held if held.sequence not in taken]
        start = prefix.choose(prompt, free, self._gone, reuse=reuse, beside=beside)
        held, source = self.held[start.sequence], self.held[start.source]
        if held is not source:
            held = self._copied(source, held, request_id)
        if held is source:
            self._gone.note(held.tokens, start.kept, request_id)
        kept, why = min(start.kept, len(held.tokens)), start.why
        if not self._context.keep(held.sequence, kept):
            kept, why = 0, prefix.NOT_CUTTABLE if kept else why
        del held.tokens[kept:]
        self._uses += 1
        held.used = self._uses
        return Place(held.sequence, kept, why)

    def _copied(self, source: prefix.Held, target: prefix.Held, request_id: str) -> prefix.Held:
        """Return `target` with what `source` holds, or `source` itself where that cannot be copied."""
        self._gone.note(target.tokens, 0, request_id)
        target.tokens.clear()
        if not self._context.restore(target.sequence, self._context.save(source.sequence)):
            return source
        target.tokens += source.tokens
        return target

    def clear(self) -> None:
        """Forget everything: what the memory holds after a failure is not known."""
        self._context.clear()
        for held in self.held:
            held.tokens.clear()
