"""The models that foreign clients see: what they ask of a worker, and how much context the list says."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from rbee_core import wire
from rbee_core.domain.tuning import Tuning
from rbee_core.domain.worker import Demand, Secret, Worker, WorkerId, WorkerState
from rbee_core.hive.dialects.models import ServedModels
from rbee_core.hive.terms import LoadDefaults
from rbee_core.models.catalog import CatalogRow
from tests.support.pools import recipe

ASKED = Demand("file:/a", context_tokens=3000)


def demanded(there: Demand, context_tokens: int = 4096, asked: Demand = ASKED) -> Demand:
    """Return what comes of `asked` while a worker serves that was started for `there`."""
    worker = Worker(id=WorkerId("w"), recipe=recipe(), secret=Secret(""), launched_at=0, state=WorkerState.BUSY)
    worker.context_tokens, worker.demands = context_tokens, {there}

    async def demand(_: object) -> Demand:
        return asked

    known, pool, none = SimpleNamespace(demand=demand), SimpleNamespace(live=lambda: [worker]), SimpleNamespace()
    served = ServedModels(pool, none, known, none, none)  # pyright: ignore[reportArgumentType]
    wanted = wire.PoolInference(model_ref="a", prompt="x", context_tokens=asked.context_tokens)
    return asyncio.run(served.demand(wanted))


@pytest.mark.parametrize("tokens", [None, 4096, 3000])
def test_a_worker_with_as_much_context_or_more_will_do(tokens: int | None) -> None:
    assert demanded(replace(ASKED, context_tokens=tokens)) == replace(ASKED, context_tokens=tokens)
    other_needs = replace(ASKED, context_tokens=tokens, needs=frozenset({"logprobs"}))
    assert demanded(other_needs) == replace(ASKED, context_tokens=tokens)


@pytest.mark.parametrize(
    "there",
    [
        replace(ASKED, reference="file:/b", context_tokens=None),
        replace(ASKED, tuning=Tuning(embeddings=True), context_tokens=None),
        replace(ASKED, section="ada", context_tokens=None),
        replace(ASKED, device=1, context_tokens=None),
    ],
)
def test_a_worker_of_another_kind_says_nothing_of_what_one_of_this_kind_would_have(there: Demand) -> None:
    assert demanded(there) == ASKED


def test_one_with_less_context_will_not_do_and_who_says_no_number_asks_for_none() -> None:
    assert demanded(replace(ASKED, context_tokens=None), context_tokens=2048) == ASKED
    unsaid = replace(ASKED, context_tokens=None)
    assert demanded(ASKED, asked=unsaid) == unsaid


def test_the_list_says_the_window_that_the_settings_of_now_lead_to() -> None:
    asked: list[int | None] = []

    async def show(_: Demand) -> object:
        asked.append(resolver.defaults.context_tokens)
        return SimpleNamespace(estimate=SimpleNamespace(context_tokens=resolver.defaults.context_tokens))

    def defaults(tokens: int) -> LoadDefaults:
        return LoadDefaults(context_tokens=tokens, slots=0, threads=None, tuning=Tuning())

    async def windows() -> list[int | None]:
        return [model.window for model in await served.all()]

    row = CatalogRow(
        reference="file:/a", provider="file", local_path="/a", size_bytes=1, downloaded_at_unix=0, format="gguf"
    )
    catalog = SimpleNamespace(rows=lambda: [row], is_missing=lambda _: False)
    known = SimpleNamespace(references=SimpleNamespace(aliases={}), sections={})
    pool, resolver = SimpleNamespace(live=list), SimpleNamespace(defaults=defaults(4096), show=show)
    served = ServedModels(pool, catalog, known, resolver, SimpleNamespace())  # pyright: ignore[reportArgumentType]
    assert (asyncio.run(windows()), asyncio.run(windows()), asked) == ([4096], [4096], [4096])
    resolver.defaults = defaults(8192)
    assert (asyncio.run(windows()), asked) == ([8192], [4096, 8192])
