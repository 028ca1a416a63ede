"""The llama.cpp backends: cheap descriptions for hive and CLI, and the way to the engine for the worker."""

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

import psutil

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
from rbee_core.errors import ModelLoadFailed
from rbee_plugins.llamacpp import memory

_SPIN_VARIABLES = frozenset({"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"})
_SLOTS = 1  # the engine computes one request at a time, whatever number of slots was asked for


class LlamaCppCpu(Backend):
    """llama.cpp on the processor."""

    name = "llamacpp-cpu"
    accelerator = "cpu"
    formats = frozenset({"gguf"})
    capabilities = frozenset({"stream", "cancel", "seed", "chat"})

    def availability(self) -> Availability:
        """Return whether the engine is installed, without the quarter of a second that importing it takes."""
        if find_spec("llama_cpp") is None:
            return Availability(
                usable=False,
                reason="the package llama-cpp-python is not installed",
                hint="pip install 'rbee[llamacpp]'",
            )
        return Availability(usable=True)

    def devices(self) -> Sequence[Device]:
        """Return the one processor with the host's memory."""
        host = psutil.virtual_memory()
        return [Device("cpu", f"CPU ({platform.machine()})", total_bytes=host.total, free_bytes=host.available)]

    def environment(self, device: Device) -> Mapping[str, str]:
        """Let a thread that waits for the others sleep soon instead of spinning.

        OpenMP's own default spins for milliseconds: with anything else running on the cores, a token then takes ten
        times as long. What the user has set stays.
        """
        del device
        return {} if os.environ.keys() & _SPIN_VARIABLES else {"GOMP_SPINCOUNT": "1000"}

    def estimate(self, model: LocalModel, options: LoadOptions) -> Estimate:
        """Return what `model` will need, from its header."""
        header = checked_header(model)
        split = header.metadata.get("split.count", 1) != 1
        weights = model.size_bytes if split else header.tensor_bytes
        context = memory.context_tokens(header, options.context_tokens)
        return memory.estimate(header, context, _SLOTS, weights)

    def load(self, model: LocalModel, device: Device, options: LoadOptions, progress: Progress) -> Engine:
        """Load `model` on the processor. The engine is imported here, as importing it loads llama.cpp."""
        from rbee_plugins.llamacpp.engine import EngineSettings, load_engine

        del device
        header = checked_header(model)
        settings = EngineSettings(
            context_tokens=memory.context_tokens(header, options.context_tokens),
            threads=options.threads or default_threads(),
        )
        return load_engine(model, header, settings, progress)


def checked_header(model: LocalModel) -> GgufHeader:
    """Return the header of `model`; raises `ModelLoadFailed` for a damaged file and for one that holds no model."""
    header = read_header(model.path, model.reference)
    if not header.architecture:
        raise ModelLoadFailed(reference=model.reference, why="its header does not name an architecture")
    if not header.tensors:
        raise ModelLoadFailed(reference=model.reference, why="it holds a vocabulary without a model")
    return header


def default_threads() -> int:
    """Return the number of physical cores this process may use: hyper-threads slow llama.cpp down."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(psutil.cpu_count(logical=False) or allowed, allowed))
