"""Where models come from: `text:bees`, which this package brings, and `text:/path/to/a.txt`."""

from pathlib import Path

from rbee_core.backend import LocalModel, ModelSource
from rbee_core.errors import InvalidRequest, ModelNotFound

HINT = "use text:bees or text:/path/to/a.txt"


class TextSource(ModelSource):
    """Finds text files, which are used in place."""

    schemes = frozenset({"text"})

    def resolve(self, reference, formats):
        """Return the file that `reference` names."""
        own = Path(__file__).with_name("bees.txt")
        path = own if reference.path == "bees" else Path(reference.path)
        if not path.is_absolute():
            raise InvalidRequest(f"{reference} names no text: its path is not absolute", hint=HINT)
        if not path.is_file():
            raise ModelNotFound(reference=str(reference), why=f"there is no file {path}", hint=HINT)
        return LocalModel(str(reference), path, "text", path.stat().st_size)
