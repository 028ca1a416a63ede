"""How a request wants its tokens chosen: the fields with their ranges, and what goes together."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from rbee_core.domain import sampling
from rbee_core.wire.base import Strict

TOP_LOGPROBS_MOST = 20
GRAMMAR_BYTES = 64 * 1024
SCHEMA_DEPTH, SCHEMA_ENTRIES = 48, 512
BREAKERS, BREAKER_BYTES = 16, 40
"""An engine looks for each in every token that it knows; llama.cpp would cut a longer one off without a word."""

TokenId = Annotated[int, Meta(ge=0, lt=1 << 24)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Window = Annotated[int, Meta(ge=1, le=1 << 20)]
Breaker = Annotated[str, Meta(min_length=1, max_length=BREAKER_BYTES)]


class Choosing(Strict):
    """How tokens are chosen. What follows `seed` needs a capability of the backend; without one it is refused."""

    temperature: Annotated[float, Meta(ge=0, le=2)] = sampling.TEMPERATURE
    top_k: Annotated[int, Meta(ge=0, le=1 << 20)] = sampling.TOP_K
    top_p: Probability = sampling.TOP_P
    min_p: Probability = sampling.MIN_P
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] = sampling.REPEAT_PENALTY
    seed: Annotated[int, Meta(ge=0, lt=1 << 32)] | None = None
    frequency_penalty: Penalty = 0.0
    presence_penalty: Penalty = 0.0
    penalty_window: Window = sampling.PENALTY_WINDOW
    logit_bias: Annotated[dict[TokenId, Bias], Meta(max_length=4096)] = {}
    typical_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    top_n_sigma: Annotated[float, Meta(ge=0, le=100)] = 0.0
    xtc_probability: Probability = 0.0
    xtc_threshold: Annotated[float, Meta(ge=0, le=0.5)] = sampling.XTC_THRESHOLD
    dry_multiplier: Annotated[float, Meta(ge=0, le=100)] = 0.0
    dry_base: Annotated[float, Meta(ge=1, le=10)] = sampling.DRY_BASE
    dry_allowed_length: Annotated[int, Meta(ge=1, le=1024)] = sampling.DRY_ALLOWED_LENGTH
    dry_window: Window = sampling.DRY_WINDOW
    dry_breakers: Annotated[tuple[Breaker, ...], Meta(max_length=BREAKERS)] = sampling.DRY_BREAKERS
    mirostat: Literal[0, 1, 2] = 0
    mirostat_tau: Annotated[float, Meta(gt=0, le=20)] = sampling.MIROSTAT_TAU
    mirostat_eta: Annotated[float, Meta(gt=0, le=1)] = sampling.MIROSTAT_ETA
    min_tokens: Annotated[int, Meta(ge=0, le=1 << 24)] = 0
    ignore_eos: bool = False
    logprobs: Annotated[int, Meta(ge=0, le=TOP_LOGPROBS_MOST)] | None = None
    grammar: Annotated[str, Meta(min_length=1, max_length=GRAMMAR_BYTES)] | None = None
    json_schema: dict[str, Any] | None = None
    regex: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None

    def __post_init__(self) -> None:
        """Check what single fields cannot say."""
        forms = [name for name in ("grammar", "json_schema", "regex") if getattr(self, name) is not None]
        if len(forms) > 1:
            raise ValueError(f"give at most one of {', '.join(forms)}")
        if self.mirostat and not self.temperature:
            raise ValueError("mirostat needs a temperature above 0")
        if any(len(breaker.encode(errors="replace")) > BREAKER_BYTES for breaker in self.dry_breakers):
            raise ValueError(f"one of dry_breakers has more than {BREAKER_BYTES} bytes")
        if self.json_schema is not None:
            _check_schema(self.json_schema)


def _check_schema(schema: dict[str, Any]) -> None:
    """Refuse a schema that is larger or deeper than anybody writes: a stranger's would cost the others their time."""
    if len(msgspec.json.encode(schema)) > GRAMMAR_BYTES:
        raise ValueError(f"json_schema has more than {GRAMMAR_BYTES} bytes")
    level: list[Any] = [schema]
    for _ in range(SCHEMA_DEPTH):
        if any(isinstance(value, dict) and len(value) > SCHEMA_ENTRIES for value in level):  # pyright: ignore[reportUnknownArgumentType]
            raise ValueError(f"an object in json_schema has more than {SCHEMA_ENTRIES} entries")
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise ValueError(f"json_schema is nested more than {SCHEMA_DEPTH} deep")


def _children(value: Any) -> Any:
    match value:
        case dict():
            return value.values()  # pyright: ignore[reportUnknownVariableType]
        case list():
            return value  # pyright: ignore[reportUnknownVariableType]
        case _:
            return ()
