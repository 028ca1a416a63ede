"""One request as the loop meets it, what comes of it, and what chooses its tokens."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Literal, NamedTuple, Protocol

from rbee_core.backend import CancelToken
from rbee_plugins.llamacpp import native
from rbee_plugins.llamacpp.drafts import Lookup


class Chooser(Protocol):
    """What chooses a request's tokens; `native.Sampler` is one."""

    @property
    def ended(self) -> bool:
        """Whether the text is complete with what was chosen last."""
        ...

    def choose(self, context: native.Context, row: int) -> int:
        """Return the token that follows that row of the last call, and remember it."""
        ...

    def logprobs(self, context: native.Context, row: int, token: int, top: int) -> native.Likely:
        """Return how likely the token was that was chosen last, and the likeliest ones."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Read(NamedTuple):
    """So many tokens of the prompt are computed."""

    done: int
    total: int


class Ready(NamedTuple):
    """The prompt is computed, `cached` tokens of it for an earlier request; `why` not more."""

    total: int
    cached: int
    why: str


class Made(NamedTuple):
    """A token, and whether it is the last one; how likely it was, where that is wanted.

    The first one of a call says how many guesses were computed in it; whether this one is among them says `guessed`.
    """

    token: int
    last: bool = False
    likely: native.Likely | None = None
    guesses: int = 0
    guessed: bool = False


class Ended(NamedTuple):
    """Nothing more comes: at the model's own end, for its length, because of `error`, or since nobody waits."""

    reason: Literal["stop", "length", "cancelled"]
    error: BaseException | None = None


Event = Read | Ready | Made | Ended


@dataclass(slots=True, eq=False)
class Job:
    """One request in the loop. Its maker fills it and reads `events`; all else is the loop's.

    `limit` is the most tokens to generate. Without `reuse` all of the prompt is computed; one that is `alone` shares no
    call with others. `chooser` is closed by the loop. With a `lookup` the text may be guessed ahead.
    """

    prompt: list[int]
    limit: int
    chooser: Chooser
    cancel: CancelToken
    alone: bool = False
    reuse: bool = True
    logprobs: int | None = None
    lookup: Lookup | None = None
    request_id: str = ""
    events: "SimpleQueue[Event]" = field(default_factory=SimpleQueue["Event"])
    sequence: int = -1
    read: int = 0
    made: int = 0
    next: int = -1
    cached: int = 0
    why: str = ""
    mark: int = 0  # what is held then is saved, after so many tokens of the prompt
    over: bool = False
    left: bool = False  # who asked takes no more events

    @property
    def unread(self) -> int:
        """Prompt tokens that are still to be computed."""
        return len(self.prompt) - self.read

    def up_to_mark(self, tokens: int) -> int:
        """Return how many of these tokens may be computed at once: none beyond the mark that is still to come."""
        return min(tokens, self.mark - self.read) if self.read < self.mark else tokens

    @property
    def room(self) -> int:
        """How many tokens may follow the next one: more cannot be used, and might not fit the context."""
        return self.limit - self.made - 1

    def gone(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.left or self.cancel.is_set()

    def end(self, ended: Ended) -> None:
        """Say that nothing more comes, once."""
        if not self.over:
            self.over = True
            self.events.put(ended)

    def follow(self) -> Iterator[Event]:
        """Yield what comes of it, up to its `Ended`. Who stops before that says that it has `left`."""
        while True:
            event = self.events.get()
            yield event
            if isinstance(event, Ended):
                return
