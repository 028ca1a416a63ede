"""One request as an engine meets it, and what the engine answers. A part of the contract, see `base`."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from msgspec import Struct

from rbee_core.backend.talk import Message, Style, Tool
from rbee_core.domain import sampling

FinishReason = Literal["stop", "length"]


class GenerateRequest(Struct, frozen=True):
    """What to generate from, already checked: exactly one of `prompt` and `messages` is given.

    With `suffix`, which needs ``infill``, what is wanted is the text between `prompt` and it; one of both may be empty.

    Ranges are rbee's to enforce: temperature 0..2, top_p and min_p 0..1, top_k ≥ 0 (0 = off), repeat_penalty > 0,
    seed 0..2**32-1 or None for a random one, max_tokens ≥ 1 or None for "as the context allows"; temperature 0 is
    greedy. `reuse_prompt` False asks that all of the prompt is computed anew. `request_id` is for logs.

    What follows `request_id` needs a word: rbee refuses a request that needs one which the backend does not declare, so
    nothing of it may be ignored. Penalties and dry look at the generated tokens, the last `penalty_window` or
    `dry_window`. `logit_bias` adds to the logits of tokens. mirostat 1 or 2 stands in for top_k, top_p, min_p and what
    else leaves tokens out. No end of text comes before `min_tokens`, with `ignore_eos` none at all. `logprobs` asks
    for the log probability of each token and of that many likeliest ones beside it, None for none. At most one of
    `grammar` (GBNF), `json_schema` and `regex` is given: all of the text must fit it. `tools` belong to
    `messages` and are for the chat template (see `talk`), as are `template_arguments`, which need no word: an engine
    without templates has no use for them.
    """

    prompt: str | None = None
    messages: tuple[Message, ...] = ()
    suffix: str | None = None
    max_tokens: int | None = None
    temperature: float = sampling.TEMPERATURE
    top_k: int = sampling.TOP_K
    top_p: float = sampling.TOP_P
    min_p: float = sampling.MIN_P
    repeat_penalty: float = sampling.REPEAT_PENALTY
    seed: int | None = None
    reuse_prompt: bool = True
    request_id: str = ""
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_window: int = sampling.PENALTY_WINDOW
    logit_bias: Mapping[int, float] = {}
    typical_p: float = 1.0
    top_n_sigma: float = 0.0
    xtc_probability: float = 0.0
    xtc_threshold: float = sampling.XTC_THRESHOLD
    dry_multiplier: float = 0.0
    dry_base: float = sampling.DRY_BASE
    dry_allowed_length: int = sampling.DRY_ALLOWED_LENGTH
    dry_window: int = sampling.DRY_WINDOW
    dry_breakers: tuple[str, ...] = sampling.DRY_BREAKERS
    mirostat: Literal[0, 1, 2] = 0
    mirostat_tau: float = sampling.MIROSTAT_TAU
    mirostat_eta: float = sampling.MIROSTAT_ETA
    min_tokens: int = 0
    ignore_eos: bool = False
    logprobs: int | None = None
    grammar: str | None = None
    json_schema: Mapping[str, Any] | None = None
    regex: str | None = None
    tools: tuple[Tool, ...] = ()
    template_arguments: Mapping[str, Any] = {}

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
    """The prompt is read, and has so many tokens. Once, before the first `Token`.

    rbee takes an engine that leaves it out, and then says of each prompt that it had 0 tokens; the kit asks for it.
    `cached_tokens` of them were computed for an earlier request and not again; `not_cached` says in half a sentence why
    it was not more, such as ``differs at token 812``, "" where nothing more could have been.
    """

    prompt_tokens: int
    cached_tokens: int = 0
    not_cached: str = ""


class TokenLogprob(Struct, frozen=True):
    """A token that came, or could have come: its number, its bytes, and the natural logarithm of its probability.

    The probability is the model's own, before temperature and whatever else chooses.
    """

    id: int
    piece: bytes
    logprob: float


class Token(Struct, frozen=True):
    """One generated token. `text` holds whole characters only: keep back the bytes of a split one and yield "".

    Where logprobs were asked for, `chosen` is the token itself, and `top` has the likeliest ones, likeliest first. An
    engine that guesses ahead says with the first token of each step how many `guesses` were computed in it, and with
    every token whether it had been `guessed`.
    """

    text: str
    chosen: TokenLogprob | None = None
    top: tuple[TokenLogprob, ...] = ()
    guesses: int = 0
    guessed: bool = False


class Finished(Struct, frozen=True):
    """The engine's last word: ``stop`` at the model's own end, ``length`` when the context or max_tokens is full."""

    reason: FinishReason


EngineEvent = Style | PromptProgress | PromptDone | Token | Finished


class CancelToken(Protocol):
    """Tells an engine that nobody waits any more. `threading.Event` fits."""

    def is_set(self) -> bool:
        """Return True once the request is to end; cheap enough to ask before every token and prefill chunk."""
        ...
