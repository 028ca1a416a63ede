"""What the installed llama-cpp-python was built for, told from the names of its libraries: importing it is slow."""

import os
from importlib.util import find_spec
from pathlib import Path

from rbee_core.backend import Availability


def availability(accelerator: str = "cpu") -> Availability:
    """Return whether the engine is installed and was built for `accelerator`, ``cpu``, ``cuda`` or ``metal``."""
    spec = find_spec("llama_cpp")
    if spec is None:
        return Availability(
            usable=False, reason="the package llama-cpp-python is not installed", hint="pip install 'rbee[llamacpp]'"
        )
    places = [Path(place, "lib") for place in spec.submodule_search_locations or ()]
    if accelerator == "cpu" or _has_library(accelerator, places):
        return Availability(usable=True)
    return Availability(
        usable=False,
        reason=f"the installed llama-cpp-python was built without {accelerator.upper()}",
        hint=f"build it with CMAKE_ARGS=-DGGML_{accelerator.upper()}=on, see llama-cpp-python's installation notes",
    )


def _has_library(accelerator: str, places: list[Path]) -> bool:
    """Look for ``libggml-cuda.so`` and its like, where the package itself looks for its libraries."""
    if elsewhere := os.environ.get("LLAMA_CPP_LIB_PATH"):
        places = [Path(elsewhere)]
    return any(next(place.glob(f"*ggml-{accelerator}.*"), None) for place in places)
