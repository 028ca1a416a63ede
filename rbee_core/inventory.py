"""What backends are here, as the wire shows it and as text. One answer for keeper, hive and the hive's route."""

from collections.abc import Iterable, Iterator, Sequence

from rbee_core import wire
from rbee_core.backend.choice import Candidate


def describe_all(candidates: Iterable[Candidate]) -> list[wire.BackendInfo]:
    """Return what every candidate said of itself, in their order."""
    return [_describe(candidate) for candidate in candidates]


def _describe(candidate: Candidate) -> wire.BackendInfo:
    backend, answer = candidate.backend, candidate.availability
    return wire.BackendInfo(
        name=backend.name,
        accelerator=backend.accelerator,
        available=answer.usable,
        formats=sorted(backend.formats),
        capabilities=sorted(backend.capabilities),
        devices=[
            wire.DeviceInfo(id=d.id, name=d.name, total_bytes=d.total_bytes, free_bytes=d.free_bytes)
            for d in candidate.devices
        ],
        reason=answer.reason,
        hint=answer.hint,
    )


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
