"""What the owner of a node has settled for one model, and what of it counts where a request says nothing.

A request outranks the model's own settings, and those outrank the node's, which are filled in when a demand is
resolved. Owns the names and ranges of a section's fields: those below, and every field of `Tuning` and `Sampling`.
"""

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from rbee_core.domain.sampling import Sampling
from rbee_core.domain.tuning import UNTUNED, Tuning
from rbee_core.domain.worker import Demand, Stay

Text = Annotated[str, Meta(min_length=1)]
K = TypeVar("K", bound=Struct)
T = TypeVar("T")


class _Own(Struct, frozen=True, kw_only=True):
    """What a section says that is neither tuning nor sampling."""

    reference: Text | None = None
    backend: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    device: Annotated[int, Meta(ge=0, le=1023)] | None = None
    context_tokens: Annotated[int, Meta(ge=1, le=1 << 24)] | None = None
    slots: Annotated[int, Meta(ge=1, le=64)] | None = None
    idle_timeout_s: Annotated[float, Meta(ge=0, le=1_000_000_000)] | None = None
    pinned: bool = False
    max_tokens: Annotated[int, Meta(ge=1, le=1 << 24)] | None = None
    system_prompt: Annotated[str, Meta(min_length=1, max_length=1 << 17)] | None = None


class ModelSettings(_Own, frozen=True, kw_only=True):
    """One `[model.NAME]`, checked. What is None is left to the node's settings.

    `stay` says how long a worker that was started in this name is kept; `system_prompt` begins a conversation that has
    none of its own.
    """

    tuning: Tuning = UNTUNED
    sampling: Sampling = msgspec.field(default_factory=Sampling)

    @property
    def stay(self) -> Stay:
        """How long its worker stays while nobody asks for it."""
        return Stay(self.idle_timeout_s, self.pinned)


NOTHING = ModelSettings()

_KINDS: tuple[type[Struct], ...] = (_Own, Tuning, Sampling)
FIELDS: Mapping[str, type[Struct]] = {name: kind for kind in _KINDS for name in kind.__struct_fields__}
"""What a section may say, and where it belongs: a field that is added there can be set for a model at once."""


class WrongField(Exception):
    """Raised for a field of a section that is not known, or has no such value. `why` completes a sentence."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} {why}")
        self.name, self.why = name, why


def read(section: Mapping[str, Any]) -> ModelSettings:
    """Return what a section says. Raises `WrongField`."""
    for name in section:
        if name not in FIELDS:
            close = get_close_matches(name, FIELDS, n=1)
            raise WrongField(name, f"is no setting of a model{f'; did you mean {close[0]}?' if close else ''}")
    said = {name: _plain(name, value) for name, value in section.items()}
    own, tuning, sampling = (_of(kind, said) for kind in _KINDS)
    return ModelSettings(**msgspec.structs.asdict(own), tuning=tuning, sampling=sampling)  # pyright: ignore[reportArgumentType]


def _plain(name: str, value: Any) -> Any:
    """Return a value as its field wants it: `flash_attention` is on or off in a file, as it is for all models."""
    return value == "on" if name == "flash_attention" and value in ("on", "off") else value


def _of(kind: type[K], said: Mapping[str, Any]) -> K:
    """Return what is `said` of this kind; the first field that is wrong is named."""
    mine = {name: value for name, value in said.items() if FIELDS[name] is kind}
    for name, value in mine.items():
        try:
            msgspec.convert({name: value}, kind, str_keys=True)
        except ValueError as error:
            raise WrongField(name, _sentence(error)) from None
    try:
        return msgspec.convert(mine, kind, str_keys=True)
    except ValueError as error:  # they are right one by one, and do not go together
        raise WrongField(next(iter(mine)), _sentence(error)) from None


def _sentence(error: ValueError) -> str:
    why = str(error).partition(" - at ")[0].replace(" | null", "")
    return f"is wrong: {why[:1].lower()}{why[1:]}"


def demanded(asked: Demand, name: str, sections: Mapping[str, ModelSettings]) -> Demand:
    """Return what is wanted of a worker by who asks for the model of this `name` in these words."""
    if (own := sections.get(name)) is None:
        return asked
    return replace(
        asked,
        backend=_first(asked.backend, own.backend),
        device=_first(asked.device, own.device),
        context_tokens=_first(asked.context_tokens, own.context_tokens),
        slots=_first(asked.slots, own.slots),
        tuning=asked.tuning.over(own.tuning),
        section=name,
    )


def _first(*values: T | None) -> T | None:
    return next((value for value in values if value is not None), None)


def unsaid(request: Sampling, own: ModelSettings) -> dict[str, Any]:
    """Return the fields of sampling that `request` leaves open and the model's settings do not.

    One that does not go with what the request says is left out: who asks for the likeliest tokens gets those.
    """
    left = {name: getattr(own.sampling, name) for name in Sampling.__struct_fields__ if getattr(request, name) is None}
    said = {name: value for name, value in left.items() if value is not None}
    if said.get("mirostat") and request.temperature == 0:
        del said["mirostat"]
    if request.mirostat and said.get("temperature") == 0:
        del said["temperature"]
    return said
