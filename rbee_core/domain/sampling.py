"""How text is drawn from a model: what may be said of it, with its ranges, and what is usual where nobody says."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

TEMPERATURE = 0.8
TOP_K = 40
TOP_P = 0.95
MIN_P = 0.05
REPEAT_PENALTY = 1.0
PENALTY_WINDOW = 64
XTC_THRESHOLD = 0.1
DRY_BASE = 1.75
DRY_ALLOWED_LENGTH = 2
DRY_WINDOW = 1024
DRY_BREAKERS = ("\n", ":", '"', "*")
MIROSTAT_TAU = 5.0
MIROSTAT_ETA = 0.1

BREAKERS, BREAKER_BYTES = 16, 40
"""An engine looks for each in every token that it knows; llama.cpp would cut a longer one off without a word."""

USUAL: Mapping[str, Any] = {
    "temperature": TEMPERATURE, "top_k": TOP_K, "top_p": TOP_P, "min_p": MIN_P, "repeat_penalty": REPEAT_PENALTY,
    "frequency_penalty": 0.0, "presence_penalty": 0.0, "penalty_window": PENALTY_WINDOW, "logit_bias": {},
    "typical_p": 1.0, "top_n_sigma": 0.0, "xtc_probability": 0.0, "xtc_threshold": XTC_THRESHOLD,
    "dry_multiplier": 0.0, "dry_base": DRY_BASE, "dry_allowed_length": DRY_ALLOWED_LENGTH, "dry_window": DRY_WINDOW,
    "dry_breakers": DRY_BREAKERS, "mirostat": 0, "mirostat_tau": MIROSTAT_TAU, "mirostat_eta": MIROSTAT_ETA,
    "min_tokens": 0, "ignore_eos": False,
}  # fmt: skip

TokenId = Annotated[int, Meta(ge=0, lt=1 << 24)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Window = Annotated[int, Meta(ge=1, le=1 << 20)]
Breaker = Annotated[str, Meta(min_length=1, max_length=BREAKER_BYTES)]
TokenCount = Annotated[int, Meta(ge=0, le=1 << 24)]


class Sampling(Struct, kw_only=True, forbid_unknown_fields=True):
    """How tokens are chosen. What is None is left to the model's settings; where they do not say either, it is usual.

    What follows `repeat_penalty` needs a capability of the backend; without one it is refused.
    """

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=1 << 20)] | None = None
    top_p: Probability | None = None
    min_p: Probability | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    penalty_window: Window | None = None
    logit_bias: Annotated[dict[TokenId, Bias], Meta(max_length=4096)] | None = None
    typical_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_n_sigma: Annotated[float, Meta(ge=0, le=100)] | None = None
    xtc_probability: Probability | None = None
    xtc_threshold: Annotated[float, Meta(ge=0, le=0.5)] | None = None
    dry_multiplier: Annotated[float, Meta(ge=0, le=100)] | None = None
    dry_base: Annotated[float, Meta(ge=1, le=10)] | None = None
    dry_allowed_length: Annotated[int, Meta(ge=1, le=1024)] | None = None
    dry_window: Window | None = None
    dry_breakers: Annotated[tuple[Breaker, ...], Meta(max_length=BREAKERS)] | None = None
    mirostat: Literal[0, 1, 2] | None = None
    mirostat_tau: Annotated[float, Meta(gt=0, le=20)] | None = None
    mirostat_eta: Annotated[float, Meta(gt=0, le=1)] | None = None
    min_tokens: TokenCount | None = None
    ignore_eos: bool | None = None

    def __post_init__(self) -> None:
        """Check what single fields cannot say."""
        if self.mirostat and self.temperature == 0:
            raise ValueError("mirostat needs a temperature above 0")
        if any(len(breaker.encode(errors="replace")) > BREAKER_BYTES for breaker in self.dry_breakers or ()):
            raise ValueError(f"one of dry_breakers has more than {BREAKER_BYTES} bytes")
