"""Which text lies in which sequence of the context, and how a new one gets a place. Belongs to the loop's thread.

`prefix` decides where a text starts from; here that is done. What the context holds and what is known of it change
together. A text that has to leave is saved if that is worth it. Saving and restoring makes everybody wait: beside texts
that are being written only as much is moved as the pause between two of their tokens may grow by.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from rbee_plugins.llamacpp import native, prefix
from rbee_plugins.llamacpp.planner import Pace
from rbee_plugins.llamacpp.shelf import Shelf
from rbee_plugins.llamacpp.states import WORTH_SAVING, Saved, States

TOO_LARGE = "too large to be restored beside others"
UNUSABLE = "its saved state was of no use"


class Place(NamedTuple):
    """A sequence with so many tokens of the prompt in it; `why` not more."""

    sequence: int
    kept: int
    why: str


class Places:
    """The sequences of a context, what each holds, and the saved states of what they held: of so many bytes at most."""

    def __init__(self, context: native.Context, pace: Pace, limit_bytes: int = 0) -> None:
        self._context = context
        self._pace = pace
        self.held = [prefix.Held(number) for number in range(context.sequences)]
        self.states: States[native.State] = States(limit_bytes)
        self._gone = prefix.Evictions()
        self._uses = 0

    def take(
        self,
        prompt: Sequence[int],
        request_id: str,
        taken: Collection[int],
        beside: Collection[int],
        *,
        reuse: bool,
        generating: int = 0,
    ) -> Place:
        """Give `prompt` one of the sequences that are not `taken`, with what of it is computed already.

        It will be computed with those `beside` it; without `reuse`, from nothing. So many others are `generating`.
        """
        free = [held for held in self.held if held.sequence not in taken]
        for held in free:
            held.floor = self._context.floor(held.sequence) if held.tokens else 0
        start = self._start(prompt, free, beside, generating, reuse=reuse)
        held, source, why = self.held[start.sequence], self.held[start.source], start.why
        if held is not source and not self._may_copy(source, start.kept, generating):
            held = source
        if start.state is not None:
            self.states.use(start.state)  # it is the last to go now
        self._leave(held, start.kept if held is source and start.state is None else 0, request_id, generating)
        if start.state is not None:
            why = self._restored(start.state, held, why)
        elif held is not source:
            held = self._copied(source, held, request_id)
        kept = min(start.kept, len(held.tokens))
        if not self._context.keep(held.sequence, kept):
            kept, why = 0, prefix.NOT_CUTTABLE if kept else why
        del held.tokens[kept:]
        self._uses += 1
        held.used = self._uses
        return Place(held.sequence, kept, why)

    def _start(
        self,
        prompt: Sequence[int],
        free: Sequence[prefix.Held],
        beside: Collection[int],
        generating: int,
        *,
        reuse: bool,
    ) -> prefix.Start:
        start = prefix.choose(prompt, free, self._gone, saved=self.states, reuse=reuse, beside=beside)
        room_bytes = self._pace.move_bytes(generating)
        if start.state is None or start.state.state_bytes <= room_bytes:
            return start
        small = [saved for saved in self.states if saved.state_bytes <= room_bytes]
        return replace(prefix.choose(prompt, free, self._gone, saved=small, beside=beside), why=TOO_LARGE)

    def _leave(self, held: prefix.Held, stays: int, request_id: str, generating: int) -> None:
        """Of what `held` holds, only the first `stays` tokens stay; save it before, if that is worth it."""
        lost = len(held.tokens) - stays
        if (
            lost >= WORTH_SAVING
            and lost > stays
            and self.states.limit_bytes
            and self._saved(held, request_id, generating)
        ):
            return
        self._gone.note(held.tokens, stays, request_id)

    def _saved(self, held: prefix.Held, request_id: str, generating: int) -> bool:
        """Whether a saved state holds what `held` does, now at the latest."""
        if not self.states.lack(held.tokens):
            return True
        size_bytes, floor = self._context.size(held.sequence), self._saved_floor(held)
        if size_bytes > self._pace.move_bytes(generating):
            return False
        lost = self.states.make_room(held.tokens, size_bytes, floor)
        if lost is None:
            return False
        for saved in lost:
            self._gone.note(saved.tokens, 0, request_id)
        started = time.monotonic()
        if (state := self._context.save(held.sequence, self.states.limit_bytes)) is None:
            return False
        self._pace.moved(size_bytes, time.monotonic() - started)
        self.states.add(held.tokens, state, size_bytes, floor)
        return True

    def mark(self, prompt: Sequence[int], kept: int) -> int:
        """Return after how many tokens of `prompt` what is held has to be saved, 0 for never.

        Behind its last token but one, where the memory could not be cut back to that later: for who asks the same
        again, or goes on from another answer.
        """
        mark = len(prompt) - 1
        wanted = self.states.limit_bytes and mark > self._context.cuttable_tokens and mark - kept >= WORTH_SAVING
        return mark if wanted else 0

    def save_point(self, sequence: int, request_id: str, generating: int) -> None:
        """Save what `sequence` holds now, if that is quickly done."""
        self._saved(self.held[sequence], request_id, generating)

    def _saved_floor(self, held: prefix.Held) -> int:
        """Return to how few tokens a saved state can be cut back: llama.cpp saves no more of a window than it needs."""
        return len(held.tokens) if len(held.tokens) > self._context.cuttable_tokens else 0

    def _restored(self, saved: Saved[native.State], held: prefix.Held, why: str) -> str:
        """Let `held` hold what was saved, or nothing if that failed; return why not more of the prompt is there."""
        held.tokens.clear()
        started = time.monotonic()
        if not self._context.restore(held.sequence, saved.state):
            self.states.drop(saved)
            return UNUSABLE
        self._pace.moved(saved.state_bytes, time.monotonic() - started)
        held.tokens += saved.tokens
        return why

    def _may_copy(self, source: prefix.Held, kept: int, generating: int) -> bool:
        if kept < self._saved_floor(source):
            return False
        size_bytes = self._context.size(source.sequence)
        return size_bytes <= native.MOST_SAVED_BYTES and 2 * size_bytes <= self._pace.move_bytes(generating)

    def _copied(self, source: prefix.Held, target: prefix.Held, request_id: str) -> prefix.Held:
        """Return `target` with what `source` holds, or `source` itself where that cannot be copied."""
        target.tokens.clear()
        started = time.monotonic()
        state = self._context.save(source.sequence)
        if state is None or not self._context.restore(target.sequence, state):
            self._gone.note(source.tokens, 0, request_id)
            return source
        self._pace.moved(2 * len(state), time.monotonic() - started)
        target.tokens += source.tokens
        return target

    def take_up(self, shelf: Shelf) -> None:
        """Begin with what an earlier worker left."""
        for found in shelf.take(self.states.limit_bytes):
            self.states.add(found.tokens, native.as_state(found.state), found.state_bytes, found.floor)

    def leave(self, shelf: Shelf) -> None:
        """Leave to a later worker what the sequences hold and what is saved, the last used first."""
        shelf.open()
        room_bytes = max(native.MOST_SAVED_BYTES, self.states.limit_bytes - self.states.size_bytes)
        worth = [held for held in self.held if len(held.tokens) >= WORTH_SAVING]
        for held in sorted(worth, key=lambda held: held.used, reverse=True):
            size_bytes = self._context.size(held.sequence)
            if size_bytes <= min(room_bytes, self.states.limit_bytes):
                save = partial(self._context.save, held.sequence, room_bytes)
                if not shelf.keep(held.tokens, self._saved_floor(held), size_bytes, save):
                    return
        for saved in sorted(self.states, key=lambda saved: saved.used, reverse=True):
            if not shelf.keep(saved.tokens, saved.floor, saved.state_bytes, partial(_itself, saved.state)):
                return

    def clear(self) -> None:
        """Forget everything but the saved states: what the memory holds after a failure is not known."""
        for held in self.held:
            held.tokens.clear()
        self._context.clear()


def _itself(state: native.State) -> native.State:
    return state
