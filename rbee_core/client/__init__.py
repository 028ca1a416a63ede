"""The client of a hive's HTTP, for whoever speaks to one: keeper, queen, kit.

::

    terms   ClientTerms: what a client needs of the settings
    calls   every call as data: what is sent, what comes back, how long it may take, whether it may be sent twice
    rules   what an answer or a failure means; neither of the two opens a connection
    sync    HiveClient: blocking, for programs that do one thing at a time
    aio     AsyncHiveClient: for programs that have an event loop

Importing the package imports no transport: httpx comes with `HiveClient`, aiohttp with `rbee_core.client.aio`.
"""

from typing import TYPE_CHECKING, Any

from rbee_core.client.rules import HiveLost, jittered
from rbee_core.client.terms import ClientTerms

if TYPE_CHECKING:
    from rbee_core.client.sync import HiveClient

__all__ = ["ClientTerms", "HiveClient", "HiveLost", "jittered"]


def __getattr__(name: str) -> Any:
    if name != "HiveClient":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rbee_core.client.sync import HiveClient

    return HiveClient
