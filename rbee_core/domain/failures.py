"""Which models' workers fail again and again, and how long each is held back for it.

A model that ends its engine would do so as often as somebody asks for it. So each failure in a row doubles the wait
before the next worker for that recipe is launched, and after `Limits.failures_in_a_row` it is refused for
`Limits.quarantine_s`. A recipe names the version of its files: with other ones it is another recipe, and nothing is
held against it. Only what the hive's memory holds counts: a new hive begins afresh.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rbee_core.domain import instructions as do
from rbee_core.domain.limits import Limits
from rbee_core.domain.worker import Reason, Recipe, Spot, Worker, WorkerState
from rbee_core.errors import ModelHeldBack

KEPT = 256
"""Recipes that failed and are remembered for it; more than a person has models."""


@dataclass(frozen=True, slots=True)
class _Streak:
    last: Worker
    forgotten_at: float


class Failures:
    """The failures in a row, by recipe. The last worker of each says how many there are and how long it is held."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._streaks: dict[Recipe, _Streak] = {}

    def heard(self, change: do.Changed, worker: Worker, at: float) -> None:
        """Count a failure: `worker` never became ready, or ended by itself. That it could not be launched is none."""
        if change.after not in (WorkerState.CRASHED, WorkerState.FAILED) or change.reason is Reason.NOT_LAUNCHED:
            return
        before = self._streaks.pop(worker.recipe, None)
        lasts = before is not None and at < before.forgotten_at
        worker.failures = before.last.failures + 1 if before and lasts else 1
        worker.held_until = at + self._hold_s(worker.failures)
        self._streaks[worker.recipe] = _Streak(worker, at + self.limits.quarantine_s)
        for recipe, streak in list(self._streaks.items()):
            if streak.forgotten_at <= at or len(self._streaks) > KEPT:
                del self._streaks[recipe]

    def holds(self, recipe: Recipe, at: float) -> Worker | None:
        """Return the last worker that failed with this recipe, if no other one may be launched yet."""
        streak = self._streaks.get(recipe)
        return streak.last if streak and at < streak.last.held_until else None

    def sort(self, spots: Sequence[Spot], at: float) -> tuple[list[Worker], list[Spot]]:
        """Return the workers that failed where no other one may be launched yet, and the spots where one may."""
        failed = [worker for spot in spots if (worker := self.holds(spot.recipe, at))]
        return failed, [spot for spot in spots if not self.holds(spot.recipe, at)]

    def is_refused(self, worker: Worker) -> bool:
        """Whether it was the last of so many failures that nobody waits for the next launch any more."""
        return worker.failures >= self.limits.failures_in_a_row

    def held_back(self, at: float) -> list[Worker]:
        """Return the last worker of each recipe that is held back now, the longest held one first."""
        return [s.last for s in self._streaks.values() if at < s.last.held_until]

    def did_well(self, recipe: Recipe) -> None:
        """Hold nothing against a recipe any more: a worker of it has served somebody."""
        if streak := self._streaks.pop(recipe, None):
            streak.last.held_until = 0.0

    def forget(self, reference: str) -> None:
        """Hold nothing against a model any more: somebody wants to try again."""
        for streak in list(self._streaks.values()):
            if reference in streak.last.names:
                self.did_well(streak.last.recipe)

    def _hold_s(self, failures: int) -> float:
        limits = self.limits
        if failures >= limits.failures_in_a_row:
            return limits.quarantine_s
        return min(limits.restart_delay_s * 2 ** (failures - 1), limits.quarantine_s)


def held_back(reference: str, failed: Worker, at: float) -> ModelHeldBack:
    """Return why no worker for a model is launched at this time, after this one."""
    return ModelHeldBack(
        reference=reference,
        failures=failed.failures,
        last=failed.error.message if failed.error else failed.reason,
        worker_id=failed.id,
        again_in_s=failed.held_until - at,
    )
