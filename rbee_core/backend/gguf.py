"""Reads a GGUF file's header, so that native code meets only files whose header was checked.

Owns the format's grammar and its limits. Reads bytes with plain reads, never through a memory map: a file that
shrinks while it is read must become an error, not a signal. Large arrays (a vocabulary) are walked, not kept.
"""

import os
import stat
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rbee_core.errors import ModelLoadFailed, shorten

MAX_ENTRIES = 65_536
MAX_STRING_BYTES = 64 * 1024
MAX_TEXT_BYTES = 1024 * 1024  # chat templates and licences
MAX_ARRAY_LENGTH = 1 << 23
MAX_ARRAY_DEPTH = 3
MAX_HEADER_BYTES = 128 * 1024 * 1024
MAX_DIMENSIONS = 4
MAX_TENSOR_NAME_BYTES = 63
MAX_ALIGNMENT = 1 << 20
KEPT_ARRAY_LENGTH = 1024  # enough for one number a layer

_READ_BYTES = 1 << 20
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_U32, _U64 = _SCALARS[4], _SCALARS[10]

# ggml's number of a type: its name, values in a block, bytes of a block. Absent numbers were withdrawn upstream.
TENSOR_TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
    42: ("Q2_0", 64, 18),
}


@dataclass(frozen=True, slots=True)
class GgufArray:
    """A metadata array. `values` holds the elements of a short array of numbers and is empty for all others."""

    length: int
    values: tuple[int | float | bool, ...] = ()


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor. `offset` counts from the header's `data_offset`; `shape` has the row length first, as in ggml."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    nbytes: int


GgufValue = int | float | bool | str | GgufArray


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """A checked header. What a property cannot find, or finds with another type, is 0, "" or empty."""

    version: int
    metadata: Mapping[str, GgufValue]
    tensors: tuple[GgufTensor, ...]
    data_offset: int
    size_bytes: int

    def text(self, key: str) -> str:
        """Return a string of the metadata."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int:
        """Return a whole number that is not negative, written below the architecture's name."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        return value if isinstance(value, int) and value >= 0 else 0

    def per_layer(self, key: str) -> tuple[int, ...]:
        """Return one whole number a layer, whether the file gives one for all or an array."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        if isinstance(value, GgufArray):
            numbers = tuple(v for v in value.values if isinstance(v, int) and v >= 0)
            return numbers if len(numbers) == value.length == self.block_count else ()
        return (self.number(key),) * self.block_count if self.number(key) else ()

    @property
    def architecture(self) -> str:
        """The model's family, such as ``llama``."""
        return self.text("general.architecture")

    @property
    def context_length(self) -> int:
        """Tokens of context that the model was trained for."""
        return self.number("context_length")

    @property
    def block_count(self) -> int:
        """Number of layers; a number that no model has counts as none."""
        count = self.number("block_count")
        return count if count <= MAX_ENTRIES else 0

    @property
    def embedding_length(self) -> int:
        """Width of the model."""
        return self.number("embedding_length")

    @property
    def feed_forward_length(self) -> int:
        """Width of the widest feed-forward layer."""
        return max(self.per_layer("feed_forward_length"), default=0)

    @property
    def head_counts(self) -> tuple[int, ...]:
        """Attention heads of each layer."""
        return self.per_layer("attention.head_count")

    @property
    def kv_head_counts(self) -> tuple[int, ...]:
        """Key and value heads of each layer; a file without the entry has one for each attention head."""
        return self.per_layer("attention.head_count_kv") or self.head_counts

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        return tokens.length if isinstance(tokens, GgufArray) else self.number("vocab_size")

    @property
    def chat_template(self) -> str:
        """The Jinja template for conversations."""
        return self.text("tokenizer.chat_template")

    @property
    def tensor_bytes(self) -> int:
        """Sum of all tensors in this file."""
        return sum(t.nbytes for t in self.tensors)


