"""The bindings, what llama.cpp says in its log, and its failures.

Everything that native code may call until the end of the process lives here, at module level.
"""

import logging
import re
import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any, Final, Self

from rbee_plugins.llamacpp.builds import UnpairedError, versions
from rbee_plugins.llamacpp.native import pairing


def _bindings() -> Any:
    """Import the bindings alone: the package's own __init__ brings numpy and much else, a third of a worker's start.

    Untyped: the annotations are loose and partly wrong, and the package is an optional dependency.
    """
    spec = None if "llama_cpp" in sys.modules else find_spec("llama_cpp")
    if spec is None:
        return import_module("llama_cpp.llama_cpp")
    sys.modules["llama_cpp"] = module_from_spec(spec)  # made, but not run
    try:
        return import_module("llama_cpp.llama_cpp")
    finally:
        del sys.modules["llama_cpp"]


def _checked_bindings() -> Any:
    """Return the bindings with a library that belongs to them. Raises `UnpairedError`."""
    try:
        bindings = _bindings()
    except (
        AttributeError,
        OSError,
        RuntimeError,
    ) as error:  # a function is not there, or no library is, or no good one
        raise UnpairedError(str(error)) from error
    pairing.check(bindings, versions([Path(bindings.__file__).with_name("lib")]))
    return bindings


lib: Any = _checked_bindings()
log = logging.getLogger(__name__)


def version() -> str:
    """Return which llama.cpp this is."""
    return str(lib.llama_version().decode(errors="replace"))


# llama.cpp's own numbers; those in llama_cpp's comments are out of date. Of the rest only 2 is ever looked at.
_LOG_LEVELS: Final = {3: logging.WARNING, 4: logging.ERROR}
_INFO_LEVEL = 2
_info_log = logging.getLogger(f"{__name__}.info")
_BUFFER = re.compile(r"(\S+) model buffer size")


@lib.llama_log_callback
def _on_log(level: int, text: bytes | None, _user_data: object) -> None:
    """Pass llama.cpp's messages on. A module-level function, as native code may call it until the end."""
    if level in _LOG_LEVELS and text:
        log.log(_LOG_LEVELS[level], "%s", text.decode(errors="replace").rstrip())
    elif level == _INFO_LEVEL and text and _info_log.isEnabledFor(logging.DEBUG):
        _info_log.debug("%s", text.decode(errors="replace").rstrip())


def start() -> None:
    """Send llama.cpp's messages to the log and get it ready. Harmless when done twice."""
    lib.llama_log_set(_on_log, None)
    lib.llama_backend_init()


class NativeError(Exception):
    """Raised when llama.cpp returned nothing; says what it was doing."""


class LastErrors(logging.Handler):
    """Keeps the errors llama.cpp logs while it is attached, to say why a load failed."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line; the first ones name the cause, so a flood is cut at its end."""
        if len(self.lines) < 20:
            self.lines.append(record.getMessage())

    def __enter__(self) -> Self:
        log.addHandler(self)
        return self

    def __exit__(self, *_exception: object) -> None:
        log.removeHandler(self)


class WeightBuffers(logging.Handler):
    """Keeps the names of the buffers that weights went to while it is attached, such as ``CUDA0``.

    llama.cpp's C interface does not tell, its log does. Should the wording change, no buffer is found, and a model
    that was meant for a GPU is refused rather than believed to be there.
    """

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.names: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the name of a buffer."""
        if buffer := _BUFFER.search(record.getMessage()):
            self.names.add(buffer[1])

    def __enter__(self) -> Self:
        _info_log.addHandler(self)
        _info_log.setLevel(logging.DEBUG)
        _info_log.propagate = False  # hundreds of lines that nobody wants in a worker's log
        return self

    def __exit__(self, *_exception: object) -> None:
        _info_log.removeHandler(self)
        _info_log.setLevel(logging.WARNING)
