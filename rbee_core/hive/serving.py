"""Serving: opens a worker's answer to one request, and hands it on raw or as events.

It alone knows how a stream can break, and turns every way into one typed error. Raw bytes are passed on undecoded:
what a token costs here is paid for every token of every request.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial

import aiohttp
import msgspec

from rbee_core import sse, wire
from rbee_core.descriptors import is_shortage
from rbee_core.domain.instructions import Waiting
from rbee_core.domain.worker import Demand, Reading, Worker, WorkerId, WorkerState
from rbee_core.errors import (
    DeadlineExceeded,
    Overloaded,
    RbeeError,
    RemoteError,
    ShuttingDown,
    StreamBroken,
    WorkerCrashed,
    shorten,
)
from rbee_core.hive.metrics.numbers import LEFT, Ended
from rbee_core.hive.supervisor import Supervisor
from rbee_core.hive.terms import Waits
from rbee_core.hive.worker_client import WorkerClient
from rbee_core.http.stream import END, event_bytes

CRASH_SETTLE_S = 2.0

log = logging.getLogger(__name__)

Task = wire.WorkerTask | wire.CountTask | wire.EmbedTask | wire.RerankTask
PATHS: dict[type[Task], str] = {
    wire.WorkerTask: "/v1/inference",
    wire.CountTask: "/v1/count",
    wire.EmbedTask: "/v1/embed",
    wire.RerankTask: "/v1/rerank",
}

STOPPED = (WorkerState.UNLOADED, WorkerState.EVICTED)
_EVENT_END = b"\n\n"

# Takes what was raised while reading, None if the stream just ended; returns what that means.
Explain = Callable[[Exception | None], Awaitable[RbeeError]]
TellWaiting = Callable[[Waiting], Awaitable[None]]
# Raises `NotSupported` if the backend of that name, or none where there is no name, can do what the request says.
Check = Callable[[wire.TextWanted | wire.EmbedWanted | wire.RerankWanted, str | None], None]

Record = Callable[[Ended], None]


class Answer:
    """A worker's answer, being read: either `raw` or `events`, once."""

    def __init__(self, worker: Worker, response: aiohttp.ClientResponse, explain: Explain) -> None:
        self.worker = worker
        self.over = False
        self._last = (b"", b"")  # the end mark may come by itself
        self._response = response
        self._explain = explain

    async def raw(self) -> AsyncGenerator[bytes]:
        """Yield the answer in our own format, undecoded; its last event says how it ended, then comes the end mark."""
        try:
            async for whole in self._whole_events():
                yield whole
        except RbeeError as error:
            yield last_word(error)

    async def events(self) -> AsyncGenerator[wire.StreamEvent]:
        """Yield what `groups` does, one by one."""
        async for group in self.groups():
            for event in group:
                yield event

    async def groups(self) -> AsyncGenerator[list[wire.StreamEvent]]:
        """Yield the events that came together, the last one is `done`. Raises what the answer ended with instead."""
        parser, tokens = sse.EventParser(wire.StreamEvent), 0
        async for whole in self._whole_events():
            events = parser.feed(whole)
            failed = next((n for n, event in enumerate(events) if event.error), len(events))
            tokens += sum(event.token is not None for event in events[:failed])
            if events[:failed]:
                yield events[:failed]
            if failed < len(events) and (error := events[failed].error):
                raise RemoteError.of(error)
            try:
                parser.check()
            except ValueError as error:
                raise StreamBroken(tokens=tokens, why="the worker sent what is no event") from error

    def outcome(self) -> str:
        """Return in words how it ended, with the worker's figures."""
        if not (end := self.end()):
            return "not read to its end"
        if end.error:
            return end.error.code
        known = [f"{end.cached_tokens} cached"] * bool(end.cached_tokens) + [end.not_cached] * bool(end.not_cached)
        cached = f" ({', '.join(known)})" if known else ""
        guessed = f" ({end.accepted_tokens} of {end.drafted_tokens} guesses right)" if end.drafted_tokens else ""
        return (
            f"{end.finish_reason}, {end.prompt_tokens} prompt{cached} and {end.total_tokens} generated tokens{guessed}"
            f", first token after {end.first_token_ms} ms, {end.duration_ms} ms in all, "
            f"prompt {end.prompt_tokens_per_s:.1f} and generation {end.generation_tokens_per_s:.1f} tokens/s"
        )

    def reading(self) -> Reading | None:
        """Return what the worker said of the prompt, None if it read none or did not say."""
        end = self.end()
        return Reading(end.prompt_tokens, end.cached_tokens, end.not_cached) if end and end.prompt_tokens else None

    def end(self) -> wire.StreamEvent | None:
        """Return the worker's last word, None if it was not read to there."""
        last = sse.EventParser(wire.StreamEvent).feed(b"".join(self._last))
        return last[-1] if self.over and last else None

    async def _whole_events(self) -> AsyncGenerator[bytes]:
        """Yield what arrives, cut behind its last whole event: half a one would swallow what is said after it.

        Raises for a stream that ends without its end mark.
        """
        rest, ended = b"", False
        try:
            async for chunk in self._response.content.iter_any():
                data = rest + chunk if rest else chunk
                cut = data.rfind(_EVENT_END) + len(_EVENT_END)
                whole, rest = (data[:cut], data[cut:]) if cut >= len(_EVENT_END) else (b"", data)
                if whole:
                    ended = self.over = whole.endswith(END)
                    self._last = (self._last[1], whole)
                    yield whole
                elif len(rest) > sse.EVENT_LIMIT_BYTES:
                    break
        except (aiohttp.ClientError, TimeoutError) as error:
            if not ended:
                raise await self._explain(error) from error
        if not ended:
            raise await self._explain(None)


