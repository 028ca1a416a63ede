"""The shapes of models: the catalog, downloads, and what a worker for one would need."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from rbee_core.domain.tuning import Tuning
from rbee_core.wire.base import ErrorObject, Lenient, ModelText, Strict


class ModelInfo(Lenient):
    """A model in the catalog, as `GET /v1/models/list` shows it.

    `names` are other references that mean its files, `aliases` the short names of it that config.toml has.
    """

    reference: str
    provider: str
    local_path: str
    size_bytes: int
    downloaded_at_unix: int
    format: str = ""
    status: str = "ok"
    names: list[str] = []
    aliases: list[str] = []


class DownloadRequest(Strict):
    """`POST /v1/models/download`: have a model on the hive's node, for `backend` if one is named."""

    model_ref: ModelText
    backend: Annotated[str, Meta(max_length=64)] | None = None


class DownloadQuery(Strict):
    """The query of `GET /v1/models/download/progress`."""

    id: Annotated[str, Meta(max_length=64)]


class DownloadProgress(Lenient):
    """Its answer, and each event of `GET /v1/models/download/progress?id=`; the last one is done or failed.

    `id` is "" for a model that was there already. `note` says what was chosen where the reference left a choice.
    `queue_position` is 0 for a download that runs, else its place among those that wait their turn. `fetched_bytes` are
    those of `done_bytes` that came now and were not here before; `trouble` says why an attempt failed and when the
    next one is, until something comes again.
    """

    id: str
    reference: str
    state: Literal["running", "done", "failed"]
    done_bytes: int = 0
    total_bytes: int = 0
    file: str = ""
    note: str = ""
    queue_position: int = 0
    fetched_bytes: int = 0
    trouble: str = ""
    error: ErrorObject | None = None


class DownloadCancel(Strict):
    """`POST /v1/models/download/cancel`: end the download of a model; what was fetched is kept."""

    model_ref: ModelText


class DownloadList(Lenient):
    """`GET /v1/models/downloads`: those that run or wait their turn, oldest first."""

    downloads: list[DownloadProgress]


class ModelQuery(Strict):
    """The query of `GET /v1/models/show`."""

    model: ModelText
    backend: Annotated[str, Meta(max_length=64)] | None = None
    context_tokens: Annotated[int, Meta(ge=1, le=1 << 24)] | None = None


class ModelDetails(Lenient):
    """`GET /v1/models/show`: a model on this node, and what a worker for it would be and need. Sizes in bytes.

    What follows `fits` is in force for who asks by this name and says no more: `slots` is 0 where the backend chooses.
    What the model's own settings do not say, and the hive's do not either, is None, or not among `sampling`.
    """

    reference: str
    local_path: str
    format: str
    size_bytes: int
    backend: str
    device: str
    context_tokens: int
    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    total_bytes: int
    available_bytes: int
    fits: bool
    slots: int = 0
    tuning: Tuning = Tuning()
    section: str = ""
    idle_timeout_s: float | None = None
    pinned: bool = False
    max_tokens: int | None = None
    sampling: dict[str, Any] = {}
    system_prompt: str | None = None


class RemovedModel(Lenient):
    """`DELETE /v1/models/{ref}`. `freed_bytes` is 0 for files that are not rbee's own.

    `kept_for` are the other names of the model, for which its files stay.
    """

    reference: str
    freed_bytes: int
    kept_for: list[str] = []


class ModelList(Lenient):
    """`GET /v1/models/list`."""

    models: list[ModelInfo]
