"""Which hive `--node` means, as an address. `localhost` alone is no address: it is this RBEE_HOME's hive."""

import re
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from rbee_core.errors import HiveUnreachable, InvalidRequest, shorten
from rbee_core.http.bind import reached
from rbee_core.keeper.options import LOCALHOST
from rbee_core.settings import Settings
from rbee_core.start import settled

if TYPE_CHECKING:
    from rbee_core.client import HiveClient


HTTPS = "https://"
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
# A name whose last label is a number would be read as an address that it is not.
_NAME = re.compile(rf"(?=.{{1,253}}\.?$)(?:{_LABEL}\.)*(?![0-9]+\.?$){_LABEL}\.?")


class Node(NamedTuple):
    """Where a hive is, and whether it speaks TLS. Without a port, the usual one is meant."""

    host: str
    port: int | None
    https: bool = False


def parse(node: str) -> Node:
    """Split `host`, `host:port`, `[v6]:port` or a bare IPv6 address, with or without `https://` before it.

    Raises `InvalidRequest`.
    """
    https = node.startswith(HTTPS)
    address = node.removeprefix(HTTPS)
    host, port = address, ""
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        if rest:
            colon, port = rest[0], rest[1:]
            host = host if colon == ":" and port else ""
    elif address.count(":") == 1:
        host, _, port = address.partition(":")
        host = host if port else ""
    valid_port = not port or (port.isascii() and port.isdigit() and 0 < int(port) < 65_536)
    if not host or not valid_port or not _can_be_host(host):
        raise InvalidRequest(f"Invalid node: {shorten(node)!r}", hint="give a host, or host:port")
    return Node(host, int(port) if port else None, https)


def _can_be_host(host: str) -> bool:
    """Whether it is an address, or a name that the name system could know: no client can ask for another."""
    if host.isascii() and "xn--" not in host.lower():
        return bool(_NAME.fullmatch(host)) or _is_address(host)
    import idna  # names beyond ASCII are rare

    try:
        return bool(_NAME.fullmatch(idna.encode(idna.decode(host)).decode("ascii")))
    except UnicodeError:
        return False


def _is_address(host: str) -> bool:
    import ipaddress  # most nodes are this one

    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_local(node: str) -> bool:
    """Whether `node` means the hive of this RBEE_HOME, wherever that listens."""
    return parse(node) == Node(LOCALHOST, None)


def is_here(node: str) -> bool:
    """Whether `node` is this machine, whichever hive: paths mean the same there."""
    host = parse(node).host
    if host == LOCALHOST:
        return True
    import ipaddress  # most nodes are this one

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def client_of(host: str, port: int, settings: Settings, *, https: bool = False) -> "HiveClient":
    """Return a client of the hive that listens there, without connecting yet.

    Raises `HiveUnreachable` for a name that the name system does not come to know in time.
    """
    from rbee_core.client import ClientTerms, HiveClient  # slow, and needed only once a hive is known

    settled()
    there = reached(host)
    if not _is_address(there):
        _look_up(there, port, settings.connect_timeout_s)
    return HiveClient(there, port, ClientTerms.of(settings), https=https)


def _look_up(host: str, port: int, within_s: float) -> None:
    """Wait until the name system has said whatever it says of `host`; connecting asks it again, and it knows then.

    Asking cannot be interrupted, not even by Ctrl+C, while a name server does not answer. So a thread does it first,
    which nothing has to wait for. Raises `HiveUnreachable` if that takes longer.
    """
    import socket
    import threading

    said = threading.Event()

    def ask() -> None:
        with suppress(OSError):  # a name that is not known is told by whoever connects
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        said.set()

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    if not said.wait(within_s):
        raise HiveUnreachable(address=f"{host}:{port}", attempts=1)
