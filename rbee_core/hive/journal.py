"""The journal: what the pool said about its workers, numbered and bounded, for whoever wants to hear it.

Log, plugins and `GET /v1/events` hear each change from here, and nobody else has to be told. It also keeps the pool's
story, one line for each event and what it led to, so that a bug can be reported with what came before it. Both hold
the last few entries only, as text or as what the wire shows: no prompt, key or secret gets in.
"""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import islice
from typing import Any

import msgspec

from rbee_core import wire
from rbee_core.domain import events as ev
from rbee_core.domain import instructions as do
from rbee_core.domain.worker import ENDED, Worker, WorkerState
from rbee_core.errors import RbeeError

KEPT = 1000
STORY_LINES = 100
SILENCE_S = 15.0
TOLD = ("worker_id", "ticket", "until", "before", "after", "reason", "force", "pid", "exit", "waiting", "error")

Entry = wire.WorkerChanged | wire.SettingsChanged
Listener = Callable[[wire.WorkerChanged], None]

log = logging.getLogger(__name__)


class Journal:
    """One hive's journal. Belongs to the event loop's thread.

    `describe` returns a worker as the wire shows it. Numbers begin at 1 with every hive; `id` tells hives apart.
    """

    def __init__(self, describe: Callable[[Worker], wire.WorkerInfo], kept: int = KEPT) -> None:
        self._describe = describe
        self._listeners: list[Listener] = []
        self._entries: deque[Entry] = deque(maxlen=kept)
        self._story: deque[str] = deque(maxlen=STORY_LINES)
        self._number = 0
        self._more = asyncio.Event()
        self._closed = False
        self.id = secrets.token_hex(4)

    def listen(self, listener: Listener) -> None:
        """Have every further change told to `listener`, at once and in order; what it raises is logged."""
        self._listeners.append(listener)

    def record(self, event: ev.Event, instructions: Sequence[do.Instruction], find: Callable[[str], Worker]) -> None:
        """Take in what the pool was told and what it answered."""
        if instructions or not isinstance(event, ev.Tick):
            self._story.append(_line(event, instructions))
        for instruction in instructions:
            if isinstance(instruction, do.Changed):
                self._changed(instruction, find(instruction.worker_id))

    def settings_changed(self, changed: Sequence[str], needs_restart: Sequence[str]) -> None:
        """Take in that the settings were read again."""
        self._number += 1
        told = wire.SettingsChanged(
            number=self._number,
            at_unix=round(time.time(), 3),
            changed=list(changed),
            needs_restart=list(needs_restart),
        )
        self._entries.append(told)
        self._wake()

    def story(self, lines: int = STORY_LINES) -> list[str]:
        """Return the last lines of the pool's story, oldest first."""
        return list(self._story)[-lines:]

    def close(self) -> None:
        """Let everybody who follows hear what there is, and then the end."""
        self._closed = True
        self._wake()

    def mark(self, number: int) -> str:
        """Return the id of the event with this number, from which `follow` goes on."""
        return f"{self.id}-{number}"

    async def follow(
        self, mark: str, live: Callable[[], list[wire.WorkerInfo]]
    ) -> AsyncGenerator[Sequence[wire.PoolSnapshot | Entry]]:
        """Yield what happens after `mark`, together what came together; nothing after `SILENCE_S` without a change.

        Where `mark` is none of this journal's, or what followed it is no longer kept, a snapshot of `live` comes first;
        and again for a reader that falls so far behind. A reader is a number here, however slow it is.
        """
        number = self._number_of(mark)
        while True:
            entries = self._after(number)
            if entries is None:
                missed = 0 if number is None else self._number - number
                number = self._number
                yield [wire.PoolSnapshot(number=number, at_unix=time.time(), workers=live(), missed=missed)]
            elif entries:
                number = entries[-1].number
                yield entries
            elif self._closed:
                return
            elif not await self._wait():
                yield []

    def _changed(self, change: do.Changed, worker: Worker) -> None:
        self._number += 1
        told = wire.WorkerChanged(
            number=self._number,
            at_unix=round(time.time(), 3),
            worker_id=change.worker_id,
            before=None if change.before is None else change.before.value,
            after=change.after.value,
            reason=change.reason.value,
            for_whom=change.for_whom,
            worker=msgspec.structs.replace(self._describe(worker), state=_shown(change.after)),
        )
        self._entries.append(told)
        self._wake()
        for listener in self._listeners:
            try:
                listener(told)
            except Exception:
                log.exception("a listener of the journal failed")

    def _number_of(self, mark: str) -> int | None:
        """Return the number that a mark of this journal's names, None for any other text."""
        journal, _, digits = mark.partition("-")
        if journal != self.id or not (digits.isascii() and digits.isdigit() and len(digits) < 16):
            return None
        number = int(digits)
        return number if number <= self._number else None

    def _after(self, number: int | None) -> list[Entry] | None:
        """Return the entries after `number`, None if some are no longer kept."""
        behind = len(self._entries) + 1 if number is None else self._number - number
        known = len(self._entries) - behind
        return None if known < 0 else list(islice(self._entries, known, None))

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()

    async def _wait(self) -> bool:
        """Wait for the next change; return whether one came within `SILENCE_S`."""
        more = self._more
        try:
            async with asyncio.timeout(SILENCE_S):
                return await more.wait()
        except TimeoutError:
            return False


