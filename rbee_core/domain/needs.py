"""Which fields of a request need a capability of the backend that answers it, and which one."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from msgspec import NODEFAULT
from msgspec.structs import fields

from rbee_core.domain.sampling import USUAL

WORDS: Mapping[str, tuple[str, ...]] = {
    "samplers": (
        "frequency_penalty", "presence_penalty", "penalty_window", "logit_bias", "typical_p", "top_n_sigma",
        "xtc_probability", "xtc_threshold", "dry_multiplier", "dry_base", "dry_allowed_length", "dry_window",
        "dry_breakers", "mirostat", "mirostat_tau", "mirostat_eta", "min_tokens", "ignore_eos",
    ),
    "logprobs": ("logprobs",),
    "grammar": ("grammar", "regex"),
    "json_schema": ("json_schema",),
    "infill": ("suffix",),
    "embeddings": ("texts",),
    "rerank": ("documents",),
    "tools": ("tools",),
}  # fmt: skip
"""The fields of a request that need each word, once they are not as they are by default."""

WORD_OF: Mapping[str, str] = {name: word for word, names in WORDS.items() for name in names}


def needed(request: Any) -> frozenset[str]:
    """Return the fields of `request`, of any kind that an engine or a hive is asked, that need a word."""
    kind: Any = request.__class__
    defaults = _defaults(kind)
    values = {name: getattr(request, name) for name in defaults}
    said = frozenset(n for n, value in values.items() if value not in (defaults[n], USUAL.get(n, defaults[n])))
    turns = getattr(request, "messages", None) or ()
    return said | {"tools"} if any(turn.role == "tool" or turn.tool_calls for turn in turns) else said


@cache
def _defaults(kind: Any) -> dict[str, Any]:
    """Return what the fields that may need a word are by default; one that has to be said is never as by default."""
    return {field.name: _default(field) for field in fields(kind) if field.name in WORD_OF}


def _default(field: Any) -> Any:
    return field.default if field.default_factory is NODEFAULT else field.default_factory()
