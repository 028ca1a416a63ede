"""Every error a user can meet, each with its code, exit code, HTTP status and hint.

::

    RbeeError                     INTERNAL             500  exit 1
    ├── InvalidRequest            INVALID_REQUEST      400  exit 2
    ├── NotSupported              NOT_SUPPORTED        422  exit 2
    ├── InvalidApiKey             INVALID_API_KEY      401
    ├── AccessDenied              ACCESS_DENIED        403
    ├── ModelNotFound             MODEL_NOT_FOUND      404
    ├── WorkerNotFound            WORKER_NOT_FOUND     404
    ├── RouteNotFound             NOT_FOUND            404
    ├── MethodNotAllowed          METHOD_NOT_ALLOWED   405
    ├── DeadlineExceeded          DEADLINE_EXCEEDED    408
    ├── VersionMismatch           VERSION_MISMATCH     409
    ├── HiveAlreadyRunning        HIVE_ALREADY_RUNNING 409
    ├── ModelInUse                MODEL_IN_USE         409
    ├── PayloadTooLarge           PAYLOAD_TOO_LARGE    413  exit 2
    ├── UnsupportedMediaType      UNSUPPORTED_MEDIA_TYPE 415
    ├── PromptTooLong             PROMPT_TOO_LONG      400  exit 2
    ├── ModelLoadFailed           MODEL_LOAD_FAILED    422
    ├── RequestCanceled           REQUEST_CANCELED     499  exit 130
    ├── WorkerCrashed             WORKER_CRASHED       502
    ├── ModelHeldBack             MODEL_HELD_BACK      503
    ├── DownloadFailed            DOWNLOAD_FAILED      502
    ├── TooManyDownloads          TOO_MANY_DOWNLOADS   503  exit 75
    ├── ChecksumMismatch          CHECKSUM_MISMATCH    502
    ├── BackendNotAvailable       BACKEND_NOT_AVAILABLE 503
    ├── AllSlotsBusy              ALL_SLOTS_BUSY       503  exit 75
    ├── Overloaded                OVERLOADED           503  exit 75
    ├── ShuttingDown              SHUTTING_DOWN        503
    ├── WorkerNotReady            WORKER_NOT_READY     503
    ├── PluginFailed              PLUGIN_FAILED        502
    ├── PluginTimeout             PLUGIN_TIMEOUT       504
    ├── DeviceGone                DEVICE_GONE          503
    ├── CatalogUnusable           CATALOG_UNUSABLE     503
    ├── LoadingTimeout            LOADING_TIMEOUT      504
    ├── InsufficientRam           INSUFFICIENT_RAM     507
    ├── VramExhausted             VRAM_EXHAUSTED       507
    ├── InsufficientDisk          INSUFFICIENT_DISK    507
    ├── HiveUnreachable           HIVE_UNREACHABLE     502
    ├── HiveNotAnswering          HIVE_NOT_ANSWERING   504
    ├── HiveUntrusted             HIVE_UNTRUSTED       502
    ├── StreamBroken              STREAM_BROKEN        502
    ├── AddressUnusable           ADDRESS_UNUSABLE     500
    ├── HomeUnusable              HOME_UNUSABLE        500
    └── RemoteError               whatever the other side said

Classes take data, keyword-only, and build their own sentence.
"""

from rbee_core.errors.base import RbeeError, RemoteError, error_classes, origin, shorten
from rbee_core.errors.failures import (
    AddressUnusable,
    AllSlotsBusy,
    BackendNotAvailable,
    CatalogUnusable,
    ChecksumMismatch,
    DeviceGone,
    DownloadFailed,
    HiveNotAnswering,
    HiveUnreachable,
    HiveUntrusted,
    HomeUnusable,
    InsufficientDisk,
    InsufficientRam,
    LoadingTimeout,
    ModelHeldBack,
    Overloaded,
    PluginFailed,
    PluginTimeout,
    ShuttingDown,
    StreamBroken,
    TooManyDownloads,
    VramExhausted,
    WorkerCrashed,
    WorkerNotReady,
)
from rbee_core.errors.refusals import (
    AccessDenied,
    DeadlineExceeded,
    HiveAlreadyRunning,
    InvalidApiKey,
    InvalidRequest,
    MethodNotAllowed,
    ModelInUse,
    ModelLoadFailed,
    ModelNotFound,
    NotSupported,
    PayloadTooLarge,
    PromptTooLong,
    RequestCanceled,
    RouteNotFound,
    UnsupportedMediaType,
    VersionMismatch,
    WorkerNotFound,
)

__all__ = [
    "AccessDenied",
    "AddressUnusable",
    "AllSlotsBusy",
    "BackendNotAvailable",
    "CatalogUnusable",
    "ChecksumMismatch",
    "DeadlineExceeded",
    "DeviceGone",
    "DownloadFailed",
    "HiveAlreadyRunning",
    "HiveNotAnswering",
    "HiveUnreachable",
    "HiveUntrusted",
    "HomeUnusable",
    "InsufficientDisk",
    "InsufficientRam",
    "InvalidApiKey",
    "InvalidRequest",
    "LoadingTimeout",
    "MethodNotAllowed",
    "ModelHeldBack",
    "ModelInUse",
    "ModelLoadFailed",
    "ModelNotFound",
    "NotSupported",
    "Overloaded",
    "PayloadTooLarge",
    "PluginFailed",
    "PluginTimeout",
    "PromptTooLong",
    "RbeeError",
    "RemoteError",
    "RequestCanceled",
    "RouteNotFound",
    "ShuttingDown",
    "StreamBroken",
    "TooManyDownloads",
    "UnsupportedMediaType",
    "VersionMismatch",
    "VramExhausted",
    "WorkerCrashed",
    "WorkerNotFound",
    "WorkerNotReady",
    "error_classes",
    "origin",
    "shorten",
]
