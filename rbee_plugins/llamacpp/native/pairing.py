"""Whether the library that was loaded is the one that the bindings were made for.

ctypes knows native structures from the bindings alone. When llama.cpp moves a field, which it does from one release to
the next, everything behind that is read and written in the wrong place, without a word: options flip, and a structure
that has grown is written beyond its end. So before anything else is called, the defaults that the library gives are
read with the bindings' eyes, and have to be what they always were.
"""

import ctypes
from collections.abc import Collection
from typing import Any, Final

from rbee_plugins.llamacpp.builds import UnpairedError

_IN_REGISTERS_BYTES = 16
_ROOM_BYTES = 1024  # for what a newer library writes behind the structure that the bindings know

# By the function that gives them, what llama.cpp has had as defaults for years. Numbers at the beginning of a
# structure, types in its middle, and switches at its end: a field that came or went anywhere moves some of them.
EXPECTED: Final = {
    "llama_model_default_params": {"main_gpu": 0, "vocab_only": False, "check_tensors": False, "use_extra_bufts": True},
    "llama_context_default_params": {
        "n_seq_max": 1,
        "rope_scaling_type": -1,
        "pooling_type": -1,
        "attention_type": -1,
        "yarn_ext_factor": -1.0,
        "type_k": 1,
        "type_v": 1,
        "embeddings": False,
        "offload_kqv": True,
        "op_offload": True,
        "swa_full": True,
        "n_samplers": 0,
    },
    "llama_sampler_chain_default_params": {"no_perf": True},
}


def check(bindings: Any, versions: Collection[str] = ()) -> None:
    """Raise `UnpairedError` unless the library behind `bindings` gives what they expect.

    `versions` are those of llama.cpp that the bindings were built with, if that is known; its development versions
    count as the release that they lead to.
    """
    version = bindings.llama_version().decode(errors="replace")
    if versions and version.partition("-")[0] not in versions:
        raise UnpairedError(
            f"it is llama.cpp {version}, and the bindings were made for {' or '.join(sorted(versions))}"
        )
    for function, expected in EXPECTED.items():
        given = _defaults(bindings, function)
        for name, value in expected.items():
            if (found := getattr(given, name, value)) != value:
                why = f"{function} of llama.cpp {version} gives {name} {found}, where the bindings expect {value}"
                raise UnpairedError(why)


def _defaults(bindings: Any, name: str) -> Any:
    """Return the structure that a function gives, with room for one that is larger than the bindings know.

    Not for the smallest structures: those come in registers.
    """
    function = getattr(bindings, name)
    known = function.restype
    if ctypes.sizeof(known) <= _IN_REGISTERS_BYTES:
        return function()

    class Roomy(ctypes.Structure):
        _fields_ = (("known", known), ("behind", ctypes.c_char * _ROOM_BYTES))

    address = ctypes.cast(function, ctypes.c_void_p).value or 0
    return ctypes.CFUNCTYPE(Roomy)(address)().known
