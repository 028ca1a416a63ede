"""Every JSON shape that crosses a process border, as strict typed structs.

`base` has what they are made of, `workers`, `inference`, `talk`, `vectors` and `models` the shapes and their ranges.
Decoding is strict: unknown keys, NaN, infinities, depth bombs, lone surrogates and trailing data are refused.
"""

# pyright: reportUnusedImport=false

from rbee_core.wire.base import (
    ErrorBody,
    ErrorObject,
    Lenient,
    ModelText,
    RequestId,
    Seconds,
    Strict,
    build,
    check,
    decode,
    encode,
    to_builtins,
)
from rbee_core.wire.inference import (
    CountTask,
    DoneEvent,
    FoundWorker,
    InferenceRequest,
    Logprobs,
    PoolInference,
    PromptEvent,
    ReadPrompt,
    StreamEvent,
    TextWanted,
    TokenEvent,
    TokenLikelihood,
    Waiting,
    WaitingEvent,
    WorkerEvent,
    WorkerInference,
    WorkerTask,
)
from rbee_core.wire.models import (
    DownloadCancel,
    DownloadList,
    DownloadProgress,
    DownloadQuery,
    DownloadRequest,
    ModelDetails,
    ModelInfo,
    ModelList,
    ModelQuery,
    RemovedModel,
)
from rbee_core.wire.talk import MOST_MESSAGES, MOST_TOOLS, ChatMessage, Style, StyleEvent, Tool, ToolCall
from rbee_core.wire.vectors import (
    EmbedTask,
    EmbedWanted,
    PoolEmbed,
    PoolRerank,
    RerankTask,
    RerankWanted,
    ScoreEvent,
    VectorEvent,
    WorkerEmbed,
    WorkerRerank,
)
from rbee_core.wire.workers import (
    BackendInfo,
    BackendList,
    DeviceInfo,
    Health,
    LastPrompt,
    LoadProgress,
    LogQuery,
    OnDisk,
    PinRequest,
    PoolSnapshot,
    Ready,
    Reloaded,
    RetryRequest,
    SettingsChanged,
    SpawnRequest,
    SpawnResponse,
    StopResponse,
    WorkerChanged,
    WorkerFilter,
    WorkerInfo,
    WorkerList,
    WorkerLog,
    WorkerReady,
    WorkerRegistered,
    WorkerSpec,
    WorkerStateName,
)
