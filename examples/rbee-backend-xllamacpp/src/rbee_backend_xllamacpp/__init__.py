"""Runs GGUF models in rbee with xllamacpp's prebuilt llama.cpp."""

from collections.abc import Callable

from rbee_backend_xllamacpp.backend import XllamaCpp
from rbee_core.backend import Backend, hookimpl


@hookimpl
def rbee_register_backends(register: Callable[[Backend], None]) -> None:
    """Register the backend; the engine is imported when a worker loads a model."""
    register(XllamaCpp())
