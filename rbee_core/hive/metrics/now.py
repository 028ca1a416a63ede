"""How things stand at the moment of a scrape, as numbers with labels."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from rbee_core import __version__
from rbee_core.domain.worker import Worker
from rbee_core.hive.metrics.numbers import Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """What is neither counted nor measured over time."""

    running: Mapping[Labels, int]
    waiting: Mapping[Labels, int]
    slots: Mapping[Labels, int]
    workers: Mapping[Labels, int]
    memory: Mapping[Labels, int]
    downloaded: Mapping[Labels, int]
    build: Mapping[Labels, int]


def look(
    workers: Iterable[Worker],
    waiting: Mapping[str, int],
    host: Mapping[str, int],
    name: Callable[[str], str],
    known: Callable[[str], str],
    downloaded_bytes: int = 0,
) -> Now:
    """Return how things stand. `waiting` counts by model, `host` has kinds of the machine's memory in bytes.

    `name` returns the label of a model that has a worker, `known` of one that is only waited for.
    """
    running, slots, states, memory = Counter[Labels](), Counter[Labels](), Counter[Labels](), Counter[Labels]()
    for worker in workers:
        model = (name(worker.recipe.reference),)
        running[model] += len(worker.requests)
        slots[model] += worker.slots
        states[worker.state.value, worker.recipe.backend] += 1
        memory["reserved", worker.recipe.device] += worker.recipe.need.total_bytes
    waits = Counter[Labels]()
    for model, count in waiting.items():
        waits[known(model),] += count
    return Now(
        running=running,
        waiting=waits or {("",): 0},
        slots=slots,
        workers=states,
        memory={**memory, **{(kind, "host"): size for kind, size in host.items()}},
        downloaded={(): downloaded_bytes},
        build={(__version__,): 1},
    )
