"""The header reader: what it finds in good files, and that damaged ones are refused with one sentence."""

import os
import struct
import time
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rbee_core.backend.gguf import read_header
from rbee_core.errors import ModelLoadFailed
from tests.support.gguf_files import ARRAY, BOOL, F32, I32, STRING, U32, U64, Gguf, array, entry, good_entries, tensor

ARCH = entry("general.architecture", STRING, "llama")
HUGE = 2**63 - 32


def nested(depth: int) -> bytes:
    inner = array(U32, [1])
    for _ in range(depth - 1):
        inner = struct.pack("<IQ", ARRAY, 1) + inner
    return inner


def test_reads_what_memory_estimates_need(tmp_path):
    header = read_header(Gguf().write(tmp_path))
    assert (header.version, header.architecture, header.block_count) == (3, "llama", 2)
    assert (header.context_length, header.embedding_length, header.feed_forward_length) == (2048, 64, 128)
    assert header.head_counts == (4, 4)
    assert header.kv_head_counts == (2, 1)
    assert header.vocabulary_size == 3
    assert header.chat_template == "{{ messages }}"


def test_reads_tensors_with_their_sizes(tmp_path):
    tensors = [tensor("plain", (32, 2)), tensor("packed", (64, 3), kind=3, offset=256)]
    header = read_header(Gguf(tensors=tensors, data_bytes=256 + 120).write(tmp_path))
    assert [(t.name, t.shape, t.type, t.offset, t.nbytes) for t in header.tensors] == [
        ("plain", (32, 2), "F32", 0, 256),
        ("packed", (64, 3), "Q4_1", 256, 120),
    ]
    assert header.tensor_bytes == 376
    assert header.data_offset % 32 == 0
    assert header.data_offset + 376 == header.size_bytes


def test_keeps_short_number_arrays_and_counts_the_others(tmp_path):
    entries = [
        entry("short", ARRAY, array(F32, [0.5, 1.5])),
        entry("flags", ARRAY, array(BOOL, [True, False])),
        entry("long", ARRAY, array(U32, range(5000))),
        entry("texts", ARRAY, array(STRING, ["x"] * 7)),
        entry("empty", ARRAY, array(I32, [])),
    ]
    metadata = read_header(Gguf(entries=entries).write(tmp_path)).metadata
    assert metadata["short"].values == (0.5, 1.5)
    assert metadata["flags"].values == (True, False)
    assert (metadata["long"].length, metadata["long"].values) == (5000, ())
    assert (metadata["texts"].length, metadata["texts"].values) == (7, ())
    assert metadata["empty"].length == 0


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([], id="nothing"),
        pytest.param([entry("general.architecture", U32, 7)], id="another-type"),
        pytest.param([ARCH, entry("llama.block_count", F32, 2.0)], id="a-fraction"),
        pytest.param([ARCH, entry("llama.block_count", I32, -5)], id="negative"),
        pytest.param([ARCH, entry("llama.block_count", U64, 2**60)], id="absurd"),
        pytest.param([ARCH, entry("llama.attention.head_count", ARRAY, array(I32, [1, 2, 3]))], id="no-layers"),
    ],
)
def test_what_the_metadata_lacks_is_empty(tmp_path, entries):
    header = read_header(Gguf(entries=entries).write(tmp_path))
    assert (header.block_count, header.head_counts, header.kv_head_counts) == (0, (), ())
    assert (header.context_length, header.vocabulary_size, header.chat_template) == (0, 0, "")


def test_follows_a_symbolic_link_and_own_alignment(tmp_path):
    entries = [*good_entries(), entry("general.alignment", U32, 64)]
    path = Gguf(entries=entries, alignment=64).write(tmp_path)
    link = tmp_path / "link.gguf"
    link.symlink_to(path)
    assert read_header(link).data_offset % 64 == 0


