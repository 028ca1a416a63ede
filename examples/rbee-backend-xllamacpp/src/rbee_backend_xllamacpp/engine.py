"""The engine: a llama.cpp server inside the worker, called in process. Imported in a worker only."""

import queue
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import xllamacpp

from rbee_backend_xllamacpp.translate import Chunk, body, events
from rbee_core.backend import (
    CancelToken,
    Engine,
    EngineEvent,
    EngineInfo,
    GenerateRequest,
    LocalModel,
    Progress,
)
from rbee_core.backend.gguf import GgufHeader
from rbee_core.errors import InvalidRequest, ModelLoadFailed

PIECE_TOKENS = 32  # of the prompt, computed between two looks at whether the request was cancelled
POLL_S = 0.05
LEAVE_S = 0.8
SIGN_OF_LIFE_S = 1.0


class XllamaEngine(Engine):
    """One model in one llama.cpp server with one slot."""

    def __init__(self, server: Any, info: EngineInfo) -> None:
        self._server = server
        self._info = info

    def info(self) -> EngineInfo:
        """Return what was loaded."""
        return self._info

    def close(self) -> None:
        """Stop the server and its threads."""
        self._server = None

    def generate(self, request: GenerateRequest, cancel: CancelToken) -> Iterator[EngineEvent]:
        """Yield the answer. The server's call blocks until it is done, so it runs in a thread and fills a queue."""
        if request.messages and not self._info.chat_template:
            raise InvalidRequest("This model has no chat template, so it cannot answer messages")
        if request.prompt == "":
            raise InvalidRequest("The prompt is empty", hint="write at least one character")
        chunks: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        left = threading.Event()

        def take(chunk: Chunk) -> bool:
            chunks.put(chunk)
            return left.is_set() or cancel.is_set()  # True ends the call

        call = threading.Thread(target=self._call, args=(body(request), take, chunks.put), daemon=True)
        call.start()
        try:
            yield from events(_arriving(chunks, cancel))
        finally:
            left.set()
            call.join(LEAVE_S)

    def _call(
        self, asked: dict[str, Any], take: Callable[[Chunk], bool], put: Callable[[Chunk | None], object]
    ) -> None:
        answer = self._server.handle_chat_completions if "messages" in asked else self._server.handle_completions
        try:
            answer(asked, take)
        except Exception as error:  # noqa: BLE001  # it is raised again where the answer is read
            put({"error": {"message": f"{type(error).__name__}: {error}"}})
        put(None)


def _arriving(chunks: "queue.SimpleQueue[Chunk | None]", cancel: CancelToken) -> Iterator[Chunk]:
    """Yield chunks as they come, until the call is over or cancelled."""
    while not cancel.is_set():
        try:
            chunk = chunks.get(timeout=POLL_S)
        except queue.Empty:
            continue
        if chunk is None:
            return
        yield chunk


def load_engine(
    model: LocalModel, header: GgufHeader, context_tokens: int, threads: int | None, progress: Progress
) -> XllamaEngine:
    """Load `model`. Raises `ModelLoadFailed`."""
    settings = _settings(str(model.path), context_tokens, threads)
    loading = ThreadPoolExecutor(1, "load").submit(xllamacpp.Server, settings)
    try:
        while not _is_loaded(loading.result):
            if not progress(0.0, "loading weights"):
                raise ModelLoadFailed(reference=model.reference, why="the load was given up", hint="load it again")
    except RuntimeError as error:
        raise ModelLoadFailed(reference=model.reference, why="llama.cpp refused it; see the worker's log") from error
    info = EngineInfo(
        context_tokens=context_tokens, architecture=header.architecture, chat_template=bool(header.chat_template)
    )
    return XllamaEngine(loading.result(), info)


def _is_loaded(result: Callable[[float], object]) -> bool:
    try:
        result(SIGN_OF_LIFE_S)
    except TimeoutError:
        return False
    return True


def _settings(path: str, context_tokens: int, threads: int | None) -> Any:
    settings = xllamacpp.CommonParams()
    settings.model.path = path
    settings.n_ctx = context_tokens
    settings.n_parallel = 1
    settings.n_gpu_layers = 0
    settings.n_batch = settings.n_ubatch = PIECE_TOKENS
    settings.verbosity = 1
    # Nothing is kept from one request to the next.
    settings.cache_ram_mib = 0
    settings.n_ctx_checkpoints = 0
    # Its HTTP server cannot be left out, but be locked.
    settings.api_keys = [secrets.token_urlsafe(32)]
    settings.endpoint_slots = settings.endpoint_props = settings.endpoint_metrics = settings.ui = False
    if threads:
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    return settings
