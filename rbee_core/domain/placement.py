"""Whether a machine's memory holds one more worker, given what the others hold or are about to hold.

A *memory* is the host's, or one card's: workers of different memories do not concern each other.
"""

from collections.abc import Iterable

from rbee_core.domain.worker import HOST, Worker


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
