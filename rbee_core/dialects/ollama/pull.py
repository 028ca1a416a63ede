"""`POST /api/pull` and `DELETE /api/delete`: which model is to come or to go, and how far it is on its way."""

from typing import Any

from rbee_core import wire
from rbee_core.dialects.fields import honoured, ignored
from rbee_core.dialects.ollama.names import FIELDS as NAME
from rbee_core.dialects.ollama.names import Named

SUCCESS = {"status": "success"}
"""The whole answer, or its last line; clients wait for this word."""


class PullBody(Named):
    """The model that is to be here."""

    stream: bool | None = None


class DeleteBody(Named):
    """The model that is to go."""


PULL = (
    *NAME,
    *honoured("stream", note="true unless it is false: then the answer comes once the model is here"),
    *ignored("insecure", note="which hub is asked is for the hive's settings to say"),
)
DELETE = NAME


def progress_body(progress: wire.DownloadProgress, sha256: str) -> dict[str, Any]:
    """Return how far a model is, all of its files together. Clients draw one bar for each `sha256`."""
    return {
        "status": _status(progress),
        "digest": f"sha256:{sha256}",
        "total": progress.total_bytes,
        "completed": progress.done_bytes,
    }


def _status(progress: wire.DownloadProgress) -> str:
    if progress.queue_position:
        return f"waiting to pull {progress.reference}: number {progress.queue_position} in line"
    said = f"pulling {progress.reference}"
    return f"{said}: {progress.trouble}" if progress.trouble else said
