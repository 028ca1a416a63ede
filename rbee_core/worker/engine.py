"""The engine's host inside a worker: loads the model in the engine thread, hands out slots, streams what comes.

Owns the threads in which plugin code runs, the load's state and the slots. A slot is free again only when the
engine's iterator has really ended, not when the client has gone.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from rbee_core import wire
from rbee_core.backend import (
    Engine,
    EngineEvent,
    EngineInfo,
    Finished,
    Progress,
    PromptDone,
    PromptProgress,
    Style,
    Token,
)
from rbee_core.errors import (
    AllSlotsBusy,
    Overloaded,
    PluginFailed,
    RbeeError,
    RequestCanceled,
    ShuttingDown,
    WorkerNotReady,
)
from rbee_core.worker.counting import Counting
from rbee_core.worker.jobs import Job, Task, close
from rbee_core.worker.numbers import Numbers
from rbee_core.worker.stops import StopFinder
from rbee_core.worker.wanted import generate_request, likelihoods

PROMPT_EVERY_S = 0.25
MOST_SLOTS = 64
"""For an engine that chooses itself."""
STOP_PATIENCE_S = 1.0
"""How long an engine may take to end a request that was stopped, before its slot counts as busy."""

log = logging.getLogger(__name__)


class Generation(Job):
    """A request for text. `template` is what the engine says of the model's chat template."""

    def __init__(
        self,
        request: wire.WorkerTask,
        loop: asyncio.AbstractEventLoop,
        template: bool | None = None,
        streams: Callable[[], int] = lambda: 1,
    ) -> None:
        super().__init__(request, loop, streams)
        self._wanted = request
        self._template = template

    def _produce(self, engine: Engine) -> wire.DoneEvent:
        stops, stopped, reason = StopFinder(self._wanted.stop), False, ""
        tokens = first_ms = drafted = accepted = 0
        prompt = PromptDone(0)
        wanted = generate_request(self._wanted, self._template)
        events = engine.generate(wanted, self.cancel)
        try:
            for event in map(_checked, events):
                if isinstance(event, Token):
                    text, stopped = stops.feed(event.text)
                    first_ms = first_ms or self._elapsed_ms()
                    if text or event.chosen:
                        self._send(wire.TokenEvent(token=text, index=tokens, logprobs=likelihoods(event)))
                    tokens, drafted, accepted = tokens + 1, drafted + event.guesses, accepted + event.guessed
                    reason = "stop" if stopped else "length" if tokens == self._wanted.max_tokens else ""
                elif isinstance(event, Finished):
                    reason = event.reason
                elif isinstance(event, PromptProgress):
                    self._tell_prompt(event)
                elif isinstance(event, Style):
                    self._send(wire.StyleEvent(style=wire.Style(**msgspec.structs.asdict(event))))
                else:
                    prompt = event
                if reason:
                    break
        finally:
            close(events)
        if not reason:
            raise self._why if self.cancel.is_set() else TypeError("generate ended without Finished")
        if not stopped and (rest := stops.rest()):
            self._send(wire.TokenEvent(token=rest, index=tokens - 1))
        return wire.DoneEvent(
            done=True, total_tokens=tokens, duration_ms=self._elapsed_ms(), finish_reason=reason,
            prompt_tokens=prompt.prompt_tokens, first_token_ms=first_ms,
            cached_tokens=prompt.cached_tokens, not_cached=prompt.not_cached,
            chat_template=bool(wanted.messages and self._template),
            drafted_tokens=drafted, accepted_tokens=accepted, stopped_by=stops.found,
        )  # fmt: skip

    def _tell_prompt(self, progress: PromptProgress) -> None:
        """Pass on a few a second: an engine may report every token."""
        now = time.monotonic()
        if now - self._prompt_told_at >= PROMPT_EVERY_S:
            self._prompt_told_at = now
            read = wire.ReadPrompt(done=progress.done_tokens, total=progress.total_tokens)
            self._send(wire.PromptEvent(prompt=read))


