"""Which capability a request needs: what a backend does not declare is refused by name, never ignored. Pure."""

from collections.abc import Collection, Mapping
from typing import Any

from msgspec.structs import fields

from rbee_core.backend.base import Backend
from rbee_core.backend.generation import GenerateRequest
from rbee_core.errors import NotSupported

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
}  # fmt: skip
"""The fields of a request that need each word, once they are not as they are by default."""

FIELDS = frozenset(name for names in WORDS.values() for name in names)

_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(GenerateRequest)} | {"logit_bias": {}}


def needed(request: Any) -> dict[str, str]:
    """Return the fields of `request`, of any kind that an engine is asked, that need a word, with their words."""
    said = ((name, word) for word, names in WORDS.items() for name in names if hasattr(request, name))
    return {name: word for name, word in said if getattr(request, name) != _DEFAULTS.get(name)}


def check(request: Any, backends: Collection[Backend]) -> None:
    """Raise `NotSupported` for what `request` needs, if none of `backends` can do all of it."""
    needs = needed(request)
    if not needs:
        return
    lacking = [{field: word for field, word in needs.items() if not _can(b, field, word)} for b in backends]
    if lacking and all(lacking):
        missing = {field: word for field, word in needs.items() if any(field in one for one in lacking)}
        names = [backend.name for backend in backends]
        raise NotSupported(fields=list(missing), words=sorted(set(missing.values())), backends=names)


def _can(backend: Backend, field: str, word: str) -> bool:
    return word in backend.capabilities or field in backend.obeys
