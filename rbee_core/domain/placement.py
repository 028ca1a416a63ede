"""Whether a new worker fits into memory, given what the others hold or are about to hold."""

from collections.abc import Iterable

from rbee_core.domain.worker import STARTING, Worker


def free_bytes(available_bytes: int, workers: Iterable[Worker]) -> int:
    """Return what a new worker may take of the `available_bytes` that the system reports now.

    A worker that is still starting has claimed memory it does not yet hold, so all of its need is set aside. One that
    serves already holds its private memory (the system's number knows), but its memory-mapped weights look reclaimable
    to the system and are not ours to give away.
    """
    claimed = sum(w.need.total_bytes if w.state in STARTING else w.need.mapped_bytes for w in workers if not w.ended)
    return max(0, available_bytes - claimed)
