"""On what terms a hive lives on its RBEE_HOME: five properties, and the two sets of them that the programs use."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenure:
    """The terms of one hive; each stands for itself, and any combination works."""

    lock: bool
    """It holds RBEE_HOME: a second hive with this term is refused."""
    note: bool
    """It says in RBEE_HOME where it listens, so that it can be found."""
    lifeline: bool
    """It belongs to the process at the other end of its stdin, and stops when that ends."""
    private_port: bool
    """It listens on a free port of the loopback, whatever the settings say."""
    spare: bool
    """It prepares a worker process before anybody asks, because the first request is near."""


PERSISTENT = Tenure(lock=True, note=True, lifeline=False, private_port=False, spare=False)
EPHEMERAL = Tenure(lock=False, note=False, lifeline=True, private_port=True, spare=True)
