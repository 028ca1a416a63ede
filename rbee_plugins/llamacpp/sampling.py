"""Which of llama.cpp's samplers a request needs, in order. Pure: names and arguments, no native calls."""

import secrets
from dataclasses import dataclass
from typing import Any

from rbee_core.backend import GenerateRequest

_RANDOM_SEED = 0xFFFF_FFFF  # llama.cpp reads this number as "choose one yourself"
_MIROSTAT_TOKENS = 100  # of which mirostat 1 estimates how surprising a text is: its authors' number
_KEEP_AT_LEAST = 1


@dataclass(frozen=True, slots=True)
class Step:
    """One sampler of a chain: the end of its constructor's name, and the arguments."""

    name: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """How one request's tokens are chosen: a chain of samplers, and what a chain cannot say.

    No token that ends the text is chosen before `min_tokens` others, or ever if `endless`. With `logprobs` the numbers
    that the model gave are kept.
    """

    steps: tuple[Step, ...]
    min_tokens: int = 0
    endless: bool = False
    logprobs: bool = False


def plan(request: GenerateRequest, vocabulary_size: int) -> Plan:
    """Return how the tokens of `request` are chosen."""
    return Plan(
        steps=chain(request, vocabulary_size),
        min_tokens=request.min_tokens,
        endless=request.ignore_eos,
        logprobs=request.logprobs is not None,
    )


def chain(request: GenerateRequest, vocabulary_size: int) -> tuple[Step, ...]:
    """Return the samplers for `request`, leaving out those that would change nothing. In llama.cpp's own order."""
    steps = (*_corrections(request, vocabulary_size),)
    if request.temperature <= 0:
        return (*steps, Step("greedy"))
    seed = _seed(request.seed)
    temperature = Step("temp", (request.temperature,))
    if request.mirostat == 1:
        mirostat = (vocabulary_size, seed, request.mirostat_tau, request.mirostat_eta, _MIROSTAT_TOKENS)
        return (*steps, temperature, Step("mirostat", mirostat))
    if request.mirostat == 2:
        return (*steps, temperature, Step("mirostat_v2", (seed, request.mirostat_tau, request.mirostat_eta)))
    return (*steps, *_cuts(request, seed), temperature, Step("dist", (seed,)))


def _corrections(request: GenerateRequest, vocabulary_size: int) -> list[Step]:
    """Return what makes single tokens more or less likely."""
    steps: list[Step] = []
    if request.logit_bias:
        steps.append(Step("logit_bias", (vocabulary_size, tuple(sorted(request.logit_bias.items())))))
    penalties = (request.repeat_penalty, request.frequency_penalty, request.presence_penalty)
    if penalties != (1.0, 0.0, 0.0):
        steps.append(Step("penalties", (vocabulary_size, request.penalty_window, *penalties)))
    if request.dry_multiplier > 0:
        breakers = tuple(breaker.encode() for breaker in request.dry_breakers)
        numbers = (request.dry_multiplier, request.dry_base, request.dry_allowed_length, request.dry_window)
        steps.append(Step("dry", (*numbers, breakers)))
    return steps


def _cuts(request: GenerateRequest, seed: int) -> list[Step]:
    """Return what leaves tokens out."""
    steps: list[Step] = []
    if request.top_n_sigma > 0:
        steps.append(Step("top_n_sigma", (request.top_n_sigma,)))
    if request.top_k > 0:
        steps.append(Step("top_k", (request.top_k,)))
    if request.typical_p < 1:
        steps.append(Step("typical", (request.typical_p, _KEEP_AT_LEAST)))
    if request.top_p < 1:
        steps.append(Step("top_p", (request.top_p, _KEEP_AT_LEAST)))
    if request.min_p > 0:
        steps.append(Step("min_p", (request.min_p, _KEEP_AT_LEAST)))
    if request.xtc_probability > 0:
        steps.append(Step("xtc", (request.xtc_probability, request.xtc_threshold, _KEEP_AT_LEAST, seed)))
    return steps


def _seed(asked: int | None) -> int:
    """Return the seed to use. llama.cpp takes the largest one as "random", so the one before it stands in for it."""
    seed = secrets.randbits(32) if asked is None else asked
    return seed - 1 if seed == _RANDOM_SEED else seed
