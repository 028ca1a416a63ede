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
    NotSupported,
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
STARTING = (*RESOLVING, NotSupported, InsufficientRam, VramExhausted, *FAILING)
INFERRING = (
    NotSupported, WorkerNotReady, AllSlotsBusy, PromptTooLong, WorkerCrashed, DeadlineExceeded, RequestCanceled,
    ShuttingDown,
)  # fmt: skip
COMPUTING = tuple(dict.fromkeys((*STARTING, *INFERRING)))
