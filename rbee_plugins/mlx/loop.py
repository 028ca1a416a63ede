"""The one thread that computes with MLX: takes requests in, goes round after round, hands tokens out.

A round is one step of the batch, one token for each request that is computed by itself, and one chunk of a prompt: of
the one that waits longest, so that prompts get on in turns and no text stands still for more than a chunk. Every prompt
is read by itself, in chunks that depend on nothing else; only what is generated without a seed shares its steps.
Cancelling is looked for between steps. The model is loaded in this thread, which MLX ties its streams to.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Literal, NamedTuple

from rbee_core.backend import CancelToken, GenerateRequest
from rbee_plugins.mlx import runtime
from rbee_plugins.mlx.prefix import Prefixes

log = logging.getLogger(__name__)


class Read(NamedTuple):
    """So many tokens of the prompt are computed."""

    done: int


class Ready(NamedTuple):
    """The prompt is computed, `cached` tokens of it for an earlier request; `why` not more."""

    cached: int
    why: str


class Ended(NamedTuple):
    """Nothing more comes: at the model's own end, for its length, or because of `error`."""

    reason: Literal["stop", "length", "failed"]
    error: BaseException | None = None


Event = Read | Ready | runtime.Chosen | Ended


@dataclass(slots=True, eq=False)
class Job:
    """One request in the loop. Its maker fills it and reads `events`; all else is the loop's.

    `limit` is the most tokens to generate. One that is `alone` shares no step with others.
    """

    request: GenerateRequest
    prompt: list[int]
    limit: int
    cancel: CancelToken
    alone: bool = False
    events: "SimpleQueue[Event]" = field(default_factory=SimpleQueue["Event"])
    left: bool = False  # who asked takes no more events
    memory: runtime.Memory | None = None
    read: int = 0
    cached: int = 0
    why: str = ""

    def gone(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.left or self.cancel.is_set()


class Loop:
    """Loads a model and serves any number of jobs, `slots` at most at a time. Any thread may `submit`.

    A model that does not `batches` has layers whose memories mlx-lm cannot put side by side: all its jobs are alone.
    """

    def __init__(self, load: Callable[[], runtime.Model], chunk_tokens: int, slots: int, cache_bytes: int) -> None:
        """Start the thread and wait until the model is loaded; raises what `load` raises."""
        self._chunk = chunk_tokens
        self._slots = slots
        self._prefixes: Prefixes[runtime.Memory] = Prefixes(chunk_tokens, cache_bytes)
        self._new: SimpleQueue[Job | None] = SimpleQueue()
        self._reading: list[Job] = []
        self._alone: dict[Job, Iterator[runtime.Chosen]] = {}
        self._batched: dict[int, Job] = {}
        self._door = threading.Lock()  # for who comes too late
        self._over: Ended | None = None
        loaded: Future[runtime.Model] = Future()
        self._thread = threading.Thread(target=self._run, args=(load, loaded), name="mlx", daemon=True)
        self._thread.start()
        self.model = loaded.result()

    def submit(self, job: Job) -> None:
        """Compute `job` as soon as possible."""
        with self._door:
            if self._over is None:
                self._new.put(job)
            else:
                job.events.put(self._over)

    def close(self) -> None:
        """End the thread; whoever still waits is told so."""
        self._new.put(None)
        self._thread.join()
        self.model.close()

    # All that follows runs in the loop's thread.

    def _run(self, load: Callable[[], runtime.Model], loaded: "Future[runtime.Model]") -> None:
        try:
            try:
                model = load()
                self._model, self._batch = model, runtime.Batch(model, self._slots)
                self.batches = model.can_batch()
                runtime.randomize()
            except BaseException as error:  # noqa: BLE001  # raised again by whoever waits for the model
                loaded.set_exception(error)
                return
            loaded.set_result(model)
            self._serve()
        finally:
            runtime.leave_thread()

    def _serve(self) -> None:
        over: BaseException = RuntimeError("the engine was closed")
        try:
            while self._take():
                self._round()
            self._batch.close()
        except BaseException as error:
            log.exception("the loop has ended")
            over = error
        with self._door:
            self._over = Ended("failed", over)
        while not self._new.empty():
            if (job := self._new.get()) is not None:
                self._reading.append(job)
        for job in [*self._reading, *self._alone, *self._batched.values()]:
            job.events.put(self._over)

    def _take(self) -> bool:
        """Take in who is new, and wait for one if there is nothing to do; return False at the end."""
        idle = not (self._reading or self._alone or self._batched)
        while True:
            try:
                job = self._new.get(block=idle)
            except Empty:
                return True
            if job is None:
                return False
            self._reading.append(job)
            idle = False

    def _round(self) -> None:
        try:
            self._let_go()
            if self._batched:
                self._step_batch()
        except Exception as error:  # noqa: BLE001  # it ends those in the batch, whose askers are told
            self._new_batch(error)
        for job in list(self._alone):
            self._guarded(self._step_alone, job)
        if self._reading:
            self._guarded(self._read, self._reading.pop(0))

    def _guarded(self, step: Callable[[Job], None], job: Job) -> None:
        try:
            step(job)
        except Exception as error:  # noqa: BLE001  # it ends this job, whose asker is told
            self._alone.pop(job, None)
            job.events.put(Ended("failed", error))

    def _let_go(self) -> None:
        """Drop those who were cancelled."""
        self._reading = [job for job in self._reading if not job.gone()]
        self._alone = {job: steps for job, steps in self._alone.items() if not job.gone()}
        for number in [number for number, job in self._batched.items() if job.gone()]:
            del self._batched[number]
            self._batch.drop(number)

    def _step_batch(self) -> None:
        for number, chosen, last in self._batch.step():
            job = self._batched.pop(number) if last else self._batched[number]
            self._hand_over(job, chosen, last=last)

    def _new_batch(self, error: Exception) -> None:
        """Begin anew: what a batch holds after a failure is not known."""
        for job in self._batched.values():
            job.events.put(Ended("failed", error))
        self._batched.clear()
        with suppress(Exception):
            self._batch.close()
        self._batch = runtime.Batch(self._model, self._slots)

    def _step_alone(self, job: Job) -> None:
        job.limit -= 1
        chosen = next(self._alone[job])
        if self._hand_over(job, chosen, last=job.limit == 0):
            del self._alone[job]

    def _hand_over(self, job: Job, chosen: runtime.Chosen, *, last: bool) -> bool:
        """Tell of a token; return whether nothing follows it."""
        if chosen.token in self._model.ends:
            job.events.put(Ended("stop"))
            return True
        job.events.put(chosen)
        if last:
            job.events.put(Ended("length"))
        return last

    def _read(self, job: Job) -> None:
        """Compute the next chunk of a prompt, or begin to generate after the last one."""
        memory = job.memory or self._begin(job)
        end = len(job.prompt) - 1
        if job.read < end:
            part = job.prompt[job.read : min(job.read + self._chunk, end)]
            self._model.read(part, memory)
            job.read += len(part)
            if job.read == self._prefixes.whole(end):
                self._prefixes.keep(job.prompt[: job.read], memory, job.request.request_id)
        if job.read < end:
            job.events.put(Read(job.read))
            self._reading.append(job)
            return
        job.events.put(Ready(job.cached, job.why))
        job.memory = None
        if job.alone:
            self._alone[job] = self._model.alone(job.prompt[-1], memory, job.request, job.limit)
        else:
            self._batched[self._batch.add(job.prompt[-1], memory, job.request, job.limit)] = job

    def _begin(self, job: Job) -> runtime.Memory:
        if job.request.reuse_prompt:
            found = self._prefixes.find(job.prompt)
            job.memory, job.read, job.cached, job.why = found.memory, found.tokens, found.tokens, found.why
        else:
            job.why = "asked not to"
        job.memory = job.memory or self._model.new_memory()
        return job.memory
