"""File descriptors: how many this process may have, and what it can afford with them."""

import errno
import resource
from typing import NamedTuple

ENOUGH = 65_536  # a hard limit of a thousand million, as containers have it, makes other programs slow
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_KEPT_BACK = 128


class Affordable(NamedTuple):
    """How many connections can be served at a time, and how many more can be told that they are not."""

    connections: int
    refusals: int


def is_shortage(error: BaseException | None) -> bool:
    """Return whether the system had no descriptor or memory left: nothing is said about whom we wanted to reach."""
    return isinstance(error, OSError) and error.errno in SHORTAGES


def raise_limit() -> None:
    """Take as many descriptors as the hard limit allows. For a program's start: child processes inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # the kernel has a lower limit of its own: then it stays as it was
        return


def affordable(wanted: int) -> Affordable:
    """Return what the limit leaves of `wanted` connections. Each may need a second one, to a worker.

    A part is kept back for what a hive has open besides: its files, its workers' pipes, refusals.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        soft = ENOUGH
    kept_back = min(_KEPT_BACK, soft // 2)
    return Affordable(max(1, min(wanted, (soft - kept_back) // 2)), max(1, kept_back // 4))
