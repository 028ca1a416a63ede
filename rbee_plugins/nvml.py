"""What NVIDIA's management library says about this machine's GPUs, for every plugin that computes on them.

The only module that calls NVML. Nothing here touches CUDA: NVML answers without making a context on the device.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from rbee_core.backend import Availability, Device

DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. `index` is NVML's, in the order of the bus; sizes are None where it shares the host's memory."""

    index: int
    uuid: str
    name: str
    total_bytes: int | None = None
    free_bytes: int | None = None


class NvmlUnusable(Exception):
    """Raised when NVML cannot be asked; `reason` is half a sentence, `hint` what to do."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


def installed_library() -> Any:
    """Return the module `pynvml`. It loads the driver's library only when it is initialised."""
    try:
        return import_module("pynvml")
    except ImportError:
        reason = "the package nvidia-ml-py, which finds CUDA devices, is not installed"
        raise NvmlUnusable(reason, "pip install nvidia-ml-py") from None


def gpus(library: Callable[[], Any] = installed_library) -> Sequence[Gpu]:
    """Return this machine's GPUs. Raises `NvmlUnusable` without a driver.

    A GPU that does not answer is left out: one that fell off the bus must not hide the others.
    """
    nvml = library()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        hint = "install the NVIDIA driver, and check with `nvidia-smi`"
        raise NvmlUnusable(f"the CUDA driver cannot be used ({error})", hint) from error
    try:
        answers = [_ask(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError as error:
        raise NvmlUnusable(f"the CUDA driver does not count its devices ({error})", "see `nvidia-smi`") from error
    finally:
        nvml.nvmlShutdown()
    return [gpu for gpu in answers if gpu is not None]


def _ask(nvml: Any, index: int) -> Gpu | None:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid, name = _text(nvml.nvmlDeviceGetUUID(handle)), _text(nvml.nvmlDeviceGetName(handle))
    except nvml.NVMLError:
        return None
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError:
        return Gpu(index, uuid, name)  # GPUs that share the host's memory have none to tell of
    return Gpu(index, uuid, name, int(memory.total), int(memory.free))


def _text(value: str | bytes) -> str:
    """Older releases of the library return bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def permitted(found: Sequence[Gpu], environ: Mapping[str, str]) -> Sequence[Gpu]:
    """Return those GPUs that ``CUDA_VISIBLE_DEVICES`` leaves to this process, which NVML does not heed.

    As CUDA does: the list ends at its first entry that names nothing. Numbers count in the order of the bus.
    """
    if DEVICES_VARIABLE not in environ:
        return found
    chosen: list[Gpu] = []
    for entry in environ[DEVICES_VARIABLE].split(","):
        gpu = next((g for g in found if _is_named(g, entry.strip())), None)
        if gpu is None:
            break
        chosen.append(gpu)
    return chosen


def _is_named(gpu: Gpu, entry: str) -> bool:
    return entry == str(gpu.index) or (entry.startswith("GPU-") and gpu.uuid.startswith(entry))


def availability(gpus: Callable[[], Sequence[Gpu]], environ: Mapping[str, str]) -> Availability:
    """Return whether there is a CUDA device, telling apart no driver, no device and a forbidden one."""
    try:
        counted = gpus()
    except NvmlUnusable as error:
        return Availability(usable=False, reason=error.reason, hint=error.hint)
    if not counted:
        return Availability(usable=False, reason="the CUDA driver finds no device", hint="check with `nvidia-smi`")
    allowed = permitted(counted, environ)
    if not allowed:
        reason = f"{DEVICES_VARIABLE} hides every CUDA device"
        return Availability(usable=False, reason=reason, hint=f"unset {DEVICES_VARIABLE} for the hive")
    return Availability(usable=True, devices=[_device(gpu) for gpu in allowed])


def devices(gpus: Callable[[], Sequence[Gpu]], environ: Mapping[str, str]) -> Sequence[Device]:
    """Return the GPUs as devices. Their ids keep NVML's numbers, so that a worker that sees one GPU finds it."""
    try:
        return [_device(gpu) for gpu in permitted(gpus(), environ)]
    except NvmlUnusable:
        return []


def _device(gpu: Gpu) -> Device:
    shared = gpu.total_bytes is None
    return Device(f"cuda:{gpu.index}", gpu.name, gpu.total_bytes, gpu.free_bytes, shared, driver_id=gpu.uuid)


def environment(device: Device) -> Mapping[str, str]:
    """Return what restricts a process to `device`: its UUID, as numbers mean different GPUs to CUDA and NVML."""
    return {DEVICES_VARIABLE: device.driver_id}
