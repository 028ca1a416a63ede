"""Importing quickly what takes long to import."""

import importlib


def import_aiohttp() -> None:
    """Import aiohttp; call before anything else does.

    aiohttp makes TLS contexts for clients when it is imported, and reading every authority's certificate into them is
    a third of the import's time, paid at each start of a hive and of a worker, whose own clients speak plain HTTP. So
    they are read when such a context is first used: whoever speaks TLS in our processes trusts whom others trust.
    """
    from rbee_core import tls

    with tls.certificates_later():
        importlib.import_module("aiohttp.connector")
