"""What requests have in common that generate: how many answers, how long, and how tokens are chosen."""

from typing import Annotated, Any

from msgspec import Meta

from rbee_core import wire
from rbee_core.dialects.fields import Foreign, honoured, ignored, wrong

MOST_ANSWERS = 16
NO_LIMIT = -1
"""What some clients send for "as the context allows"."""
SEED_BITS = 32

Count = Annotated[int, Meta(ge=1, le=MOST_ANSWERS)]


class StreamOptions(Foreign):
    """What a stream is to say beside the text."""

    include_usage: bool | None = None


class Choosing(Foreign):
    """The fields that a chat and a completion share. None stands for what was not said."""

    model: wire.ModelText
    n: Count | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    top_n_sigma: float | None = None
    repeat_penalty: float | None = None
    repetition_penalty: float | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    cache_prompt: bool | None = None
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None
    guided_json: dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_grammar: str | None = None

    @property
    def answers(self) -> int:
        """How many answers are wanted."""
        return self.n or 1

    @property
    def says_usage(self) -> bool:
        """Whether a stream ends with the count of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def chosen(self) -> dict[str, Any]:
        """Return the fields of the internal request; None for what was not said. Raises `InvalidRequest`."""
        plain = {name: getattr(self, name) for name in _AS_THEY_ARE}
        return plain | {
            "model_ref": self.model,
            "stop": [self.stop] if isinstance(self.stop, str) and self.stop else [s for s in self.stop or () if s],
            "max_tokens": None if self.max_tokens == NO_LIMIT else self.max_tokens,
            "logit_bias": self._biases(),
            "seed": None if self.seed in (None, -1) else self.seed % (1 << SEED_BITS),
            "top_k": None if self.top_k is None else max(0, self.top_k),
            "repeat_penalty": self.repeat_penalty if self.repeat_penalty is not None else self.repetition_penalty,
            "reuse_prompt": self.cache_prompt,
            "grammar": self.grammar or self.guided_grammar,
            "json_schema": self.json_schema if self.json_schema is not None else self.guided_json,
            "regex": self.guided_regex,
        }

    def _biases(self) -> dict[int, float] | None:
        if self.logit_bias is None:
            return None
        try:
            return {int(token): bias for token, bias in self.logit_bias.items()}
        except ValueError:
            raise wrong("logit_bias", "its names must be numbers of tokens") from None


_AS_THEY_ARE = (
    *("temperature", "top_p", "min_p", "typical_p", "top_n_sigma", "frequency_penalty", "presence_penalty"),
    *("mirostat", "mirostat_tau", "mirostat_eta", "xtc_probability", "xtc_threshold"),
    *("dry_multiplier", "dry_base", "dry_allowed_length", "min_tokens", "ignore_eos"),
)
NAMES = (("model_ref", "model"), ("reuse_prompt", "cache_prompt"), ("regex", "guided_regex"))
"""Fields of the internal request that are called otherwise here: (ours, theirs)."""

SHARED = (
    *honoured("model", note="a reference, an alias, or an `id` of `GET /v1/models`; it has to be on this node"),
    *honoured("n", note=f"1 to {MOST_ANSWERS}"),
    *honoured("stream", "stream_options.include_usage"),
    *honoured("stop", note="a text, or up to 16"),
    *honoured("max_tokens", note="left out, null or -1: up to the model's end, or as the context allows"),
    *honoured("temperature", "top_p", "frequency_penalty", "presence_penalty", "logit_bias"),
    *honoured("seed", note="taken modulo 2³²; -1 for a random one. Answer number i has the seed that is larger by i"),
    *honoured("top_k", "min_p", "typical_p", "top_n_sigma", note="llama.cpp's"),
    *honoured("repeat_penalty", "repetition_penalty", note="llama.cpp's and vLLM's name of the same"),
    *honoured("mirostat", "mirostat_tau", "mirostat_eta", "xtc_probability", "xtc_threshold", note="llama.cpp's"),
    *honoured("dry_multiplier", "dry_base", "dry_allowed_length", note="llama.cpp's"),
    *honoured("min_tokens", "ignore_eos", note="vLLM's"),
    *honoured("cache_prompt", note="false: all of the prompt is computed"),
    *honoured("grammar", "guided_grammar", note="GBNF"),
    *honoured("json_schema", "guided_json", "guided_regex", note="llama.cpp's and vLLM's"),
    *ignored("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
    *ignored("stream_options.include_obfuscation", "prompt_cache_retention", "timings_per_token"),
)
"""What a chat and a completion do alike."""
