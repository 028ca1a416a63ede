"""What this dialect says of models: the list, one of them, and those that are loaded."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from rbee_core.dialects.fields import ignored
from rbee_core.dialects.ollama.names import FIELDS as NAME
from rbee_core.dialects.ollama.names import Named

VERSION = "0.13.5"
"""The release of Ollama that spoke like this; clients ask for a lowest one, editors for 0.6.4."""
FOREVER_UNIX = 32_503_680_000
"""When a model goes that is kept for good: the year 3000."""
_EMBEDS = ("bert", "nomic-bert", "jina-bert-v2", "gemma-embedding")
_THINKS = ("enable_thinking", "<think>", "reasoning_effort")
_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


class Show(Named):
    """The body of `POST /api/show`."""


SHOW = (*NAME, *ignored("verbose", "system", "template", "options"))


class Facts(Struct, frozen=True):
    """What the files of a model say of it. `metadata` has plain values only; what is not known is empty or 0."""

    metadata: Mapping[str, Any] = {}
    parameters: int = 0
    quantization: str = ""
    modified_unix: int = 0

    @property
    def family(self) -> str:
        """The architecture."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def template(self) -> str:
        """The chat template."""
        return str(self.metadata.get("tokenizer.chat_template", ""))

    @property
    def capabilities(self) -> list[str]:
        """What the model can do, in this dialect's words."""
        if self.family in _EMBEDS or f"{self.family}.pooling_type" in self.metadata:
            return ["embedding"]
        found = ["completion"]
        found += ["tools"] * ("tools" in self.template)
        found += ["thinking"] * any(sign in self.template for sign in _THINKS)
        fills = any(f"tokenizer.ggml.{key}_token_id" in self.metadata for key in ("fim_pre", "prefix"))
        return found + ["insert"] * fills


class Known(Struct, frozen=True):
    """A model that is here. `window` is what one request may use, in tokens, None while nobody knows."""

    name: str
    size_bytes: int
    format: str
    window: int | None
    created_unix: int
    sha256: str
    facts: Facts


class Loaded(Struct, frozen=True):
    """A worker that holds a model. `device_bytes` is what lies in an accelerator's own memory."""

    model: Known
    bytes: int
    device_bytes: int
    window: int
    expires_unix: float


def version_body(ours: str) -> dict[str, Any]:
    """Return what is served: whose routes, and by whom."""
    return {"version": VERSION, "rbee": ours}


def tags_body(models: Sequence[Known]) -> dict[str, Any]:
    """Return the list of models; strict clients want every field of it."""
    return {"models": [_entry(model) for model in models]}


def show_body(model: Known) -> dict[str, Any]:
    """Return what is known of one model. Its context is the one that a request may use, not what it was trained for."""
    facts = model.facts
    family = facts.family or "unknown"
    window = {} if model.window is None else {f"{family}.context_length": model.window}
    told = {key: value for key, value in facts.metadata.items() if key != "tokenizer.chat_template"}
    told |= {"general.architecture": family, "general.parameter_count": facts.parameters, **window}
    return {
        "modelfile": f"FROM {model.name}\n",
        "parameters": "",
        "template": facts.template,
        "license": str(facts.metadata.get("general.license", "")),
        "modified_at": _moment(model.created_unix or facts.modified_unix),
        "details": _details(model),
        "model_info": told,
        "capabilities": facts.capabilities,
    }


def ps_body(loaded: Sequence[Loaded]) -> dict[str, Any]:
    """Return the models that are loaded."""
    return {"models": [_running(one) for one in loaded]}


def _running(one: Loaded) -> dict[str, Any]:
    entry = _entry(one.model)
    del entry["modified_at"]
    return entry | {
        "size": one.bytes,
        "size_vram": one.device_bytes,
        "context_length": one.window,
        "expires_at": _moment(min(one.expires_unix, FOREVER_UNIX)),
    }


def _entry(model: Known) -> dict[str, Any]:
    return {
        "name": model.name,
        "model": model.name,
        "modified_at": _moment(model.created_unix or model.facts.modified_unix),
        "size": model.size_bytes,
        "digest": _digest(model),
        "details": _details(model),
    }


def _details(model: Known) -> dict[str, Any]:
    facts = model.facts
    return {
        "parent_model": "",
        "format": model.format,
        "family": facts.family,
        "families": [facts.family] if facts.family else [],
        "parameter_size": _short(facts.parameters),
        "quantization_level": facts.quantization,
    }


def _digest(model: Known) -> str:
    """Return what changes when the files do: their hash if the hub named one, else one of what we know of them."""
    seen = f"{model.name} {model.size_bytes} {model.created_unix} {model.facts.modified_unix}"
    return model.sha256 or hashlib.sha256(seen.encode()).hexdigest()


def _short(count: int) -> str:
    """Return a number of parameters as people say it: 134.5M."""
    for unit, letter in _UNITS:
        if count >= unit:
            return f"{count / unit:.3g}{letter}" if count < 100 * unit else f"{count / unit:.1f}{letter}"
    return str(count) if count else ""


def _moment(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat().replace("+00:00", "Z")


def moment(unix: int) -> str:
    """Return a time as this dialect writes it."""
    return _moment(unix)
