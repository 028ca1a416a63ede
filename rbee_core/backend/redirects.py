"""Where a redirect may lead: the rule that keeps a hub, or whoever answers for it, out of the local network.

Everything that fetches a model's files keeps to it. Pure but for `resolve_addresses`. Names are resolved before a
connection is made; that the address could change in between is borne, because the target must be https and so prove
its name.
"""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urljoin, urlsplit

from rbee_core.errors import DownloadFailed

MAX_REDIRECTS = 5
Distance = Literal["public", "private", "loopback", "forbidden"]
Resolver = Callable[[str, int], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: what a token belongs to."""

    scheme: str
    host: str
    port: int


def origin_of(url: str) -> Origin:
    """Return the origin of an http or https `url`. Raises `ValueError` for anything else."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("neither http nor https")
    return Origin(parts.scheme, parts.hostname.lower(), parts.port or (443 if parts.scheme == "https" else 80))


def distance_of(addresses: Sequence[str]) -> Distance:
    """Return how far `addresses` lie; the most dangerous one decides."""
    kinds: set[Distance] = {_distance_of_one(address) for address in addresses}
    if len(kinds) == 1:
        return kinds.pop()
    return "forbidden"


def _distance_of_one(address: str) -> Distance:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if ip.is_loopback:
        return "loopback"
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return "forbidden"
    return "public" if ip.is_global else "private"


def resolve_addresses(host: str, port: int) -> Sequence[str]:
    """Return the addresses of `host`. Raises `OSError` when it has none."""
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def may_follow(first: Origin, target: Origin, resolve: Resolver) -> bool:
    """Return whether a request that began at `first`, which the user configured, may go on at `target`.

    Public targets need https. A target as local as `first` itself may be reached the way `first` is: somebody with a
    hub at home has its storage beside it.
    """
    if target == first:
        return True
    distance = distance_of(resolve(target.host, target.port))
    if distance == "public":
        return target.scheme == "https"
    if distance == "forbidden" or (target.scheme == "http" and first.scheme == "https"):
        return False
    return distance == distance_of(resolve(first.host, first.port))


def next_url(first: Origin, url: str, location: str, resolve: Resolver = resolve_addresses) -> str:
    """Return where the redirect `location` of `url` leads, in a request that began at `first`.

    Raises `DownloadFailed` for a place that must not be asked, `OSError` for a name without an address.
    """
    target_url = ""
    try:
        target_url = urljoin(url, location)
        target = origin_of(target_url)
        allowed = may_follow(first, target, resolve)
    except ValueError:
        target, allowed = None, False
    if not allowed:
        where = f"{target.scheme}://{target.host}:{target.port}" if target else "something that is no web address"
        raise DownloadFailed(
            f"The hub at {first.host} redirects to {where}, which rbee does not follow",
            hint="downloads go to https on public addresses only; is HF_ENDPOINT right?",
        )
    return target_url
