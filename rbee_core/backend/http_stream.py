"""One GET request, redirects included, read in large pieces and given up at once when somebody says so.

Built on the standard library's http.client because it is the fastest there is without a dependency: on loopback it
keeps up with curl while hashing, where httpx reaches a third of that. Knows nothing about files or attempts. Model
sources ask their hubs with it too, so that one set of rules holds for all that comes from a network.
"""

import base64
import http.client
import math
import os
import socket
import ssl
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi

from rbee_core import __version__
from rbee_core.backend.redirects import MAX_REDIRECTS, Origin, Resolver, next_url, origin_of, resolve_addresses
from rbee_core.errors import DownloadFailed

_WATCH_INTERVAL_S = 0.1


class Stream:
    """An answered request whose body is still to be read."""

    def __init__(self, connection: http.client.HTTPConnection, url: str, sent: Mapping[str, str]) -> None:
        self._connection = connection
        self._response = connection.getresponse()
        self.url = url
        self.sent_headers = sent
        self.status = self._response.status
        self.headers: Mapping[str, str] = {k.lower(): v for k, v in self._response.getheaders()}

    def read(self, limit_bytes: int) -> bytes:
        """Return what has arrived, at most `limit_bytes`; empty at the end, which may be too early."""
        return self._response.read1(limit_bytes)

    def close(self) -> None:
        """End the connection, whatever is still on its way."""
        self._response.close()
        self._connection.close()


@contextmanager
def get(
    url: str,
    headers: Mapping[str, str],
    private_headers: Mapping[str, str],
    *,
    cancel: threading.Event,
    connect_timeout_s: float,
    stall_timeout_s: float,
    until: float = math.inf,
    resolve: Resolver = resolve_addresses,
) -> Generator[Stream]:
    """Yield the final answer to a GET of `url`; `private_headers` are sent to the origin of `url` alone.

    Once `cancel` is set, or `until` has come on the monotonic clock, a blocked read ends early. Raises `OSError`,
    `ValueError` and `http.client.HTTPException` as they come, and `DownloadFailed` for a redirect that must not be
    followed.
    """
    first = origin_of(url)
    for _ in range(MAX_REDIRECTS + 1):
        sent = _headers(headers, private_headers, origin_of(url) == first)
        connection = connect(url, connect_timeout_s, stall_timeout_s)
        with _watched(connection, cancel, until):
            stream = None
            try:
                connection.request("GET", path_of(url), headers=sent)
                stream = Stream(connection, url, sent)
                location = stream.headers.get("location", "") if 300 <= stream.status < 400 else ""
                if not location:
                    yield stream
                    return
            finally:
                (stream or connection).close()
        url = next_url(first, url, location, resolve)
    raise DownloadFailed(f"The hub redirected more than {MAX_REDIRECTS} times", hint="try again later")


def _headers(public: Mapping[str, str], private: Mapping[str, str], at_origin: bool) -> dict[str, str]:
    return {"User-Agent": f"rbee/{__version__}", **public, **(private if at_origin else {})}


def path_of(url: str) -> str:
    """Return what a request line names: the path with its query."""
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def connect(url: str, connect_timeout_s: float, stall_timeout_s: float) -> http.client.HTTPConnection:
    """Return an open connection to the server of `url`, through the proxy if there is one. Raises `OSError`."""
    connection = _connection(origin_of(url), connect_timeout_s)
    try:
        connection.connect()
        connection.sock.settimeout(stall_timeout_s)
    except TimeoutError as error:
        connection.close()
        raise ConnectionError(f"no connection within {connect_timeout_s:g} s") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _connection(target: Origin, timeout_s: float) -> http.client.HTTPConnection:
    if target.scheme == "http":
        return http.client.HTTPConnection(target.host, target.port, timeout=timeout_s)
    context = _trusted()
    proxy = "" if proxy_bypass(target.host) else getproxies().get("https", "")
    if not proxy:
        return http.client.HTTPSConnection(target.host, target.port, timeout=timeout_s, context=context)
    parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    through = http.client.HTTPSConnection(parts.hostname or "", parts.port or 8080, timeout=timeout_s, context=context)
    through.set_tunnel(target.host, target.port, _proxy_headers(parts.username, parts.password))
    return through


def _trusted() -> ssl.SSLContext:
    """Trust the authorities that the user names, the way OpenSSL and Python's HTTP clients do, else Mozilla's."""
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    return ssl.create_default_context(cafile=file or (None if folder else certifi.where()), capath=folder)


def _proxy_headers(user: str | None, password: str | None) -> dict[str, str]:
    if not user:
        return {}
    pair = f"{unquote(user)}:{unquote(password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}


def hang_up(sock: socket.socket) -> None:
    """End a connection from another thread than the one that reads it."""
    # Not SSLSocket.shutdown, which takes the TLS object away from under the reading thread.
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


@contextmanager
def _watched(connection: http.client.HTTPConnection, cancel: threading.Event, until: float) -> Generator[None]:
    """Shut the socket down when it is time: nothing else ends a blocked read before its timeout, if bytes trickle."""
    sock: socket.socket = connection.sock  # http.client forgets it once the answer is the connection's last
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_WATCH_INTERVAL_S):
            if cancel.is_set() or time.monotonic() >= until:
                hang_up(sock)
                return

    watcher = threading.Thread(target=watch, name="transfer-cancel", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
