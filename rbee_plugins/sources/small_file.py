"""Reading a small text file of a hub, in memory and verified, before a model is accepted.

It is worth nothing unless it is the file that was announced.
"""

from typing import TYPE_CHECKING

from rbee_core.backend import RemoteFile
from rbee_core.backend.files import checksum_of, new_digest
from rbee_core.errors import AccessDenied, DownloadFailed

if TYPE_CHECKING:
    from rbee_plugins.sources.hub import Hub

TOKEN_HINT = "accept the model's terms on its page, then set HF_TOKEN to a token that may read it"  # noqa: S105
_LATER = "the hub serves another file than it lists; try again later"


def read_small(hub: "Hub", file: RemoteFile, *, limit_bytes: int) -> bytes:
    """Return the file's bytes. Raises `DownloadFailed` or `AccessDenied`."""
    if file.size_bytes > limit_bytes:
        raise DownloadFailed(
            f"{file.name} is too large for what it is ({file.size_bytes} bytes)", hint="use another model"
        )
    answer = hub.ask(file.url, file.name, limit_bytes=file.size_bytes)
    if answer.status in (401, 403):
        raise AccessDenied(f"The hub refuses {file.name} ({answer.status})", hint=TOKEN_HINT)
    if answer.status != 200:
        raise DownloadFailed(f"Cannot read {file.name}: the hub answered {answer.status}", hint="try again later")
    digest = new_digest(file)
    digest.update(answer.body)
    if digest.hexdigest() != checksum_of(file):
        raise DownloadFailed(f"{file.name} is not the file that the hub announced", hint=_LATER)
    return answer.body
