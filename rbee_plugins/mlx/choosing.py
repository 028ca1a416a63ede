"""From a request to what mlx-lm chooses its tokens with. Beside `runtime` the only module that imports mlx."""

from collections import deque
from collections.abc import Callable
from importlib import import_module
from typing import Any

from rbee_core.backend import GenerateRequest

_mx: Any = import_module("mlx.core")
_sampling: Any = import_module("mlx_lm.sample_utils")

_LEAST_TOP_P = 1e-6  # mlx-lm reads 0 as "off"; what is meant is the most likely token

Processor = Callable[[Any, Any], Any]
"""What changes logits. The tokens it is given begin with the last one of the prompt."""


def sampler(request: GenerateRequest, vocabulary_size: int) -> Any:
    """Return what chooses a token out of log probabilities; it draws from the random state of its thread."""
    return _sampling.make_sampler(
        temp=request.temperature,
        top_p=max(request.top_p, _LEAST_TOP_P),
        min_p=request.min_p,
        top_k=request.top_k if request.top_k < vocabulary_size else 0,
        xtc_probability=request.xtc_probability,
        xtc_threshold=request.xtc_threshold,
    )


def processors(request: GenerateRequest, ends: frozenset[int], rows: "deque[Any]") -> list[Processor]:
    """Return what is done to the logits; the model's own log probabilities go into `rows` first, if they are wanted."""
    window = request.penalty_window
    penalties: list[Processor] = _sampling.make_logits_processors(
        repetition_penalty=None if request.repeat_penalty == 1.0 else request.repeat_penalty,
        repetition_context_size=window,
        presence_penalty=request.presence_penalty,
        presence_context_size=window,
        frequency_penalty=request.frequency_penalty,
        frequency_context_size=window,
    )
    made = [_keeping(rows)] if request.logprobs is not None else []
    made += _sampling.make_logits_processors(logit_bias=dict(request.logit_bias))
    made += [_of_generated(penalty) for penalty in penalties]
    if ends and (request.ignore_eos or request.min_tokens):
        [forbid] = _sampling.make_logits_processors(logit_bias=dict.fromkeys(sorted(ends), float("-inf")))
        made.append(forbid if request.ignore_eos else _for_the_first(request.min_tokens, forbid))
    return made


def _keeping(rows: "deque[Any]") -> Processor:
    def keep(_tokens: Any, logits: Any) -> Any:
        rows.append((logits - _mx.logsumexp(logits, axis=-1, keepdims=True)).squeeze(0))
        return logits

    return keep


def _of_generated(penalty: Processor) -> Processor:
    def punish(tokens: Any, logits: Any) -> Any:
        return penalty(tokens[1:], logits) if len(tokens) > 1 else logits

    return punish


def _for_the_first(count: int, processor: Processor) -> Processor:
    def process(tokens: Any, logits: Any) -> Any:
        return processor(tokens, logits) if len(tokens) <= count else logits

    return process
