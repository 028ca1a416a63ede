"""The only module that calls llama.cpp: one loaded model with one context, as a few typed methods.

Owns the native memory and the callbacks that native code holds pointers to. Knows nothing of requests, chat or
text: tokens in, tokens out. Everything here belongs to one thread at a time.
"""

import ctypes
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any, Final, Self

from rbee_core.backend import Accelerator
from rbee_plugins.llamacpp.sampling import Step


def _bindings() -> Any:
    """Import the bindings alone: the package's own __init__ brings numpy and much else, a third of a worker's start.

    Untyped: the annotations are loose and partly wrong, and the package is an optional dependency.
    """
    spec = None if "llama_cpp" in sys.modules else find_spec("llama_cpp")
    if spec is None:
        return import_module("llama_cpp.llama_cpp")
    sys.modules["llama_cpp"] = module_from_spec(spec)  # made, but not run
    try:
        return import_module("llama_cpp.llama_cpp")
    finally:
        del sys.modules["llama_cpp"]


_lib: Any = _bindings()
log = logging.getLogger(__name__)

DECODED, NO_ROOM, ABORTED = 0, 1, 2

# llama.cpp's own numbers; those in llama_cpp's comments are out of date. Of the rest only 2 is ever looked at.
_LOG_LEVELS: Final = {3: logging.WARNING, 4: logging.ERROR}
_INFO_LEVEL = 2
_info_log = logging.getLogger(f"{__name__}.info")
_BUFFER = re.compile(r"(\S+) model buffer size")
_PIECE_BYTES = 256

# llama.cpp's numbers: kinds of vocabularies (SPM, BPE, RWKV), and attributes of tokens.
_COUNTABLE: Final = frozenset({1, 2, 5})
_SPECIAL, _LSTRIP, _RSTRIP = 1 | 8 | 16, 128, 256


@_lib.llama_log_callback
def _on_log(level: int, text: bytes | None, _user_data: object) -> None:
    """Pass llama.cpp's messages on. A module-level function, as native code may call it until the end."""
    if level in _LOG_LEVELS and text:
        log.log(_LOG_LEVELS[level], "%s", text.decode(errors="replace").rstrip())
    elif level == _INFO_LEVEL and text and _info_log.isEnabledFor(logging.DEBUG):
        _info_log.debug("%s", text.decode(errors="replace").rstrip())


class LastErrors(logging.Handler):
    """Keeps the errors llama.cpp logs while it is attached, to say why a load failed."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line; the first ones name the cause, so a flood is cut at its end."""
        if len(self.lines) < 20:
            self.lines.append(record.getMessage())

    def __enter__(self) -> Self:
        log.addHandler(self)
        return self

    def __exit__(self, *_exception: object) -> None:
        log.removeHandler(self)


