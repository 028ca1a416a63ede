"""What requests for text have in common: how tokens are chosen, the form of the answer, how long the model is kept."""

from typing import Annotated, Any

from msgspec import Meta

from rbee_core.dialects.fields import Foreign, honoured, ignored, wrong
from rbee_core.dialects.ollama.durations import seconds_of
from rbee_core.dialects.ollama.names import FIELDS as NAME
from rbee_core.dialects.ollama.names import Named

SEED_BITS = 32
WHOLE_WINDOW = 1 << 20


class Options(Foreign):
    """How tokens are chosen, and with how much context. None stands for what was not said."""

    num_ctx: int | None = None
    num_predict: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None

    def chosen(self) -> dict[str, Any]:
        """Return the fields of the internal request; None for what was not said."""
        said = {name: getattr(self, name) for name in _AS_THEY_ARE}
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        said |= {
            "context_tokens": self.num_ctx or None,
            "max_tokens": None if self.num_predict in (-1, -2) else self.num_predict,
            "top_k": None if self.top_k is None else max(0, self.top_k),
            "seed": None if self.seed in (None, -1) else self.seed % (1 << SEED_BITS),
            "stop": [text for text in stops if text] or None,
        }
        if self.repeat_last_n == 0:
            return said | {"repeat_penalty": 1.0}
        return said | {"penalty_window": WHOLE_WINDOW if self.repeat_last_n == -1 else self.repeat_last_n}


_AS_THEY_ARE = (
    *("temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty"),
    *("mirostat", "mirostat_tau", "mirostat_eta"),
)


class Working(Named):
    """The fields that a chat and a completion share."""

    stream: bool | None = None
    format: str | dict[str, Any] | None = None
    options: Options | None = None
    keep_alive: float | str | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None

    @property
    def streams(self) -> bool:
        """Whether the answer comes in lines, as it does unless it is told not to."""
        return self.stream is not False

    @property
    def kept_s(self) -> float | None:
        """How long the model is to be kept after this, in seconds; None where that was not said."""
        return seconds_of(self.keep_alive)

    def shared(self) -> dict[str, Any]:
        """Return the fields of the internal request; None for what was not said. Raises `InvalidRequest`."""
        said = (self.options or Options()).chosen()
        return said | {
            "model_ref": self.reference,
            "json_schema": self._schema(),
            "logprobs": (self.top_logprobs or 0) if self.logprobs else None,
        }

    def hints(self) -> dict[str, Any]:
        """Return what the model's chat template is told."""
        if self.think is None:
            return {}
        effort = {"reasoning_effort": self.think} if isinstance(self.think, str) else {}
        return {"enable_thinking": bool(self.think), **effort}

    def _schema(self) -> dict[str, Any] | None:
        if isinstance(self.format, dict):
            return self.format
        if self.format not in (None, "", "json"):
            raise wrong("format", "it must be `json` or a JSON schema")
        return {"type": "object"} if self.format else None


NAMES = (
    *((name, f"options.{name}") for name in (*_AS_THEY_ARE, "top_k", "seed", "stop")),
    *(("max_tokens", "options.num_predict"), ("context_tokens", "options.num_ctx")),
    *(("penalty_window", "options.repeat_last_n"), ("model_ref", "model")),
    *(("json_schema", "format"), ("template_arguments", "think"), ("logprobs", "top_logprobs")),
)
"""Fields of the internal request that are called otherwise here: (ours, theirs)."""

SHARED = (
    *NAME,
    *honoured("stream", note="true unless it is false"),
    *honoured("format", note="`json`, or a JSON schema; always strict"),
    *honoured("think", note="for templates that know it: `enable_thinking`, and `reasoning_effort` for a word"),
    *honoured("logprobs", "top_logprobs"),
    *honoured("keep_alive", note="seconds or a duration such as `5m`, below zero for always, 0 for not at all"),
    *honoured("options.num_ctx", note="a worker with at least that much context, or a refusal"),
    *honoured("options.num_predict", note="-1 and -2: up to the model's end, or as the context allows"),
    *honoured("options.temperature", "options.top_k", "options.top_p", "options.min_p", "options.typical_p"),
    *honoured("options.seed", note="taken modulo 2³²; -1 for a random one"),
    *honoured("options.stop", note="a text, or up to 16"),
    *honoured("options.repeat_penalty", "options.presence_penalty", "options.frequency_penalty"),
    *honoured("options.repeat_last_n", note="-1 for all of the context, 0 for no penalty on repeats"),
    *honoured("options.mirostat", "options.mirostat_tau", "options.mirostat_eta"),
    *ignored("options.num_gpu", "options.main_gpu", "options.num_thread", note="the hive's settings decide"),
    *ignored("options.num_batch", "options.num_keep", "options.use_mmap", "options.use_mlock", "options.numa"),
    *ignored("options.low_vram", "options.f16_kv", "options.vocab_only", "options.logits_all", "options.tfs_z"),
    *ignored("options.penalize_newline", "options.embedding_only"),
)
"""What a chat and a completion do alike."""
