"""From a demand to a recipe: files, backend, device, memory, variables. Asks plugins and sources, changes no worker."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec

from rbee_core import aio, hardware, wire
from rbee_core.backend import Backend, Device, Estimate, LoadOptions, LocalModel, RemoteModel, Tuning, needs
from rbee_core.backend.choice import Candidate, choose, named, ranked
from rbee_core.domain.model_ref import OF_PLACES, parse
from rbee_core.domain.worker import HOST, Demand, Identity, Need, Recipe, Spot
from rbee_core.errors import BackendNotAvailable, InvalidRequest, ModelNotFound
from rbee_core.hive.plugin_calls import PluginCalls
from rbee_core.hive.terms import LoadDefaults
from rbee_core.inventory import describe_all
from rbee_core.models.looks import identity_of
from rbee_core.models.provision import Provisioner

ESTIMATES_KEPT = 64
FRESH_S = 5.0
"""How long a device's free memory, once asked, is good for a decision: less than a model takes to arrive."""
LOOK_S, LOOKS_AT_ONCE = 2.0, 4


@dataclass(frozen=True, slots=True)
class Resolution:
    """The spots where a demand could be met, the backend's first device first, with what they were made from."""

    spots: tuple[Spot, ...]
    model: LocalModel
    estimate: Estimate

    @property
    def best(self) -> Spot:
        """The spot of which the system reports most free memory, for display."""
        return max(self.spots, key=lambda spot: spot.available_bytes)


class Resolver:
    """Resolves demands for one hive. Each asks a driver once, and what was answered holds for all of the decision.

    `defaults` may be replaced; they count for what is resolved from then on.
    """

    def __init__(
        self, defaults: LoadDefaults, backends: Sequence[Backend], calls: PluginCalls, provisioner: Provisioner
    ) -> None:
        self.defaults = defaults
        self._backends = ranked(backends)
        self._calls = calls
        self._provisioner = provisioner
        self._looks = aio.Lane("look", LOOKS_AT_ONCE)
        self._estimates: dict[tuple[str, LocalModel, Identity, LoadOptions], Estimate] = {}

    async def formats(self, backend: str | None) -> list[str]:
        """Return the model formats that will do, best backend's first.

        Raises `InvalidRequest` for an unknown backend, `BackendNotAvailable` for one that cannot run here: nothing is
        fetched for a backend that could not use it.
        """
        return (await self._survey(Demand("", backend))).formats()

    def check(self, request: wire.TextWanted | wire.EmbedWanted | wire.RerankWanted, backend: str | None) -> None:
        """Raise `NotSupported` if no backend that may be meant can do what `request` says. Asks no plugin."""
        needs.check(request, named(self._backends, backend))

    async def resolve(self, demand: Demand) -> Resolution:
        """Return how `demand` can be met, fetching the model if it is not here.

        Raises what sources raise, `InvalidRequest`, `BackendNotAvailable`, `ModelLoadFailed`, and `PluginTimeout` or
        `PluginFailed` with the plugin's name.
        """
        survey = await self._survey(demand)
        try:
            model = await self._provisioner.provide(demand.reference, survey.formats())
        except ModelNotFound:
            await self._refuse_if_others_read_it(demand)
            raise
        return await self._resolve(demand, model, survey)

    async def show(self, demand: Demand) -> Resolution:
        """Resolve for display. Raises `ModelNotFound` for a model that would have to be fetched."""
        survey = await self._survey(demand)
        model = await self._provisioner.look(demand.reference, survey.formats())
        if isinstance(model, RemoteModel):
            hint = f"`rbee models pull {model.reference}` fetches {model.size_bytes // 1_000_000} MB"
            raise ModelNotFound(reference=model.reference, why="it is not on this node", hint=hint)
        return await self._resolve(demand, model, survey)

    async def is_as_loaded(self, recipe: Recipe) -> bool:
        """Whether the files that a worker was made from are still the same; looks, and reads nothing."""
        try:
            return await self._looks.call(LOOK_S, _identity, Path(recipe.path), recipe.tuning) == recipe.identity
        except aio.DeadlinePassed:  # a disk that hangs says nothing about its files
            return True

    async def backends(self) -> list[wire.BackendInfo]:
        """Return every registered backend, best first."""
        return describe_all(await self._calls.ask(self._backends))

    async def _survey(self, demand: Demand) -> "_Survey":
        """Ask those backends that may be meant and can do what is wanted. Raises if one was named and cannot run here.

        Raises `NotSupported` if none of them can do it.
        """
        meant = named(self._backends, demand.backend)
        lacks = {backend.name: needs.lacking(backend, demand.needs, demand.tuning) for backend in meant}
        if meant and all(lacks.values()):
            raise needs.refusal(lacks)
        able = [backend for backend in meant if not lacks[backend.name]]
        survey = _Survey(demand, await self._calls.ask(able), asyncio.get_running_loop().time())
        if demand.backend is not None:
            await self._choose(survey, None)
        return survey

    async def _choose(self, survey: "_Survey", model_format: str | None) -> Candidate:
        """Choose; only a refusal asks all the other backends too, to say what there is instead.

        Raises `NotSupported` if one of these would be right, were it not for what it cannot do.
        """
        demand = survey.demand
        try:
            return choose(survey.candidates, demand.backend, model_format)
        except (BackendNotAvailable, InvalidRequest):
            asked = [c.backend for c in survey.candidates]
            others = await self._calls.ask([b for b in self._backends if b not in asked])
            found = choose([*survey.candidates, *others], demand.backend, model_format).backend
            raise needs.refusal({found.name: needs.lacking(found, demand.needs, demand.tuning)}) from None

    async def _refuse_if_others_read_it(self, demand: Demand) -> None:
        """Raise `NotSupported` if the model is there for backends that cannot do what is wanted."""
        if not (demand.needs or demand.tuning != Tuning()):
            return
        anyhow = replace(demand, needs=frozenset(), tuning=Tuning())
        with contextlib.suppress(ModelNotFound, BackendNotAvailable, InvalidRequest):
            survey = await self._survey(anyhow)
            model = await self._provisioner.look(demand.reference, survey.formats())
            backend = (await self._choose(survey, model.format)).backend
            if lacks := needs.lacking(backend, demand.needs, demand.tuning):
                raise needs.refusal({backend.name: lacks})

    async def _resolve(self, demand: Demand, model: LocalModel, survey: "_Survey") -> Resolution:
        if asyncio.get_running_loop().time() - survey.asked_at > FRESH_S:
            survey = await self._survey(demand)
        candidate = await self._choose(survey, model.format)
        backend, devices = candidate.backend, _open(candidate.devices, demand.device)
        options = self._options(demand, backend)
        identity = await aio.off_loop(_identity, model.path, options.tuning)
        estimate = await self._estimate(backend, model, identity, options)
        recipe = partial(
            Recipe,
            reference=model.reference,
            path=str(model.path),
            place=await aio.off_loop(_place, model) if identity else model.reference,
            identity=identity,
            format=model.format,
            size_bytes=model.size_bytes,
            backend=backend.name,
            device_count=len(candidate.devices),
            context_tokens=options.context_tokens,
            slots=options.slots,
            tuning=msgspec.structs.replace(options.tuning, embeddings=False),  # every worker has them when it must
            need=Need(estimate.mapped_bytes, estimate.private_bytes),
        )
        spots = [await self._spot(recipe, backend, device, index) for index, device in devices]
        return Resolution(tuple(spots), model, estimate)

    async def _spot(self, recipe: Callable[..., Recipe], backend: Backend, device: Device, index: int) -> Spot:
        memory = HOST if device.shares_host_memory else device.id
        environment = await self._calls.environment(backend, device)
        there = recipe(device=device.id, device_index=index, memory=memory, environment=environment)
        return Spot(there, await _available_bytes(device))

    async def _estimate(
        self, backend: Backend, model: LocalModel, identity: Identity, options: LoadOptions
    ) -> Estimate:
        """Return what the model will need. Its header is read once: the same files need the same."""
        key = (backend.name, model, identity, options)
        if known := self._estimates.get(key):
            return known
        estimate = self._estimates[key] = await self._calls.estimate(backend, model, options)
        for oldest in list(self._estimates)[:-ESTIMATES_KEPT]:
            del self._estimates[oldest]
        return estimate

    def _options(self, demand: Demand, backend: Backend) -> LoadOptions:
        """Return how to load. Raises `InvalidRequest` for more slots than a backend that computes one at a time has."""
        defaults, batching = self.defaults, "batching" in backend.capabilities
        if not batching and (demand.slots or 1) > 1:
            message = f"{demand.slots} slots were asked for, and {backend.name} computes one request at a time"
            raise InvalidRequest(message, hint="leave --slots out, or choose a backend that declares batching")
        return LoadOptions(
            context_tokens=demand.context_tokens or defaults.context_tokens,
            slots=demand.slots or defaults.slots or (0 if batching else 1),
            threads=defaults.threads,
            tuning=demand.tuning.over(defaults.tuning.only(backend.capabilities)),
        )


