"""Which of llama.cpp's samplers a request needs, in order. Pure: names and arguments, no native calls."""

import secrets
from dataclasses import dataclass

from rbee_core.backend import GenerateRequest

PENALTY_WINDOW_TOKENS = 64
_RANDOM_SEED = 0xFFFF_FFFF  # llama.cpp reads this number as "choose one yourself"


@dataclass(frozen=True, slots=True)
class Step:
    """One sampler of a chain: the end of its constructor's name, and the arguments."""

    name: str
    arguments: tuple[int | float, ...] = ()


def chain(request: GenerateRequest, vocabulary_size: int) -> tuple[Step, ...]:
    """Return the samplers for `request`, leaving out those that would change nothing."""
    steps: list[Step] = []
    if request.repeat_penalty != 1.0:
        steps.append(Step("penalties", (vocabulary_size, PENALTY_WINDOW_TOKENS, request.repeat_penalty, 0.0, 0.0)))
    if request.temperature <= 0:
        return (*steps, Step("greedy"))
    if request.top_k > 0:
        steps.append(Step("top_k", (request.top_k,)))
    if request.top_p < 1:
        steps.append(Step("top_p", (request.top_p, 1)))
    if request.min_p > 0:
        steps.append(Step("min_p", (request.min_p, 1)))
    return (*steps, Step("temp", (request.temperature,)), Step("dist", (_seed(request.seed),)))


def _seed(asked: int | None) -> int:
    """Return the seed to use. llama.cpp takes the largest one as "random", so the one before it stands in for it."""
    seed = secrets.randbits(32) if asked is None else asked
    return seed - 1 if seed == _RANDOM_SEED else seed
