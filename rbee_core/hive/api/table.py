"""The hive's table: every route it serves, one row each (`rbee_core.http.routes` says what a row is the source of)."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aiohttp import web

from rbee_core import wire
from rbee_core.errors import (
    CatalogUnusable,
    HomeUnusable,
    InsufficientDisk,
    InvalidApiKey,
    InvalidRequest,
    ModelInUse,
    ModelLoadFailed,
    ModelNotFound,
    RouteNotFound,
    WorkerNotFound,
)
from rbee_core.hive.api.hive import HiveRoutes
from rbee_core.hive.api.inference import InferenceRoutes
from rbee_core.hive.api.metrics import TEXT, MetricsQuery, MetricsRoutes
from rbee_core.hive.api.models import ModelRoutes
from rbee_core.hive.api.refusals import COMPUTING, INFERRING, RESOLVING, STARTING
from rbee_core.hive.api.workers import WorkerRoutes
from rbee_core.hive.metrics.numbers import OTHER, Numbers
from rbee_core.hive.terms import Door
from rbee_core.http.middleware import access, counting, envelope
from rbee_core.http.routes import Route, Scope
from rbee_core.http.routes import application as serve

HIVE = (
    Route(
        method="GET",
        path="/v1/health",
        handler=HiveRoutes.health,
        scope=Scope.OPEN,
        summary="that it is alive, and its version",
        answers={200: wire.Health},
    ),
    Route(
        method="GET",
        path="/v1/ready",
        handler=HiveRoutes.ready,
        scope=Scope.READ,
        summary="200 when a spawn would be taken, else 503",
        answers={200: wire.Ready, 503: wire.Ready},
        errors=(CatalogUnusable,),
    ),
    Route(
        method="GET",
        path="/v1/openapi.json",
        handler=HiveRoutes.openapi,
        scope=Scope.READ,
        summary="this table as an OpenAPI 3.1 description",
        answers={200: dict[str, Any]},
    ),
    Route(
        method="GET",
        path="/v1/events",
        handler=HiveRoutes.events,
        scope=Scope.READ,
        summary="the live workers, then each change of a worker's state or of the settings, up to the hive's end",
        headers=("Last-Event-ID",),
        events=(wire.PoolSnapshot, wire.WorkerChanged, wire.SettingsChanged),
    ),
    Route(
        method="GET",
        path="/v1/backends/list",
        handler=HiveRoutes.list_backends,
        scope=Scope.READ,
        summary="every backend, and why it cannot be used if it cannot",
        answers={200: wire.BackendList},
    ),
    Route(
        method="POST",
        path="/v1/reload",
        handler=HiveRoutes.reload,
        scope=Scope.ADMIN,
        summary="takes config.toml again; says what changed, and what needs a restart. A wrong one changes nothing",
        answers={200: wire.Reloaded},
        errors=(InvalidRequest, HomeUnusable),
    ),
    Route(
        method="POST",
        path="/v1/shutdown",
        handler=HiveRoutes.shutdown,
        scope=Scope.ADMIN,
        summary="begins to stop; names the workers that will be shut down",
        answers={200: wire.StopResponse},
    ),
)

WORKERS = (
    Route(
        method="GET",
        path="/v1/workers/list",
        handler=WorkerRoutes.list_workers,
        scope=Scope.READ,
        summary="the live workers, or those that match the query; a state that ends a worker shows remembered ones",
        query=wire.WorkerFilter,
        answers={200: wire.WorkerList},
    ),
    Route(
        method="POST",
        path="/v1/workers/spawn",
        handler=WorkerRoutes.spawn,
        scope=Scope.INFER,
        summary="a worker for a model, once it listens: one that is there, or a new one",
        body=wire.SpawnRequest,
        answers={200: wire.SpawnResponse},
        errors=STARTING,
    ),
    Route(
        method="POST",
        path="/v1/workers/find",
        handler=WorkerRoutes.find_worker,
        scope=Scope.INFER,
        summary="the idle worker that would serve such a request now, or null; changes nothing",
        body=wire.SpawnRequest,
        answers={200: wire.FoundWorker},
    ),
    Route(
        method="POST",
        path="/v1/workers/retry",
        handler=WorkerRoutes.retry,
        scope=Scope.ADMIN,
        summary="tries a model again that is held back because its workers failed; names the last of them",
        body=wire.RetryRequest,
        answers={200: wire.WorkerList},
    ),
    Route(
        method="POST",
        path="/v1/workers/ready",
        handler=WorkerRoutes.worker_ready,
        scope=Scope.WORKER,
        summary="a worker's callback: it listens",
        body=wire.WorkerReady,
        answers={200: wire.WorkerRegistered},
        errors=(InvalidApiKey,),
    ),
    Route(
        method="GET",
        path="/v1/workers/{worker_id}",
        handler=WorkerRoutes.show_worker,
        scope=Scope.READ,
        summary="one worker, also one that has ended, with its reason",
        answers={200: wire.WorkerInfo},
        errors=(WorkerNotFound,),
    ),
    Route(
        method="DELETE",
        path="/v1/workers/{worker_id}",
        handler=WorkerRoutes.stop_worker,
        scope=Scope.ADMIN,
        summary="stops it; answers when it is gone",
        answers={200: wire.StopResponse},
        errors=(WorkerNotFound,),
    ),
    Route(
        method="POST",
        path="/v1/workers/{worker_id}/pin",
        handler=WorkerRoutes.pin,
        scope=Scope.ADMIN,
        summary="keeps it, for whom there is no room and however long it is idle, or no longer",
        body=wire.PinRequest,
        answers={200: wire.WorkerInfo},
        errors=(WorkerNotFound,),
    ),
    Route(
        method="GET",
        path="/v1/workers/{worker_id}/logs",
        handler=WorkerRoutes.worker_logs,
        scope=Scope.READ,
        summary="whole lines of its log, from an offset on",
        query=wire.LogQuery,
        answers={200: wire.WorkerLog},
        errors=(WorkerNotFound,),
    ),
)

VECTORS = (wire.WaitingEvent, wire.WorkerEvent, wire.VectorEvent, wire.DoneEvent, wire.ErrorBody)
SCORES = (wire.WaitingEvent, wire.WorkerEvent, wire.ScoreEvent, wire.DoneEvent, wire.ErrorBody)
STREAM = (wire.WaitingEvent, wire.WorkerEvent, wire.PromptEvent, wire.TokenEvent, wire.DoneEvent, wire.ErrorBody)

INFERENCE = (
    Route(
        method="POST",
        path="/v1/inference",
        handler=InferenceRoutes.for_model,
        scope=Scope.INFER,
        summary="generates text with a model: on a worker that holds it, or on one that is started for it",
        body=wire.PoolInference,
        events=STREAM,
        errors=COMPUTING,
    ),
    Route(
        method="POST",
        path="/v1/workers/{worker_id}/inference",
        handler=InferenceRoutes.on_worker,
        scope=Scope.INFER,
        summary="generates text on one worker",
        body=wire.WorkerInference,
        events=STREAM,
        errors=(WorkerNotFound, *INFERRING),
    ),
    Route(
        method="POST",
        path="/v1/embed",
        handler=InferenceRoutes.embed,
        scope=Scope.INFER,
        summary="makes vectors of texts with a model; waits as a request for text does",
        body=wire.PoolEmbed,
        events=VECTORS,
        errors=COMPUTING,
    ),
    Route(
        method="POST",
        path="/v1/workers/{worker_id}/embed",
        handler=InferenceRoutes.embed_on_worker,
        scope=Scope.INFER,
        summary="makes vectors of texts on one worker",
        body=wire.WorkerEmbed,
        events=VECTORS,
        errors=(WorkerNotFound, *INFERRING),
    ),
    Route(
        method="POST",
        path="/v1/score",
        handler=InferenceRoutes.score,
        scope=Scope.INFER,
        summary="scores how well documents answer a query, with a model; waits as a request for text does",
        body=wire.PoolRerank,
        events=SCORES,
        errors=COMPUTING,
    ),
    Route(
        method="POST",
        path="/v1/workers/{worker_id}/score",
        handler=InferenceRoutes.score_on_worker,
        scope=Scope.INFER,
        summary="scores how well documents answer a query, on one worker",
        body=wire.WorkerRerank,
        events=SCORES,
        errors=(WorkerNotFound, *INFERRING),
    ),
    Route(
        method="DELETE",
        path="/v1/inference/{request_id}",
        handler=InferenceRoutes.cancel,
        scope=Scope.INFER,
        summary="ends a request that waits or runs; nothing, for one that is over or unknown",
        parameters={"request_id": wire.RequestId},
        answers={204: None},
    ),
    Route(
        method="DELETE",
        path="/v1/workers/{worker_id}/inference/{request_id}",
        handler=InferenceRoutes.cancel_on_worker,
        scope=Scope.INFER,
        summary="the same, if it waits or runs at this worker",
        parameters={"request_id": wire.RequestId},
        answers={204: None},
        errors=(WorkerNotFound,),
    ),
)

MODELS = (
    Route(
        method="GET",
        path="/v1/models/list",
        handler=ModelRoutes.list_models,
        scope=Scope.READ,
        summary="the catalog",
        answers={200: wire.ModelList},
        errors=(CatalogUnusable,),
    ),
    Route(
        method="GET",
        path="/v1/models/show",
        handler=ModelRoutes.show,
        scope=Scope.READ,
        summary="a model that is here, and the memory a worker for it would need",
        query=wire.ModelQuery,
        answers={200: wire.ModelDetails},
        errors=(*RESOLVING, ModelLoadFailed),
    ),
    Route(
        method="POST",
        path="/v1/models/download",
        handler=ModelRoutes.download,
        scope=Scope.ADMIN,
        summary="has a model here: done if it is, else 202 with the download's id",
        body=wire.DownloadRequest,
        answers={200: wire.DownloadProgress, 202: wire.DownloadProgress},
        errors=(*RESOLVING, InsufficientDisk),
    ),
    Route(
        method="GET",
        path="/v1/models/downloads",
        handler=ModelRoutes.downloads,
        scope=Scope.READ,
        summary="the downloads that run or wait their turn",
        answers={200: wire.DownloadList},
    ),
    Route(
        method="POST",
        path="/v1/models/download/cancel",
        handler=ModelRoutes.cancel_download,
        scope=Scope.ADMIN,
        summary="ends a download, whoever asked for it; what was fetched is kept",
        body=wire.DownloadCancel,
        answers={200: wire.DownloadProgress},
        errors=(ModelNotFound,),
    ),
    Route(
        method="GET",
        path="/v1/models/download/progress",
        handler=ModelRoutes.progress,
        scope=Scope.READ,
        summary="a download's progress, up to done or failed",
        query=wire.DownloadQuery,
        events=(wire.DownloadProgress,),
        errors=(RouteNotFound,),
    ),
    Route(
        method="DELETE",
        path="/v1/models/{reference:(?s:.+)}",
        handler=ModelRoutes.remove,
        scope=Scope.ADMIN,
        summary="forgets a model and removes the files that rbee fetched",
        parameters={"reference": wire.ModelText},
        answers={200: wire.RemovedModel},
        errors=(ModelNotFound, ModelInUse, CatalogUnusable),
    ),
)

METRICS = (
    Route(
        method="GET",
        path="/metrics",
        handler=MetricsRoutes.metrics,
        scope=Scope.READ,
        summary="all numbers as Prometheus reads them, see metrics.md",
        query=MetricsQuery,
        answers={200: str},
        media=TEXT,
    ),
)

OWN = (*HIVE, *METRICS, *WORKERS, *INFERENCE, *MODELS)


def application(
    rows: Sequence[Route], door: Door, owners: Iterable[object], story: Callable[[], Sequence[str]], numbers: Numbers
) -> web.Application:
    """Build the hive's application of `rows`, with an owner for each class of handlers; `numbers` counts the answers.

    A bug is told with the end of `story`.
    """
    doors = [
        counting(numbers.answered, OTHER),
        envelope(door.body_limit_bytes, story),
        access(names=door.names, key=door.api_key, origins=door.origins),
    ]
    return serve(
        rows,
        owners,
        middlewares=doors,
        body_limit_bytes=door.body_limit_bytes,
        read_timeout_s=door.limits.read_timeout_s,
    )