class _WeightBuffers(logging.Handler):
    """Keeps the names of the buffers that weights went to while it is attached, such as ``CUDA0``.

    llama.cpp's C interface does not tell, its log does. Should the wording change, no buffer is found, and a model
    that was meant for a GPU is refused rather than believed to be there.
    """

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.names: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the name of a buffer."""
        if buffer := _BUFFER.search(record.getMessage()):
            self.names.add(buffer[1])

    def __enter__(self) -> Self:
        _info_log.addHandler(self)
        _info_log.setLevel(logging.DEBUG)
        _info_log.propagate = False  # hundreds of lines that nobody wants in a worker's log
        return self

    def __exit__(self, *_exception: object) -> None:
        _info_log.removeHandler(self)
        _info_log.setLevel(logging.WARNING)


def accelerator_of(buffers: Iterable[str]) -> Accelerator:
    """Return where weights are that lie in buffers of these names; the processor also for kinds not known here."""
    names = set(buffers)
    if any(re.fullmatch(r"CUDA\d+", name) for name in names):
        return "cuda"
    return "metal" if any(re.fullmatch(r"(Metal|MTL\d*)(_Mapped|_Private)?", name) for name in names) else "cpu"


class NativeError(Exception):
    """Raised when llama.cpp returned nothing; says what it was doing."""


class NativeModel:
    """A model and its context. `close` frees both; nothing else may be called afterwards."""

    def __init__(self, path: Path, *, gpu_layers: int, on_progress: Callable[[float], bool]) -> None:
        """Map `path` into memory. `on_progress` gets 0..1 and may return False to stop; it must not raise."""
        self._context: int | None = None
        self._abort: Any = None
        _lib.llama_log_set(_on_log, None)
        _lib.llama_backend_init()
        params = _lib.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        params.load_mode = _lib.LLAMA_LOAD_MODE_MMAP
        report = _progress_callback(on_progress)  # a name of its own: native code does not keep it alive
        params.progress_callback = report
        with _WeightBuffers() as buffers:
            self._model: int | None = _lib.llama_model_load_from_file(os.fsencode(path), params)
        holder = accelerator_of(buffers.names)
        self.accelerator: Accelerator = holder if _lib.llama_supports_gpu_offload() else "cpu"
        if not self._model:
            raise NativeError("llama.cpp does not accept the file")
        self._vocabulary: int = _lib.llama_model_get_vocab(self._model)
        self.vocabulary_size: int = _lib.llama_vocab_n_tokens(self._vocabulary)
        self._piece = ctypes.create_string_buffer(_PIECE_BYTES)
        self._next_token = (_lib.llama_token * 1)()
        self._next_batch = _lib.llama_batch_get_one(self._next_token, 1)

    def open_context(self, *, tokens: int, batch_tokens: int, threads: int) -> None:
        """Reserve the memory for one request of `tokens`."""
        params = _lib.llama_context_default_params()
        params.n_ctx = tokens
        params.n_batch = params.n_ubatch = batch_tokens
        params.n_threads = params.n_threads_batch = threads
        params.n_outputs_max = 1  # one row of logits instead of one for each prompt token
        params.swa_full = False  # saves memory; what a sliding window has left behind cannot be kept, see `keep`
        params.offload_kqv = params.op_offload = self.accelerator != "cpu"
        params.no_perf = True
        self._context = _lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise NativeError("llama.cpp cannot make a context for it")

    @property
    def context_tokens(self) -> int:
        """The context's real size, which llama.cpp may have rounded up."""
        return int(_lib.llama_n_ctx(self._context))

    def tokenize(self, text: str | bytes, *, add_special: bool) -> list[int]:
        """Return the tokens of `text`; `add_special` puts those in front that the model wants (often BOS)."""
        raw = text.encode(errors="replace") if isinstance(text, str) else text
        room = len(raw) + 16
        tokens = (_lib.llama_token * room)()
        count = _lib.llama_tokenize(self._vocabulary, raw, len(raw), tokens, room, add_special, True)
        if count < 0:
            raise NativeError(f"llama.cpp cannot split a text of {len(raw)} bytes into tokens")
        return tokens[:count]

    @cached_property
    def vocabulary(self) -> "Vocabulary":
        """What is known of all tokens. Takes a moment when first asked for."""
        return Vocabulary.of(self._vocabulary, self.vocabulary_size)

    def special_texts(self) -> tuple[str, str]:
        """Return how the vocabulary spells BOS and EOS, "" for one it does not have."""
        vocabulary = self._vocabulary
        return self._text(_lib.llama_vocab_bos(vocabulary)), self._text(_lib.llama_vocab_eos(vocabulary))

    def _text(self, token: int) -> str:
        raw: bytes | None = _lib.llama_vocab_get_text(self._vocabulary, token) if token >= 0 else None
        return (raw or b"").decode(errors="replace")

    def adds_bos(self) -> bool:
        """Whether the model was trained with BOS in front of every text."""
        return bool(_lib.llama_vocab_get_add_bos(self._vocabulary))

    def is_end(self, token: int) -> bool:
        """Whether `token` ends the generation."""
        return bool(_lib.llama_vocab_is_eog(self._vocabulary, token))

    def piece(self, token: int) -> bytes:
        """Return the bytes `token` stands for, none for a special one; may end within a character."""
        size = _lib.llama_token_to_piece(self._vocabulary, token, self._piece, len(self._piece), 0, False)
        if size < 0:
            self._piece = ctypes.create_string_buffer(-size)
            size = _lib.llama_token_to_piece(self._vocabulary, token, self._piece, -size, 0, False)
        return self._piece.raw[:size]

    def keep(self, count: int) -> bool:
        """Forget all but the first `count` tokens; return False where that cannot be done, and all are forgotten.

        Memories with a window have lost their beginning, recurrent ones cannot go back.
        """
        memory = _lib.llama_get_memory(self._context)
        whole = count > 0 and _lib.llama_memory_seq_pos_min(memory, 0) == 0
        if whole and _lib.llama_memory_seq_rm(memory, 0, count, -1):
            return True
        _lib.llama_memory_clear(memory, False)
        return False

    def read(self, tokens: Sequence[int]) -> int:
        """Compute a chunk of prompt, at most one batch. Returns `DECODED`, `NO_ROOM` or `ABORTED`."""
        chunk = (_lib.llama_token * len(tokens))(*tokens)
        return self._checked(_lib.llama_decode(self._context, _lib.llama_batch_get_one(chunk, len(tokens))))

    def step(self, token: int) -> int:
        """Compute what follows one more token. Returns as `read` does."""
        self._next_token[0] = token
        return self._checked(_lib.llama_decode(self._context, self._next_batch))

    def _checked(self, status: int) -> int:
        if status < 0 or status > ABORTED:
            raise NativeError(f"llama_decode failed with {status}")
        return status

    def abort_when(self, is_wanted: Callable[[], bool] | None) -> None:
        """Let `read` and `step` ask between two operations of the graph whether to stop; None ends the asking.

        Costs a call into Python for each of about 30 operations a layer: too much for every token.
        """
        callback = _lib.ggml_abort_callback() if is_wanted is None else _abort_callback(is_wanted)
        _lib.llama_set_abort_callback(self._context, callback, None)
        self._abort = callback  # only now may the former one go: native code held a pointer to it

    def sampler(self, steps: Iterable[Step]) -> "Sampler":
        """Build a chain of samplers for one request."""
        return Sampler(self._context, steps)

    def close(self) -> None:
        """Free context and model. Harmless when done twice."""
        if self._context:
            _lib.llama_free(self._context)
        if self._model:
            _lib.llama_model_free(self._model)
        self._context = self._model = None


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Facts about all tokens: how many bytes of a text the longest one stands for, and which a text may be cut before.

    `strips` says that some tokens swallow the blanks beside them; `longest_bytes` is 0 for a vocabulary of a kind in
    which text disappears in other ways.
    """

    longest_bytes: int
    strips: bool
    specials: tuple[bytes, ...]

    @classmethod
    def of(cls, vocabulary: int, size: int) -> Self:
        """Look at every token."""
        texts = [_lib.llama_vocab_get_text(vocabulary, token) or b"" for token in range(size)]
        attributes = [int(_lib.llama_vocab_get_attr(vocabulary, token)) for token in range(size)]
        countable = _lib.llama_vocab_type(vocabulary) in _COUNTABLE and not _lib.llama_vocab_get_add_eos(vocabulary)
        strips = any(attribute & (_LSTRIP | _RSTRIP) for attribute in attributes)
        marked = [t for t, a in zip(texts, attributes, strict=True) if t and a & _SPECIAL and not a & _LSTRIP]
        return cls(max(map(len, texts)) if countable else 0, strips, tuple(marked) if countable else ())

    def fewest_tokens(self, text: bytes) -> int:
        """Return how many tokens `text` has at least; 0 where that is not known."""
        counted = text.translate(None, b" \t\r\n\v\f") if self.strips else text
        return len(counted) // self.longest_bytes if self.longest_bytes else 0


class Sampler:
    """Chooses tokens; belongs to one request."""

    def __init__(self, context: int | None, steps: Iterable[Step]) -> None:
        self._context = context
        self._chain: int | None = _lib.llama_sampler_chain_init(_lib.llama_sampler_chain_default_params())
        for step in steps:
            make = getattr(_lib, f"llama_sampler_init_{step.name}")
            _lib.llama_sampler_chain_add(self._chain, make(*step.arguments))

    def choose(self) -> int:
        """Return the next token from the logits of the last `read` or `step`."""
        return _lib.llama_sampler_sample(self._chain, self._context, -1)

    def close(self) -> None:
        """Free the chain and its samplers."""
        if self._chain:
            _lib.llama_sampler_free(self._chain)
        self._chain = None


def _progress_callback(on_progress: Callable[[float], bool]) -> Any:
    def report(fraction: float, _data: object) -> bool:
        return on_progress(fraction)

    return _lib.llama_progress_callback(report)


def _abort_callback(is_wanted: Callable[[], bool]) -> Any:
    def ask(_data: object) -> bool:
        return is_wanted()

    return _lib.ggml_abort_callback(ask)