BAD = {
    "empty-file": (b"", "no GGUF file"),
    "other-magic": (Gguf(magic=b"GGML").bytes(), "begins with 'GGML'"),
    "version-1": (Gguf(version=1).bytes(), "version 1"),
    "version-4": (Gguf(version=4).bytes(), "version 4"),
    "big-endian": (Gguf(version=0x03000000).bytes(), "big-endian"),
    "only-magic": (b"GGUF", "truncated"),
    "too-many-tensors": (Gguf(n_tensors=65_537).bytes(), "65537 tensors"),
    "too-many-entries": (Gguf(n_entries=2**64 - 1).bytes(), "metadata entries"),
    "fewer-entries-than-said": (Gguf(n_entries=3000, data_bytes=0, tensors=[]).bytes(), ""),
    "long-key": (Gguf(entries=[entry("k" * 70_000, U32, 1)]).bytes(), "70000 bytes long"),
    "endless-key": (Gguf(entries=[struct.pack("<Q", 2**64 - 1)], n_entries=1).bytes(), "bytes long"),
    "empty-key": (Gguf(entries=[entry("", U32, 1)]).bytes(), "empty or has control"),
    "key-not-utf8": (Gguf(entries=[entry(b"\xff\xfe", U32, 1)]).bytes(), "no UTF-8"),
    "key-with-escape": (Gguf(entries=[entry("a\x1b[2J", U32, 1)]).bytes(), "control characters"),
    "key-twice": (Gguf(entries=[ARCH, ARCH]).bytes(), "there twice"),
    "unknown-value-type": (Gguf(entries=[entry("k", U32, 1).replace(b"k\x04", b"k\x63")]).bytes(), "type 99"),
    "text-too-long": (Gguf(entries=[entry("k", STRING, "x" * (1 << 21))]).bytes(), "2097152 bytes long"),
    "text-past-the-end": (
        Gguf(entries=[entry("k", STRING, "x" * 99)[:-60]], tensors=[], data_bytes=0).bytes(),
        "truncated",
    ),
    "array-too-long": (Gguf(entries=[entry("k", ARRAY, struct.pack("<IQ", U32, 2**61))]).bytes(), "elements"),
    "array-past-the-end": (Gguf(entries=[entry("k", ARRAY, struct.pack("<IQ", U64, 5000))]).bytes(), "do not fit"),
    "array-of-nothing-known": (Gguf(entries=[entry("k", ARRAY, struct.pack("<IQ", 77, 1))]).bytes(), "type 77"),
    "array-too-deep": (Gguf(entries=[entry("k", ARRAY, nested(4))]).bytes(), "nested deeper"),
    "array-text-too-long": (Gguf(entries=[entry("k", ARRAY, array(STRING, ["x" * 70_000]))]).bytes(), "70000"),
    "alignment-zero": (Gguf(entries=[entry("general.alignment", U32, 0)]).bytes(), "alignment"),
    "alignment-odd": (Gguf(entries=[entry("general.alignment", U32, 33)]).bytes(), "alignment"),
    "alignment-text": (Gguf(entries=[entry("general.alignment", STRING, "32")]).bytes(), "alignment"),
    "tensor-name-long": (Gguf(tensors=[tensor("t" * 64)]).bytes(), "64 bytes long"),
    "tensor-twice": (Gguf(tensors=[tensor("t"), tensor("t")]).bytes(), "tensor t is there twice"),
    "tensor-without-dimensions": (Gguf(tensors=[tensor("t", ())]).bytes(), "0 dimensions"),
    "tensor-of-five-dimensions": (Gguf(tensors=[tensor("t", (1,) * 5)]).bytes(), "5 dimensions"),
    "tensor-with-empty-dimension": (Gguf(tensors=[tensor("t", (32, 0))]).bytes(), "shape [32, 0]"),
    "tensor-of-unknown-type": (Gguf(tensors=[tensor("t", kind=4)]).bytes(), "unknown type 4"),
    "tensor-not-in-blocks": (Gguf(tensors=[tensor("t", (33, 2), kind=3)]).bytes(), "Q4_1 cannot have"),
    "tensor-misplaced": (Gguf(tensors=[tensor("t", offset=8)]).bytes(), "no multiple of 32"),
    "tensor-past-the-end": (Gguf(tensors=[tensor("t", offset=HUGE)]).bytes(), "tensor t ends at byte"),
    "tensor-overflows": (Gguf(tensors=[tensor("t", (2**62, 2**62, 2**62, 4))]).bytes(), "tensor t ends at byte"),
    "data-cut-short": (Gguf().bytes()[:-1], "the file is truncated: tensor t.1 ends at byte"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses_a_damaged_file(tmp_path, name):
    content, expected = BAD[name]
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelLoadFailed) as caught:
        read_header(path, "hf:some/model")
    assert caught.value.message.startswith("Cannot load hf:some/model: ")
    assert expected in caught.value.message
    assert caught.value.message.isprintable()


def test_every_cut_through_the_header_is_refused(tmp_path):
    whole, path = Gguf().bytes(), tmp_path / "cut.gguf"
    for end in range(len(Gguf().header())):
        path.write_bytes(whole[:end])
        with pytest.raises(ModelLoadFailed):
            read_header(path)


@pytest.mark.timeout(10)
def test_refuses_what_is_no_regular_file(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path, fifo, tmp_path / "missing", tmp_path / "nul\0byte"):
        with pytest.raises(ModelLoadFailed):
            read_header(path)
    with pytest.raises(ModelLoadFailed, match="not a regular file"):
        read_header(type(tmp_path)(os.devnull))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(edits=st.lists(st.tuples(st.integers(0, 600), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4))
def test_mutations_raise_nothing_else_and_take_no_time(tmp_path, edits):
    content = bytearray(Gguf().bytes())
    for position, replacement in edits:
        content[position : position + len(replacement)] = replacement
    path = tmp_path / "mutated.gguf"
    path.write_bytes(content)
    started = time.process_time()
    with suppress(ModelLoadFailed):
        read_header(path)
    assert time.process_time() - started < 0.5
