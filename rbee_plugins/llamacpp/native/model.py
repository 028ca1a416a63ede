"""A model's file and its vocabulary: text to tokens and back."""

import ctypes
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

from rbee_core.backend import Accelerator
from rbee_plugins.llamacpp.native.bindings import NativeError, WeightBuffers, lib, start

_PIECE_BYTES = 256

# llama.cpp's numbers: kinds of vocabularies (SPM, BPE, RWKV), and attributes of tokens.
_COUNTABLE: Final = frozenset({1, 2, 5})
_SPECIAL, _LSTRIP, _RSTRIP = 1 | 8 | 16, 128, 256


def accelerator_of(buffers: Iterable[str]) -> Accelerator:
    """Return where weights are that lie in buffers of these names; the processor also for kinds not known here."""
    names = set(buffers)
    if any(re.fullmatch(r"CUDA\d+", name) for name in names):
        return "cuda"
    return "metal" if any(re.fullmatch(r"(Metal|MTL\d*)(_Mapped|_Private)?", name) for name in names) else "cpu"


class NativeModel:
    """A model's weights and vocabulary. `close` frees them, after every context made of it; nothing works then."""

    def __init__(self, path: Path, *, gpu_layers: int, on_progress: Callable[[float], bool]) -> None:
        """Map `path` into memory. `on_progress` gets 0..1 and may return False to stop; it must not raise."""
        start()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        params.load_mode = lib.LLAMA_LOAD_MODE_MMAP
        report = _progress_callback(on_progress)  # a name of its own: native code does not keep it alive
        params.progress_callback = report
        with WeightBuffers() as buffers:
            self.handle: int | None = lib.llama_model_load_from_file(os.fsencode(path), params)
        holder = accelerator_of(buffers.names)
        self.accelerator: Accelerator = holder if lib.llama_supports_gpu_offload() else "cpu"
        if not self.handle:
            raise NativeError("llama.cpp does not accept the file")
        self.vocabulary_handle: int = lib.llama_model_get_vocab(self.handle)
        self.vocabulary_size: int = lib.llama_vocab_n_tokens(self.vocabulary_handle)
        self._pieces: dict[int, bytes] = {}

    def tokenize(self, text: str | bytes, *, add_special: bool, plain: bool = False) -> list[int]:
        """Return the tokens of `text`; `add_special` puts those in front that the model wants (often BOS).

        In a `plain` text, what looks like a special token is only text.
        """
        raw = text.encode(errors="replace") if isinstance(text, str) else text
        room = len(raw) + 16
        tokens = (lib.llama_token * room)()
        count = lib.llama_tokenize(self.vocabulary_handle, raw, len(raw), tokens, room, add_special, not plain)
        if count < 0:
            raise NativeError(f"llama.cpp cannot split a text of {len(raw)} bytes into tokens")
        return tokens[:count]

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end a generation. Takes a moment when first asked for."""
        return tuple(token for token in range(self.vocabulary_size) if self.is_end(token))

    @cached_property
    def vocabulary(self) -> "Vocabulary":
        """What is known of all tokens. Takes a moment when first asked for."""
        return Vocabulary.of(self.vocabulary_handle, self.vocabulary_size)

    def special_texts(self) -> tuple[str, str]:
        """Return how the vocabulary spells BOS and EOS, "" for one it does not have."""
        vocabulary = self.vocabulary_handle
        return self._text(lib.llama_vocab_bos(vocabulary)), self._text(lib.llama_vocab_eos(vocabulary))

    def _text(self, token: int) -> str:
        raw: bytes | None = lib.llama_vocab_get_text(self.vocabulary_handle, token) if token >= 0 else None
        return (raw or b"").decode(errors="replace")

    def adds_bos(self) -> bool:
        """Whether the model was trained with BOS in front of every text."""
        return bool(lib.llama_vocab_get_add_bos(self.vocabulary_handle))

    @property
    def fill_in_tokens(self) -> tuple[int, int, int] | None:
        """What stands before a beginning, before an end, and before what belongs between; None if it has none."""
        kinds = (lib.llama_vocab_fim_pre, lib.llama_vocab_fim_suf, lib.llama_vocab_fim_mid)
        before, after, between = (int(kind(self.vocabulary_handle)) for kind in kinds)
        return (before, after, between) if min(before, after, between) >= 0 else None

    def pair(self, first: list[int], second: list[int]) -> list[int]:
        """Return two texts as one, with the marks that the model was trained with around them."""
        vocabulary = self.vocabulary_handle
        sep = int(lib.llama_vocab_sep(vocabulary))
        eos = int(lib.llama_vocab_eos(vocabulary))
        begin = [int(lib.llama_vocab_bos(vocabulary))] if self.adds_bos() else []
        end = [eos if eos >= 0 else sep] if lib.llama_vocab_get_add_eos(vocabulary) else []
        between = [sep] if lib.llama_vocab_get_add_sep(vocabulary) else []
        return [*begin, *first, *end, *between, *second, *end]

    def is_end(self, token: int) -> bool:
        """Whether `token` ends the generation."""
        return bool(lib.llama_vocab_is_eog(self.vocabulary_handle, token))

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes `token` stands for; may end within a character. A special one has none unless asked for."""
        if special:
            return self._read_piece(token, _PIECE_BYTES, special=True)
        if (known := self._pieces.get(token)) is None:
            known = self._pieces[token] = self._read_piece(token, _PIECE_BYTES, special=False)
        return known

    def _read_piece(self, token: int, room: int, *, special: bool) -> bytes:
        piece = ctypes.create_string_buffer(room)
        size = lib.llama_token_to_piece(self.vocabulary_handle, token, piece, room, 0, special)
        return piece.raw[:size] if size >= 0 else self._read_piece(token, -size, special=special)

    def close(self) -> None:
        """Free the model. Harmless when done twice."""
        if self.handle:
            lib.llama_model_free(self.handle)
        self.handle = None


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
        texts = [lib.llama_vocab_get_text(vocabulary, token) or b"" for token in range(size)]
        attributes = [int(lib.llama_vocab_get_attr(vocabulary, token)) for token in range(size)]
        countable = lib.llama_vocab_type(vocabulary) in _COUNTABLE and not lib.llama_vocab_get_add_eos(vocabulary)
        strips = any(attribute & (_LSTRIP | _RSTRIP) for attribute in attributes)
        marked = [t for t, a in zip(texts, attributes, strict=True) if t and a & _SPECIAL and not a & _LSTRIP]
        return cls(max(map(len, texts)) if countable else 0, strips, tuple(marked) if countable else ())

    def fewest_tokens(self, text: bytes) -> int:
        """Return how many tokens `text` has at least; 0 where that is not known."""
        counted = text.translate(None, b" \t\r\n\v\f") if self.strips else text
        return len(counted) // self.longest_bytes if self.longest_bytes else 0


def _progress_callback(on_progress: Callable[[float], bool]) -> Any:
    def report(fraction: float, _data: object) -> bool:
        return on_progress(fraction)

    return lib.llama_progress_callback(report)
