"""Which errors the hive's routes can answer with, by what they do."""

from rbee_core.errors import (
    AllSlotsBusy,
    BackendNotAvailable,
    CatalogUnusable,
    DeadlineExceeded,
    DownloadFailed,
    InsufficientRam,
    LoadingTimeout,
    ModelHeldBack,
    ModelLoadFailed,
    ModelNotFound,
    PluginFailed,
    PromptTooLong,
    RequestCanceled,
    ShuttingDown,
    VramExhausted,
    WorkerCrashed,
    WorkerNotReady,
)

RESOLVING = (ModelNotFound, BackendNotAvailable, CatalogUnusable, DownloadFailed, PluginFailed)
FAILING = (LoadingTimeout, ModelLoadFailed, WorkerCrashed, ModelHeldBack, ShuttingDown)
STARTING = (*RESOLVING, InsufficientRam, VramExhausted, *FAILING)
INFERRING = (
    WorkerNotReady, AllSlotsBusy, PromptTooLong, WorkerCrashed, DeadlineExceeded, RequestCanceled, ShuttingDown,
)  # fmt: skip
COMPUTING = tuple(dict.fromkeys((*STARTING, *INFERRING)))
