"""Importing quickly, which is most of what a start of any program of rbee does."""

import gc
import importlib
from collections.abc import Generator
from contextlib import contextmanager

_OBJECTS = 20_000  # between two looks at the youngest; Python's own number is 700


@contextmanager
def quick_imports() -> Generator[None]:
    """Let the garbage collector look less often within the block.

    Imports make a hundred thousand objects that all stay: looking for garbage among them is a twentieth of a start.
    """
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def import_aiohttp() -> None:
    """Import aiohttp; call before anything else does.

    aiohttp makes TLS contexts for clients when it is imported, and reading every authority's certificate into them is
    a third of the import's time, paid at each start of a hive and of a worker, whose own clients speak plain HTTP. So
    they are read when such a context is first used: whoever speaks TLS in our processes trusts whom others trust.
    """
    from rbee_core import tls

    with tls.certificates_later():
        importlib.import_module("aiohttp.connector")
