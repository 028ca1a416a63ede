"""Whether and where one can listen: sockets and host names, without a server. For whoever listens, or only asks."""

import errno
import ipaddress
import os
import socket

from rbee_core.errors import AddressUnusable

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared, not bound


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens on `host` and `port`; port 0 lets the kernel choose. Raises `AddressUnusable`.

    May ask a name server, so on an event loop it is called in a helper thread.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, proto)
    except OSError as error:
        raise AddressUnusable(host=host, port=port, why=error.strerror or str(error)) from error
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(512)
    except OSError as error:
        sock.close()
        taken = error.errno == errno.EADDRINUSE
        why = "the port is in use" if taken else os.strerror(error.errno or 0)
        raise AddressUnusable(host=host, port=port, why=why, taken=taken) from error
    return sock


def reached(host: str) -> str:
    """Return where a server that listens on `host` is reached from this machine."""
    return _WILDCARDS.get(host, host)


def authority(host: str, port: int) -> str:
    """Return host and port as they stand in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether nobody on another machine reaches `host`. What cannot be judged counts as reachable."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