@dataclass(slots=True)
class _Line:
    request: Task
    what: str
    queue_s: float | None = None
    answer: Answer | None = None


@asynccontextmanager
async def _logged(request: Task, client: str, what: str, record: Record) -> AsyncGenerator[_Line]:
    """Write one line about a request to the hive's log and count it, however it ends: also if no worker hears of it."""
    line, since = _Line(request, what), time.monotonic()
    outcome, refused = "its client left before it began", ""
    try:
        yield line
    except RbeeError as error:
        outcome, refused = f"refused, {error.code}", error.code
        raise
    finally:
        log_request(request.request_id, client, line.what, line.answer.outcome() if line.answer else outcome)
        record(_ended(line, refused, time.monotonic() - since))


def _ended(line: _Line, refused: str, whole_s: float) -> Ended:
    """Return how a request ended, in numbers."""
    if line.answer is None:
        return Ended(outcome=refused or LEFT, whole_s=whole_s)
    end = line.answer.end()
    outcome = (end.error.code if end.error else end.finish_reason) if end else refused or LEFT
    worker = line.answer.worker
    figures = None if isinstance(line.request, wire.CountTask) else end  # what was only counted, nobody computed
    return Ended(
        outcome=outcome,
        whole_s=whole_s,
        model=worker.recipe.reference,
        queue_s=line.queue_s,
        figures=figures,
        context_tokens=worker.context_tokens,
    )


def log_request(name: str, client: str, what: str, outcome: str) -> None:
    """Write the one line that the hive's log has about a request: whose it was, for what, and how it went."""
    log.info("request %s of %s: %s: %s", name, client, shorten(what), outcome)


