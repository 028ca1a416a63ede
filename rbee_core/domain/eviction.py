"""Whose end makes room for one more worker, and in which memory: chosen so that nobody is stopped in vain."""

from collections.abc import Callable, Sequence

from rbee_core.domain.placement import free_bytes, sharing
from rbee_core.domain.worker import Need, Spot, Worker, WorkerId, WorkerState

Chosen = tuple[WorkerId, ...]
Choose = Callable[[Need, str, Sequence[Worker], int], Chosen | None]


def cheapest(spots: Sequence[Spot], workers: Sequence[Worker], choose: Choose) -> tuple[Spot, Chosen] | None:
    """Return where least has to go, in bytes, and who: by `choose`, which is `victims` or `awaited`.

    Where as much has to go, the one whose workers were used longest ago; None if it would be enough nowhere.
    """

    def cost(found: tuple[Spot, Chosen]) -> tuple[int, float]:
        going = [w for w in workers if w.id in found[1]]
        return _held_bytes(going), max((w.used_at for w in going), default=0.0)

    asked = [(s, choose(s.recipe.need, s.recipe.memory, workers, s.available_bytes)) for s in spots]
    return min(((spot, chosen) for spot, chosen in asked if chosen is not None), key=cost, default=None)


def victims(need: Need, memory: str, workers: Sequence[Worker], available_bytes: int) -> Chosen | None:
    """Return the idle workers to stop, so that `need` fits once they are gone; None if that would not be enough.

    Least recently used first; never a pinned one, never one that is busy or starting. What is stopping already counts
    as gone, so an empty answer means: wait for those.
    """
    idle = [w for w in sharing(memory, workers) if w.state is WorkerState.IDLE and not w.kept]
    return _enough(need, memory, workers, available_bytes, idle)


def awaited(need: Need, memory: str, workers: Sequence[Worker], available_bytes: int) -> Chosen | None:
    """Return the workers, busy and starting ones among them, whose end is worth waiting for; None if it is not."""
    live = [w for w in sharing(memory, workers) if w.state is not WorkerState.STOPPING and not w.kept]
    return _enough(need, memory, workers, available_bytes, live)


def _enough(
    need: Need, memory: str, workers: Sequence[Worker], available_bytes: int, candidates: list[Worker]
) -> Chosen | None:
    """Return as few of the candidates as needed. What ends gives back its whole need."""
    stopping = [w for w in sharing(memory, workers) if w.state is WorkerState.STOPPING]
    missing = need.total_bytes - free_bytes(memory, available_bytes, workers) - _held_bytes(stopping)
    chosen: list[Worker] = []
    for worker in sorted(candidates, key=lambda w: w.used_at):
        if _held_bytes(chosen) >= missing:
            break
        chosen.append(worker)
    if _held_bytes(chosen) < missing:
        return None
    for worker in chosen[-2::-1]:  # the last one was needed; an earlier, smaller one may not be any more
        if _held_bytes(chosen) - _held_bytes([worker]) >= missing:
            chosen.remove(worker)
    return tuple(w.id for w in chosen)


def _held_bytes(workers: Sequence[Worker]) -> int:
    return sum(w.recipe.need.total_bytes for w in workers)