def read_header(path: Path, reference: str = "") -> GgufHeader:
    """Read and check the header of `path`. `reference` names the model in errors; the path does if it is empty.

    Takes a few milliseconds for 50 000 tokens. Raises `ModelLoadFailed` for everything that is not a whole GGUF file.
    """
    reference = reference or str(path)
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer. Symbolic links are how the hub's cache works.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise _failed(reference, f"it cannot be opened ({_why(error)})") from error
    try:
        return _Reader(descriptor, reference).header()
    except OSError as error:
        raise _failed(reference, f"it cannot be read ({_why(error)})") from error
    finally:
        os.close(descriptor)


def _failed(reference: str, why: str) -> ModelLoadFailed:
    return ModelLoadFailed(reference=reference, why=why)


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _quoted(raw: bytes) -> str:
    return repr(shorten(raw.decode(errors="replace"), 80))


class _Reader:
    """Walks the header from front to back; holds what was read so far and where it stands."""

    def __init__(self, descriptor: int, reference: str) -> None:
        self._descriptor = descriptor
        self._reference = reference
        self._data = bytearray()
        self._position = 0
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            self._fail("it is a folder" if stat.S_ISDIR(status.st_mode) else "it is not a regular file")
        self._size = status.st_size

    def _fail(self, why: str) -> NoReturn:
        raise _failed(self._reference, why)

    def _fill(self, end: int) -> None:
        """Have the bytes before `end` in memory."""
        if end > self._size:
            self._fail(f"the file is truncated: its header needs byte {end}, the file has {self._size}")
        if end > MAX_HEADER_BYTES:
            self._fail(f"its header is larger than {MAX_HEADER_BYTES} bytes")
        while len(self._data) < end:
            chunk = os.read(self._descriptor, max(_READ_BYTES, end - len(self._data)))
            if not chunk:
                self._fail(f"the file became shorter while it was read, at byte {len(self._data)}")
            self._data += chunk

    def _take(self, count: int) -> int:
        """Step over `count` bytes and return where they start."""
        start, end = self._position, self._position + count
        if end > len(self._data):
            self._fill(end)
        self._position = end
        return start

    def _scalar(self, kind: struct.Struct) -> int | float | bool:
        start = self._take(kind.size)
        return kind.unpack_from(self._data, start)[0]

    def _whole(self, kind: struct.Struct = _U64) -> int:
        return int(self._scalar(kind))

    def _string(self, what: str, limit: int = MAX_STRING_BYTES) -> bytes:
        length = self._whole()
        if length > limit:
            self._fail(f"{what} is {length} bytes long, at most {limit} are allowed")
        start = self._take(length)
        return bytes(self._data[start : start + length])

    def header(self) -> GgufHeader:
        version = self._preamble()
        n_tensors, n_entries = self._whole(), self._whole()
        for what, count in (("tensors", n_tensors), ("metadata entries", n_entries)):
            if count > MAX_ENTRIES:
                self._fail(f"it claims {count} {what}, at most {MAX_ENTRIES} are allowed")
        metadata = self._metadata(n_entries)
        alignment = self._alignment(metadata)
        tensors: dict[str, GgufTensor] = {}
        for _ in range(n_tensors):
            tensor = self._tensor(alignment)
            if tensor.name in tensors:
                self._fail(f"tensor {tensor.name} is there twice")
            tensors[tensor.name] = tensor
        data_offset = -(-self._position // alignment) * alignment
        self._check_ends(tensors.values(), data_offset)
        return GgufHeader(version, metadata, tuple(tensors.values()), data_offset, self._size)

    def _preamble(self) -> int:
        if self._size < 4:
            self._fail(f"it is no GGUF file: it has {self._size} bytes")
        start = self._take(4)
        magic = bytes(self._data[start : start + 4])
        if magic != b"GGUF":
            self._fail(f"it is no GGUF file: it begins with {_quoted(magic)}")
        version = self._whole(_U32)
        if version and not version & 0xFFFF:
            self._fail("it is a big-endian GGUF file")
        if version not in (2, 3):
            self._fail(f"it is GGUF version {version}, versions 2 and 3 can be read")
        return version

    def _metadata(self, count: int) -> dict[str, GgufValue]:
        metadata: dict[str, GgufValue] = {}
        for index in range(count):
            raw = self._string(f"the name of metadata entry {index}")
            key = self._name(raw, f"metadata entry {index}")
            if key in metadata:
                self._fail(f"metadata entry {_quoted(raw)} is there twice")
            metadata[key] = self._value(_quoted(raw))
        return metadata

    def _name(self, raw: bytes, what: str) -> str:
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            self._fail(f"the name of {what} is no UTF-8 text")
        if not name or not name.isprintable():
            self._fail(f"the name of {what} is empty or has control characters")
        return name

    def _value(self, key: str) -> GgufValue:
        kind = self._whole(_U32)
        if kind == _STRING:
            return self._string(f"the text of {key}", MAX_TEXT_BYTES).decode(errors="replace")
        if kind == _ARRAY:
            return self._array(key, 1)
        return self._scalar(self._scalar_kind(kind, key))

    def _scalar_kind(self, kind: int, key: str) -> struct.Struct:
        if kind not in _SCALARS:
            self._fail(f"metadata entry {key} has the unknown type {kind}")
        return _SCALARS[kind]

    def _array(self, key: str, depth: int) -> GgufArray:
        if depth > MAX_ARRAY_DEPTH:
            self._fail(f"the arrays of {key} are nested deeper than {MAX_ARRAY_DEPTH}")
        kind, length = self._whole(_U32), self._whole()
        if length > MAX_ARRAY_LENGTH:
            self._fail(f"the array {key} has {length} elements, at most {MAX_ARRAY_LENGTH} are allowed")
        smallest = {_STRING: 8, _ARRAY: 12}.get(kind) or self._scalar_kind(kind, key).size
        if length * smallest > self._size - self._position:
            self._fail(f"the file is truncated: the array {key} has {length} elements, which do not fit")
        if kind == _STRING:
            self._skip_strings(key, length)
        elif kind == _ARRAY:
            for _ in range(length):
                self._array(key, depth + 1)
        else:
            start = self._take(length * smallest)
            if length <= KEPT_ARRAY_LENGTH:
                code = f"<{length}{_SCALARS[kind].format[1:]}"
                return GgufArray(length, struct.unpack_from(code, self._data, start))
        return GgufArray(length)

    def _skip_strings(self, key: str, count: int) -> None:
        """Step over `count` strings. The one hot loop here: a vocabulary and its merges are 100 000 strings."""
        data, position, unpack = self._data, self._position, _U64.unpack_from
        last = len(data) - 8
        for _ in range(count):
            if position > last:
                self._fill(position + 8)
                last = len(data) - 8
            (length,) = unpack(data, position)
            if length > MAX_STRING_BYTES:
                self._fail(f"a text in {key} is {length} bytes long, at most {MAX_STRING_BYTES} are allowed")
            position += 8 + length
        self._fill(position)
        self._position = position

    def _alignment(self, metadata: Mapping[str, GgufValue]) -> int:
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            self._fail("its alignment is not a power of two within reason")
        return alignment

    def _tensor(self, alignment: int) -> GgufTensor:
        name = self._name(self._string("the name of a tensor", MAX_TENSOR_NAME_BYTES), "a tensor")
        dimensions = self._whole(_U32)
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            self._fail(f"tensor {name} has {dimensions} dimensions, 1 to {MAX_DIMENSIONS} are allowed")
        shape = tuple(self._whole() for _ in range(dimensions))
        number, offset = self._whole(_U32), self._whole()
        if number not in TENSOR_TYPES:
            self._fail(f"tensor {name} has the unknown type {number}")
        kind, block_values, block_bytes = TENSOR_TYPES[number]
        if 0 in shape or shape[0] % block_values:
            self._fail(f"tensor {name} has the shape {list(shape)}, which {kind} cannot have")
        if offset % alignment:
            self._fail(f"tensor {name} begins at byte {offset}, which is no multiple of {alignment}")
        values = 1
        for extent in shape:
            values *= extent
        return GgufTensor(name, shape, kind, offset, values // block_values * block_bytes)

    def _check_ends(self, tensors: Iterable[GgufTensor], data_offset: int) -> None:
        for tensor in tensors:
            end = data_offset + tensor.offset + tensor.nbytes
            if end > self._size:
                self._fail(f"the file is truncated: tensor {tensor.name} ends at byte {end}, the file has {self._size}")
