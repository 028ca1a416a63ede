"""A model source of the kit's own, which takes any file for a model: what is damaged then reaches the backend itself.

rbee's sources refuse some of it before any backend is asked, and those of others may know no paths at all. A plugin
like anybody's, on the path of the hives that a scenario starts for it; installed nowhere.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from rbee_core.backend import LocalModel, ModelRef, ModelSource, hookimpl

SCHEME = "kit-given"
ENTRY_POINTS = f"[rbee]\n{SCHEME} = {__name__}\n"


class GivenSource(ModelSource):
    """Takes `kit-given:FORMAT:/path` at its word."""

    schemes = frozenset({SCHEME})

    def resolve(self, reference: ModelRef, formats: Sequence[str]) -> LocalModel:
        """Return the file or folder as a model of that format, whatever is in it."""
        del formats
        word, _, place = reference.path.partition(":")
        path = Path(place)
        files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
        return LocalModel(str(reference), path, word, sum(file.stat().st_size for file in files))


@hookimpl
def rbee_register_model_sources(register: Callable[[ModelSource], None]) -> None:  # noqa: D103  # the hook says it
    register(GivenSource())


def reference_to(path: Path, model_format: str) -> str:
    """Return what a hive with this plugin calls the model at `path`."""
    return f"{SCHEME}:{model_format}:{path}"


def install(folder: Path) -> Path:
    """Write what makes this module a plugin into `folder`, which then belongs on PYTHONPATH; return it."""
    notes = folder / f"{SCHEME.replace('-', '_')}-1.dist-info"
    notes.mkdir(parents=True)
    (notes / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {SCHEME}\nVersion: 1\n", encoding="utf-8")
    (notes / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    return folder