class Serving:
    """Opens answers for one hive."""

    def __init__(self, waits: Waits, supervisor: Supervisor, link: WorkerClient, check: Check, record: Record) -> None:
        self._waits = waits
        self._supervisor = supervisor
        self._link = link
        self._check = check
        self._record = record
        self._called: dict[str, set[str]] = {}

    @asynccontextmanager
    async def open(
        self,
        client: str,
        target: Demand | WorkerId,
        request: Task,
        *,
        queue: bool = True,
        called: str = "",
        tell: TellWaiting,
    ) -> AsyncGenerator[Answer]:
        """Yield the answer once a worker has taken `request`; leaving the block ends the request.

        `called` is what its client calls it, where that is not its id: several may be called the same. `tell` is called
        with what the request waits for, once that takes a moment and whenever it changes. Raises what the pool or the
        worker refuses it with, and `DeadlineExceeded` if its `timeout_s` passes in the queue.
        """
        since = time.monotonic()
        with self._knowing(called, request.request_id):
            async with (
                _logged(request, client, _named(target), self._record) as line,
                self._opened(client, target, request, queue, tell) as answer,
            ):
                line.what, line.answer = f"{answer.worker.recipe.reference} on {answer.worker.id}", answer
                line.queue_s = time.monotonic() - since
                yield answer

    async def cancel(self, name: str, worker_id: str | None = None) -> None:
        """End the requests that have this id or that their clients call so, as `Supervisor.cancel` ends one."""
        ids = {name, *self._called.get(name, ())}
        await asyncio.gather(*(self._supervisor.cancel(one, worker_id) for one in ids))

    @contextmanager
    def _knowing(self, called: str, request_id: str) -> Generator[None]:
        """Know for the block what a client calls a request."""
        if not called:
            yield
            return
        self._called.setdefault(called, set()).add(request_id)
        try:
            yield
        finally:
            self._called[called].discard(request_id)
            if not self._called[called]:
                del self._called[called]

    @asynccontextmanager
    async def _opened(
        self, client: str, target: Demand | WorkerId, request: Task, queue: bool, tell: TellWaiting
    ) -> AsyncGenerator[Answer]:
        loop, timeout_s = asyncio.get_running_loop(), request.timeout_s
        deadline = None if timeout_s is None else loop.time() + timeout_s
        name = request.request_id
        wanted = target.backend if isinstance(target, Demand) else self._supervisor.pool.find(target).recipe.backend
        self._check(request, wanted)
        async with self._supervisor.enter(client, target, until="slot", request_id=name, queue=queue) as caller:
            try:
                async with asyncio.timeout_at(deadline):
                    async for waiting in caller.waits():
                        await tell(waiting)
                    worker = await caller.worker()
            except TimeoutError as error:
                raise DeadlineExceeded.after(timeout_s) from error
            self._check(request, worker.recipe.backend)
            if deadline is not None:
                request = msgspec.structs.replace(request, timeout_s=max(0.001, deadline - loop.time()))
            caller.afterwards = partial(self._let_go, worker, name)
            async with self._ask(worker, request) as answer:
                if caller.canceled:  # perhaps said before the worker knew the request
                    await self._link.cancel(worker, name)
                try:
                    yield answer
                finally:  # a client that has read the last word may leave at once
                    if answer.over:
                        caller.afterwards, caller.answered = None, True
                        caller.read = answer.reading() if type(request) is wire.WorkerTask else None

    @asynccontextmanager
    async def _ask(self, worker: Worker, request: Task) -> AsyncGenerator[Answer]:
        async def explain(error: Exception | None) -> RbeeError:
            return await self._why_it_broke(worker, error)

        try:
            response = await self._send(worker, request)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise await explain(error) from error
        async with response:
            if response.status != 200:
                raise await _refusal(response)
            yield Answer(worker, response, explain)

    async def _let_go(self, worker: Worker, request_id: str) -> None:
        """See to it that the worker ends what nobody reads any more: until then its slot is not free.

        One that does not do so in the time in which it would have to give a sign of life is stopped.
        """
        stall_s = self._waits.token_stall_s
        if not await self._link.cancel(worker, request_id, stall_s):
            await self._supervisor.stop(worker.id, f"did not end a request within {stall_s:g} s")

    async def _send(self, worker: Worker, request: Task) -> aiohttp.ClientResponse:
        timeout = aiohttp.ClientTimeout(total=None, connect=self._waits.connect_s, sock_read=self._waits.token_stall_s)
        url, headers = f"{worker.url}{PATHS[type(request)]}", self._link.headers(worker)
        return await self._link.session.post(url, data=wire.encode(request), headers=headers, timeout=timeout)

    async def _why_it_broke(self, worker: Worker, error: Exception | None) -> RbeeError:
        """Return what a break means, waiting a moment for the worker's exit to be seen."""
        if isinstance(error, TimeoutError):
            return sse.stalled(self._waits.token_stall_s, f"Worker {worker.id} gave no sign of life")
        if error is not None and is_shortage(error):
            return Overloaded.by_system(error)
        ended = await self._supervisor.gone(worker.id, CRASH_SETTLE_S)
        if worker.error:
            return copy(worker.error)
        if worker.end_as in STOPPED:
            return ShuttingDown(who=f"worker ({worker.reason})")
        if ended is None:
            why = shorten(str(error) or type(error).__name__) if error else "the stream has no end"
            hint = "it still runs: try again in a moment"
            return Overloaded(f"The connection to worker {worker.id} broke: {why}", hint=hint)
        return WorkerCrashed(worker_id=worker.id, exit=ended.reason)


def _named(target: Demand | WorkerId) -> str:
    return target.reference if isinstance(target, Demand) else target


def last_word(error: RbeeError) -> bytes:
    """Return how a stream in our own format ends with `error`."""
    return event_bytes(error.body()) + END


async def _refusal(response: aiohttp.ClientResponse) -> RbeeError:
    try:
        error = msgspec.json.decode(await response.read(), type=wire.ErrorBody).error
    except (msgspec.MsgspecError, aiohttp.ClientError, TimeoutError):
        return RbeeError(f"The worker answered with status {response.status}")
    return RemoteError.of(error, response.status)
