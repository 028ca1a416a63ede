"""Runs GGUF models with llama.cpp. Registers the backends; the engine is imported when a worker loads a model."""

from collections.abc import Callable

from rbee_core.backend import Backend, hookimpl
from rbee_plugins.llamacpp.backend import LlamaCppCpu, LlamaCppCuda, LlamaCppMetal


@hookimpl
def rbee_register_backends(register: Callable[[Backend], None]) -> None:
    """Register ``llamacpp-cpu``, ``llamacpp-cuda`` and ``llamacpp-metal``, also where they cannot run.

    One that was asked for by name must be able to say why it is not available.
    """
    register(LlamaCppCuda())
    register(LlamaCppMetal())
    register(LlamaCppCpu())
