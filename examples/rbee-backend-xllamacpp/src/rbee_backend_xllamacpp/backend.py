"""The cheap side: what hive and CLI ask of the backend. Imports no engine.

The hive asks in helper threads and gives each answer ten seconds (`plugin_timeout_s`), so nothing here waits.
"""

import importlib
import importlib.util
import os
import platform
from collections.abc import Mapping, Sequence

from rbee_core.backend import Availability, Backend, Device, Engine, Estimate, LoadOptions, LocalModel, Progress
from rbee_core.backend.gguf import GgufHeader, read_header
from rbee_core.errors import InvalidRequest, ModelLoadFailed

DEFAULT_CONTEXT_TOKENS = 4096
CONTEXT_STEP = 256  # llama.cpp rounds a context up to a multiple of this
CACHE_VALUE_BYTES = 2
COMPUTE_BYTES = 150_000_000  # the library, its buffers for 32 tokens and the vocabulary; measured with SmolLM2-135M


class XllamaCpp(Backend):
    """llama.cpp on the processor, through xllamacpp."""

    name = "xllamacpp"
    accelerator = "cpu"
    formats = frozenset({"gguf"})
    capabilities = frozenset({"stream", "cancel", "seed", "chat"})
    priority = -10

    def availability(self) -> Availability:
        """Return whether xllamacpp is installed, without the time that importing it takes."""
        if importlib.util.find_spec("xllamacpp") is None:
            return Availability(usable=False, reason="xllamacpp is not installed", hint="pip install xllamacpp")
        return Availability(usable=True)

    def devices(self) -> Sequence[Device]:
        """Return the processor."""
        return [Device("cpu", f"CPU ({platform.machine()})")]

    def prepare(self) -> None:
        """Import the library before the model is known."""
        importlib.import_module("rbee_backend_xllamacpp.engine")

    def environment(self, device: Device) -> Mapping[str, str]:
        """Let waiting OpenMP threads sleep soon: spinning ones starve whatever else runs on the machine."""
        del device
        return {} if "GOMP_SPINCOUNT" in os.environ else {"GOMP_SPINCOUNT": "1000"}

    def estimate(self, model: LocalModel, options: LoadOptions) -> Estimate:
        """Return what `model` will need, from its header.

        llama.cpp maps the file: the weights' pages are the system's to take back, so they are `mapped_bytes`. Cache and
        buffers are private.
        """
        header = checked_header(model)
        context = context_tokens(header, options.context_tokens)
        width = header.embedding_length // max(header.head_counts, default=1)
        key = header.number("attention.key_length") or width
        value = header.number("attention.value_length") or width
        cache = context * sum(header.kv_head_counts) * (key + value) * CACHE_VALUE_BYTES
        weights = max(model.size_bytes, header.tensor_bytes)
        return Estimate(weights, cache, COMPUTE_BYTES, context, mapped_bytes=weights)

    def load(self, model: LocalModel, device: Device, options: LoadOptions, progress: Progress) -> Engine:
        """Load `model` in this process."""
        from rbee_backend_xllamacpp.engine import load_engine

        del device
        header = checked_header(model)
        return load_engine(model, header, context_tokens(header, options.context_tokens), options.threads, progress)


def checked_header(model: LocalModel) -> GgufHeader:
    """Return the header of `model`; llama.cpp itself would only say that the load failed."""
    header = read_header(model.path, model.reference)
    if not header.architecture or not header.tensors:
        raise ModelLoadFailed(reference=model.reference, why="it holds no model")
    return header


def context_tokens(header: GgufHeader, asked: int | None) -> int:
    """Return the context that llama.cpp will make: what was asked for, or 4096 if the model was trained for that."""
    trained = header.context_length or DEFAULT_CONTEXT_TOKENS
    if asked is not None and asked > trained:
        raise InvalidRequest(
            f"A context of {asked} tokens was asked for, the model was trained for {trained}",
            hint=f"ask for at most {trained} tokens",
        )
    wanted = asked or min(trained, DEFAULT_CONTEXT_TOKENS)
    return -(-wanted // CONTEXT_STEP) * CONTEXT_STEP
