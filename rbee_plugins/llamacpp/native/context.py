"""A model's working memory: computing tokens, forgetting them, stopping."""

from collections.abc import Callable, Sequence
from typing import Any

from rbee_plugins.llamacpp.native.library import NativeError, lib
from rbee_plugins.llamacpp.native.model import NativeModel

DECODED, NO_ROOM, ABORTED = 0, 1, 2


class Context:
    """The memory of one request, and the last row of logits. `close` frees it; nothing may be called afterwards."""

    def __init__(self, model: NativeModel, *, tokens: int, batch_tokens: int, threads: int) -> None:
        """Reserve the memory for one request of `tokens`."""
        self._abort: Any = None
        self._next_token = (lib.llama_token * 1)()
        self._next_batch = lib.llama_batch_get_one(self._next_token, 1)
        params = lib.llama_context_default_params()
        params.n_ctx = tokens
        params.n_batch = params.n_ubatch = batch_tokens
        params.n_threads = params.n_threads_batch = threads
        params.n_outputs_max = 1  # one row of logits instead of one for each prompt token
        params.swa_full = False  # saves memory; what a sliding window has left behind cannot be kept, see `keep`
        params.offload_kqv = params.op_offload = model.accelerator != "cpu"
        params.no_perf = True
        self.handle: int | None = lib.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise NativeError("llama.cpp cannot make a context for it")

    @property
    def tokens(self) -> int:
        """The context's real size, which llama.cpp may have rounded up."""
        return int(lib.llama_n_ctx(self.handle))

    def keep(self, count: int) -> bool:
        """Forget all but the first `count` tokens; return False where that cannot be done, and all are forgotten.

        Memories with a window have lost their beginning, recurrent ones cannot go back.
        """
        memory = lib.llama_get_memory(self.handle)
        whole = count > 0 and lib.llama_memory_seq_pos_min(memory, 0) == 0
        if whole and lib.llama_memory_seq_rm(memory, 0, count, -1):
            return True
        lib.llama_memory_clear(memory, False)
        return False

    def read(self, tokens: Sequence[int]) -> int:
        """Compute a chunk of prompt, at most one batch. Returns `DECODED`, `NO_ROOM` or `ABORTED`."""
        chunk = (lib.llama_token * len(tokens))(*tokens)
        return self._checked(lib.llama_decode(self.handle, lib.llama_batch_get_one(chunk, len(tokens))))

    def step(self, token: int) -> int:
        """Compute what follows one more token. Returns as `read` does."""
        self._next_token[0] = token
        return self._checked(lib.llama_decode(self.handle, self._next_batch))

    def _checked(self, status: int) -> int:
        if status < 0 or status > ABORTED:
            raise NativeError(f"llama_decode failed with {status}")
        return status

    def abort_when(self, is_wanted: Callable[[], bool] | None) -> None:
        """Let `read` and `step` ask between two operations of the graph whether to stop; None ends the asking.

        Costs a call into Python for each of about 30 operations a layer: too much for every token.
        """
        callback = lib.ggml_abort_callback() if is_wanted is None else _abort_callback(is_wanted)
        lib.llama_set_abort_callback(self.handle, callback, None)
        self._abort = callback  # only now may the former one go: native code held a pointer to it

    def close(self) -> None:
        """Free the memory. Harmless when done twice."""
        if self.handle:
            lib.llama_free(self.handle)
        self.handle = None


def _abort_callback(is_wanted: Callable[[], bool]) -> Any:
    def ask(_data: object) -> bool:
        return is_wanted()

    return lib.ggml_abort_callback(ask)
