"""What the tests of the pool are written in: demands, events and instructions in few words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rbee_core.domain import events as ev
from rbee_core.domain import instructions as do
from rbee_core.domain.pool import Pool
from rbee_core.domain.worker import (
    HOST,
    Demand,
    Need,
    Reason,
    Recipe,
    RequestId,
    Secret,
    Spot,
    Ticket,
    WorkerId,
    WorkerState,
)
from rbee_core.errors import RbeeError

NEED = Need(mapped_bytes=60, private_bytes=40)
URL = "http://127.0.0.1:1"
NOTHING: list[do.Instruction] = []


@dataclass(frozen=True)
class Refused:
    """A `Refuse`, as far as tables compare it."""

    ticket: int
    error: type[RbeeError]


def demand(model: str = "a", device: int | None = None) -> Demand:
    return Demand(f"file:/{model}", device=device)


def recipe(model: str = "a", device: int | None = None, need: Need = NEED, slots: int = 1) -> Recipe:
    """Device 0 (or none) is the host's, every other one is a card with a memory of its own."""
    name, memory = ("cpu", HOST) if not device else (f"cuda:{device}", f"cuda:{device}")
    return Recipe(
        reference=f"file:/{model}", path=f"/{model}", place=f"/{model}", format="gguf", size_bytes=60,
        backend="scripted", device=name, memory=memory, need=need, slots=slots,
    )  # fmt: skip


def wants(
    ticket: int,
    model: str = "a",
    *,
    client: str = "ann",
    device: int | None = None,
    until: ev.Until = "slot",
    queue: bool = True,
    at: float = 0,
) -> ev.RequestWanted:
    name = RequestId(f"r{ticket}" if until == "slot" else "")
    wanted = demand(model, device)
    return ev.RequestWanted(
        at=at, ticket=Ticket(ticket), client=client, demand=wanted, request_id=name, until=until, queue=queue
    )


def wants_worker(
    ticket: int, worker: str = "w1", *, client: str = "ann", name: str = "", queue: bool = True, at: float = 0
) -> ev.RequestWanted:
    request_id = RequestId(name or f"r{ticket}")
    return ev.RequestWanted(
        at=at, ticket=Ticket(ticket), client=client, worker_id=WorkerId(worker), request_id=request_id, queue=queue
    )


def resolved(
    model: str = "a",
    worker: str = "w1",
    *,
    device: int | None = None,
    need: Need = NEED,
    available: int = 1000,
    at: float = 0,
) -> ev.Resolved:
    return resolved_on(model, worker, {device or 0: available}, wanted=demand(model, device), need=need, at=at)


def resolved_on(
    model: str,
    worker: str,
    available: Mapping[int, int],
    *,
    wanted: Demand | None = None,
    need: Need = NEED,
    at: float = 0,
) -> ev.Resolved:
    """A demand that leaves several devices open; `available` says what is free on each."""
    return ev.Resolved(
        at=at, demand=wanted or demand(model), worker_id=WorkerId(worker), secret=Secret("hush-hush"),
        spots=tuple(Spot(recipe(model, device, need), free) for device, free in available.items()),
    )  # fmt: skip


def launched(worker: str = "w1", at: float = 0) -> ev.ChildLaunched:
    return ev.ChildLaunched(at, WorkerId(worker), pid=77)


def bound(worker: str = "w1", at: float = 0) -> ev.WorkerBound:
    return ev.WorkerBound(at, WorkerId(worker), URL)


def loaded(worker: str = "w1", at: float = 0, slots: int = 1) -> ev.WorkerLoaded:
    return ev.WorkerLoaded(at, WorkerId(worker), slots=slots, context_tokens=512)


def ended(ticket: int, at: float = 0) -> ev.RequestEnded:
    return ev.RequestEnded(at, Ticket(ticket))


def dropped(ticket: int, at: float = 0) -> ev.TicketDropped:
    return ev.TicketDropped(at, Ticket(ticket))


def cancels(name: str, worker: str | None = None) -> ev.CancelWanted:
    return ev.CancelWanted(0, RequestId(name), None if worker is None else WorkerId(worker))


def stop(worker: str = "w1", at: float = 0) -> ev.StopWanted:
    return ev.StopWanted(at, WorkerId(worker), "asked to stop")


def exited(worker: str = "w1", how: str = "SIGSEGV", at: float = 0) -> ev.ChildExited:
    return ev.ChildExited(at, WorkerId(worker), how, ("last words",))


def pinned(worker: str = "w1", *, pinned: bool = True) -> ev.PinWanted:
    return ev.PinWanted(0, WorkerId(worker), pinned)


def launch(
    worker: str = "w1",
    model: str = "a",
    *,
    device: int | None = None,
    need: Need = NEED,
    available: int = 1000,
    ticket: int = 900,
) -> list[ev.Event]:
    """What leads to a worker that is being launched, for a spawn that then goes away."""
    return [
        wants(ticket, model, device=device, until="bound"),
        resolved(model, worker, device=device, need=need, available=available),
        launched(worker),
        dropped(ticket),
    ]


def idle(
    worker: str = "w1",
    model: str = "a",
    *,
    device: int | None = None,
    need: Need = NEED,
    available: int = 1000,
    slots: int = 1,
    at: float = 0,
) -> list[ev.Event]:
    """What leads to a worker that is idle since `at`."""
    start = launch(worker, model, device=device, need=need, available=available)
    return [*start, bound(worker, at), loaded(worker, at, slots)]


def changed(before: str, after: str, reason: Reason, for_whom: str = "", worker: str = "w1") -> do.Changed:
    start = WorkerState(before) if before else None
    return do.Changed(WorkerId(worker), start, WorkerState(after), reason, for_whom)


def answer(ticket: int, worker: str | None = "w1") -> do.Answer:
    return do.Answer(Ticket(ticket), None if worker is None else WorkerId(worker))


def grant(ticket: int, worker: str = "w1") -> do.Grant:
    return do.Grant(Ticket(ticket), WorkerId(worker))


def waits(ticket: int, position: int, for_what: str, progress: float = 0.0) -> do.Tell:
    assert for_what in ("a slot", "the model", "memory", "a restart")
    return do.Tell(Ticket(ticket), do.Waiting(position, for_what, progress))


def feed(pool: Pool, events: Sequence[ev.Event]) -> list[do.Instruction]:
    return [instruction for event in events for instruction in pool.handle(event)]


def plain(instructions: Sequence[do.Instruction]) -> list[do.Instruction | Refused]:
    return [Refused(i.ticket, type(i.error)) if isinstance(i, do.Refuse) else i for i in instructions]


def without_words(instructions: Sequence[do.Instruction]) -> list[do.Instruction | Refused]:
    """Return what is done, without what waiting tickets are told."""
    return [i for i in plain(instructions) if not isinstance(i, do.Tell)]


def refusal(instructions: Sequence[do.Instruction], ticket: int) -> RbeeError:
    refusals = [i for i in instructions if isinstance(i, do.Refuse)]
    assert [r.ticket for r in refusals] == [ticket]
    return refusals[0].error