@dataclass(frozen=True, slots=True)
class _Survey:
    """What the backends said when they were asked for one demand; best first."""

    demand: Demand
    candidates: Sequence[Candidate]
    asked_at: float

    def formats(self) -> list[str]:
        """Return what those read that can run here, or may: one that did not answer is met again if it is chosen."""
        meant = (c.backend for c in self.candidates if c.usable or c.late)
        return list(dict.fromkeys(f for backend in meant for f in sorted(backend.formats)))


def _open(devices: Sequence[Device], index: int | None) -> list[tuple[int, Device]]:
    """Return the devices that a demand leaves open, with their numbers: the one it names, or all."""
    numbered = list(enumerate(devices))
    if index is None:
        return numbered
    if index >= len(devices):
        raise InvalidRequest.device_out_of_range(index, list(range(len(devices))))
    return [numbered[index]]


def _identity(path: Path, tuning: Tuning) -> Identity:
    """Return which version of which files a model and its adapters are."""
    own = identity_of(path)
    adapters = [(adapter.path, *version[1:]) for adapter in tuning.lora for version in identity_of(Path(adapter.path))]
    return (*own, *adapters) if own else ()


def _place(model: LocalModel) -> str:
    """Return what makes two references one model, if their files are the same: where these really lie.

    A reference of a scheme that is not ours may say more than that, and is itself the place.
    """
    return os.path.realpath(model.path) if parse(model.reference).scheme in OF_PLACES else model.reference


async def _available_bytes(device: Device) -> int:
    if device.shares_host_memory:
        return await aio.off_loop(hardware.available_memory_bytes)
    return device.free_bytes or 0
