"""The MLX backend: a cheap description for hive and CLI, and the way to the engine for the worker."""

import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import psutil

from rbee_core.backend import (
    Accelerator,
    Availability,
    Backend,
    Device,
    Engine,
    Estimate,
    LoadOptions,
    LocalModel,
    Progress,
)
from rbee_plugins import nvml
from rbee_plugins.mlx import memory
from rbee_plugins.mlx.folder import read_folder

# transformers asks the hub about whatever it does not find in a folder; a worker has no business on the network.
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_INSTALL = "pip install 'rbee[mlx]'"


class Mlx(Backend):
    """MLX through mlx-lm: Metal on Apple Silicon, on Linux CUDA or the processor, whichever build is installed.

    Requests with a seed are computed by themselves: in a batch, numbers depend on who else is in it, and MLX has one
    random state a thread. All others share their steps.
    """

    name = "mlx"
    formats = frozenset({"mlx"})
    capabilities = frozenset({"stream", "cancel", "seed", "chat", "chat_template", "batching", "logprobs", "tools"})
    obeys = frozenset(
        {
            "frequency_penalty",
            "presence_penalty",
            "penalty_window",
            "logit_bias",
            "xtc_probability",
            "xtc_threshold",
            "min_tokens",
            "ignore_eos",
        }
    )

    def __init__(
        self, accelerator: Accelerator | None = None, gpus: Callable[[], Sequence[nvml.Gpu]] = nvml.gpus
    ) -> None:
        self.accelerator: Accelerator = accelerator or _installed_build()
        self.priority = -10 if self.accelerator == "cpu" else 10
        self._gpus = gpus

    def availability(self) -> Availability:
        """Return whether mlx-lm and a build of mlx are here, without the seconds that importing them takes."""
        if sys.platform not in ("darwin", "linux") or (sys.platform == "darwin" and platform.machine() != "arm64"):
            return Availability(usable=False, reason="MLX runs on Apple Silicon and on Linux")
        if find_spec("mlx_lm") is None:
            return Availability(usable=False, reason="the package mlx-lm is not installed", hint=_INSTALL)
        if not any(next(folder.glob("lib/libmlx.*"), None) for folder in _mlx_folders()):
            return Availability(usable=False, reason="no build of mlx is installed", hint=_INSTALL)
        if self.accelerator == "cuda":
            return nvml.availability(self._gpus, os.environ)
        return Availability(usable=True)

    def devices(self) -> Sequence[Device]:
        """Return the CUDA devices, or the one place that shares the host's memory."""
        if self.accelerator == "cuda":
            return nvml.devices(self._gpus, os.environ)
        host = psutil.virtual_memory()
        name = "Apple Silicon GPU" if self.accelerator == "metal" else f"CPU ({platform.machine()})"
        return [Device(self.accelerator, name, total_bytes=host.total, free_bytes=host.available)]

    def environment(self, device: Device) -> Mapping[str, str]:
        """Keep the worker off the network, and on its device."""
        if self.accelerator == "cuda":
            return {**_OFFLINE, **nvml.environment(device)}
        return _OFFLINE

    def estimate(self, model: LocalModel, options: LoadOptions) -> Estimate:
        """Return what `model` will need, from its configuration and its tensors' headers."""
        folder = read_folder(model)
        context = memory.context_tokens(folder, options.context_tokens)
        slots = memory.slots(options.slots, self.accelerator)
        return memory.estimate(folder, context, slots, self.accelerator, options.tuning)

    def load(self, model: LocalModel, device: Device, options: LoadOptions, progress: Progress) -> Engine:
        """Load `model`. The engine is imported here, as importing mlx-lm imports transformers."""
        del device
        folder = read_folder(model)
        context = memory.context_tokens(folder, options.context_tokens)
        progress(0.0, "importing mlx-lm")
        from rbee_plugins.mlx.engine import load_engine

        slots = memory.slots(options.slots, self.accelerator)
        return load_engine(model, folder, context, slots, progress, options.tuning)


def _mlx_folders() -> list[Path]:
    """`mlx` is spread over packages: the Python part, and one for each build."""
    spec = find_spec("mlx")
    return [Path(place) for place in spec.submodule_search_locations or ()] if spec else []


def _installed_build() -> Accelerator:
    if sys.platform == "darwin":
        return "metal"
    beside = (folder.parent for folder in _mlx_folders())
    return "cuda" if any(next(place.glob("mlx_cuda*.dist-info"), None) for place in beside) else "cpu"
