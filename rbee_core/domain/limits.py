"""What the pool heeds: how long each state may last, how many may wait, how failures are counted."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rbee_core.domain.worker import Stay


@dataclass(frozen=True, slots=True)
class Limits:
    """The pool's limits. `queue` is how many may wait in all.

    `overtakes` is how often a demand that waits for memory may be passed by later ones, which need less, or are served
    by a worker that it waits for; then nobody passes it any more. After `failures_in_a_row` a recipe is refused for
    `quarantine_s`; until then each failure doubles the wait before its next worker, from `restart_delay_s` on. `stays`
    has how long the workers of those models stay whose own settings say so.
    """

    worker_start_s: float = 30.0
    load_stall_s: float = 300.0
    idle_s: float = 300.0
    probe_every_s: float = 30.0
    queue: int = 64
    overtakes: int = 8
    failures_in_a_row: int = 5
    restart_delay_s: float = 1.0
    quarantine_s: float = 600.0
    stays: Mapping[str, Stay] = field(default_factory=dict[str, Stay])
