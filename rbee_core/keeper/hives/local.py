"""This RBEE_HOME's own hive, seen from outside: none, starting, running, or there and not answering.

The last is no form of the first: such a hive holds the lock, its workers and their memory.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rbee_core.errors import HiveNotAnswering, HiveUnreachable, RbeeError, RemoteError
from rbee_core.home import HiveNote, Home, is_alive, is_halted
from rbee_core.keeper.hives.address import client_of
from rbee_core.settings import Settings

if TYPE_CHECKING:
    from rbee_core.client import HiveClient


STARTING_POLL_S = 0.05


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


@dataclass(frozen=True, slots=True)
class Starting:
    """A hive that is being built and does not listen yet."""

    note: HiveNote


class NoHive(HiveUnreachable):
    """Raised when a command needs this RBEE_HOME's hive and none runs."""

    def __init__(self) -> None:
        RbeeError.__init__(self, "No hive is running on this RBEE_HOME", hint="start one with `rbee hive start`")


def look(settings: Settings) -> Running | Starting | NotAnswering | None:
    """Ask this RBEE_HOME's hive whether it is well; None if there is none. Takes `connect_timeout_s` at most."""
    home = Home(settings.home)
    starting = home.starting_hive()  # first: in between, it may have come to listen
    note = home.running_hive()
    if note is None:
        return Starting(starting) if starting else None
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
    """Return this RBEE_HOME's hive if one runs; one that is starting is waited for.

    Raises `HiveNotAnswering` rather than to say that there is none.
    """
    until = time.monotonic() + settings.worker_start_timeout_s
    while isinstance(hive := look(settings), Starting):
        if time.monotonic() > until:
            note, why = hive.note, "it is still starting"
            raise HiveNotAnswering(pid=note.pid, address=note.host, halted=is_halted(note.process), why=why)
        time.sleep(STARTING_POLL_S)
    if isinstance(hive, NotAnswering):
        raise hive.error
    return hive
