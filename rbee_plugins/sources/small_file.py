"""Reading a small text file of a hub, in memory and verified, before a model is accepted.

As wary as the transfer of large files: bounded, never decoded, redirected only to the hub itself or to https on
public addresses, and worth nothing unless it is the file that was announced.
"""

import hashlib
import ipaddress
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

from rbee_core.backend import RemoteFile
from rbee_core.errors import AccessDenied, DownloadFailed, RbeeError

TOKEN_HINT = "accept the model's terms on its page, then set HF_TOKEN to a token that may read it"  # noqa: S105
_TIMEOUT_S = 10.0
_MAX_HOPS = 5
_LATER = "the hub serves another file than it lists; try again later"


def read_small(file: RemoteFile, *, limit_bytes: int) -> bytes:
    """Return the file's bytes. Raises `DownloadFailed` or `AccessDenied`."""
    if file.size_bytes > limit_bytes:
        raise DownloadFailed(
            f"{file.name} is too large for what it is ({file.size_bytes} bytes)", hint="use another model"
        )
    try:
        data = _get(file)
    except RbeeError:
        raise
    except Exception as error:
        raise DownloadFailed(f"Cannot read {file.name}: {type(error).__name__}", hint="try again later") from error
    digest = hashlib.sha256(data) if file.sha256 else hashlib.sha1(b"blob %d\0" % len(data) + data)  # noqa: S324
    if digest.hexdigest() != (file.sha256 or file.git_sha1):
        raise DownloadFailed(f"{file.name} is not the file that the hub announced", hint=_LATER)
    return data


def _get(file: RemoteFile) -> bytes:
    from huggingface_hub.utils import get_session  # slow to import, and only a pull needs it

    url = file.url
    for _ in range(_MAX_HOPS):
        private: Mapping[str, str] = file.headers if _origin(url) == _origin(file.url) else {}
        headers = {"Accept-Encoding": "identity", **private}
        with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S, follow_redirects=False) as answer:
            if 300 <= answer.status_code < 400 and answer.headers.get("location"):
                url = _next_url(file, urljoin(url, answer.headers["location"]))
                continue
            return _body(file, answer)
    raise DownloadFailed(f"The hub redirected {file.name} more than {_MAX_HOPS} times", hint="try again later")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _next_url(file: RemoteFile, target: str) -> str:
    if _origin(target) == _origin(file.url):
        return target
    parts = urlsplit(target)
    if parts.scheme == "https" and parts.hostname and _is_public(parts.hostname, parts.port or 443):
        return target
    raise DownloadFailed(
        f"The hub redirects {file.name} to {parts.scheme}://{parts.hostname or ''}, which rbee does not follow",
        hint="downloads go to https on public addresses only; is HF_ENDPOINT right?",
    )


def _is_public(host: str, port: int) -> bool:
    found = {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    return all(ipaddress.ip_address(address.partition("%")[0]).is_global for address in found)


def _body(file: RemoteFile, answer: Any) -> bytes:
    if answer.status_code in (401, 403):
        raise AccessDenied(f"The hub refuses {file.name} ({answer.status_code})", hint=TOKEN_HINT)
    if answer.status_code != 200:
        raise DownloadFailed(f"Cannot read {file.name}: the hub answered {answer.status_code}", hint="try again later")
    data = bytearray()
    for piece in answer.iter_raw():
        data += piece
        if len(data) > file.size_bytes:
            raise DownloadFailed(f"{file.name} is larger than the hub announced", hint=_LATER)
    return bytes(data)
