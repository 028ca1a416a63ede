"""Importing quickly, which is most of what a start of any program of rbee does."""

import gc
import importlib
import os
from collections.abc import Generator
from contextlib import contextmanager

_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
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

    aiohttp builds a TLS client context when it is imported, and reading every authority's certificate into it is
    a third of the import's time, paid at each start of a hive and of a worker. Our aiohttp clients speak plain HTTP
    to our own hive and workers; what talks to the world (`rbee_core.models.transfer`) has a context of its own.
    """
    kept = {name: os.environ.get(name) for name in _VARIABLES}
    os.environ.update(dict.fromkeys(_VARIABLES, os.devnull))
    try:
        importlib.import_module("aiohttp.connector")
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
