"""The one thread that computes: takes requests in, decides call after call with the planner, hands tokens out.

Owns the context while it runs: nobody else calls it. Each round is one call of llama.cpp for all who take part, then
one choice of a token for each that generates. Tokens are handed over just before the next call begins, so that who
turns them into text does it while that computes. Cancelling is looked for between calls; within one only where calls
are slow, and the call itself is given up only if nobody in it waits any more.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Literal, NamedTuple, Protocol

from rbee_core.backend import CancelToken
from rbee_core.errors import PromptTooLong
from rbee_plugins.llamacpp import native
from rbee_plugins.llamacpp.places import Places
from rbee_plugins.llamacpp.planner import Pace, Planner, Share

SLOW_CALL_S = 0.1
"""A call that is expected to take longer is asked within whether anybody still waits for it."""

log = logging.getLogger(__name__)


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
    """A token, and whether it is the last one; how likely it was, where that is wanted."""

    token: int
    last: bool = False
    likely: native.Likely | None = None


class Ended(NamedTuple):
    """Nothing more comes: at the model's own end, for its length, because of `error`, or since nobody waits."""

    reason: Literal["stop", "length", "cancelled"]
    error: BaseException | None = None


Event = Read | Ready | Made | Ended


@dataclass(slots=True, eq=False)
class Job:
    """One request in the loop. Its maker fills it and reads `events`; all else is the loop's.

    `limit` is the most tokens to generate. Without `reuse` all of the prompt is computed; one that is `alone` shares no
    call with others. `chooser` is closed by the loop.
    """

    prompt: list[int]
    limit: int
    chooser: Chooser
    cancel: CancelToken
    alone: bool = False
    reuse: bool = True
    logprobs: int | None = None
    request_id: str = ""
    events: "SimpleQueue[Event]" = field(default_factory=SimpleQueue["Event"])
    sequence: int = -1
    read: int = 0
    made: int = 0
    next: int = -1
    cached: int = 0
    why: str = ""
    over: bool = False
    left: bool = False  # who asked takes no more events

    @property
    def unread(self) -> int:
        """Prompt tokens that are still to be computed."""
        return len(self.prompt) - self.read

    def gone(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.left or self.cancel.is_set()

    def end(self, ended: Ended) -> None:
        """Say that nothing more comes, once."""
        if not self.over:
            self.over = True
            self.events.put(ended)


class Loop:
    """Serves any number of jobs, as many at a time as the context has sequences. Any thread may `submit`."""

    def __init__(
        self, model: native.NativeModel, context: native.Context, chunk_tokens: int, alone_tokens: int
    ) -> None:
        """Own `context` from now on. So many tokens of prompts are computed at once, and of one that is alone."""
        self._model = model
        self._context = context
        self._places = Places(context)
        self._pace = Pace(chunk_tokens)
        self._planner: Planner[Job] = Planner(context.batch_tokens, alone_tokens)
        self._arrived: SimpleQueue[Job | None] = SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._closing = False
        self._ends: dict[int, bool] = {}
        self._asking = False
        self._door = threading.Lock()  # for who comes first, and who comes too late
        self._closed = False
        self._thread: threading.Thread | None = None

    def submit(self, job: Job) -> Generator[Event]:
        """Hand `job` over and return what comes of it, up to its `Ended`. Closing the iterator ends the job."""
        with self._door:
            if self._closed:
                job.chooser.close()
                job.end(Ended("cancelled"))
            else:
                self._arrived.put(job)
                self._start()
        return _events(job)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="llama.cpp", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread and free the context; whoever still waits is told so. Harmless when done twice."""
        with self._door:
            self._closed = True
            self._arrived.put(None)  # nothing comes behind it
        if self._thread is not None:
            self._thread.join()
        self._context.close()

    def _run(self) -> None:
        while not self._closing:
            self._take_in()
            try:
                self._round()
            except BaseException as error:
                log.exception("a call of llama.cpp failed")
                self._fail(error)
        for job in [*self._running, *self._waiting]:
            self._end(job, Ended("cancelled"))

    def _take_in(self) -> None:
        """Take what has arrived; wait for it only if there is nothing else to do."""
        while not self._closing and (not self._arrived.empty() or not (self._running or self._waiting)):
            job = self._arrived.get()
            if job is None:
                self._closing = True
            else:
                self._waiting.append(job)

    def _round(self) -> None:
        for job in [*self._running, *self._waiting]:
            if job.gone():
                self._end(job, Ended("cancelled"))
        self._admit()
        if not (shares := self._planner.plan(self._running, self._pace)):
            return
        generating = sum(not share.lane.unread for share in shares)
        prompt_tokens = sum(share.tokens for share in shares if share.lane.unread)
        self._ask_within(self._pace.expected_s(generating, prompt_tokens) > SLOW_CALL_S, shares)
        started = time.monotonic()
        self._compute(shares)
        self._pace.took(time.monotonic() - started, generating, prompt_tokens)

    # Who runs.

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._context.sequences:
            job = self._waiting.popleft()
            self._running.append(job)  # before anything can fail, or nobody would tell it
            self._place(job)

    def _place(self, job: Job) -> None:
        """Give `job` a sequence, with what of its prompt is computed already."""
        taken = {other.sequence for other in self._running}
        beside = {other.sequence for other in self._running if not (job.alone or other.alone or other is job)}
        place = self._places.take(job.prompt, job.request_id, taken, beside, reuse=job.reuse)
        job.sequence, job.cached, job.why = place
        job.read = place.kept

    def _end(self, job: Job, ended: Ended) -> None:
        """Let go of `job`; its sequence keeps what was computed, for those who begin alike."""
        if job in self._running:
            self._running.remove(job)
        else:
            self._waiting.remove(job)
        job.chooser.close()
        job.end(ended)

    def _fail(self, error: BaseException) -> None:
        """Forget everything: what the memory holds after a failure is not known."""
        for job in list(self._running):
            self._end(job, Ended("cancelled", error))
        self._places.clear()

    # One call.

    def _compute(self, shares: Sequence[Share[Job]]) -> None:
        # llama.cpp computes sequences together only where their numbers follow each other in the call.
        shares = sorted(shares, key=lambda share: share.lane.sequence)
        parts, row = [self._part(share) for share in shares], 0
        status = self._context.decode(parts)
        if status == native.NO_ROOM and len(shares) > 1:
            for share in shares:
                self._compute([share])
            return
        if status != native.DECODED:
            self._stopped(status, shares)
            return
        rows: list[tuple[Job, int]] = []
        for share, part in zip(shares, parts, strict=True):
            job, row = share.lane, row + share.tokens
            self._places.held[job.sequence].tokens += part.tokens
            if job.unread:
                job.read += share.tokens
                job.events.put(Read(job.read, len(job.prompt)) if job.unread else self._ready(job))
            if part.rows:
                rows.append((job, row - 1))
        made = [(job, self._chosen(job, row)) for job, row in rows]
        for job, token in made:
            if token is not None:
                self._made(job, token)

    def _ready(self, job: Job) -> Ready:
        return Ready(len(job.prompt), job.cached, job.why)

    def _chosen(self, job: Job, row: int) -> Made | None:
        """Return what follows that row; None if nothing can, and then only this job ends."""
        chooser = job.chooser
        try:
            token = chooser.choose(self._context, row)
            wanted = job.logprobs is not None and not self._is_end(token)
            likely = chooser.logprobs(self._context, row, token, job.logprobs or 0) if wanted else None
            return Made(token, chooser.ended or job.made + 1 >= job.limit, likely)
        except BaseException as error:  # noqa: BLE001  # a grammar that nothing fits, above all; the others go on
            self._end(job, Ended("cancelled", error))
            return None

    def _part(self, share: Share[Job]) -> native.Part:
        job = share.lane
        if job.unread:
            tokens = job.prompt[job.read : job.read + share.tokens]
            return native.Part(job.sequence, job.read, tokens, int(share.tokens == job.unread))
        return native.Part(job.sequence, len(job.prompt) + job.made - 1, (job.next,), 1)

    def _made(self, job: Job, made: Made) -> None:
        """`job` has one more token; that may have been its last."""
        if self._is_end(made.token):
            self._end(job, Ended("stop"))
            return
        job.next, job.made = made.token, job.made + 1
        job.events.put(made)
        if made.last:
            self._end(job, Ended("stop" if job.chooser.ended else "length"))

    def _is_end(self, token: int) -> bool:
        if (known := self._ends.get(token)) is None:
            known = self._ends[token] = self._model.is_end(token)
        return known

    def _stopped(self, status: int, shares: Sequence[Share[Job]]) -> None:
        """Nothing of the call counts. Either nobody in it waited any more, or its one request has no room."""
        for share in shares:
            job = share.lane
            known = self._places.held[job.sequence].tokens
            if not self._context.keep(job.sequence, len(known)):
                known.clear()
            if status == native.ABORTED:
                self._end(job, Ended("cancelled"))
            elif job.unread:
                error = PromptTooLong(prompt_tokens=len(job.prompt), context_tokens=self._context.tokens)
                self._end(job, Ended("cancelled", error))
            else:
                self._end(job, Ended("length"))

    # Within a call.

    def _ask_within(self, wanted: bool, shares: Sequence[Share[Job]]) -> None:
        if not wanted:
            if self._asking:
                self._context.abort_when(None)
            self._asking = False
            return
        jobs = [share.lane for share in shares]
        self._context.abort_when(lambda: self._nobody_waits(jobs))
        self._asking = True

    def _nobody_waits(self, jobs: Sequence[Job]) -> bool:
        """Let those go who were cancelled, at once; whether that were all who are in the call."""
        for job in [*self._running, *self._waiting]:
            if not job.over and job.gone():
                job.end(Ended("cancelled"))
        return all(job.over for job in jobs)


def _events(job: Job) -> Generator[Event]:
    try:
        while True:
            event = job.events.get()
            yield event
            if isinstance(event, Ended):
                return
    finally:
        job.left = True
