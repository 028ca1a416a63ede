"""How a request wants its tokens chosen, and which form the text has: the fields with their ranges."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from rbee_core.domain.sampling import Sampling
from rbee_core.wire.base import Strict

TOP_LOGPROBS_MOST = 20
GRAMMAR_BYTES = 64 * 1024
SCHEMA_DEPTH, SCHEMA_ENTRIES = 48, 512


class Choosing(Sampling, Strict):
    """How tokens are chosen, and what is said of them. Each but `seed` needs a capability of the backend."""

    seed: Annotated[int, Meta(ge=0, lt=1 << 32)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=TOP_LOGPROBS_MOST)] | None = None
    grammar: Annotated[str, Meta(min_length=1, max_length=GRAMMAR_BYTES)] | None = None
    json_schema: dict[str, Any] | None = None
    regex: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None

    def __post_init__(self) -> None:
        """Check what single fields cannot say."""
        super().__post_init__()
        forms = [name for name in ("grammar", "json_schema", "regex") if getattr(self, name) is not None]
        if len(forms) > 1:
            raise ValueError(f"give at most one of {', '.join(forms)}")
        if self.json_schema is not None:
            _check_schema(self.json_schema)


def _check_schema(schema: dict[str, Any]) -> None:
    """Refuse a schema that is larger or deeper than anybody writes: a stranger's would cost the others their time."""
    if len(msgspec.json.encode(schema)) > GRAMMAR_BYTES:
        raise ValueError(f"json_schema has more than {GRAMMAR_BYTES} bytes")
    level: list[Any] = [schema]
    for _ in range(SCHEMA_DEPTH):
        if any(isinstance(value, dict) and len(value) > SCHEMA_ENTRIES for value in level):  # pyright: ignore[reportUnknownArgumentType]
            raise ValueError(f"an object in json_schema has more than {SCHEMA_ENTRIES} entries")
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise ValueError(f"json_schema is nested more than {SCHEMA_DEPTH} deep")


def _children(value: Any) -> Any:
    match value:
        case dict():
            return value.values()  # pyright: ignore[reportUnknownVariableType]
        case list():
            return value  # pyright: ignore[reportUnknownVariableType]
        case _:
            return ()
