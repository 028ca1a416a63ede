"""A model's working memory: computing tokens of several sequences in one call, forgetting them, stopping."""

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rbee_core.backend import Tuning
from rbee_plugins.llamacpp.memory import UNTUNED
from rbee_plugins.llamacpp.native.bindings import NativeError, lib
from rbee_plugins.llamacpp.native.model import NativeModel
from rbee_plugins.llamacpp.native.tuning import tune

DECODED, NO_ROOM, ABORTED = 0, 1, 2

MOST_SAVED_BYTES = 256 << 20
"""A state that is larger is not copied from one sequence to another: nobody has counted memory for it."""

State = ctypes.Array[ctypes.c_char]
"""What a sequence holds, as llama.cpp writes it."""


def as_state(data: bytearray) -> State:
    """Return bytes that were a state once as one again: the same bytes, not a copy."""
    return (ctypes.c_char * len(data)).from_buffer(data)


_STEP = 256  # llama.cpp rounds the room of a sequence up to a multiple of this


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens of one sequence from `position` on; of the last `rows` of them, what may follow is wanted."""

    sequence: int
    position: int
    tokens: Sequence[int]
    rows: int = 0


class Context:
    """The memory of `sequences` texts of `tokens` each, and the wanted rows of the last call.

    Every sequence has its own part of the memory: what one holds does not show in the numbers of another. One thread
    at a time; `close` frees it, and nothing may be called afterwards.
    """

    def __init__(
        self,
        model: NativeModel,
        *,
        tokens: int,
        batch_tokens: int,
        threads: int,
        sequences: int = 1,
        drafted: int = 0,
        tuning: Tuning = UNTUNED,
    ) -> None:
        """Reserve the memory. In a call, logits are wanted of one token a sequence and of `drafted` others."""
        self._abort: Any = None
        params = lib.llama_context_default_params()
        params.n_ctx = -(-tokens // _STEP) * _STEP * sequences
        params.n_seq_max = sequences
        params.kv_unified = False
        params.n_batch = params.n_ubatch = batch_tokens
        params.n_threads = params.n_threads_batch = threads
        params.n_outputs_max = sequences + drafted  # rows of logits, instead of one for each prompt token
        params.swa_full = False  # saves memory; what a sliding window has left behind cannot be kept, see `keep`
        params.offload_kqv = params.op_offload = model.accelerator != "cpu"
        params.no_perf = True
        tune(params, tuning)
        self.handle: int | None = lib.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise NativeError("llama.cpp cannot make a context for it")
        self.batch_tokens, self.sequences = batch_tokens, sequences
        self._on_device = model.accelerator != "cpu"
        self._memory: Any = lib.llama_get_memory(self.handle)
        self._recurrent = bool(lib.llama_model_is_recurrent(model.handle) or lib.llama_model_is_hybrid(model.handle))
        self._window = int(lib.llama_model_n_swa(model.handle))
        self._batch = _Batch(batch_tokens)

    @property
    def tokens(self) -> int:
        """How many tokens each sequence really has room for: llama.cpp may have rounded up."""
        return int(lib.llama_n_ctx_seq(self.handle))

    @property
    def writes(self) -> bool:
        """Whether text can be generated: a model that reads texts only as a whole keeps nothing to go on from."""
        return bool(lib.llama_get_memory(self.handle))

    @property
    def cuttable(self) -> bool:
        """Whether the last tokens can be forgotten again: what has only one state for all that was cannot."""
        return self.writes and not self._recurrent

    @property
    def cuttable_tokens(self) -> float:
        """Texts of up to so many tokens can be cut back to any number of them."""
        return 0 if self._recurrent else self._window or math.inf

    def floor(self, sequence: int) -> int:
        """Return the fewest tokens that `keep` can leave of what `sequence` holds, beside none at all.

        Memories with a window have lost their beginning, and need all of the window; recurrent ones cannot go back.
        """
        first = lib.llama_memory_seq_pos_min(self._memory, sequence)
        if first <= 0 and not self._recurrent:
            return 0
        end = lib.llama_memory_seq_pos_max(self._memory, sequence) + 1
        return min(first + self._window, end) if self._window and not self._recurrent else end

    def keep(self, sequence: int, count: int) -> bool:
        """Forget all but the first `count` tokens; return False where that cannot be done, and all are forgotten."""
        if self.floor(sequence) <= count and count > 0 and lib.llama_memory_seq_rm(self._memory, sequence, count, -1):
            return True
        lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return False

    def size(self, sequence: int) -> int:
        """Return how many bytes what `sequence` holds takes when it is saved."""
        return int(lib.llama_state_seq_get_size(self.handle, sequence))

    def cut(self, sequence: int, count: int) -> None:
        """Forget what the last call computed behind the first `count` tokens. Only where the context is `cuttable`.

        A window has lost nothing by it: only what lies before the window of the token before is ever written over.
        """
        if not lib.llama_memory_seq_rm(self._memory, sequence, count, -1):
            raise NativeError("llama.cpp cannot forget the last tokens")

    def save(self, sequence: int, most_bytes: int = MOST_SAVED_BYTES) -> State | None:
        """Return what `sequence` holds, for `restore`.

        None if it cannot be had, is more than `most_bytes`, or there is no memory for it.
        """
        size = self.size(sequence)
        if size > most_bytes:
            return None
        try:
            state = ctypes.create_string_buffer(size)
        except MemoryError:
            return None
        place = ctypes.cast(state, ctypes.POINTER(ctypes.c_uint8))
        return state if lib.llama_state_seq_get_data(self.handle, place, size, sequence) else None

    def restore(self, sequence: int, state: State | None) -> bool:
        """Let `sequence` hold what was saved, and nothing else; return False if that failed, and it holds nothing."""
        lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        if state:
            place = ctypes.cast(state, ctypes.POINTER(ctypes.c_uint8))
            if lib.llama_state_seq_set_data(self.handle, place, len(state), sequence):
                return True
        lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return False

    def decode(self, parts: Sequence[Part]) -> int:
        """Compute `parts`, at most `batch_tokens` in all. Returns `DECODED`, `NO_ROOM` or `ABORTED`, once that is done.

        `NO_ROOM` changes nothing; after `ABORTED` it is open which of the tokens were computed.
        """
        status = lib.llama_decode(self.handle, self._batch.filled(parts))
        if status < 0 or status > ABORTED:
            raise NativeError(f"llama_decode failed with {status}")
        if self._on_device:  # which may still compute: whoever looks at the clock would learn from something else
            lib.llama_synchronize(self.handle)
        return status

    def clear(self) -> None:
        """Forget everything."""
        lib.llama_memory_clear(self._memory, False)

    def abort_when(self, is_wanted: Callable[[], bool] | None) -> None:
        """Let `decode` ask between two operations of the graph whether to stop; None ends the asking.

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


