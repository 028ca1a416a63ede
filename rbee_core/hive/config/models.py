"""What is meant by who asks for a model in some words: its one name, and what its own settings say beside the request.

The one way from a request that names a model to what the pool and a worker are asked.
"""

import contextlib
from collections.abc import Mapping

import msgspec

from rbee_core import wire
from rbee_core.domain.model_settings import NOTHING, ModelSettings, demanded, unsaid
from rbee_core.domain.needs import WORD_OF, needed
from rbee_core.domain.sampling import Sampling
from rbee_core.domain.worker import Demand
from rbee_core.errors import InvalidRequest, RbeeError
from rbee_core.models.references import References

ForModel = wire.PoolInference | wire.PoolEmbed | wire.PoolRerank


class Models:
    """The models of one node by the names that they are asked for. Belongs to the event loop's thread.

    `sections` are the models' own settings; it may be replaced, and counts from then on.
    """

    def __init__(self, references: References, sections: Mapping[str, ModelSettings]) -> None:
        self.references = references
        self.sections = sections

    def own(self, name: str) -> ModelSettings:
        """Return what is settled for the model of this name."""
        return self.sections.get(name, NOTHING)

    async def name(self, text: str) -> str:
        """Return the one name of a model. Raises `InvalidRequest` for none."""
        return await self.references.name(text)

    async def aliases(self) -> dict[str, list[str]]:
        """Return the short names of each model, by its one name. One whose source does not answer is left out."""
        found: dict[str, list[str]] = {}
        for alias in self.references.aliases:
            with contextlib.suppress(RbeeError):
                found.setdefault(await self.name(alias), []).append(alias)
        return found

    async def demand(self, request: wire.SpawnRequest | ForModel) -> Demand:
        """Return what `request` wants of a worker, and fill in what it leaves open and the model's settings do not.

        Raises `InvalidRequest` for what names no model.
        """
        own = self.own(request.model_ref)
        if isinstance(request, wire.PoolInference):
            complete(request, own)
        needs = needed(request)
        if isinstance(request, wire.SpawnRequest):
            needs = frozenset(request.needs) | needed(own.sampling)
        if unknown := sorted(needs - WORD_OF.keys()):
            what = f"needs names {unknown[0]!r}, which is no field that needs a capability"
            raise InvalidRequest(f"Invalid request: {what}")
        vectors = isinstance(request, wire.PoolEmbed | wire.PoolRerank)  # which take memory that text does not
        asked = Demand(
            reference=await self.name(request.model_ref),
            backend=request.backend,
            device=request.device,
            context_tokens=request.context_tokens,
            slots=None if isinstance(request, wire.PoolEmbed | wire.PoolRerank) else request.slots,
            tuning=msgspec.structs.replace(request.tuning, embeddings=request.tuning.embeddings or vectors),
            needs=needs,
        )
        return demanded(asked, request.model_ref, self.sections)

    async def show(self, wanted: wire.ModelQuery) -> Demand:
        """Return what a worker would be made from, for who asks by this name and says no more than the query."""
        asked = Demand(await self.name(wanted.model), wanted.backend, context_tokens=wanted.context_tokens)
        return demanded(asked, wanted.model, self.sections)


def complete(request: wire.TextWanted, own: ModelSettings) -> None:
    """Fill in what a request for text leaves open and the model's settings do not."""
    for field, value in unsaid(request, own).items():
        setattr(request, field, value)
    if request.max_tokens is None:
        request.max_tokens = own.max_tokens


def sampling_of(own: ModelSettings) -> dict[str, object]:
    """Return what a model's settings say of sampling, for display."""
    said = {name: getattr(own.sampling, name) for name in Sampling.__struct_fields__}
    return {name: value for name, value in said.items() if value is not None}
