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
from collections.abc import Iterator, Sequence
from dataclasses import replace
from queue import SimpleQueue

from rbee_core.errors import Overloaded
from rbee_plugins.llamacpp import native
from rbee_plugins.llamacpp.calls import Calls
from rbee_plugins.llamacpp.jobs import Ended, Event, Job, Read
from rbee_plugins.llamacpp.places import Places
from rbee_plugins.llamacpp.planner import Pace, Planner, Share
from rbee_plugins.llamacpp.shelf import Shelf
from rbee_plugins.llamacpp.speculation import Speculation

SLOW_CALL_S = 0.1
"""A call that is expected to take longer is asked within whether anybody still waits for it."""

SIGN_S = 1.0
"""A slow call says so often within itself that it gets on: silence means that nothing moves, however slow all is."""

log = logging.getLogger(__name__)


class Loop:
    """Serves any number of jobs, as many at a time as the context has sequences. Any thread may `submit`."""

    def __init__(
        self,
        model: native.NativeModel,
        context: native.Context,
        chunk_tokens: int,
        alone_tokens: int,
        saved_bytes: int = 0,
        speculation: Speculation | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        """Own `context` from now on. So many tokens of prompts are computed at once, and of one that is alone.

        Of texts that have to leave it, `saved_bytes` are kept at most. It begins with what lies on `shelf`, and leaves
        there what it has at its end.
        """
        self._context = context
        self._pace = Pace(chunk_tokens)
        self._places = Places(context, self._pace, saved_bytes)
        self._shelf = shelf
        if shelf is not None:
            self._places.take_up(shelf)
        self._calls = Calls(model, context, self._places, self._end)
        self._speculation = speculation or Speculation()
        self._planner: Planner[Job] = Planner(context.batch_tokens, alone_tokens)
        self._arrived: SimpleQueue[Job | None] = SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._closing = False
        self._asking = False
        self._signed_at = 0.0
        self._door = threading.Lock()  # for who comes first, and who comes too late
        self._closed = False
        self._broken: BaseException | None = None  # what ended the thread
        self._thread: threading.Thread | None = None

    def submit(self, job: Job) -> Iterator[Event]:
        """Hand `job` over and return what comes of it, up to its `Ended`."""
        with self._door:
            if self._closed:
                self._turn_away(job, self._broken)
                return job.follow()
            try:
                self._start()
                self._arrived.put(job)
            except RuntimeError as error:  # the system gives no more threads
                self._turn_away(job, Overloaded.by_system(error))
        return job.follow()

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="llama.cpp", daemon=True)
            thread.start()
            self._thread = thread  # only now: the next one tries again

    def _turn_away(self, job: Job, error: BaseException | None = None) -> None:
        try:
            job.chooser.close()
        finally:
            job.end(Ended("cancelled", error))

    def close(self) -> None:
        """End the thread and free the context; whoever still waits is told so. Harmless when done twice."""
        with self._door:
            self._closed = True
            self._arrived.put(None)  # nothing comes behind it
        if self._thread is not None:
            self._thread.join()
        shelf, self._shelf = self._shelf, None
        try:
            if shelf is not None and self._thread is not None:  # else nothing has changed
                self._places.leave(shelf)
        finally:
            self._context.close()

    def _run(self) -> None:
        try:
            while not self._closing:
                self._take_in()
                try:
                    self._round()
                except BaseException as error:
                    log.exception("a call of llama.cpp failed")
                    self._fail(error)
        except BaseException as error:
            log.exception("the loop ends: a failure could not be dealt with")
            self._broken = error
        finally:
            self._leave()

    def _leave(self) -> None:
        """Tell everybody that nothing more comes, also those who arrive from now on."""
        with self._door:
            self._closed = True
        while not self._arrived.empty():
            if (job := self._arrived.get()) is not None:
                self._waiting.append(job)
        for job in [*self._running, *self._waiting]:
            self._end(job, Ended("cancelled", self._broken))

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
        if not (shares := self._planned()):
            return
        self._call(shares)
        for share in shares:
            if share.lane.read == share.lane.mark:
                self._save_point(share.lane)

    def _planned(self) -> Sequence[Share[Job]]:
        """Return what the next call computes: no prompt beyond its mark, and guesses only where nobody reads one."""
        shares = self._planner.plan(self._running, self._pace)
        if any(share.lane.unread for share in shares):
            return [replace(share, tokens=share.lane.up_to_mark(share.tokens)) for share in shares]
        if 0 < len(shares) == len(self._running):  # whoever is not in the call would wait for guesses of others
            return self._speculation.added(shares, self._pace)
        return shares

    def _call(self, shares: Sequence[Share[Job]]) -> None:
        """Compute `shares`, and learn from how long that takes."""
        self._pace.begin()
        drafted = any(share.draft for share in shares)
        prompts = [share.tokens for share in shares if share.lane.unread]
        generating, prompt_tokens = len(shares) - len(prompts), sum(prompts)
        expected_s = (
            self._speculation.expected_s(shares, self._pace)
            if drafted
            else self._pace.expected_s(generating, prompt_tokens)
        )
        self._ask_within(expected_s > SLOW_CALL_S, shares)
        started = time.monotonic()
        if not self._calls.compute(shares):
            return  # what was given up, or took several calls, says nothing of how long one takes
        took_s = time.monotonic() - started
        if drafted:
            self._speculation.took(took_s, shares, self._pace)
        else:
            self._pace.took(took_s, generating, prompt_tokens)

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
        generating = sum(not other.unread for other in self._running)
        place = self._places.take(job.prompt, job.request_id, taken, beside, reuse=job.reuse, generating=generating)
        job.sequence, job.cached, job.why = place
        job.read = place.kept
        job.mark = 0 if job.alone else self._places.mark(job.prompt, place.kept)

    def _save_point(self, job: Job) -> None:
        """`job` has come to a point to which its memory could not be cut back later."""
        job.mark = 0
        if not job.over:
            generating = sum(not other.unread for other in self._running)
            self._places.save_point(job.sequence, job.request_id, generating)

    def _end(self, job: Job, ended: Ended) -> None:
        """Let go of `job`; its sequence keeps what was computed, for those who begin alike."""
        if job in self._running:
            self._running.remove(job)
        else:
            self._waiting.remove(job)
        try:
            job.chooser.close()
        except Exception:
            log.exception("what chose the tokens of %s could not be let go of", job.request_id)
        finally:
            job.end(ended)

    def _fail(self, error: BaseException) -> None:
        """Forget everything: what the memory holds after a failure is not known."""
        for job in list(self._running or self._waiting):  # of somebody, or the same would happen again at once
            self._end(job, Ended("cancelled", error))
        self._places.clear()

    # Within a call.

    def _ask_within(self, wanted: bool, shares: Sequence[Share[Job]]) -> None:
        if not wanted:
            if self._asking:
                self._context.abort_when(None)
            self._asking = False
            return
        jobs = [share.lane for share in shares]
        self._signed_at = time.monotonic()
        self._context.abort_when(lambda: self._nobody_waits(jobs))
        self._asking = True

    def _nobody_waits(self, jobs: Sequence[Job]) -> bool:
        """Let those go who were cancelled, at once; whether that were all who are in the call."""
        for job in [*self._running, *self._waiting]:
            if not job.over and job.gone():
                job.end(Ended("cancelled"))
        self._sign(jobs)
        return all(job.over for job in jobs)

    def _sign(self, jobs: Sequence[Job]) -> None:
        """Tell those whose prompt is read that the call gets on."""
        if (now := time.monotonic()) - self._signed_at >= SIGN_S:
            self._signed_at = now
            for job in jobs:
                if job.unread and not job.over:
                    job.events.put(Read(job.read, len(job.prompt)))
