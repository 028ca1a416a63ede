"""This RBEE_HOME's own hive, seen from outside: none, running, or there and not answering.

The third is no form of the first: such a hive holds the lock, its workers and their memory.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rbee_core.errors import HiveNotAnswering, HiveUnreachable, RbeeError, RemoteError
from rbee_core.home import HiveNote, Home, is_alive, is_halted
from rbee_core.keeper.hives.address import client_of
from rbee_core.settings import Settings

if TYPE_CHECKING:
    from rbee_core.client import HiveClient


@dataclass(frozen=True, slots=True)
class Running:
    """A hive that has just answered. Whoever gets it closes the client."""

    note: HiveNote
    client: "HiveClient"


@dataclass(frozen=True, slots=True)
class NotAnswering:
    """A hive whose process is alive, and that did not say so when asked."""

    note: HiveNote
    error: HiveNotAnswering


class NoHive(HiveUnreachable):
    """Raised when a command needs this RBEE_HOME's hive and none runs."""

    def __init__(self) -> None:
        RbeeError.__init__(self, "No hive is running on this RBEE_HOME", hint="start one with `rbee hive start`")


def look(settings: Settings) -> Running | NotAnswering | None:
    """Ask this RBEE_HOME's hive whether it is well; None if there is none. Takes `connect_timeout_s` at most."""
    note = Home(settings.home).running_hive()
    if note is None:
        return None
    client = client_of(note.host, note.port, settings)
    try:
        client.health(attempts=1, timeout_s=settings.connect_timeout_s)
    except RbeeError as error:
        client.close()
        return _not_answering(note, client.address, error) if is_alive(note.process) else None
    except BaseException:
        client.close()
        raise
    return Running(note, client)


def _not_answering(note: HiveNote, address: str, error: RbeeError) -> NotAnswering:
    why = error.message if isinstance(error, RemoteError) else ""
    halted = is_halted(note.process)
    return NotAnswering(note, HiveNotAnswering(pid=note.pid, address=address, halted=halted, why=why))


def running(settings: Settings) -> Running | None:
    """Return this RBEE_HOME's hive if one runs. Raises `HiveNotAnswering` rather than to say that there is none."""
    hive = look(settings)
    if isinstance(hive, NotAnswering):
        raise hive.error
    return hive
