"""The only place that calls llama.cpp: a loaded model, its context and its samplers, as a few typed classes.

Owns the native memory and the callbacks that native code holds pointers to. Knows nothing of requests, chat or
text: tokens in, tokens out. A context belongs to one thread at a time, a model to any number.
"""

from rbee_plugins.llamacpp.native.bindings import LastErrors, NativeError, version
from rbee_plugins.llamacpp.native.context import (
    ABORTED,
    DECODED,
    MOST_SAVED_BYTES,
    NO_ROOM,
    Context,
    Part,
    State,
    as_state,
)
from rbee_plugins.llamacpp.native.model import NativeModel, Vocabulary, accelerator_of
from rbee_plugins.llamacpp.native.samplers import Likely, Sampler
from rbee_plugins.llamacpp.native.tuning import Adapters

__all__ = [
    "ABORTED",
    "DECODED",
    "MOST_SAVED_BYTES",
    "NO_ROOM",
    "Adapters",
    "Context",
    "LastErrors",
    "Likely",
    "NativeError",
    "NativeModel",
    "Part",
    "Sampler",
    "State",
    "Vocabulary",
    "accelerator_of",
    "as_state",
    "version",
]