def log_change(change: wire.WorkerChanged) -> None:
    """Write a change to the hive's log."""
    worker = change.worker
    whom = f" for {change.for_whom}" if change.for_whom else ""
    reason = worker.reason if change.after in ENDED else change.reason
    where = f", registered at {worker.url}" if change.after == WorkerState.LOADING else ""
    log.info("%s: %s, was %s: %s%s%s", change.worker_id, change.after, change.before or "new", reason, whom, where)


@asynccontextmanager
async def telling_plugins(journal: Journal, tell: Callable[..., Awaitable[None]]) -> AsyncGenerator[None]:
    """Have the plugins' hooks about workers called, in order, for the block; its end closes the journal."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_tell_plugins(journal, tell))
        try:
            yield
        finally:
            journal.close()


async def _tell_plugins(journal: Journal, tell: Callable[..., Awaitable[None]]) -> None:
    async with aclosing(journal.follow(journal.mark(0), list)) as groups:
        async for group in groups:
            for change in group:
                if isinstance(change, wire.WorkerChanged):
                    await _tell_hook(change, tell)


async def _tell_hook(change: wire.WorkerChanged, tell: Callable[..., Awaitable[None]]) -> None:
    worker = change.worker
    if change.before == WorkerState.LOADING and change.after == WorkerState.IDLE:
        about = {"model": worker.model_ref, "backend": worker.backend, "device": worker.device}
        await tell("rbee_worker_ready", worker_id=worker.worker_id, **about)
    elif change.after in ENDED:
        await tell("rbee_worker_gone", worker_id=worker.worker_id, reason=worker.reason)


def _shown(state: WorkerState) -> wire.WorkerStateName:
    """Return the state that a worker was in then: one event may move it twice, and its record is already further."""
    return "loading" if state is WorkerState.LAUNCHING else state.value


def _line(event: ev.Event, instructions: Sequence[do.Instruction]) -> str:
    answers = ", ".join(map(_short, instructions)) or "nothing"
    return f"{event.at:.3f} {_short(event)} -> {answers}"


def _short(thing: Any) -> str:
    """Return a name and the few fields that may be told: those that neither a client nor a worker can word."""
    words = [type(thing).__name__]
    for name in TOLD:
        value = getattr(thing, name, None)
        if isinstance(value, RbeeError):
            words.append(value.code)
        elif isinstance(value, msgspec.Struct):
            words.append(str(getattr(value, "for_what", "")))
        elif value is not None and value is not False:
            words.append(str(value))
    return " ".join(words)
