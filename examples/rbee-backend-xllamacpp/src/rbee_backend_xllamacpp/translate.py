"""rbee's requests and events in the words of llama.cpp's server. Pure: no engine, no threads."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rbee_core.backend import EngineEvent, Finished, GenerateRequest, PromptDone, PromptProgress, Token
from rbee_core.errors import InvalidRequest, PromptTooLong, RbeeError

Chunk = Mapping[str, Any]

RANDOM_SEED = 0xFFFF_FFFF  # llama.cpp reads this number as "choose one yourself"
PENALTY_WINDOW_TOKENS = 64


def body(request: GenerateRequest) -> dict[str, Any]:
    """Return the request as llama.cpp's server takes it, chat or not."""
    asked = {
        "stream": True,
        "return_progress": True,  # a sign of life after each piece of the prompt, at which it can be cancelled
        "cache_prompt": False,  # what is left of an earlier request would change the numbers, and so the text of a seed
        "max_tokens": -1 if request.max_tokens is None else request.max_tokens,
        "temperature": request.temperature,
        "top_k": request.top_k,
        "top_p": request.top_p,
        "min_p": request.min_p,
        "repeat_penalty": request.repeat_penalty,
        "repeat_last_n": PENALTY_WINDOW_TOKENS,
        "seed": RANDOM_SEED if request.seed is None else min(request.seed, RANDOM_SEED - 1),
    }
    if request.prompt is not None:
        return asked | {"prompt": request.prompt}
    messages = [{"role": m.role, "content": m.content} for m in request.messages]
    return asked | {"messages": messages, "reasoning_format": "none"}


def events(chunks: Iterable[Chunk]) -> Iterator[EngineEvent]:
    """Yield rbee's events for llama.cpp's chunks, up to its last one."""
    tokens = 0
    for chunk in chunks:
        if "error" in chunk:
            raise refusal(chunk["error"])
        if progress := chunk.get("prompt_progress"):
            done, total = progress["processed"], progress["total"]
            yield PromptDone(total) if done == total else PromptProgress(done, total)
            continue
        choice = chunk["choices"][0]
        if text := choice.get("text") or choice.get("delta", {}).get("content"):
            tokens += 1
            yield Token(text)
        if reason := choice["finish_reason"]:
            yield from silent_tokens(chunk, tokens, reason)
            yield Finished("length" if reason == "length" else "stop")
            return


def silent_tokens(last: Chunk, told: int, reason: str) -> list[Token]:
    """Return a token for each one that was no chunk of its own, as it was part of a character or has no text.

    llama.cpp counts the end-of-text token too; rbee does not.
    """
    generated = last["timings"]["predicted_n"] - (reason != "length")
    return [Token("")] * (generated - told)


def refusal(error: Mapping[str, Any]) -> RbeeError:
    """Return llama.cpp's error as one of rbee's."""
    if error.get("type") == "exceed_context_size_error":
        return PromptTooLong(prompt_tokens=error["n_prompt_tokens"], context_tokens=error["n_ctx"])
    message = str(error.get("message", "it gave no reason"))
    if error.get("code") == 400:
        return InvalidRequest(f"llama.cpp refused the request: {message}")
    return RbeeError(f"llama.cpp failed: {message}", hint="see the worker's log")
