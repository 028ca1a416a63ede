"""A context that turns texts into vectors or scores, several in one call."""

from array import array
from collections.abc import Callable, Sequence
from typing import Any, Final

from rbee_plugins.llamacpp.native.bindings import NativeError, lib
from rbee_plugins.llamacpp.native.context import ABORTED
from rbee_plugins.llamacpp.native.model import NativeModel
from rbee_plugins.llamacpp.native.tuning import Adapters

POOLINGS: Final = {"mean": 1, "cls": 2, "last": 3, "rank": 4}  # llama.cpp's numbers


class EmbeddingContext:
    """Room for `batch_tokens` tokens of up to `texts` texts. One thread at a time; `close` frees it."""

    def __init__(
        self, model: NativeModel, adapters: Adapters, *, pooling: str, batch_tokens: int, texts: int, threads: int
    ) -> None:
        """Reserve the memory. Every text has to fit whole into one call: its tokens may look at each other."""
        self.pooling, self.batch_tokens = pooling, batch_tokens
        params = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = batch_tokens
        params.n_seq_max = texts
        params.kv_unified = True  # short texts and long ones share the room
        params.n_threads = params.n_threads_batch = threads
        params.embeddings = True
        params.pooling_type = POOLINGS[pooling]
        params.offload_kqv = params.op_offload = model.accelerator != "cpu"
        params.no_perf = True
        self._handle: int | None = lib.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise NativeError("llama.cpp cannot make a context for vectors of it")
        adapters.apply(self._handle)
        self._width: int = lib.llama_model_n_cls_out(model.handle) if pooling == "rank" else vector_length(model)
        self._memory: int | None = lib.llama_get_memory(self._handle)  # none, where a text is read only as a whole
        self._batch: Any = lib.llama_batch_init(batch_tokens, 0, 1)
        self._is_cancelled: Callable[[], bool] = bool
        self._abort: Any = lib.ggml_abort_callback(self._wants_abort)
        lib.llama_set_abort_callback(self._handle, self._abort, None)

    def compute(self, texts: Sequence[Sequence[int]], is_cancelled: Callable[[], bool]) -> list["array[float]"]:
        """Return what comes of each text's tokens; nothing, once cancelled."""
        self._fill(texts)
        self._is_cancelled = is_cancelled
        if self._memory:
            lib.llama_memory_clear(self._memory, False)
        compute = lib.llama_decode if self._memory else lib.llama_encode
        status = compute(self._handle, self._batch)
        if status == ABORTED:
            return []
        if status:
            raise NativeError(f"computing vectors failed with {status}")
        return [self._result(number) for number in range(len(texts))]

    def _wants_abort(self, _data: object) -> bool:
        return self._is_cancelled()

    def _fill(self, texts: Sequence[Sequence[int]]) -> None:
        batch, at = self._batch, 0
        for number, tokens in enumerate(texts):
            for position, token in enumerate(tokens):
                batch.token[at], batch.pos[at], batch.logits[at] = token, position, 1
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, number
                at += 1
        batch.n_tokens = at

    def _result(self, number: int) -> "array[float]":
        found = lib.llama_get_embeddings_seq(self._handle, number)
        if not found:
            raise NativeError("llama.cpp gave no vector")
        return array("f", found[: self._width])

    def close(self) -> None:
        """Free the memory. Harmless when done twice."""
        if self._handle:
            lib.llama_batch_free(self._batch)
            lib.llama_free(self._handle)
        self._handle = None


def vector_length(model: NativeModel) -> int:
    """Return how many numbers a vector of this model has."""
    return int(lib.llama_model_n_embd_out(model.handle))