class _Batch:
    """The arrays that llama.cpp reads tokens from; filled anew for each call, allocated once."""

    def __init__(self, size: int) -> None:
        self._tokens = (lib.llama_token * size)()
        self._positions = (lib.llama_pos * size)()
        self._wanted = (ctypes.c_int8 * size)()
        self._counts = (ctypes.c_int32 * size)(*[1] * size)
        self._sequences = (lib.llama_seq_id * size)()
        width, start = ctypes.sizeof(lib.llama_seq_id), ctypes.addressof(self._sequences)
        pointer: Any = getattr(ctypes, "POINTER")(lib.llama_seq_id)  # noqa: B009  # else its type is a riddle
        self._lists: Any = (pointer * size)(*[ctypes.cast(start + n * width, pointer) for n in range(size)])
        self._batch: Any = lib.llama_batch(
            n_tokens=0,
            token=self._tokens,
            embd=None,
            pos=self._positions,
            n_seq_id=self._counts,
            seq_id=self._lists,
            logits=self._wanted,
        )

    def filled(self, parts: Sequence[Part]) -> Any:
        end = 0
        for part in parts:
            start, end = end, end + len(part.tokens)
            if (count := end - start) == 1:  # most are one token of a text: slices would cost four times as much
                self._tokens[start], self._positions[start] = part.tokens[0], part.position
                self._sequences[start], self._wanted[start] = part.sequence, part.rows
                continue
            self._tokens[start:end] = part.tokens
            self._positions[start:end] = range(part.position, part.position + count)
            self._sequences[start:end] = [part.sequence] * count
            self._wanted[start:end] = [0] * (count - part.rows) + [1] * part.rows
        self._batch.n_tokens = end
        return self._batch


def _abort_callback(is_wanted: Callable[[], bool]) -> Any:
    def ask(_data: object) -> bool:
        return is_wanted()

    return lib.ggml_abort_callback(ask)
