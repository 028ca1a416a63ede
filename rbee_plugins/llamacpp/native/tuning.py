"""What a context and a model can be given beside their size: how keys and values are kept, attention, adapters."""

import ctypes
import os
from collections.abc import Iterable
from typing import Any, Final

from rbee_core.backend import Adapter, Tuning
from rbee_plugins.llamacpp.native.bindings import NativeError, lib
from rbee_plugins.llamacpp.native.model import NativeModel

# ggml's numbers of the types in which keys and values may be kept.
_TYPES: Final = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30,
}  # fmt: skip
_AUTO = -1


def tune(params: Any, tuning: Tuning) -> None:
    """Write into a context's parameters what `tuning` says of them."""
    params.type_k = _TYPES[tuning.cache_type_k or "f16"]
    params.type_v = _TYPES[tuning.cache_type_v or "f16"]
    params.flash_attn_type = _AUTO if tuning.flash_attention is None else int(tuning.flash_attention)


class Adapters:
    """LoRA adapters of one model, which frees them with itself. Every context of it has to be given them."""

    def __init__(self, model: NativeModel, wanted: Iterable[Adapter]) -> None:
        """Load them. Raises `NativeError` for one that llama.cpp does not accept for this model."""
        self._scales = [adapter.scale for adapter in wanted]
        self._handles: list[Any] = []
        for adapter in wanted:
            handle = lib.llama_adapter_lora_init(model.handle, os.fsencode(adapter.path))
            if not handle:
                raise NativeError(f"llama.cpp does not accept the adapter {adapter.path}")
            self._handles.append(handle)

    def apply(self, context: int | None) -> None:
        """Let a context compute with them."""
        count = len(self._handles)
        if not count:
            return
        handles = (lib.llama_adapter_lora_p_ctypes * count)(*self._handles)
        scales = (ctypes.c_float * count)(*self._scales)
        if lib.llama_set_adapters_lora(context, handles, count, scales):
            raise NativeError("llama.cpp cannot use the adapters")
