"""Opening the hive of a node, which for this machine may have to be started first and stopped again."""

import contextlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING

from rbee_core.errors import HiveUnreachable, RbeeError
from rbee_core.home import Home
from rbee_core.keeper.hives import address, local
from rbee_core.keeper.hives.ephemeral import EphemeralHive, ephemeral_hive
from rbee_core.keeper.interrupt import Interrupts, interrupts
from rbee_core.settings import DEFAULT_PORT, Settings

if TYPE_CHECKING:
    from rbee_core.client import HiveClient


class Mode(StrEnum):
    """Whose hive a command uses."""

    EPHEMERAL = "ephemeral"
    """One that was started for this command and goes with it."""
    PERSISTENT = "persistent"
    """One that was there before and stays."""


@dataclass(frozen=True, slots=True)
class OpenHive:
    """A hive that is there, or is being started. `connect` waits for it and returns the one client of it."""

    mode: Mode
    connect: "Callable[[], HiveClient]"


def connect(node: str, settings: Settings) -> "HiveClient":
    """Return a client of a hive that is there. Raises `NoHive` or `HiveNotAnswering` for this machine's own."""
    client = _existing(node, settings)
    if client is None:
        raise local.NoHive
    return client


@contextmanager
def open_hive(
    node: str, settings: Settings, signals: Interrupts, *, worker: bool, check: Callable[[], None] | None = None
) -> Generator[OpenHive]:
    """Yield the node's hive; on this machine, one is started for the block if none runs.

    With `worker`, a hive that is started prepares a worker while it boots. `check` runs before a hive is started, and
    only then: what it raises saves starting one. Raises `HiveNotAnswering` for a hive of this RBEE_HOME that is there
    and silent: no second one is started beside it.
    """
    if client := _existing(node, settings):
        with client:
            yield OpenHive(Mode.PERSISTENT, lambda: client)
        return
    if check is not None:
        check()
    with ephemeral_hive(settings, worker=worker) as hive, contextlib.ExitStack() as stack:
        signals.at_once = hive.kill
        try:
            yield OpenHive(Mode.EPHEMERAL, _connector(hive, settings, stack))
        except HiveUnreachable as error:
            raise _explained(hive, error, settings) from error


@contextmanager
def hive_of(node: str, settings: Settings) -> "Generator[HiveClient]":
    """Yield a client of the node's hive; on this machine, one is started for the block if none runs."""
    with interrupts() as signals, open_hive(node, settings, signals, worker=False) as hive:
        yield hive.connect()


def _existing(node: str, settings: Settings) -> "HiveClient | None":
    """Return a client of the hive that `node` names; None if that is this RBEE_HOME's and there is none."""
    if address.is_local(node):
        found = local.running(settings)
        return found.client if found else None
    named = address.parse(node)
    return address.client_of(named.host, named.port or DEFAULT_PORT, settings, https=named.https)


def _connector(hive: EphemeralHive, settings: Settings, stack: contextlib.ExitStack) -> "Callable[[], HiveClient]":
    clients: list[HiveClient] = []

    def connect_once() -> "HiveClient":
        if not clients:
            for slow in ("rbee_core.client.sync", "httpcore"):  # which httpx would import for its first client
                import_module(slow)  # while the hive boots
            clients.append(stack.enter_context(address.client_of(*hive.address(), settings)))
        return clients[0]

    return connect_once


def _explained(hive: EphemeralHive, error: RbeeError, settings: Settings) -> RbeeError:
    """Name the cause instead of the symptom where this command's own hive is gone."""
    words = hive.exit_words()
    log = Home(settings.home).hive_log
    return RbeeError(f"The hive of this command is gone ({words})", hint=f"look at {log}") if words else error
