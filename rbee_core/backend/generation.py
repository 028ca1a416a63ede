"""One request as an engine meets it, and what the engine answers. A part of the contract, see `base`."""

from typing import Literal, Protocol

from msgspec import Struct

from rbee_core.domain import sampling

FinishReason = Literal["stop", "length"]
Role = Literal["system", "user", "assistant"]


class Message(Struct, frozen=True):
    """One turn of a conversation."""

    role: Role
    content: str


class GenerateRequest(Struct, frozen=True):
    """What to generate from, already checked: exactly one of `prompt` and `messages` is given.

    Ranges are rbee's to enforce: temperature 0..2, top_p and min_p 0..1, top_k ≥ 0 (0 = off), repeat_penalty > 0,
    seed 0..2**32-1 or None for a random one, max_tokens ≥ 1 or None for "as the context allows"; temperature 0 is
    greedy.
    """

    prompt: str | None = None
    messages: tuple[Message, ...] = ()
    max_tokens: int | None = None
    temperature: float = sampling.TEMPERATURE
    top_k: int = sampling.TOP_K
    top_p: float = sampling.TOP_P
    min_p: float = sampling.MIN_P
    repeat_penalty: float = sampling.REPEAT_PENALTY
    seed: int | None = None

    def text(self) -> str:
        """Return the prompt, or the messages' contents one a line, for engines without a chat template."""
        return self.prompt if self.prompt is not None else "\n".join(m.content for m in self.messages)


class PromptProgress(Struct, frozen=True):
    """So many tokens of the prompt are read. Optional, as often as the engine likes, before `PromptDone`.

    Each one is a sign of life: a request without any, and without a token, for `token_stall_timeout_s` is given up.
    rbee passes on a few a second. `total_tokens` counts the whole prompt.
    """

    done_tokens: int
    total_tokens: int


class PromptDone(Struct, frozen=True):
    """The prompt is read. Optional, at most once, before the first `Token`; makes prompt token counts exact."""

    prompt_tokens: int


class Token(Struct, frozen=True):
    """One generated token. `text` holds whole characters only: keep back the bytes of a split one and yield ""."""

    text: str


class Finished(Struct, frozen=True):
    """The engine's last word: ``stop`` at the model's own end, ``length`` when the context or max_tokens is full."""

    reason: FinishReason


EngineEvent = PromptProgress | PromptDone | Token | Finished


class CancelToken(Protocol):
    """Tells an engine that nobody waits any more. `threading.Event` fits."""

    def is_set(self) -> bool:
        """Return True once the request is to end; cheap enough to ask before every token and prefill chunk."""
        ...
