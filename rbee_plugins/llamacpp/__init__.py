"""Runs GGUF models with llama.cpp. Registers the backend; the engine is imported when a worker loads a model."""

from collections.abc import Callable

from rbee_core.backend import Backend, hookimpl
from rbee_plugins.llamacpp.backend import LlamaCppCpu


@hookimpl
def rbee_register_backends(register: Callable[[Backend], None]) -> None:
    """Register ``llamacpp-cpu``."""
    register(LlamaCppCpu())
