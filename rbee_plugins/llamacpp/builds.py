"""What the installed llama-cpp-python was built for, told from the names of its libraries: importing it is slow."""

import os
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from rbee_core.backend import Availability

LIBRARY_VARIABLE = "LLAMA_CPP_LIB_PATH"
ITS_OWN_HINT = (
    f"unset {LIBRARY_VARIABLE}, or let it name the libraries of a llama-cpp-python of the installed release: "
    "build that with the CMAKE_ARGS you need"
)
_VERSION = re.compile(r"\d+\.\d+\.\d+")


class UnpairedError(ImportError):
    """Raised when the bindings and the library that was loaded for them do not belong together; says why not."""


def availability(accelerator: str = "cpu") -> Availability:
    """Return whether the engine is installed and was built for `accelerator`, ``cpu``, ``cuda`` or ``metal``."""
    spec = find_spec("llama_cpp")
    if spec is None:
        return Availability(
            usable=False, reason="the package llama-cpp-python is not installed", hint="pip install 'rbee[llamacpp]'"
        )
    own = [Path(place, "lib") for place in spec.submodule_search_locations or ()]
    elsewhere = os.environ.get(LIBRARY_VARIABLE)
    places = [Path(elsewhere)] if elsewhere else own
    if elsewhere and (why := _misfit(places, own)):
        return Availability(usable=False, reason=f"{LIBRARY_VARIABLE} is {elsewhere}, and {why}", hint=ITS_OWN_HINT)
    if accelerator == "cpu" or any(next(place.glob(f"*ggml-{accelerator}.*"), None) for place in places):
        return Availability(usable=True)
    return Availability(
        usable=False,
        reason=f"the installed llama-cpp-python was built without {accelerator.upper()}",
        hint=f"build it with CMAKE_ARGS=-DGGML_{accelerator.upper()}=on, see llama-cpp-python's installation notes",
    )


def versions(places: Iterable[Path]) -> set[str]:
    """Return the versions of llama.cpp in `places` as their names have them, such as ``libllama.so.0.5.0``."""
    names = (path.name for place in places for path in place.glob("libllama.*"))
    return {found[0] for name in names if (found := _VERSION.search(name))}


def _misfit(places: list[Path], own: list[Path]) -> str:
    """Return why what lies in `places` cannot be what the bindings were built with, "" if it may be.

    The worker looks closer (`native.pairing`), once it has loaded the library.
    """
    if not any(next(place.glob("*llama.*"), None) for place in places):
        return "there is no llama.cpp"
    there, wanted = versions(places), versions(own)
    if there and wanted and not there & wanted:
        return f"llama.cpp is {_listed(there)} there, while the bindings were made for {_listed(wanted)}"
    return ""


def _listed(found: set[str]) -> str:
    return " and ".join(sorted(found))
