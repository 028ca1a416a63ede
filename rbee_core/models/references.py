"""What a model's name means on one node: its aliases, then the spelling of the source that the name belongs to.

The only place where aliases are replaced. Past it a reference is canonical, and one model has one.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import cast

from rbee_core import aio
from rbee_core.backend import ModelRef, ModelSource
from rbee_core.domain.model_ref import parse
from rbee_core.errors import InvalidRequest, PluginFailed, RbeeError

NAMES_KEPT = 256
ASKED_AT_ONCE = 4
"""Of one source; one that hangs can take no more threads than that."""


class References:
    """The names of one node. `sources` are by scheme; no method does I/O, but who knows what a source does."""

    def __init__(
        self, sources: Mapping[str, ModelSource], aliases: Mapping[str, str], limit_s: float | None = None
    ) -> None:
        self._sources = sources
        self.aliases = aliases
        self._limit_s = limit_s
        self._names: dict[str, str] = {}
        self._lanes: defaultdict[str, aio.Lane] = defaultdict(lambda: aio.Lane("model-name", ASKED_AT_ONCE))

    def take(self, aliases: Mapping[str, str]) -> None:
        """Heed other aliases from now on."""
        self.aliases = aliases
        self._names.clear()

    async def name(self, text: str) -> str:
        """Return `canonical(text)`, for an event loop: its source is asked once, off the loop, and has `limit_s`."""
        if known := self._names.get(text):
            return known
        source, ref = self._meant(text)
        aliases = self.aliases
        try:
            name = await self._lanes[ref.scheme].call(self._limit_s, _spelling, source, ref)
        except aio.DeadlinePassed:
            late = TimeoutError(f"it did not answer within {self._limit_s:g} s")
            raise PluginFailed(what=_who(ref), error=late) from None
        if self.aliases is not aliases:  # they changed meanwhile; who asked before gets what was meant then
            return name
        self._names[text] = name
        for oldest in list(self._names)[:-NAMES_KEPT]:
            del self._names[oldest]
        return name

    def canonical(self, text: str) -> str:
        """Return the one spelling of what somebody sent.

        A relative path is refused, unless the node's owner wrote it: it would start where this process happens to be.
        Raises `InvalidRequest` for what names no model, `PluginFailed` for what its source does.
        """
        return _spelling(*self._meant(text))

    def _meant(self, text: str) -> tuple[ModelSource, ModelRef]:
        source, ref = self._source_of(parse(text, self.aliases), text)
        if ref.scheme == "file" and text not in self.aliases and not ref.path.startswith(("/", "~")):
            raise InvalidRequest.bad_reference(text, "a path that is sent to a hive must be absolute")
        return source, ref

    def source_of(self, reference: str) -> tuple[ModelSource, ModelRef]:
        """Return whom to ask for a canonical reference, and what."""
        return self._source_of(parse(reference), reference)

    def _source_of(self, ref: ModelRef, text: str) -> tuple[ModelSource, ModelRef]:
        source = self._sources.get(ref.scheme)
        if source is None:
            known = ", ".join(f"{s}:" for s in sorted(self._sources))
            others = f"known are {known}" if known else "none that knows models could be loaded: see `rbee plugins`"
            raise InvalidRequest.bad_reference(text, f"no plugin knows {ref.scheme}: ({others})")
        return source, ref


def _spelling(source: ModelSource, ref: ModelRef) -> str:
    """Return how the source spells what it is asked for; whatever it raises that is no error of ours is its fault."""
    try:
        name = cast("object", source.canonical(ref))
    except RbeeError:
        raise
    except BaseException as error:  # it may leave, too: nothing of that is for our loop
        raise PluginFailed(what=_who(ref), error=error) from error
    if not isinstance(name, str):
        raise PluginFailed(what=_who(ref), error=TypeError(f"it returned {name!r}"))
    return name


def _who(ref: ModelRef) -> str:
    return f"model source of {ref.scheme}:"
