"""Imports aiohttp without the certificates it would read and never use here."""

import importlib
import os

_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


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
