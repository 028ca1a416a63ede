"""The demands that no worker serves yet, in the order in which they came, and who goes before whom to memory."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from rbee_core.domain import instructions as do
from rbee_core.domain.limits import Limits
from rbee_core.domain.queue import FairQueue
from rbee_core.domain.worker import Demand, Recipe, Spot, Worker, WorkerId


@dataclass(slots=True, eq=False)
class Pending:
    """A demand that no worker serves yet, and who waits with it.

    First it is resolved. If there is no room then in any of its `memories`, it is decided anew whenever one of them
    changes. `recipe` says in which one it waits for room to be made, `awaited` for whose end, `making_room` that those
    were stopped for it. It is `stale` when a memory changed since it was decided, and `passed` counts the later ones
    that went before it. With `held_until`, a worker of it failed a moment ago, and it is resolved anew then.
    """

    demand: Demand
    line: FairQueue = field(default_factory=FairQueue)
    resolving: bool = False
    memories: tuple[str, ...] = ()
    recipe: Recipe | None = None
    awaited: frozenset[WorkerId] = frozenset()
    making_room: bool = False
    stale: bool = False
    passed: int = 0
    held_until: float | None = None

    @property
    def what_for(self) -> Literal["the model", "memory", "a restart"]:
        """What who waits with it waits for."""
        if self.recipe is not None:
            return "memory"
        return "the model" if self.held_until is None else "a restart"

    def waits_in(self, memory: str) -> bool:
        """Whether somebody waits here for room in `memory`."""
        return memory in self.memories and len(self.line) > 0

    def resolve(self) -> Iterator[do.Instruction]:
        """Find out what the demand means, unless that is under way."""
        if not self.resolving:
            self.resolving, self.stale, self.held_until = True, False, None
            yield do.Resolve(self.demand)


class PendingDemands:
    """All of them. In one memory they look for room one after another, the earliest first.

    A later one may pass an earlier one that waits for more: what is free now should not lie idle. But only
    `limits.overtakes` times; then the earlier one is *due*, its room is promised to it, and the workers it waits for
    take nobody new.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._by_demand: dict[Demand, Pending] = {}

    def __iter__(self) -> Iterator[Pending]:
        return iter(list(self._by_demand.values()))

    def find(self, demand: Demand) -> Pending | None:
        """Return the demand, if it is pending."""
        return self._by_demand.get(demand)

    def add(self, demand: Demand) -> Pending:
        """Put a demand behind the others."""
        pending = self._by_demand[demand] = Pending(demand)
        return pending

    def drop(self, pending: Pending) -> Iterator[do.Instruction]:
        """Take out a demand that nobody waits with; what it waited for is another's now."""
        self._by_demand.pop(pending.demand, None)
        for memory in pending.memories:
            yield from self.memory_changed(memory)

    def clear(self) -> list[FairQueue]:
        """Take all out; return those who waited."""
        lines = [p.line for p in self]
        self._by_demand.clear()
        return lines

    def earlier(self, pending: Pending, memory: str) -> list[Pending]:
        """Return the demands that came before this one and wait for room in `memory`."""
        before = list(self._by_demand.values())
        return [p for p in before[: before.index(pending)] if p.waits_in(memory)]

    def left(self, pending: Pending, spot: Spot) -> Spot:
        """Return the spot with what earlier ones leave there: not the room made for one, nor what a due one needs.

        Each of those is promised room in one memory, wherever else it would fit too.
        """
        memory, earlier = spot.recipe.memory, self.earlier(pending, spot.recipe.memory)
        recipes = [p.recipe for p in earlier if p.recipe and (p.making_room or self._is_due(p))]
        promised_bytes = sum(r.need.total_bytes for r in recipes if r.memory == memory)
        return Spot(spot.recipe, spot.available_bytes - promised_bytes)

    def reserve(self, worker: Worker, earlier: list[Pending] | None = None) -> bool:
        """Whether one of these, or any, is due and waits for the end of `worker`: then it takes nobody new."""
        before = list(self) if earlier is None else earlier
        return any(worker.id in p.awaited and self._is_due(p) for p in before)

    def passed_at(self, worker: Worker) -> None:
        """Count that somebody new uses a worker whose end others wait for."""
        for pending in self:
            pending.passed += worker.id in pending.awaited

    def memory_changed(self, memory: str) -> Iterator[do.Instruction]:
        """Let those who wait for room in `memory` look again."""
        for pending in self:
            if pending.waits_in(memory):
                pending.stale = True
        yield from self.look_again(memory)

    def look_again(self, memory: str) -> Iterator[do.Instruction]:
        """Resolve the first one anew for which something changed. Those behind it follow once it is decided."""
        here = [p for p in self if p.waits_in(memory)]
        if any(p.resolving for p in here):
            return
        for pending in here:
            if pending.stale and not (pending.making_room and pending.awaited):
                yield from pending.resolve()
                return

    def come_back(self, at: float) -> Iterator[do.Instruction]:
        """Resolve those anew that were held back until `at`."""
        for pending in self:
            if pending.held_until is not None and pending.held_until <= at:
                yield from pending.resolve()

    def ended(self, worker: Worker) -> Iterator[do.Instruction]:
        """Take in that a worker is gone."""
        for pending in self:
            pending.awaited -= {worker.id}
        yield from self.memory_changed(worker.recipe.memory)

    def _is_due(self, pending: Pending) -> bool:
        return pending.passed >= self.limits.overtakes
