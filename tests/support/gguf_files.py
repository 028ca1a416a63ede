"""Writes tiny GGUF files, good ones and damaged ones. Has its own idea of the format: it shares no code with rbee."""

import struct
from dataclasses import dataclass, field
from pathlib import Path

U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10
_CODES = {U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q"}


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def value(kind: int, content) -> bytes:
    return text(content) if kind == STRING else struct.pack(_CODES[kind], content)


def array(kind: int, contents) -> bytes:
    return struct.pack("<IQ", kind, len(contents)) + b"".join(value(kind, c) for c in contents)


def entry(key: str | bytes, kind: int, content) -> bytes:
    return text(key) + struct.pack("<I", kind) + (content if kind == ARRAY else value(kind, content))


def tensor(name: str | bytes, shape=(32, 2), kind: int = 0, offset: int = 0) -> bytes:
    extents = b"".join(struct.pack("<Q", n) for n in shape)
    return text(name) + struct.pack("<I", len(shape)) + extents + struct.pack("<IQ", kind, offset)


def good_entries() -> list[bytes]:
    return [
        entry("general.architecture", STRING, "llama"),
        entry("llama.block_count", U32, 2),
        entry("llama.context_length", U32, 2048),
        entry("llama.embedding_length", U32, 64),
        entry("llama.feed_forward_length", U32, 128),
        entry("llama.attention.head_count", U32, 4),
        entry("llama.attention.head_count_kv", ARRAY, array(I32, [2, 1])),
        entry("tokenizer.ggml.tokens", ARRAY, array(STRING, ["a", "b", "c"])),
        entry("tokenizer.chat_template", STRING, "{{ messages }}"),
    ]


@dataclass
class Gguf:
    """The parts of a file; a damaged one differs in one of them."""

    magic: bytes = b"GGUF"
    version: int = 3
    entries: list[bytes] = field(default_factory=good_entries)
    tensors: list[bytes] = field(default_factory=lambda: [tensor("t.0"), tensor("t.1", offset=256)])
    n_tensors: int | None = None
    n_entries: int | None = None
    alignment: int = 32
    data_bytes: int = 512

    def header(self) -> bytes:
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_entries = len(self.entries) if self.n_entries is None else self.n_entries
        counts = struct.pack("<IQQ", self.version, n_tensors, n_entries)
        return self.magic + counts + b"".join(self.entries) + b"".join(self.tensors)

    def bytes(self) -> bytes:
        header = self.header()
        return header + bytes(-len(header) % self.alignment) + bytes(self.data_bytes)

    def write(self, folder: Path, name: str = "model.gguf") -> Path:
        path = folder / name
        path.write_bytes(self.bytes())
        return path
