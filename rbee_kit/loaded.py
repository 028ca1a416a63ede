"""A model in a worker of a hive, as a client sees it: loading it, asking it for text, waiting for a free slot."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rbee_core import wire
from rbee_core.client import HiveClient
from rbee_core.domain.tuning import UNTUNED, Tuning
from rbee_core.errors import RbeeError
from rbee_kit.program import Hive
from rbee_kit.waiting import POLL_S, eventually

LONGEST_LOAD_S = 1800.0
LONGEST_WAIT_S = 5.0
WORD = "word "
# A context that this many tokens fit into is long enough to be interrupted in; reading more takes a CPU too long.
LONG_CONTEXT = 4096
TOKENS_A_WORD = 1.3
NUMBERS = itertools.count(1000)  # of the same length all along


@dataclass(frozen=True)
class Text:
    """What came of one request: the events of its stream, and the error that it ended with, if it did."""

    events: Sequence[wire.StreamEvent]
    arrived_s: Sequence[float]
    error: RbeeError | None = None

    @property
    def tokens(self) -> list[wire.StreamEvent]:
        """The events that carry text."""
        return [e for e in self.events if e.token is not None]

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(e.token or "" for e in self.tokens)

    @property
    def last_words(self) -> list[wire.StreamEvent]:
        """The events that end a stream; there should be one."""
        return [e for e in self.events if e.done]

    @property
    def end(self) -> wire.StreamEvent:
        """The one terminal event of a text that came whole."""
        assert self.error is None, str(self.error)
        [end] = self.last_words
        return end


@dataclass
class Loaded:
    """A loaded model. `progress` are the fractions seen while it loaded, `load_s` how long that took, and `before`
    the processes that were there without it.
    """

    hive: Hive
    worker: wire.WorkerInfo
    before: frozenset[int] = frozenset()
    progress: Sequence[float] = field(default_factory=tuple[float, ...])
    load_s: float = 0.0

    def ask(self, client: HiveClient | None = None, **request: Any) -> Text:
        """Ask for a text and wait for its end. Greedy unless a temperature is given. Another thread, another client."""
        wanted = wire.build(wire.WorkerInference, **{"temperature": 0.0, **request})
        events: list[wire.StreamEvent] = []
        arrived_s: list[float] = []
        started = time.monotonic()
        try:
            for event in (client or self.hive.client).infer(self.worker.worker_id, wanted):
                events.append(event)
                arrived_s.append(time.monotonic() - started)
        except RbeeError as error:
            return Text(events, arrived_s, error)
        return Text(events, arrived_s)

    def prompt_tokens(self, prompt: str) -> int:
        """Return how many tokens the engine says `prompt` has; 0 if it does not say."""
        return self.ask(prompt=prompt, max_tokens=1).end.prompt_tokens

    def long_prompt(self) -> str:
        """Return a prompt that fills three quarters of the context, and begins like none before it."""
        tokens = int(min(self.worker.context_tokens or LONG_CONTEXT, LONG_CONTEXT) * 0.75)
        return self.prompt_of(tokens, f"{next(NUMBERS)} ")

    def prompt_of(self, tokens: int, beginning: str = "") -> str:
        """Return a prompt of about so many tokens, and no more."""
        few, more = (self.prompt_tokens(beginning + WORD * words) for words in (16, 48))
        a_word = (more - few) / 32 if more > few else TOKENS_A_WORD
        beside = max(0.0, few - 16 * a_word)
        return beginning + WORD * int((tokens - beside) / a_word)

    def settle(self) -> None:
        """Wait until nothing is written, for `LONGEST_WAIT_S` at most."""
        until = time.monotonic() + LONGEST_WAIT_S
        while self.hive.client.worker(self.worker.worker_id).active and time.monotonic() < until:
            time.sleep(POLL_S)

    def busy_for_s(self, since: float) -> float:
        """Wait until a request is admitted; return when one was last refused, in seconds after `since`.

        Gives up after `LONGEST_WAIT_S`.
        """
        refused_at = since
        while refused_at - since < LONGEST_WAIT_S:
            answer = self.ask(prompt=WORD, max_tokens=1, queue=False)
            if answer.error is None or answer.error.code != "ALL_SLOTS_BUSY":
                break
            refused_at = time.monotonic()
            time.sleep(POLL_S)
        return refused_at - since


def load(
    hive: Hive, model: str, backend: str, context_tokens: int | None = None, *, tuning: Tuning = UNTUNED
) -> Loaded:
    """Load a model and wait until it is ready; an `AssertionError` says why it is not."""
    before = frozenset(process.pid for process in hive.home.processes())
    started = time.monotonic()
    request = wire.SpawnRequest(model_ref=model, backend=backend, context_tokens=context_tokens, tuning=tuning)
    worker_id = hive.client.spawn(request).worker_id
    seen: list[float] = []

    def settled() -> wire.WorkerInfo | None:
        worker = hive.client.worker(worker_id)
        seen.append(worker.progress)
        return None if worker.state == "loading" else worker

    worker = eventually(settled, LONGEST_LOAD_S, what="the model is loaded")
    assert worker is not None
    assert worker.state == "idle", (
        f"the worker {worker.state}: {worker.error.message if worker.error else worker.reason}"
    )
    return Loaded(hive, worker, before, seen, time.monotonic() - started)
