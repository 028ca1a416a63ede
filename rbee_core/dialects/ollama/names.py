"""Names of models as this dialect's clients write them."""

from rbee_core import wire
from rbee_core.dialects.fields import Foreign, honoured

LATEST = ":latest"
HUBS = ("hf.co/", "huggingface.co/")


class Named(Foreign):
    """A body that names a model: `model`, or `name` as older clients call it. Exactly one model has to be named."""

    model: wire.ModelText | None = None
    name: wire.ModelText | None = None

    def __post_init__(self) -> None:
        """Check that there is a name."""
        if not (self.model or self.name):
            raise ValueError("`model` is missing")

    @property
    def said(self) -> str:
        """The name as it was written; answers repeat it."""
        return self.model or self.name or ""

    @property
    def reference(self) -> str:
        """The name as ours."""
        return reference_of(self.said)


def reference_of(name: str) -> str:
    """Return a name as ours: clients add a tag to every name without one, and put a hub's address before its own."""
    plain = name.removesuffix(LATEST)
    hub = next((hub for hub in HUBS if plain.startswith(hub)), "")
    return f"hf:{plain.removeprefix(hub)}" if hub else plain


FIELDS = (
    *honoured(
        "model", note="a reference, an alias or a name of `GET /api/tags`; `:latest` and `hf.co/` are understood"
    ),
    *honoured("name", note="the same, as older clients write it"),
)
