"""What an answer says of itself in numbers: tokens, times, probabilities."""

from collections.abc import Sequence
from typing import Any

from rbee_core import wire
from rbee_core.dialects.parts import End


def usage(ends: Sequence[End], answers_each: int | None = None) -> dict[str, Any]:
    """Return the count of tokens of all answers; so many of them are to one prompt, or all, and that counts once."""
    prompts = [end.figures.prompt_tokens for end in ends]
    step = answers_each or len(prompts) or 1
    prompt = sum(max(prompts[at : at + step]) for at in range(0, len(prompts), step))
    generated = sum(end.figures.total_tokens for end in ends)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": max((end.figures.cached_tokens for end in ends), default=0)},
        "completion_tokens_details": {"reasoning_tokens": sum(end.reasoning_tokens for end in ends)},
    }


def timings(end: End) -> dict[str, Any]:
    """Return the times of one answer as llama.cpp's server says them; milliseconds, and tokens a second."""
    done = end.figures
    read = max(0, done.prompt_tokens - done.cached_tokens)
    read_ms, write_ms = done.first_token_ms, max(0, done.duration_ms - done.first_token_ms)
    return {
        "cache_n": done.cached_tokens,
        "prompt_n": read,
        "prompt_ms": read_ms,
        "prompt_per_token_ms": _share(read_ms, read),
        "prompt_per_second": done.prompt_tokens_per_s,
        "predicted_n": done.total_tokens,
        "predicted_ms": write_ms,
        "predicted_per_token_ms": _share(write_ms, done.total_tokens),
        "predicted_per_second": done.generation_tokens_per_s,
    }


def _share(whole_ms: int, count: int) -> float:
    return round(whole_ms / count, 3) if count else 0.0


def likelihood(one: wire.Logprobs) -> dict[str, Any]:
    """Return a token's probabilities as a chat says them."""
    return {**_token(one), "top_logprobs": [_token(other) for other in one.top]}


def _token(one: wire.TokenLikelihood) -> dict[str, Any]:
    return {"token": one.token, "logprob": one.logprob, "bytes": one.bytes}
