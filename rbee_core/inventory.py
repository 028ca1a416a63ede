"""What backends are here, as the wire shows it and as text. One answer for keeper, hive and the hive's route."""

from collections.abc import Iterator, Sequence

from rbee_core import wire
from rbee_core.backend.base import Backend, Device
from rbee_core.backend.manager import PluginHost


def describe(plugins: PluginHost, backend: Backend) -> wire.BackendInfo:
    """Return a backend as the wire shows it; slow backends make this slow."""
    answer = plugins.availability(backend)
    devices: Sequence[Device] = plugins.devices(backend) if answer.usable else ()
    return wire.BackendInfo(
        name=backend.name,
        accelerator=backend.accelerator,
        available=answer.usable,
        formats=sorted(backend.formats),
        capabilities=sorted(backend.capabilities),
        devices=[
            wire.DeviceInfo(id=d.id, name=d.name, total_bytes=d.total_bytes, free_bytes=d.free_bytes) for d in devices
        ],
        reason=answer.reason,
        hint=answer.hint,
    )


def describe_all(plugins: PluginHost) -> list[wire.BackendInfo]:
    """Return every registered backend, best first."""
    ranked = sorted(plugins.backends().values(), key=lambda b: (-b.priority, b.name))
    return [describe(plugins, backend) for backend in ranked]


def as_text(backends: Sequence[wire.BackendInfo]) -> Iterator[str]:
    """Yield lines for people."""
    if not backends:
        yield "No plugin brings a backend: `rbee plugins` lists plugins"
    for backend in backends:
        yield f"{'✓' if backend.available else '-'} {backend.name} ({backend.accelerator})"
        if backend.reason:
            yield f"    not available: {backend.reason}"
        if backend.hint:
            yield f"    → {backend.hint}"
        yield from (f"    device {index}: {_device(device)}" for index, device in enumerate(backend.devices))
        yield f"    reads: {', '.join(backend.formats)}; can: {', '.join(backend.capabilities)}"


def _device(device: wire.DeviceInfo) -> str:
    if device.total_bytes is None:
        return f"{device.id}, {device.name}"
    total = f"{device.total_bytes / 1e9:.1f} GB"
    memory = total if device.free_bytes is None else f"{device.free_bytes / 1e9:.1f} of {total} free"
    return f"{device.id}, {device.name}, {memory}"
