"""What the hive counts of its requests, workers and answers: plain numbers in memory, a bounded set of labels.

Fed by serving and by the journal, on the event loop's thread; a request costs a few additions. Holds no prompt, key,
request id or worker id.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

from rbee_core import wire
from rbee_core.domain.worker import ENDED, Reason, WorkerState

MODELS_MOST = 64
"""So many models have labels of their own; those that come later share `OTHER`."""
OTHER, LEFT = "other", "left"
FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
DURATION_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)

Labels = tuple[str, ...]


class Histogram:
    """How often a value was within each of `bounds`, by labels."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts: dict[Labels, list[int]] = {}
        self.sums: Counter[Labels] = Counter()

    def add(self, labels: Labels, value: float, times: int = 1) -> None:
        """Take in a value, or so many equal ones."""
        counts = self.counts.setdefault(labels, [0] * (len(self.bounds) + 1))
        counts[bisect_left(self.bounds, value)] += times
        self.sums[labels] += value * times  # pyright: ignore[reportArgumentType]  # a counter of seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How one request ended. `outcome` is stop, length, the code of an error, or ``left`` if its client did.

    `queue_s` is None for one that never reached a worker, `figures` the worker's last word if there was one;
    `context_tokens` is what it could have used, 0 if that is not known.
    """

    outcome: str
    whole_s: float
    model: str = ""
    queue_s: float | None = None
    figures: wire.StreamEvent | None = None
    context_tokens: int = 0


@dataclass(slots=True)
class _Life:
    """What is remembered of a live worker: when it was launched, and why it was told to stop."""

    since: float
    why: str = ""


@dataclass(slots=True)
class Numbers:
    """All that one hive has counted since it started. `clock` returns monotonic seconds."""

    clock: Callable[[], float] = time.monotonic
    requests: Counter[Labels] = field(default_factory=Counter[Labels])
    prompt_tokens: Counter[Labels] = field(default_factory=Counter[Labels])
    cached_tokens: Counter[Labels] = field(default_factory=Counter[Labels])
    generated_tokens: Counter[Labels] = field(default_factory=Counter[Labels])
    first_token_s: Histogram = field(default_factory=lambda: Histogram(FIRST_TOKEN_S))
    per_token_s: Histogram = field(default_factory=lambda: Histogram(PER_TOKEN_S))
    request_s: Histogram = field(default_factory=lambda: Histogram(DURATION_S))
    queue_s: Histogram = field(default_factory=lambda: Histogram(DURATION_S))
    prefill_s: Histogram = field(default_factory=lambda: Histogram(DURATION_S))
    decode_s: Histogram = field(default_factory=lambda: Histogram(DURATION_S))
    load_s: Histogram = field(default_factory=lambda: Histogram(DURATION_S))
    starts: Counter[Labels] = field(default_factory=Counter[Labels])
    exits: Counter[Labels] = field(default_factory=Counter[Labels])
    context_used: dict[Labels, float] = field(default_factory=dict[Labels, float])
    responses: Counter[Labels] = field(default_factory=Counter[Labels])
    _models: set[str] = field(default_factory=set[str])
    _lives: dict[str, _Life] = field(default_factory=dict[str, _Life])

    def copy(self) -> "Numbers":
        """Return the numbers as they are now, for another thread."""
        return deepcopy(self)

    def name(self, model: str) -> str:
        """Return the label of a model; one that is too many has that of all such."""
        if model not in self._models and len(self._models) >= MODELS_MOST:
            return OTHER
        self._models.add(model)
        return model

    def known(self, model: str) -> str:
        """Return the label of a model that is only asked for: names that clients make up take none away."""
        return model if model in self._models else OTHER

    def ended(self, request: Ended) -> None:
        """Take in the end of a request."""
        model = (self.name(request.model),)
        self.requests[*model, request.outcome] += 1
        self.request_s.add(model, request.whole_s)
        if request.queue_s is not None:
            self.queue_s.add(model, request.queue_s)
        if (end := request.figures) is None or not end.done:
            return
        self.prompt_tokens[model] += end.prompt_tokens
        self.cached_tokens[model] += end.cached_tokens
        self.generated_tokens[model] += end.total_tokens
        if request.context_tokens:
            self.context_used[model] = (end.prompt_tokens + end.total_tokens) / request.context_tokens
        if end.first_token_ms:
            self._timed(model, end, request.queue_s or 0.0)

    def _timed(self, model: Labels, end: wire.StreamEvent, queue_s: float) -> None:
        prefill_s, decode_s = end.first_token_ms / 1000, max(0, end.duration_ms - end.first_token_ms) / 1000
        self.first_token_s.add(model, queue_s + prefill_s)
        self.prefill_s.add(model, prefill_s)
        self.decode_s.add(model, decode_s)
        if end.total_tokens > 1:  # what lies between two tokens is known on the average of a request
            self.per_token_s.add(model, decode_s / (end.total_tokens - 1), end.total_tokens - 1)

    def changed(self, change: wire.WorkerChanged) -> None:
        """Take in that a worker's state changed. A listener of the journal."""
        about = (self.name(change.worker.model_ref), change.worker.backend, change.worker.device)
        if change.before is None:
            self.starts[about] += 1
            self._lives[change.worker_id] = _Life(self.clock())
        life = self._lives.get(change.worker_id)
        if life is None:
            return
        if change.reason == Reason.LOADED:
            self.load_s.add(about, self.clock() - life.since)
        elif change.after == WorkerState.STOPPING:
            life.why = Reason(change.reason).name.lower()
        elif change.after in ENDED:
            del self._lives[change.worker_id]
            self.exits[*about, life.why or change.after] += 1

    def answered(self, method: str, route: str, status: int) -> None:
        """Take in that a request over HTTP was answered. Method and route are those of its row, else `OTHER`."""
        self.responses[method, route, str(status)] += 1
