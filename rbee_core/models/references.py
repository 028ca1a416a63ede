"""What a model's name means on one node: its aliases, then the spelling of the source that the name belongs to.

The only place where aliases are replaced. Past it a reference is canonical, and one model has one.
"""

from collections.abc import Mapping

from rbee_core.backend import ModelRef, ModelSource
from rbee_core.domain.model_ref import parse
from rbee_core.errors import InvalidRequest


class References:
    """The names of one node. `sources` are by scheme; no method does I/O."""

    def __init__(self, sources: Mapping[str, ModelSource], aliases: Mapping[str, str]) -> None:
        self._sources = sources
        self._aliases = aliases

    def canonical(self, text: str) -> str:
        """Return the one spelling of what somebody sent. Raises `InvalidRequest` for what names no model.

        A relative path is refused, unless the node's owner wrote it: it would start where this process happens to be.
        """
        source, ref = self._source_of(parse(text, self._aliases), text)
        if ref.scheme == "file" and text not in self._aliases and not ref.path.startswith(("/", "~")):
            raise InvalidRequest.bad_reference(text, "a path that is sent to a hive must be absolute")
        return source.canonical(ref)

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
