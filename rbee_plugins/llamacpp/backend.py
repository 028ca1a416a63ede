"""The llama.cpp backends: cheap descriptions for hive and CLI, and the way to the engine for the worker."""

import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import ClassVar

import psutil
from msgspec.structs import replace

from rbee_core.backend import (
    Availability,
    Backend,
    Device,
    Engine,
    Estimate,
    LoadOptions,
    LocalModel,
    Progress,
)
from rbee_core.backend.gguf import GgufHeader, read_header
from rbee_core.errors import BackendNotAvailable, ModelLoadFailed, shorten
from rbee_plugins import nvml
from rbee_plugins.llamacpp import builds, memory
from rbee_plugins.llamacpp.adapters import checked_bytes

_SPIN_VARIABLES = frozenset({"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"})
_GPU_CORES = 4  # a GPU feeds as many texts at a time as that many cores
_PADDING_BYTES = 1 << 20  # llama.cpp maps all of a file: minutes, for one that is mostly nothing


class LlamaCpp(Backend):
    """What the llama.cpp backends have in common: the engine, and how many layers leave the processor."""

    formats = frozenset({"gguf"})
    capabilities = frozenset(
        {
            *("stream", "cancel", "seed", "chat", "batching", "samplers", "logprobs", "grammar", "json_schema"),
            *("embeddings", "rerank", "infill", "lora", "cache_types", "flash_attention", "tools", "chat_template"),
            "speculation",
        }
    )
    gpu_layers: ClassVar[int] = -1  # all of them
    maps_weights: ClassVar[bool] = False  # whether they stay in the mapped file; a GPU gets a copy or wires them down
    driver_bytes: ClassVar[int] = 0
    in_host_memory: ClassVar[bool] = True  # whether what the device holds is taken from the host's memory

    def availability(self) -> Availability:
        """Return whether the engine is installed and built for this, without the time that importing it takes."""
        return builds.availability(self.accelerator)

    def environment(self, device: Device) -> Mapping[str, str]:
        """Let a thread that waits for the others sleep soon instead of spinning.

        OpenMP's own default spins for milliseconds: with anything else running on the cores, a token then takes ten
        times as long. What the user has set stays.
        """
        del device
        return {} if os.environ.keys() & _SPIN_VARIABLES else {"GOMP_SPINCOUNT": "1000"}

    def prepare(self) -> None:
        """Import llama.cpp, which takes a fifth of a second."""
        import_module("rbee_plugins.llamacpp.engine")

    def estimate(self, model: LocalModel, options: LoadOptions) -> Estimate:
        """Return what `model` will need, from its header."""
        header = checked_header(model)
        split = header.metadata.get("split.count", 1) != 1
        weights = model.size_bytes if split else header.tensor_bytes
        context = memory.context_tokens(header, options.context_tokens)
        memory.check_tuning(header, options.tuning)
        slots = self._slots(header, context, options)
        need = memory.estimate(header, context, slots, weights, options.tuning)
        saved_bytes = _saved_bytes(header, context, slots, options) if self.in_host_memory else 0
        adapters = checked_bytes(header, options.tuning.lora)
        mapped_bytes = weights if self.maps_weights else 0
        return replace(
            need,
            weights_bytes=need.weights_bytes + adapters,
            kv_cache_bytes=need.kv_cache_bytes + saved_bytes,
            compute_bytes=need.compute_bytes + self.driver_bytes,
            mapped_bytes=mapped_bytes,
        )

    def _slots(self, header: GgufHeader, context: int, options: LoadOptions) -> int:
        """Return what was asked for, or what suits: the same in the hive, which estimates, and in the worker."""
        cores = _GPU_CORES if self.gpu_layers else options.threads or default_threads()
        return options.slots or memory.slots(header, context, cores, psutil.virtual_memory().total)

    def load(self, model: LocalModel, device: Device, options: LoadOptions, progress: Progress) -> Engine:
        """Load `model`. The engine is imported here, as importing it loads llama.cpp."""
        try:
            from rbee_plugins.llamacpp.engine import EngineSettings, load_engine
        except builds.UnpairedError as error:
            why = f"the llama.cpp library does not belong to the bindings: {shorten(str(error))}"
            raise BackendNotAvailable(backend=self.name, why=why, hint=builds.ITS_OWN_HINT) from error

        del device  # the worker's environment shows llama.cpp this one only
        header = checked_header(model)
        memory.check_tuning(header, options.tuning)
        checked_bytes(header, options.tuning.lora)
        context = memory.context_tokens(header, options.context_tokens)
        slots = self._slots(header, context, options)
        settings = EngineSettings(
            context_tokens=context,
            threads=options.threads or default_threads(),
            gpu_layers=self.gpu_layers,
            slots=slots,
            chunk_tokens=memory.chunk_tokens(header, on_cpu=self.gpu_layers == 0),
            saved_bytes=_saved_bytes(header, context, slots, options),
            tuning=options.tuning,
            on_disk=options.on_disk,
        )
        return load_engine(model, header, settings, progress)


