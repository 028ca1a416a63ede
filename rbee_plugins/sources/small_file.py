"""Reading a small text file of a hub, in memory and verified, before a model is accepted.

As wary as the transfer of large files: bounded, never decoded, redirected only where that is, and worth nothing unless
it is the file that was announced.
"""

from collections.abc import Mapping
from typing import Any

from rbee_core.backend import RemoteFile
from rbee_core.backend.files import checksum_of, new_digest
from rbee_core.backend.redirects import MAX_REDIRECTS, next_url, origin_of
from rbee_core.errors import AccessDenied, DownloadFailed, RbeeError

TOKEN_HINT = "accept the model's terms on its page, then set HF_TOKEN to a token that may read it"  # noqa: S105
_TIMEOUT_S = 10.0
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
    digest = new_digest(file)
    digest.update(data)
    if digest.hexdigest() != checksum_of(file):
        raise DownloadFailed(f"{file.name} is not the file that the hub announced", hint=_LATER)
    return data


def _get(file: RemoteFile) -> bytes:
    from huggingface_hub.utils import get_session  # slow to import, and only a pull needs it

    url, first = file.url, origin_of(file.url)
    for _ in range(MAX_REDIRECTS + 1):
        private: Mapping[str, str] = file.headers if origin_of(url) == first else {}
        headers = {"Accept-Encoding": "identity", **private}
        with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S, follow_redirects=False) as answer:
            if 300 <= answer.status_code < 400 and answer.headers.get("location"):
                url = next_url(first, url, answer.headers["location"])
                continue
            return _body(file, answer)
    raise DownloadFailed(f"The hub redirected {file.name} more than {MAX_REDIRECTS} times", hint="try again later")


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
