"""Models that lie on this node's disk, named by their path."""

import os
from collections.abc import Sequence
from pathlib import Path

from rbee_core.backend import LocalModel, ModelRef, ModelSource
from rbee_core.errors import ModelNotFound
from rbee_plugins.sources.formats import describe


class FileSource(ModelSource):
    """Resolves ``file:`` references: a .gguf file or a model folder, used in place."""

    schemes = frozenset({"file"})

    def canonical(self, reference: ModelRef) -> str:
        """Return the absolute path: ``./a.gguf`` and ``~/a.gguf`` may be one file."""
        try:
            return f"file:{_absolute(reference)}"
        except ModelNotFound:
            return str(reference)  # `resolve` says what is wrong with it

    def resolve(self, reference: ModelRef, formats: Sequence[str]) -> LocalModel:
        """Return the model at the path. A relative one starts where this process does: send absolute ones."""
        del formats  # a path names one thing; whether a backend reads it is seen later, with a better message
        return describe(_absolute(reference), str(reference))


def _absolute(reference: ModelRef) -> Path:
    try:
        return Path(os.path.abspath(Path(reference.path).expanduser()))  # noqa: PTH100  # `..` goes, links stay
    except RuntimeError as error:
        raise ModelNotFound(reference=str(reference), why="there is no such home folder") from error