class LlamaCppCpu(LlamaCpp):
    """llama.cpp on the processor."""

    name = "llamacpp-cpu"
    accelerator = "cpu"
    gpu_layers = 0
    maps_weights = True

    def devices(self) -> Sequence[Device]:
        """Return the one processor with the host's memory."""
        return [_host_device("cpu", f"CPU ({platform.machine()})")]


class LlamaCppCuda(LlamaCpp):
    """llama.cpp on NVIDIA GPUs. `gpus` asks the driver."""

    name = "llamacpp-cuda"
    accelerator = "cuda"
    priority = 20
    in_host_memory = False
    driver_bytes = 400_000_000  # a CUDA context with llama.cpp's kernels and cuBLAS; a guess, never measured by us

    def __init__(self, gpus: Callable[[], Sequence[nvml.Gpu]] = nvml.gpus) -> None:
        self._gpus = gpus

    def availability(self) -> Availability:
        """Return whether engine, driver and device are there, telling apart which one is missing."""
        engine = super().availability()
        return nvml.availability(self._gpus, os.environ) if engine.usable else engine

    def devices(self) -> Sequence[Device]:
        """Return the GPUs with their memory as the driver counts it."""
        return nvml.devices(self._gpus, os.environ)

    def environment(self, device: Device) -> Mapping[str, str]:
        """Show the worker its own GPU and no other."""
        return {**super().environment(device), **nvml.environment(device)}


class LlamaCppMetal(LlamaCpp):
    """llama.cpp on Apple Silicon."""

    name = "llamacpp-metal"
    accelerator = "metal"
    priority = 20

    def availability(self) -> Availability:
        """Return whether this is Apple Silicon with an engine built for it."""
        if sys.platform != "darwin" or platform.machine() != "arm64":
            return Availability(usable=False, reason="Metal needs a Mac with Apple Silicon")
        return super().availability()

    def devices(self) -> Sequence[Device]:
        """Return the one GPU, which shares the host's memory."""
        return [_host_device("metal", "Apple Silicon GPU")]


def _saved_bytes(header: GgufHeader, context: int, slots: int, options: LoadOptions) -> int:
    return memory.saved_bytes(header, context, slots, options.tuning, psutil.virtual_memory().total)


def _host_device(device_id: str, name: str) -> Device:
    host = psutil.virtual_memory()
    return Device(device_id, name, total_bytes=host.total, free_bytes=host.available)


def checked_header(model: LocalModel) -> GgufHeader:
    """Return the header of `model`; raises `ModelLoadFailed` for a damaged file and for one that holds no model."""
    header = read_header(model.path, model.reference)
    if not header.architecture:
        raise ModelLoadFailed(reference=model.reference, why="its header does not name an architecture")
    if not header.tensors:
        raise ModelLoadFailed(reference=model.reference, why="it holds a vocabulary without a model")
    accounted = header.data_offset + 2 * header.tensor_bytes + _PADDING_BYTES
    if header.size_bytes > accounted:
        why = (
            f"it has {header.size_bytes} bytes, and its header accounts for {header.data_offset + header.tensor_bytes}"
        )
        raise ModelLoadFailed(reference=model.reference, why=why)
    return header


def default_threads() -> int:
    """Return the number of physical cores this process may use: hyper-threads slow llama.cpp down."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(psutil.cpu_count(logical=False) or allowed, allowed))
