"""Which backends can do what a request needs: what one does not declare is refused by name, never ignored. Pure."""

from collections.abc import Collection, Mapping
from typing import Any

from rbee_core.backend.base import Backend
from rbee_core.domain.needs import WORD_OF, WORDS, needed
from rbee_core.domain.tuning import UNTUNED, Tuning
from rbee_core.errors import NotSupported

__all__ = ["FIELDS", "WORDS", "check", "lacking", "needed", "refusal"]

FIELDS = frozenset(WORD_OF)


def lacking(backend: Backend, fields: Collection[str], tuning: Tuning = UNTUNED) -> dict[str, str]:
    """Return what of a request's `fields`, and of a worker's `tuning`, the backend cannot do, with the words for it."""
    said = {f"tuning.{name}": word for name, word in tuning.said() if word}
    missing = {name: word for name, word in said.items() if word not in backend.capabilities}
    able = {*backend.capabilities, *backend.obeys}
    return {name: WORD_OF[name] for name in sorted(fields) if not {name, WORD_OF[name]} & able} | missing


def refusal(lacks: Mapping[str, Mapping[str, str]]) -> NotSupported:
    """Return the error for backends none of which can do all that is wanted; `lacks` has what each lacks."""
    missing = {name: word for one in lacks.values() for name, word in one.items()}
    return NotSupported(fields=sorted(missing), words=sorted(set(missing.values())), backends=list(lacks))


def check(request: Any, backends: Collection[Backend]) -> None:
    """Raise `NotSupported` for what `request` needs, if none of `backends` can do all of it."""
    needs = needed(request)
    lacks = {backend.name: lacking(backend, needs) for backend in backends}
    if lacks and all(lacks.values()):
        raise refusal(lacks)
