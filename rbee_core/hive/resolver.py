"""From a request for a model to what a worker needs: files, backend, device, memory. Changes no worker."""

from collections.abc import Sequence
from dataclasses import dataclass

from rbee_core import aio, hardware, wire
from rbee_core.backend import Backend, Device, Estimate, LoadOptions, LocalModel, RemoteModel
from rbee_core.backend.manager import PluginHost
from rbee_core.domain.worker import Need, Wanted
from rbee_core.errors import InvalidRequest, ModelNotFound, PluginFailed, RbeeError
from rbee_core.inventory import describe_all
from rbee_core.models.provision import Provisioner
from rbee_core.settings import Settings


@dataclass(frozen=True, slots=True)
class Place:
    """Where and how a worker would run, and what it needs of the `available_bytes` there are."""

    wanted: Wanted
    device: Device
    estimate: Estimate
    available_bytes: int

    @property
    def need(self) -> Need:
        """The estimate as the pool counts it."""
        weights = self.estimate.weights_bytes
        return Need(weights, self.estimate.total_bytes - weights)


class Placer:
    """Places models for one hive."""

    def __init__(self, settings: Settings, plugins: PluginHost, provisioner: Provisioner) -> None:
        self._settings = settings
        self._plugins = plugins
        self._provisioner = provisioner

    def formats(self, backend: str | None) -> list[str]:
        """Return the model formats that will do, best backend's first.

        Raises `InvalidRequest` for an unknown backend, `BackendNotAvailable` for one that cannot run here: nothing is
        fetched for a backend that could not use it.
        """
        asked = [self._plugins.choose(backend, None)] if backend else self._plugins.usable_backends()
        return list(dict.fromkeys(f for b in asked for f in sorted(b.formats)))

    async def place(self, request: wire.SpawnRequest) -> Place:
        """Place a spawn, fetching the model if it is not here."""
        reference = self._provisioner.canonical(request.model_ref)
        model = await self._provisioner.provide(reference, self.formats(request.backend))
        return await self._place(model, request.backend, request.device, request.context_tokens)

    async def show(self, reference: str, backend: str | None, context_tokens: int | None) -> tuple[LocalModel, Place]:
        """Place a model that is here, for display. Raises `ModelNotFound` for one that would have to be fetched."""
        model = await self._provisioner.look(reference, self.formats(backend))
        if isinstance(model, RemoteModel):
            hint = f"`rbee models pull {model.reference}` fetches {model.size_bytes // 1_000_000} MB"
            raise ModelNotFound(reference=model.reference, why="it is not on this node", hint=hint)
        return model, await self._place(model, backend, None, context_tokens)

    async def _place(
        self, model: LocalModel, backend_name: str | None, index: int | None, context_tokens: int | None
    ) -> Place:
        backend = self._plugins.choose(backend_name, model.format)
        device = _pick(self._plugins.devices(backend), index)
        options = self._options(context_tokens)
        estimate = await aio.off_loop(_estimate, backend, model, options)
        wanted = Wanted(
            model_ref=model.reference,
            path=str(model.path),
            format=model.format,
            size_bytes=model.size_bytes,
            backend=backend.name,
            device=device.id,
            context_tokens=options.context_tokens,
        )
        return Place(wanted, device, estimate, available_bytes(device))

    def _options(self, context_tokens: int | None) -> LoadOptions:
        settings = self._settings
        context = context_tokens or settings.context_tokens or None
        return LoadOptions(context, settings.slots_per_worker, settings.threads or None)

    def describe_all(self) -> list[wire.BackendInfo]:
        """Return every registered backend, best first."""
        return describe_all(self._plugins)


def _estimate(backend: Backend, model: LocalModel, options: LoadOptions) -> Estimate:
    try:
        return backend.estimate(model, options)
    except RbeeError:
        raise
    except Exception as error:
        raise PluginFailed(what=f"memory estimate of {backend.name}", error=error) from error


def _pick(devices: Sequence[Device], index: int | None) -> Device:
    if (index or 0) >= len(devices):
        raise InvalidRequest.device_out_of_range(index or 0, list(range(len(devices))))
    return devices[index or 0]


def available_bytes(device: Device) -> int:
    """Return what is free now where a model on `device` would live."""
    return hardware.available_memory_bytes() if device.shares_host_memory else device.free_bytes or 0
