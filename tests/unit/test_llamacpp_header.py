"""What llama.cpp's backend refuses by a file's header and size, before anything is loaded."""

from pathlib import Path

import pytest

from rbee_core.backend import LocalModel
from rbee_core.backend.gguf import read_header
from rbee_core.errors import InsufficientRam, ModelLoadFailed
from rbee_plugins.llamacpp import memory
from rbee_plugins.llamacpp.backend import checked_header
from tests.support.gguf_files import Gguf


def test_c13_a_sparse_file_that_its_header_does_not_account_for_is_refused(tmp_path: Path) -> None:
    path = Gguf().write(tmp_path)
    model = LocalModel("file:model", path, "gguf", path.stat().st_size)
    checked_header(model)
    with path.open("r+b") as file:
        file.truncate(1 << 36)  # 64 GiB of nothing
    with pytest.raises(ModelLoadFailed, match="its header accounts for"):
        checked_header(model)


@pytest.mark.parametrize(
    ("cores", "memory_bytes", "slots"),
    [(1, 1 << 40, 2), (2, 1 << 40, 4), (64, 1 << 40, 8), (2, 1 << 20, 1)],
)
def test_slots_that_nobody_asked_for_follow_cores_and_memory(
    tmp_path: Path, cores: int, memory_bytes: int, slots: int
) -> None:
    header = read_header(Gguf().write(tmp_path), "file:model")
    assert memory.slots(header, 4096, cores, memory_bytes) == slots


def test_a_context_for_long_texts_is_not_made_where_there_is_no_room(tmp_path: Path) -> None:
    header = read_header(Gguf().write(tmp_path), "file:model")
    short, long = (sum(memory.embedding_bytes(header, tokens)) for tokens in (memory.BATCH_TOKENS, 4096))
    assert long > 8 * short
    memory.check_room(header, 4096, long)
    memory.check_room(header, memory.BATCH_TOKENS, 0)  # which the estimate counts
    with pytest.raises(InsufficientRam):
        memory.check_room(header, 4096, long - 1)
