"""Which memory of a machine's holds one more worker, given what the others hold or are about to hold.

A *memory* is the host's, or one card's: workers of different memories do not concern each other.
"""

from collections.abc import Iterable, Sequence

from rbee_core.domain.worker import HOST, Spot, Worker
from rbee_core.errors import InsufficientRam, VramExhausted


def roomiest(spots: Sequence[Spot], workers: Sequence[Worker]) -> Spot | None:
    """Return the spot with most free memory, the first of equals; None if a worker fits into none of them.

    Most and not just enough: what is computed beside it, and the next model, need room too.
    """
    fitting = [spot for spot in spots if spot.recipe.need.total_bytes <= free_at(spot, workers)]
    return max(fitting, key=lambda spot: free_at(spot, workers), default=None)


def free_at(spot: Spot, workers: Iterable[Worker]) -> int:
    """Return what a new worker may take there, see `free_bytes`."""
    return free_bytes(spot.recipe.memory, spot.available_bytes, workers)


def shortage(spots: Sequence[Spot], workers: Sequence[Worker]) -> InsufficientRam | VramExhausted:
    """Return the refusal of what fits into none of the spots, with the numbers of the one where most is free."""
    best = max(spots, key=lambda spot: free_at(spot, workers))
    error = InsufficientRam if best.recipe.memory == HOST else VramExhausted
    have_bytes = max(0, free_at(best, workers))
    return error(need_bytes=best.recipe.need.total_bytes, have_bytes=have_bytes, devices=len(spots))


def free_bytes(memory: str, available_bytes: int, workers: Iterable[Worker]) -> int:
    """Return what a new worker may take of the `available_bytes` that the system reports in `memory` now.

    Negative if more is claimed than there is.
    """
    return available_bytes - sum(claimed_bytes(w) for w in sharing(memory, workers))


def sharing(memory: str, workers: Iterable[Worker]) -> list[Worker]:
    """Return the workers whose models live in `memory`."""
    return [w for w in workers if w.recipe.memory == memory and not w.ended]


def claimed_bytes(worker: Worker) -> int:
    """Return what is the worker's although the system reports it as available.

    Before its model is loaded that is all of its need, for it may take it at any moment. A loaded one holds its memory,
    and the system's number knows that; but in the host's memory mapped weights look reclaimable, and they are not ours
    to give away.
    """
    need = worker.recipe.need
    if not worker.loaded:
        return need.total_bytes
    return need.mapped_bytes if worker.recipe.memory == HOST else 0