class EngineHost:
    """Loads once, then serves up to its slots at a time. All methods belong to the event loop's thread.

    `slots` is the most that may run at a time, 0 leaves it to the engine. An engine with one slot meets a single thread
    in its life: native libraries tie streams and random states to it. One with more is called in as many threads as it
    has slots.
    """

    def __init__(self, load: Callable[[Progress], Engine], slots: int) -> None:
        self._load = load
        self._asked = slots
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._engine: Engine | None = None
        self._info = EngineInfo(context_tokens=0, slots=0)
        self._running: set[Job] = set()
        self._closing = False
        self._moved = asyncio.Event()
        self._idle = asyncio.Event()
        self._ended = asyncio.Event()
        self.progress = wire.LoadProgress(state="loading")

    async def load(self) -> None:
        """Load the model. Never raises for a load that failed: `progress` then says why."""
        loop = asyncio.get_running_loop()
        try:
            self._engine, self._info = await loop.run_in_executor(self._threads, self._loaded, self._reporter(loop))
        except RbeeError as error:
            log.error("the load failed: %s", error)  # noqa: TRY400  # a sentence for the user, no traceback
            self._move(wire.LoadProgress(state="failed", error=wire.ErrorObject.of(error)))
        except (Exception, SystemExit) as error:
            log.exception("the load failed")
            failure = PluginFailed(what="loading by the backend", error=error)
            self._move(wire.LoadProgress(state="failed", error=wire.ErrorObject.of(failure)))
        else:
            info = self._info
            if info.slots > 1:
                self._threads = ThreadPoolExecutor(max_workers=info.slots, thread_name_prefix="slot")
            ready = wire.LoadProgress(
                state="ready",
                fraction=1.0,
                slots=info.slots,
                context_tokens=info.context_tokens,
                accelerator=info.accelerator,
            )
            self._move(ready)

    def _loaded(self, report: Progress) -> tuple[Engine, EngineInfo]:
        """Load, in the engine's thread."""
        try:
            engine = self._load(report)
            info = engine.info()
        except StopIteration as error:  # a future cannot carry it: the load would never end
            raise RuntimeError("StopIteration") from error
        # A plugin that offers what it is asked for says 0 where the number is left to it: one it has.
        slots = info.slots or (0 if self._asked else 1)
        if slots < 1 or info.context_tokens < 1:
            raise ValueError(f"its engine says {info}")
        return engine, msgspec.structs.replace(info, slots=min(slots, self._asked or MOST_SLOTS))

    def _reporter(self, loop: asyncio.AbstractEventLoop) -> Progress:
        def report(fraction: float, detail: str = "") -> bool:
            within = fraction if 0.0 <= fraction <= 1.0 else float(fraction > 1.0)  # NaN is no JSON
            progress = wire.LoadProgress(state="loading", fraction=within, detail=detail)
            loop.call_soon_threadsafe(self._move, progress)
            return not self._closing

        return report

    def _move(self, progress: wire.LoadProgress) -> None:
        if self.progress.state != "loading":  # the end was told; a late report cannot take it back
            return
        self.progress = progress
        self._moved.set()
        self._moved = asyncio.Event()

    async def watch(self) -> AsyncIterator[wire.LoadProgress]:
        """Yield the load's progress now and whenever it moves, up to ready or failed."""
        while True:
            moved, progress = self._moved, self.progress
            yield progress
            if progress.state != "loading":
                return
            await moved.wait()

    @property
    def slots(self) -> int:
        """How many requests can run at a time; 0 before the model is loaded."""
        return self._info.slots

    @property
    def busy(self) -> int:
        """How many requests run."""
        return len(self._running)

    def start(self, request: Task, worker_id: str) -> Job:
        """Put `request` into a free slot. Raises `WorkerNotReady`, `ShuttingDown`, `AllSlotsBusy` or `Overloaded`."""
        if self._closing:
            raise ShuttingDown(who="worker")
        if self._engine is None:
            raise WorkerNotReady(worker_id=worker_id, state=self.progress.state)
        if self.busy >= self.slots:
            raise AllSlotsBusy(slots=self.slots, busy=self.busy)
        loop = asyncio.get_running_loop()
        generation = self._job(request, loop)
        self._running.add(generation)
        try:
            future = loop.run_in_executor(self._threads, generation.run, self._engine)
        except RuntimeError as error:  # the system gives no more threads
            self._running.discard(generation)
            refused = Overloaded.by_system(error)
            generation.stop(refused)  # it stands in the line of the other threads
            raise refused from error
        future.add_done_callback(lambda done: self._end(generation, done))
        return generation

    def _job(self, request: Task, loop: asyncio.AbstractEventLoop) -> Job:
        if isinstance(request, wire.CountTask):
            return Counting(request, loop, self._info.chat_template)
        if isinstance(request, wire.WorkerTask):
            return Generation(request, loop, self._info.chat_template, lambda: self.busy)
        return Numbers(request, loop)

    def _end(self, generation: Job, done: "asyncio.Future[Any]") -> None:
        self._running.discard(generation)
        self._ended.set()
        if not self._running:
            self._idle.set()
        if not done.cancelled():
            generation.finish(done.result())

    async def room(self) -> None:
        """Wait while all slots are taken and one is about to be free: its request was stopped. A moment at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_PATIENCE_S):
                while self.busy >= self.slots and any(g.cancel.is_set() for g in self._running):
                    self._ended.clear()
                    await self._ended.wait()

    async def idle(self, timeout_s: float) -> None:
        """Wait until nothing runs, or `timeout_s` has passed."""
        if self._running:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._idle.wait()

    def cancel(self, request_id: str) -> None:
        """End that request, if it runs."""
        for generation in self._running:
            if generation.request.request_id == request_id:
                generation.stop(RequestCanceled())

    async def over(self, request_id: str) -> None:
        """Wait until no request of that name holds a slot."""
        while any(g.request.request_id == request_id for g in self._running):
            self._ended.clear()
            await self._ended.wait()

    def close(self) -> None:
        """Take no more requests, end those that run, and let go of those who watch the load."""
        self._closing = True
        self._move(wire.LoadProgress(state="failed", error=wire.ErrorObject.of(ShuttingDown(who="worker"))))
        for generation in self._running:
            generation.stop(ShuttingDown(who="worker"))

    def release(self) -> None:
        """Free the engine if no thread is inside it; a stuck one is left to the end of the process."""
        if self._engine is not None and not self._running:
            self._engine.close()


def _checked(event: object) -> EngineEvent:
    """Return what an engine yielded if it can be sent; raises what is wrong with it."""
    match event:
        case Token(text=str(text), guesses=int(), guessed=bool()):
            if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
                raise TypeError(f"generate yielded {event!r}: half a character")
        case PromptProgress(done_tokens=int(), total_tokens=int()):
            pass
        case PromptDone(prompt_tokens=int(), cached_tokens=int(), not_cached=str()):
            pass
        case Finished(reason="stop" | "length"):
            pass
        case Style(tools=str(), reasoning=None | (str(), str())):
            pass
        case _:
            raise TypeError(f"generate yielded {event!r}")
    return event
